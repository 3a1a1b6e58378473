//! What a task says: masked, kept on disk, and sent from there.

pub mod log;
pub mod redactor;
pub mod report;
pub mod spool;
