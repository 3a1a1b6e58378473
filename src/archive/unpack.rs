//! An archive to files and folders. Whatever stands in the way of a file is replaced by it; folders that are
//! there stay.

use super::Error;
use super::tar::{ArchiveEntry, EntryKind, Reader};
use crate::system::fault;
use crate::system::os::{self, DirBuilderExt, MetadataExt, OpenOptionsExt, OsStrExt, symlink};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Counts of what was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files and links.
    pub files: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// The folder that entries go to.
pub trait Target {
    /// The place of an entry by its name, or why it has none. Asked before anything of it is written.
    fn place(&mut self, name: &Path, is_folder: bool) -> Result<PathBuf, String>;

    /// The folder that nothing may leave, whatever links lie in it.
    fn root(&self) -> Option<&Path> {
        None
    }

    /// Whether to go on.
    fn is_stopped(&mut self) -> bool;
}

/// Unpacks a whole archive. What was written before an error stays.
pub fn unpack(archive: impl Read, target: &mut dyn Target) -> Result<Unpacked, Error> {
    let mut reader = Reader::new(archive);
    let mut done = Unpacked::default();
    let mut state = State { target, checked: None, folders: Vec::new() };
    loop {
        if state.target.is_stopped() {
            return Err(Error::Stopped);
        }
        let entry = reader.next_entry().map_err(unread)?;
        let Some(entry) = entry else { break };
        state.one(&entry, &mut reader)?;
        if entry.kind != EntryKind::Folder {
            done.files += 1;
            done.bytes += entry.size;
        }
    }
    state.finish_folders();
    // Bytes after the end of the archive are read as well: they are part of what is checked.
    io::copy(&mut reader.into_inner(), &mut io::sink()).map_err(unread)?;
    Ok(done)
}

/// A stored archive was checked when it came: that it does not come back is the fault of what keeps it.
fn unread(error: io::Error) -> Error {
    Error::Infrastructure(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the archive ends in the middle".to_owned(),
        _ => error.to_string(),
    })
}

fn unwritten(place: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| {
        let why = format!("cannot write `{}`: {error}", place.display());
        match fault::advice(&error) {
            Some(advice) => Error::Infrastructure(format!("{why} ({advice})")),
            None => Error::Failed(why),
        }
    }
}

struct State<'t> {
    target: &'t mut dyn Target,
    /// The folder that was last found to be inside of the root.
    checked: Option<PathBuf>,
    /// Folders get their modes and times last: some forbid what is to be written into them.
    folders: Vec<(PathBuf, u32, (i64, u32))>,
}

impl State<'_> {
    fn one(&mut self, entry: &ArchiveEntry, content: &mut impl Read) -> Result<(), Error> {
        let is_folder = entry.kind == EntryKind::Folder;
        let shown = entry.path().display();
        let place = self.target.place(entry.path(), is_folder).map_err(Error::Failed)?;
        if is_folder {
            self.check_inside(&place)?;
            make_folder(&place).map_err(unwritten(&place))?;
            self.folders.push((place, entry.mode, entry.changed));
            return Ok(());
        }
        let parent = place.parent().unwrap_or(Path::new("/"));
        self.check_inside(parent)?;
        make_folder(parent).map_err(unwritten(parent))?;
        match &entry.kind {
            EntryKind::File => write_file(&place, entry, content, self.target)?,
            EntryKind::Symlink(to) => {
                writable(&place, || symlink(OsStr::from_bytes(to), &place)).map_err(unwritten(&place))?;
            }
            EntryKind::HardLink(to) => {
                let first =
                    self.target.place(Path::new(OsStr::from_bytes(to)), true).map_err(Error::Failed)?;
                self.check_inside(first.parent().unwrap_or(Path::new("/")))?;
                if first == place {
                    return Err(Error::Failed(format!("the archive is damaged: `{shown}` links to itself")));
                }
                let linked = writable(&place, || fs::hard_link(&first, &place));
                // Some file systems have none.
                linked.or_else(|_| fs::copy(&first, &place).map(drop)).map_err(unwritten(&place))?;
            }
            EntryKind::Folder => {}
        }
        Ok(())
    }

    /// Refuses a folder that a link has led out of the root.
    fn check_inside(&mut self, folder: &Path) -> Result<(), Error> {
        let Some(root) = self.target.root() else { return Ok(()) };
        if self.checked.as_deref() == Some(folder) {
            return Ok(());
        }
        // The part of it that exists; what does not cannot lead anywhere.
        let existing = folder.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
        let real = existing.map(fs::canonicalize).transpose();
        let inside = match (real, fs::canonicalize(root)) {
            (Ok(Some(real)), Ok(root)) => real.starts_with(root),
            // The root is about to be made, and nothing can be in it.
            (Ok(_), Err(error)) => error.kind() == io::ErrorKind::NotFound && folder.starts_with(root),
            _ => false,
        };
        if !inside {
            return Err(Error::Failed(format!("a link at `{}` leads out of the folder", folder.display())));
        }
        self.checked = Some(folder.to_owned());
        Ok(())
    }

    fn finish_folders(&mut self) {
        // The innermost first: what comes later in the archive is inside or beside.
        for (folder, mode, changed) in self.folders.drain(..).rev() {
            // A folder of somebody else's, such as the home, keeps what it has.
            let _ = File::open(&folder).and_then(|open| open.set_modified(time(changed)));
            let _ = os::set_mode(&folder, mode);
        }
    }
}

fn write_file(
    place: &Path,
    entry: &ArchiveEntry,
    content: &mut impl Read,
    target: &mut dyn Target,
) -> Result<(), Error> {
    let fail = unwritten(place);
    let mut options = File::options();
    options.write(true).create_new(true).mode(entry.mode | 0o200);
    let mut file = writable(place, || options.open(place)).map_err(&fail)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(error)),
        };
        io::Write::write_all(&mut file, &buffer[..n]).map_err(&fail)?;
        if target.is_stopped() {
            return Err(Error::Stopped);
        }
    }
    // The mask of the process counts for new files, not for those that were there before.
    os::set_mode_of(&file, entry.mode).map_err(&fail)?;
    file.set_modified(time(entry.changed)).map_err(fail)
}

/// Makes something at `place`: in place of a file or link that is there, in a folder that may have to be
/// opened up for it.
fn writable<T>(place: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let free = || match fs::symlink_metadata(place) {
        Ok(about) if about.is_dir() => Err(io::Error::other("there is a folder of this name")),
        Ok(_) => fs::remove_file(place),
        Err(_) => Ok(()),
    };
    match free().and_then(|()| make()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let Some(parent) = place.parent() else { return Err(error) };
            let mode = fs::metadata(parent)?.mode();
            if mode & 0o300 == 0o300 || os::set_mode(parent, mode | 0o700).is_err() {
                return Err(error);
            }
            let made = free().and_then(|()| make());
            // An entry for the parent, if there is one, sets the mode again in the end.
            let _ = os::set_mode(parent, mode);
            made
        }
        other => other,
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let make = || fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    match make() {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied) => writable(folder, make),
        // A file, or a link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !folder.is_dir() => {
            fs::remove_file(folder)?;
            make()
        }
        other => other,
    }
}

fn time((seconds, nanos): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    let moved = moved.and_then(|time| time.checked_add(Duration::from_nanos(nanos.into())));
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A name of an archive that stays below where it is put; `None` for every other.
pub fn inside(name: &Path) -> Option<PathBuf> {
    let mut kept = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => kept.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(kept)
}
