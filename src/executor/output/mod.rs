//! Output and events of a task: masked, kept on disk, and sent from there.

mod ledger;
pub mod log;
pub mod redactor;
pub mod report;
pub(super) mod send;
pub mod spool;
