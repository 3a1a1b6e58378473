//! Calls of other Unix systems than Linux, made for macOS and type-checked for it (`ci/check-platforms`); never run there.
//!
//! They do without what only Linux has: a process that ends is looked for every now and then, orphans go
//! to the first process of the system, output of steps stays on the disk until its step is over, and a full disk is
//! noticed when it is written to.

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest that a command of the system may take which is asked for a number.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time since the start of the system. The monotonic clock of macOS goes on while the system sleeps.
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// Load of the last minute as text, first of the words.
pub fn load() -> Option<String> {
    // `{ 1.32 1.45 1.57 }`
    sysctl("vm.loadavg").map(|text| text.trim_matches(['{', '}', ' ']).to_owned())
}

/// Number of this start of the system.
pub fn boot_id() -> Option<String> {
    sysctl("kern.bootsessionuuid")
}

/// The value of a setting of the kernel.
fn sysctl(name: &str) -> Option<String> {
    let said = crate::system::command::run(
        Command::new("/usr/sbin/sysctl").args(["-n", name]).env("LC_ALL", "C"),
        PATIENCE,
    )
    .ok()?;
    (said.code == Some(0) && !said.out.is_empty()).then_some(said.out)
}

/// Keeps nobody out: a process of macOS is closed to debuggers by its signature, not by a call that this program could
/// make without unsafe code. Other processes of the same user can read its environment.
pub fn keep_memory_private() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Adopts nothing: orphans go to the first process.
pub fn adopt_orphans() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// No handle: a queue of kernel events would need unsafe code, so that processes are looked at.
pub fn end_of(_: Pid) -> Option<OwnedFd> {
    None
}

/// Takes nothing off: mounts are not known there.
pub fn detach(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A pipe, its reading end first, that programs do not inherit. One that is started between the two calls does.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe()?;
    fcntl_setfd(&reader, FdFlags::CLOEXEC)?;
    fcntl_setfd(&writer, FdFlags::CLOEXEC)?;
    Ok((reader, writer))
}

/// Widens no pipe: its room grows by itself, to 64 KB.
pub fn widen_pipe(_: &impl AsFd, _: usize) {}

/// Bytes that fit into an empty pipe are not known.
pub fn pipe_room(_: &impl AsFd) -> Option<usize> {
    None
}

/// The address of a socket, which is a path.
pub fn socket_address(text: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(text)
}
