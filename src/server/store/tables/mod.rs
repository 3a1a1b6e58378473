//! The statements that write, and those that read for deciding: a file for each table or family of tables.

pub mod archives;
pub mod instances;
pub mod people;
pub mod progress;
pub mod steps;
pub mod tasks;
pub mod tokens;
