//! Values that jobs get and nobody reads back: sealed, by project and by context.
//!
//! `sealer` knows the key; `variables` and `contexts` what may be stored and used.

pub mod contexts;
pub mod forge;
pub mod sealer;
pub mod variables;
