//! The control plane: compiles configs, queues tasks by resource class, keeps logs and results.
//!
//! `api` takes calls in, `pipelines` compiles what they trigger, `engine` decides what may run, `flow`
//! commits it, `claim` hands tasks to runners, `store` and `blobs` keep everything, `hub` wakes who
//! waits. [`start`] runs it inside any process; `runlet exec` does so.

pub mod api;
pub mod archives;
pub mod blobs;
pub mod claim;
mod command;
pub mod contexts;
mod continuation;
pub mod engine;
pub mod flow;
pub mod hub;
pub mod junit;
pub mod listen;
pub mod people;
pub mod pipelines;
pub mod read;
pub mod repository;
mod retention;
mod running;
pub mod secrets;
pub mod state;
pub mod store;
pub mod timings;
pub mod triggers;
pub mod variables;

pub use command::command;
pub use running::{Running, ServerOptions, WatchEnded, Watcher, start};
