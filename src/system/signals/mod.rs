//! Requests that reach a process from outside: signals on Unix, the console and an event on Windows.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{Asks, Stops};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{Asks, Stops};

/// The wish of somebody outside for a runner to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideRequest {
    /// To stop: the first time after the task, the second time at once.
    Stop,
    /// To go now, and to leave the task agent to the next runner.
    Leave,
    /// To read the settings again.
    Reload,
}
