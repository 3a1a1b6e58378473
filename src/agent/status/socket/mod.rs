//! The local socket at which a runner tells what it does: one with a path, where the system has such.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(super) use unix::{Listener, bind, connect, has_group, longest_path};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(super) use windows::{Listener, bind, connect, has_group, longest_path};
