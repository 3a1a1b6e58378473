//! Runlet: a CI runner for every machine, and the control plane it polls.
//!
//! ```text
//!  .circleci/config.yml
//!         |  config::compile            text + parameters + pipeline values -> workflows of concrete jobs
//!         v
//!  server::engine                       workflow graph: what is ready, blocked, held, done
//!         |  one task per parallel node, in the queue of its resource class
//!         v
//!  server::api::runner  <== claim (long poll, resource class token) ==  agent::machine
//!         |                                                              |  starts the task agent, token on stdin
//!         |                                                              v
//!         |                                                         executor    steps in order: env, shell, timeout, redaction
//!         |                                                              |  spool on disk, then offsets on the wire (task token)
//!         v                                                              v
//!  server::store + blobs                <== output, events, artifacts, caches, workspaces, test results
//! ```
//!
//! Uses go one way: docs/house.md has the table of rooms, which of them each may use, and how a change
//! travels through them. `ci/rooms` holds the tree to it.

#[cfg(feature = "server")]
pub mod admin;
pub mod agent;
pub mod archive;
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "kubernetes")]
pub mod container;
#[cfg(feature = "server")]
pub mod exec;
pub mod executor;
pub mod glob;
pub mod http;
pub mod logging;
pub mod metrics;
#[cfg(feature = "server")]
pub mod orbs;
pub mod outcome;
#[cfg(unix)]
pub mod pod;
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
pub mod system;
#[cfg(feature = "server")]
pub mod terminal;
pub mod tool;
