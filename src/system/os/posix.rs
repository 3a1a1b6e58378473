//! Calls that all Unix systems have in common.

pub use rustix::fs::{Access, StatVfs, access, statvfs};
pub use rustix::io::Errno;
pub use rustix::process::{Pid, geteuid, getuid};
pub use std::fs::remove_file;
pub use std::os::fd::OwnedFd as OwnedPipe;
pub use std::os::unix::ffi::{OsStrExt, OsStringExt};
pub use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, symlink, symlink as link_to_program,
};
pub use std::os::unix::net::UnixStream as Wake;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Signal, WaitOptions, kill_process, kill_process_group};
use std::borrow::Cow;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// The output of a child, as it is read.
pub type HeardPipe = File;

/// Whether a process that ended with exit code 0 has done so itself: others end it by a signal.
pub const ENDS_WELL_BY_ITSELF: bool = true;
/// Whether a name of a program takes no room, and can be made anew.
pub const HAS_LINKS: bool = true;
/// The variable that names the home of the user.
pub const HOME: &str = "HOME";
/// Between two folders of a PATH.
pub const PATH_SEPARATOR: char = ':';
/// The PATH of jobs on a host that has none.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The name of a variable of this process, as jobs have it.
pub fn variable_name(name: String) -> String {
    name
}

/// The home of the user, where no variable names it. Looked up in the file itself: a static program cannot load the
/// system's name services.
pub fn home() -> Option<PathBuf> {
    let uid = getuid().as_raw().to_string();
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    line.split(':').nth(5).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The folders for what may be gone tomorrow, and for what should last.
pub fn temporary() -> [PathBuf; 2] {
    ["/tmp".into(), "/var/tmp".into()]
}

/// The host's name as the kernel has it; empty when it has none.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether everybody on this host may read a file.
pub fn is_for_all(about: &fs::Metadata) -> bool {
    about.mode() & 0o004 != 0
}

/// Gives a file or folder its permissions.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Gives an opened file its permissions.
pub fn set_mode_of(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

/// Has a file opened without waiting for anybody: neither for the other end of a pipe nor for a terminal.
pub fn opens_at_once(options: &mut OpenOptions, follows_links: bool) -> &mut OpenOptions {
    let links = if follows_links { OFlags::empty() } else { OFlags::NOFOLLOW };
    options.custom_flags((links | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
}

/// Takes the lock of a file or folder at once. [`Errno::WOULDBLOCK`] when somebody else has it.
pub fn try_lock(file: &File, is_shared: bool) -> Result<(), Errno> {
    let operation = match is_shared {
        false => FlockOperation::NonBlockingLockExclusive,
        true => FlockOperation::NonBlockingLockShared,
    };
    rustix::io::retry_on_intr(|| flock(file, operation))
}

/// Lets go of the lock of a file.
pub fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

/// A path as git, ssh and a shell read it.
pub fn written_for_git(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

/// Opens a folder for its lock; does not wait for a writer of what a job may have put there, a fifo.
pub fn open_folder(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Whether a folder may have a lock: every one has it in itself.
pub fn has_lock(_: &Path) -> bool {
    true
}

/// Facts about the folder that was opened by its path, which may lead elsewhere now.
pub fn about_folder(folder: &File, _: &Path) -> io::Result<fs::Metadata> {
    folder.metadata()
}

/// Sees to it that a name in a folder is on the disk. Some file systems refuse that; they have no need to.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

/// Two ends, of which one becomes readable when the other is written to.
pub fn wake_pair() -> io::Result<(Wake, Wake)> {
    Wake::pair()
}

/// A pipe that is read without waiting, and can be waited for with others.
pub fn hear(pipe: OwnedPipe) -> io::Result<HeardPipe> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    Ok(File::from(pipe))
}

/// All that is in a pipe now, up to so many bytes. Other processes that hold its other end are not waited for.
pub fn read_now(pipe: OwnedPipe, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A pipe that cannot be read without waiting is not read.
    if let Ok(pipe) = hear(pipe) {
        let _ = pipe.take(most).read_to_end(&mut bytes);
    }
    bytes
}

/// Sends a datagram to a socket of this host, which may take so long to be taken.
pub fn send_datagram(address: &str, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let address = super::socket_address(address)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(patience))?;
    socket.send_to_addr(bytes, &address).map(drop)
}

/// Device and number of the file that an opened file is.
pub fn number_of(file: &impl AsFd) -> Option<(u64, u64)> {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    rustix::fs::fstat(file).ok().map(|about| (about.st_dev as u64, about.st_ino as u64))
}

/// The signal that ended a process.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}

/// Makes a command the leader of a process group, so that a terminal's Ctrl-C does not reach it.
pub fn lead_group(command: &mut Command) {
    command.process_group(0);
}

/// Keeps the terminal of this process from a command: its session does.
pub fn without_console(_: &mut Command) {}

/// Asks a process to end.
pub fn stop(pid: Pid) -> io::Result<()> {
    Ok(kill_process(pid, Signal::TERM)?)
}

/// Lets a process go on that was stopped for a while.
pub fn go_on(pid: Pid) {
    let _ = kill_process(pid, Signal::CONT);
}

/// Ends a process.
pub fn kill(pid: Pid) -> io::Result<()> {
    Ok(kill_process(pid, Signal::KILL)?)
}

/// Ends the process group that a process leads.
pub fn kill_group(leader: Pid) {
    let _ = kill_process_group(leader, Signal::KILL);
}

/// Whether there is a process of this number.
pub fn is_alive(pid: Pid) -> bool {
    // EPERM is a living process of another user.
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}

/// Whether this process may make and remove entries of a folder.
pub fn may_write(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Whether this process has a child, after the dead were reaped: no thread may wait for one any more.
pub fn has_children() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            answer => return !matches!(answer, Err(Errno::CHILD)),
        }
    }
}
