//! Values that jobs get and nobody reads back: sealed, by project and by context.
//!
//! `sealer` knows the key; `variables` and `contexts` what may be stored and used; `forge` what belongs to the forge of a
//! project, `access` what lets git into its repository, `app` what a GitHub App
//! signs, and `tokens` those of organisations.

pub mod access;
pub mod app;
pub mod contexts;
pub mod forge;
mod md5;
pub mod sealer;
pub mod ssh_key;
pub mod tokens;
pub mod variables;
