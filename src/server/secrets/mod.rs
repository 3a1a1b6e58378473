//! Values that jobs get and nobody reads back: sealed, by project and by context.
//!
//! `sealer` knows the key, `variables` and `contexts` what may be stored and used, `handout` what a task gets.

pub mod contexts;
pub mod handout;
pub mod sealer;
pub mod variables;
