//! The settings of a machine runner: a YAML file and environment variables, as CircleCI's machine
//! runner 3 and its launch agent name them, and a few keys of our own.
//!
//! A variable beats the file; an empty variable counts as unset. `resolve` decides and does no IO;
//! [`load()`] reads the file and the environment around it. Every key: `docs/runner.md`.

mod file;
mod load;
mod resolve;
mod value;

pub(super) use load::host_name;
pub use load::load;
pub(super) use resolve::token_variables;
pub use resolve::{DEFAULT_URL, Mode, Settings};
