//! Values that jobs get and nobody reads back: sealed, by project and by context.

pub mod contexts;
pub mod sealer;
pub mod variables;
