//! Output and events of a task: masked, kept on disk, and sent from there.

mod automaton;
mod ledger;
pub mod log;
mod patterns;
pub(super) mod piece;
pub mod redactor;
pub mod report;
pub(super) mod rest;
mod room;
pub(super) mod send;
pub mod spool;
mod tail;
