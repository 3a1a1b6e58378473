//! Files and folders to an archive: in the order of their names, links as links, files that are one on disk
//! stored once.

use super::tar::{self, ArchiveEntry, EntryKind};
use crate::system::fault::is_full;
use crate::system::opening::open_regular;
use crate::system::os::{MetadataExt, OsStrExt, OsStringExt};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Most notes that are kept: a folder of ten thousand sockets is one thing to say.
const MOST_NOTES: usize = 20;

/// Why nothing more is packed.
#[derive(Debug)]
pub enum Error {
    /// The task was stopped.
    Stopped,
    /// A file could not be read after all; a sentence for people.
    Unread(String),
    /// The archive itself could not be written, which is no fault of what is packed; a sentence for people.
    Unwritten(String),
}

/// An archive that is being written.
pub struct Packer<'s, W: Write> {
    out: W,
    /// Files with several names, by device and inode: the name they were stored under.
    linked: BTreeMap<(u64, u64), Vec<u8>>,
    /// Never stored, wherever it is met: the folder that the archive itself is in.
    left_out: PathBuf,
    stopped: &'s mut dyn FnMut() -> bool,
    /// Entries so far.
    pub entries: u64,
    /// Files and links so far.
    pub files: u64,
    /// Bytes of files so far.
    pub bytes: u64,
    /// Sentences about what was left out.
    pub notes: Vec<String>,
}

impl<'s, W: Write> Packer<'s, W> {
    /// Begins an archive. `stopped` is asked now and then.
    pub fn new(out: W, left_out: PathBuf, stopped: &'s mut dyn FnMut() -> bool) -> Self {
        Self {
            out,
            linked: BTreeMap::new(),
            left_out,
            stopped,
            entries: 0,
            files: 0,
            bytes: 0,
            notes: Vec::new(),
        }
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        tar::write_end(&mut self.out)?;
        Ok(self.out)
    }

    /// Adds what is at `path`, folders with all that is in them, under `name`: links as links, but for one at the path of
    /// the root, which has no name. What cannot be read is left out, with a note.
    pub fn add(&mut self, top: &Path, name: &[u8]) -> Result<(), Error> {
        // Depth is the file system's business: no recursion.
        let mut waiting = vec![(top.to_owned(), name.to_owned())];
        while let Some((path, name)) = waiting.pop() {
            if (self.stopped)() {
                return Err(Error::Stopped);
            }
            if path == self.left_out {
                continue;
            }
            let found = if name.is_empty() { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
            match found {
                Ok(about) => self.add_one(&path, name, &about, &mut waiting)?,
                // Gone since its folder was read.
                Err(error) if path != top && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.skip(&path, &error),
            }
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        path: &Path,
        name: Vec<u8>,
        about: &Metadata,
        waiting: &mut Vec<(PathBuf, Vec<u8>)>,
    ) -> Result<(), Error> {
        let changed = (about.mtime(), u32::try_from(about.mtime_nsec()).unwrap_or(0));
        let entry = |kind, name| ArchiveEntry { kind, name, mode: about.mode() & 0o777, size: 0, changed };
        if about.is_dir() {
            let mut children = Vec::new();
            match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(found) => children.extend(found.iter().map(fs::DirEntry::file_name)),
                Err(error) => self.skip(path, &error),
            }
            // The last is taken first.
            children.sort_unstable_by(|a, b| b.cmp(a));
            // The root of a workspace is there already.
            if !name.is_empty() {
                self.write(&entry(EntryKind::Folder, [&name[..], b"/"].concat()))?;
            }
            let prefix = if name.is_empty() { Vec::new() } else { [&name[..], b"/"].concat() };
            let place = |child: &OsStr| (path.join(child), [&prefix[..], child.as_bytes()].concat());
            waiting.extend(children.iter().map(|child| place(child)));
            return Ok(());
        }
        if about.is_symlink() {
            let target = fs::read_link(path).map_err(cannot_read(path))?;
            self.files += 1;
            return self.write(&entry(EntryKind::Symlink(target.into_os_string().into_vec()), name));
        }
        if !about.is_file() {
            self.note(format!("skipped `{}`: neither a file nor a folder nor a link", path.display()));
            return Ok(());
        }
        let file = match open_regular(path) {
            Ok(file) => file,
            Err(error) => {
                self.skip(path, &error);
                return Ok(());
            }
        };
        self.files += 1;
        if about.nlink() > 1 {
            if let Some(first) = self.linked.get(&(about.dev(), about.ino())) {
                let target = first.clone();
                return self.write(&entry(EntryKind::HardLink(target), name));
            }
            self.linked.insert((about.dev(), about.ino()), name.clone());
        }
        self.write(&ArchiveEntry { size: about.len(), ..entry(EntryKind::File, name) })?;
        self.copy(path, file, about.len())
    }

    /// Exactly the bytes that the header has announced: a file that shrank meanwhile is filled up.
    fn copy(&mut self, path: &Path, mut file: File, size: u64) -> Result<(), Error> {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = size;
        while left > 0 {
            if (self.stopped)() {
                return Err(Error::Stopped);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = match file.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(cannot_read(path))?,
            };
            if n == 0 {
                self.note(format!(
                    "`{}` became shorter while it was read: it is stored with zeros at its end",
                    path.display()
                ));
                buffer.fill(0);
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    self.out.write_all(&buffer[..most]).map_err(cannot_write)?;
                    left -= most as u64;
                }
                break;
            }
            self.out.write_all(&buffer[..n]).map_err(cannot_write)?;
            left -= n as u64;
        }
        self.bytes += size;
        tar::write_padding(&mut self.out, size).map_err(cannot_write)
    }

    fn write(&mut self, entry: &ArchiveEntry) -> Result<(), Error> {
        self.entries += 1;
        tar::write_header(&mut self.out, entry).map_err(cannot_write)
    }

    fn skip(&mut self, path: &Path, error: &io::Error) {
        self.note(format!("skipped `{}`: cannot read it: {error}", path.display()));
    }

    fn note(&mut self, text: String) {
        match self.notes.len() {
            0..MOST_NOTES => self.notes.push(text),
            MOST_NOTES => self.notes.push("and more of this kind".to_owned()),
            _ => {}
        }
    }
}

fn cannot_read(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::Unread(format!("cannot read `{}`: {error}", path.display()))
}

/// Says that the archive itself could not be written.
pub fn cannot_write(error: io::Error) -> Error {
    let advice = if is_full(&error) { " (TMPDIR of the runner names a larger one)" } else { "" };
    Error::Unwritten(format!("cannot write the archive in the task's temporary folder: {error}{advice}"))
}
