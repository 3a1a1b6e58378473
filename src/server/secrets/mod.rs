//! Values that jobs get and nobody reads back: sealed, by project and by context.
//!
//! `sealer` knows the key; `variables` and `contexts` what may be stored and used; `forge` what belongs to the forge of a
//! project, `access` what lets git into its repository, `app` what a GitHub App
//! signs, `tokens` those of organisations, and `pace` how fast any of them may be used.

pub mod access;
pub mod app;
pub mod contexts;
pub mod forge;
mod md5;
pub mod pace;
pub mod sealer;
pub mod ssh_key;
pub mod tokens;
pub mod variables;
