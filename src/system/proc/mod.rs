//! Processes of this host: from `/proc` on Linux, from `ps` on other Unix systems, from a list of Windows.

pub mod facts;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;

#[cfg(all(unix, not(target_os = "linux")))]
mod ps;
#[cfg(all(unix, not(target_os = "linux")))]
use ps as system;
#[cfg(any(test, all(unix, not(target_os = "linux"))))]
mod table;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

pub use system::{
    all, arguments, descendants, environment, has_open, holders, is_mounted, real_user, remember_group, stat,
};

pub use super::os::boot_id;
pub use facts::{MARK, Stat};

/// Arguments of a process as a whole, or the name of its program in brackets when it has none. There may be secrets among
/// them: whoever does not know those tells the name alone.
pub fn command_line(process: &Stat) -> String {
    let mut command = arguments(process).replace('\0', " ").trim_end().to_owned();
    if command.is_empty() {
        command = format!("[{}]", process.name);
    }
    command
}
