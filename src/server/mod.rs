//! The control plane: compiles configs, queues tasks by resource class, keeps logs and results.
//!
//! `api` takes calls in, `pipelines` compiles what they trigger, `engine` decides what may run and
//! hands tasks to runners, `store` and `blobs` keep everything, `hub` wakes who
//! waits. [`start`] runs it inside any process; `runlet exec` does so.

pub mod api;
pub mod auth;
mod backup;
pub mod blobs;
mod certificate;
mod check;
pub mod clients;
mod command;
mod data_folder;
mod embedded;
pub mod engine;
pub mod figures;
pub mod ids;
pub mod junit;
pub mod listen;
pub mod live;
mod marked;
mod patience;
pub mod people;
pub mod pipelines;
mod run;
pub mod secrets;
pub mod state;
pub mod store;
mod sweep;
pub mod time;
mod upkeep;
pub mod web;

pub use command::{HELP, command};
pub use data_folder::FolderError;
pub use embedded::{MOST_VARIABLES, NeverCame, Preview, SetError, StoredArtifact, check_variable, preview};
pub use live::watch::Notification;
pub use pipelines::types::Error as NotTriggered;
pub use run::{KeepError, Running, ServerOptions, StartError, WatchEnded, Watcher, start};
