//! Output and events of a task: masked, kept on disk, and sent from there.

mod automaton;
mod ending;
pub mod forms;
mod ledger;
pub mod log;
mod news;
mod patterns;
pub(super) mod piece;
pub mod redactor;
pub mod report;
pub(super) mod rest;
mod room;
pub mod secrets;
pub(super) mod send;
mod spare;
pub mod spool;
mod tail;
