//! Who waits for what: parked claims and heartbeats, watching clients.

pub mod hub;
