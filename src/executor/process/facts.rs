//! Facts about children and their descendants.

use crate::system::proc;

/// How much output the system holds between a child and its reader.
pub const PIPE_BYTES: usize = 256 * 1024;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Number of the signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// A process that descends from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descendant {
    /// Id of the process.
    pub pid: i32,
    /// Arguments, or the name of the program in brackets.
    pub command: String,
}

/// A process as people are told of it.
pub(super) fn named(process: &proc::Stat) -> Descendant {
    Descendant { pid: process.pid, command: proc::command_line(process) }
}
