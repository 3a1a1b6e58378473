//! A child process with its output, and killing: first what belongs to it, then whatever escaped from that.

mod facts;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

pub use facts::{Descendant, Ended, PIPE_BYTES};
pub use system::{
    Process, ProcessGroup, adopt_descendants, end_descendants, group_is_gone, has_descendants, holders, kill,
    start, terminate,
};
