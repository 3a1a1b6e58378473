//! The settings of a machine runner: a YAML file and environment variables, as CircleCI's machine
//! runner 3 and its launch agent name them, and a few keys of our own.
//!
//! A variable beats the file; an empty variable counts as unset. `resolve` decides and does no IO;
//! [`load()`] reads the file and the environment around it. Every key: `docs/runner.md`.

mod file;
mod keys;
mod load;
mod parts;
mod resolve;
mod show;
mod sources;
mod value;

pub(super) use keys::token_variables;
pub use load::load;
pub use parts::{Quotas, Status};
pub use resolve::{Mode, Settings};
pub use show::command as show;
pub(super) use value::listen as listen_address;
