//! Calls of Linux.

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Time since the start of the system in whole seconds, sleep included. The call that tells it more finely would cost
/// the small file 2 KB.
pub fn since_boot() -> Duration {
    Duration::from_secs(u64::try_from(rustix::system::sysinfo().uptime).unwrap_or_default())
}

/// Load of the last minute as text, first of the words.
pub fn load() -> Option<String> {
    std::fs::read_to_string("/proc/loadavg").ok()
}

/// The id of this start of the system.
pub fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// Keeps other processes of the same user, and core dumps, out of the memory of this one.
pub fn keep_memory_private() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes this process the parent of orphans below it.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// A file that becomes readable when the process ends; `None`: it has to be looked at again and again.
pub fn end_of(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Takes off what is mounted at a path, at once; whoever is in there keeps it.
pub fn detach(place: &Path) -> io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    Ok(unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// A pipe, its reading end first, that programs do not inherit.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Makes room in a pipe for so many bytes; a system that refuses keeps its default.
pub fn widen_pipe(pipe: &impl AsFd, bytes: usize) {
    let _ = fcntl_setpipe_size(pipe, bytes);
}

/// Bytes that fit into an empty pipe, where that is known.
pub fn pipe_room(pipe: &impl AsFd) -> Option<usize> {
    fcntl_getpipe_size(pipe).ok()
}

/// A file without a disk.
pub fn file_in_memory(name: &str) -> Option<File> {
    memfd_create(name, MemfdFlags::CLOEXEC).ok().map(File::from)
}

/// Takes the bytes below `offset` out of a file, whose length stays. False where that cannot be done.
pub fn free_below(file: &File, offset: u64) -> bool {
    fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, offset).is_ok()
}

/// Takes room on the disk before it is needed. The error: there is none. A system that cannot be asked takes it later.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from) {
        Err(error) if crate::system::fault::is_full(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The address of a socket: a path, or a name without a file behind an `@`.
pub fn socket_address(text: &str) -> io::Result<SocketAddr> {
    match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(text),
    }
}
