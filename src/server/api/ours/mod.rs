//! Calls that are Runlet's own, or that extend the public APIs: the inventory of runners, results, event
//! streams, compiling, and what operators ask.

pub mod access;
pub mod apps;
pub mod audit;
pub mod compile;
pub mod connections;
pub mod held;
pub mod hooks;
pub mod inventory;
pub mod operator;
pub mod orchestration;
pub mod results;
pub mod storage;
pub mod tokens;
pub mod watch;
