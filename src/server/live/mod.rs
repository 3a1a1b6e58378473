//! The waiting: parked claims and heartbeats, watchers of pipelines.

pub mod hub;
pub mod watch;
