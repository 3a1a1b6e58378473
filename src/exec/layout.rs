//! Files of a repository that is made here, as git lays them out.

use crate::protocol::task_input::LocalSource;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes a repository without anything in it, as `git init` would: a program that is not started.
pub(super) fn init(repository: &Path, is_bare: bool, object_format: Option<&str>) -> Result<(), String> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        let folder = repository.join(folder);
        fs::create_dir_all(&folder).map_err(|e| format!("failed to create `{}`: {e}", folder.display()))?;
    }
    let config = match object_format.filter(|format| *format != "sha1") {
        None => format!("[core]\n\trepositoryformatversion = 0\n\tbare = {is_bare}\n"),
        Some(format) => format!(
            "[extensions]\n\tobjectformat = {format}\n[core]\n\trepositoryformatversion = 1\n\tbare = {is_bare}\n"
        ),
    };
    // References beside objects that are borrowed may lead nowhere: git is not to look for them, nor to show those that
    // it is to look for.
    let known = LocalSource::KNOWN;
    let config = format!(
        "{config}\talternateRefsPrefixes = {known}\n[transfer]\n\thideRefs = {}\n",
        known.trim_end_matches('/')
    );
    write(&repository.join("config"), config.as_bytes())?;
    write(&repository.join("HEAD"), b"ref: refs/heads/main\n")
}

/// The file of references of a repository that is made here. Each commit is there once more under a name by which gits
/// that borrow its objects know it.
pub(super) fn packed(references: &BTreeMap<String, String>) -> String {
    let commits: BTreeSet<&String> = references.values().collect();
    let known = commits.into_iter().map(|commit| format!("{commit} {}{commit}\n", LocalSource::KNOWN));
    references.iter().map(|(name, commit)| format!("{commit} {name}\n")).chain(known).collect()
}

/// A line of git's list of further object folders. Relative paths would be looked up from the bare repository.
pub(super) fn alternate(folder: &Path) -> Vec<u8> {
    let path = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let path = path.as_os_str().as_bytes();
    if !path.contains(&b'\n') {
        return [path, b"\n"].concat();
    }
    let mut line = vec![b'"'];
    for &byte in path {
        match byte {
            b'\n' => line.extend(b"\\n"),
            b'"' | b'\\' => line.extend([b'\\', byte]),
            _ => line.push(byte),
        }
    }
    line.extend(b"\"\n");
    line
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|e| format!("failed to write `{}`: {e}", path.display()))
}
