//! Work of a runner, for others to see: the ways to its board: a local socket (`runlet status`),
//! `/live`, `/ready` and `/metrics` over HTTP, and a file of metrics. All of them only read; none knows a token.

mod ask;
mod doors;
mod metrics;
mod socket;

pub use ask::{HELP, command};
pub(super) use doors::{Doors, check};
