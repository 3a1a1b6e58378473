//! Calls of Windows. Type-checked for it (`ci/check-platforms`) and tried in parts under Wine
//! (packaging/windows/README.md); never run on Windows.
//!
//! They do without what only Unix has: there is no signal between processes, and no file tells its owner. A process is
//! asked to stop by an event with its number, pipes are read by threads and heard as sockets of this host, which can be
//! waited for together.

mod errors;
mod files;
mod process;
mod wires;

pub use errors::Errno;
pub use files::FileAccess as Access;
pub use files::*;
pub use process::*;
pub use wires::*;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Whether a process that ended with exit code 0 has done so itself: whoever ends another one chooses its exit code.
pub const ENDS_WELL_BY_ITSELF: bool = false;
/// The variable that names the home of the user.
pub const HOME: &str = "USERPROFILE";
/// Between two folders of a PATH.
pub const PATH_SEPARATOR: char = ';';
/// The PATH of jobs on a host that has none.
pub const DEFAULT_PATH: &str = r"C:\Windows\System32;C:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";

/// The name of a variable of this process, as jobs have it. Windows writes `Path`, and means the same by `PATH`.
pub fn variable_name(name: String) -> String {
    if name.eq_ignore_ascii_case("PATH") { "PATH".to_owned() } else { name }
}

/// The home of the user, where `HOME` does not name it.
pub fn home() -> Option<PathBuf> {
    std::env::var_os(HOME).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The folders for what may be gone tomorrow, and for what should last: the same one, which no start of the system empties.
pub fn temporary() -> [PathBuf; 2] {
    [std::env::temp_dir(), std::env::temp_dir()]
}

/// The host's name; empty when it has none.
pub fn host_name() -> String {
    winsafe::GetComputerName().unwrap_or_default()
}

/// Time since the start of the system, sleep included.
pub fn since_boot() -> Duration {
    Duration::from_millis(winsafe::GetTickCount64())
}

/// There is no load of the last minute.
pub fn load() -> Option<String> {
    None
}

/// There is no number of this start of the system. A process is told from a later one by its time of creation, which is no
/// time since a start.
pub fn boot_id() -> Option<String> {
    None
}

/// Keeps nobody out: processes of the same user may read this one's memory.
pub fn keep_memory_private() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Adopts nothing: a Job Object holds what the task agent starts, however its parents end.
pub fn adopt_orphans() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Takes nothing off: mounts are not known there.
pub fn detach(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no datagrams to sockets with a path, and no service manager that takes any.
pub fn send_datagram(_: &str, _: &[u8], _: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
