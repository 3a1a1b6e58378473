//! Faces of what only Linux has: every other system goes without it.

use std::fs::File;
use std::io;

/// No file is without a disk.
pub fn file_in_memory(_: &str) -> Option<File> {
    None
}

/// Frees no room below an offset: a file keeps all of its bytes there while it is open.
pub fn free_below(_: &File, _: u64) -> bool {
    false
}

/// No room is taken before it is written to.
pub fn reserve(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}
