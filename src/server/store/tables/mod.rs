//! The statements that write, and those that read for deciding: a file for each table or family of tables.
//!
//! Functions take ids, enums and times as types and decide nothing: whether something is allowed is asked
//! and answered outside of this room. The header of each file lists the constructs in it that only SQLite
//! knows.

pub mod apps;
pub mod archives;
pub mod audit;
pub mod classes;
pub mod contexts;
pub mod deliveries;
pub mod fleet;
pub mod forge;
pub mod handout;
pub mod instances;
pub mod jobs;
pub mod jobs_with_tests;
pub mod keeping;
pub mod keys;
pub mod people;
pub mod pipelines;
pub mod progress;
pub mod projects;
pub mod reports;
pub mod results;
pub mod schedules;
pub mod serial;
pub mod sessions;
pub mod small_outputs;
pub mod steps;
pub mod tasks;
pub mod tokens;
pub mod trust;
pub mod variables;
pub mod webhooks;
pub mod workflows;
