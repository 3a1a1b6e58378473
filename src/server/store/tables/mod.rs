//! The statements that write, and those that read for deciding: a file for each table or family of tables.

pub mod archives;
pub mod handout;
pub mod jobs;
pub mod people;
pub mod results;
pub mod serial;
pub mod timings;
pub mod workflows;
