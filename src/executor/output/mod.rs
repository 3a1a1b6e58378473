//! What a task says: masked, kept on disk, and sent from there.

mod automaton;
pub mod log;
mod patterns;
pub mod redactor;
pub mod report;
pub mod spool;
