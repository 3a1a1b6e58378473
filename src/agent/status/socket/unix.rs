//! A socket with a path, its mode and its group.

use crate::agent::settings::Status;
use crate::system::os::set_mode;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A socket that status commands connect to.
pub(in crate::agent::status) use std::os::unix::net::UnixListener as Listener;

/// Longest path of a socket, in bytes.
pub(in crate::agent::status) fn longest_path() -> usize {
    107
}

/// Connects with whoever listens.
pub(in crate::agent::status) fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// Whether a group is there.
pub(in crate::agent::status) fn has_group(name: &str) -> bool {
    group_of(name).is_some()
}

/// Makes the socket, with the mode and the group that the settings name.
pub(in crate::agent::status) fn bind(path: &Path, status: &Status) -> io::Result<Listener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() && !folder.starts_with("/run/runlet") {
        fs::create_dir_all(folder)?;
    }
    // Nobody answers there any more.
    if fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = Listener::bind(path)?;
    listener.set_nonblocking(true)?;
    set_mode(path, status.mode)?;
    if let Some(group) = &status.group {
        let given = group_of(group).ok_or(io::Error::from(io::ErrorKind::NotFound));
        let given = given.and_then(|group| std::os::unix::fs::chown(path, None, Some(group)));
        if let Err(error) = given {
            log::warn!("cannot give `{}` to the group `{group}` (`status.group`): {error}", path.display());
        }
    }
    Ok(listener)
}

/// The number of a group, by its name in `/etc/group` or as it is written.
fn group_of(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        assert_eq!(
            (group_of("root"), group_of("4711"), group_of("no such group")),
            (Some(0), Some(4711), None)
        );
    }
}
