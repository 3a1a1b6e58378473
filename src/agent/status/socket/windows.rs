//! No socket has a path that the standard library could make: `runlet status` finds nobody. `status.listen` and
//! `status.textfile` tell the same.

use crate::agent::settings::Status;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// A listener, of which there is none.
pub(in crate::agent::status) type Listener = TcpListener;

/// Longest path of a socket, in bytes: any.
pub(in crate::agent::status) fn longest_path() -> usize {
    usize::MAX
}

/// Makes no socket, since Windows has none with a path.
pub(in crate::agent::status) fn bind(_: &Path, _: &Status) -> io::Result<Listener> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there are no sockets with a path on Windows"))
}

/// Finds no socket, since Windows has none with a path.
pub(in crate::agent::status) fn connect(_: &Path) -> io::Result<TcpStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there are no sockets with a path on Windows"))
}

/// Groups are not asked for.
pub(in crate::agent::status) fn has_group(_: &str) -> bool {
    true
}
