//! Who waits for what: parked claims and heartbeats, watchers of pipelines.

pub mod hub;
pub mod watch;
