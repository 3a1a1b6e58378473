//! `store_artifacts` and `store_test_results`: which files, under which names, and their way to the
//! control plane: SHA-256 first, then chunks that can be resumed, then a record that names the upload.

use crate::executor::output::piece::PieceSize;
use crate::executor::output::report::Reporter;
use crate::http::{Body, Error};
use crate::protocol::{MAX_CHUNK_BYTES, RefusalCode, UploadAnswer};
use crate::system::hex;
use crate::system::opening::open_regular;
use crate::system::os::OsStrExt;
use ring::digest::{Context, Digest, SHA256};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A file to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundFile {
    /// Name in the store: relative, `/` between parts.
    pub name: String,
    /// Path of the file, as it was found.
    pub path: PathBuf,
}

/// Files under a path.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files by name.
    pub files: Vec<FoundFile>,
    /// Sentences about what was left out.
    pub notes: Vec<String>,
}

/// Most files and folders that one step looks at.
const MOST_FILES: usize = 100_000;

/// Lists the file or the folder at `path`. `written` is the path as the config has it, with the home
/// expanded; it names the files when there is no `destination`.
pub(super) fn artifacts(path: &Path, written: &str, destination: Option<&str>) -> io::Result<Listing> {
    let prefix = clean_name(destination.unwrap_or(written));
    let about = fs::metadata(path)?;
    if !about.is_dir() {
        let name = if prefix.is_empty() { file_name(path) } else { prefix };
        return Ok(single(path, &about, name));
    }
    let root = fs::canonicalize(path)?;
    let walk = |follow| Walk::new(&root, follow, &|_| true, &|_| true).list(&prefix);
    // Folders that link to each other a thousandfold, as package managers make them, have more paths than
    // anybody wants stored.
    walk(true).or_else(|why| {
        let mut listing = walk(false)?;
        listing.notes.push(format!("links to folders were skipped: with them {why}"));
        Ok(listing)
    })
}

/// Lists the XML file at `path`, or those in the folder; hidden folders are not searched.
pub(super) fn test_results(path: &Path) -> io::Result<Listing> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        let root = fs::canonicalize(path)?;
        let is_xml = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("xml"));
        let visible = |path: &Path| !file_name(path).starts_with('.');
        // By links a test would count twice.
        return Walk::new(&root, false, &is_xml, &visible).list("");
    }
    Ok(single(path, &about, file_name(path)))
}

/// The listing of a path that is no folder.
fn single(path: &Path, about: &fs::Metadata, name: String) -> Listing {
    if about.is_file() {
        return Listing { files: vec![FoundFile { name, path: path.to_owned() }], notes: Vec::new() };
    }
    Listing { files: Vec::new(), notes: vec![format!("skipped `{}`: not a regular file", path.display())] }
}

/// Collects the files of a folder.
struct Walk<'a> {
    root: &'a Path,
    /// Whether links to folders are followed.
    follow: bool,
    wanted: &'a dyn Fn(&Path) -> bool,
    enter: &'a dyn Fn(&Path) -> bool,
    /// The folders that it is in, by their real paths.
    inside: Vec<PathBuf>,
    /// Entries so far.
    seen: usize,
    listing: Listing,
}

impl<'a> Walk<'a> {
    fn new(
        root: &'a Path,
        follow: bool,
        wanted: &'a dyn Fn(&Path) -> bool,
        enter: &'a dyn Fn(&Path) -> bool,
    ) -> Self {
        Self { root, follow, wanted, enter, inside: Vec::new(), seen: 0, listing: Listing::default() }
    }

    fn list(mut self, prefix: &str) -> io::Result<Listing> {
        let entries = entries(self.root)?;
        self.folder(self.root.to_owned(), entries, prefix)?;
        Ok(self.listing)
    }

    fn folder(&mut self, folder: PathBuf, mut entries: Vec<fs::DirEntry>, prefix: &str) -> io::Result<()> {
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        self.inside.push(folder);
        for entry in entries {
            self.seen += 1;
            if self.seen > MOST_FILES {
                return Err(io::Error::other(format!("there are more than {MOST_FILES} files and folders")));
            }
            let name = clean_name(&format!("{prefix}/{}", text(&entry.file_name())));
            if let Some(why) = self.entry(&entry, &name)? {
                self.listing.notes.push(format!("skipped `{name}`: {why}"));
            }
        }
        self.inside.pop();
        Ok(())
    }

    /// Takes an entry in. Returns why not, when that should be told.
    fn entry(&mut self, entry: &fs::DirEntry, name: &str) -> io::Result<Option<&'static str>> {
        let path = entry.path();
        let is_link = path.is_symlink();
        let target = if is_link { fs::canonicalize(&path).ok() } else { Some(path.clone()) };
        let Some(target) = target else { return Ok(Some("a link to nothing")) };
        if !target.starts_with(self.root) {
            return Ok(Some("a link that leaves the folder"));
        }
        if target.is_dir() {
            if is_link && !self.follow {
                return Ok(Some("a link to a folder"));
            }
            // A link to a folder that this is in comes back to here.
            if is_link && self.inside.iter().any(|folder| folder.starts_with(&target)) {
                return Ok(Some("a link that leads in a circle"));
            }
            if (self.enter)(&path) {
                let Ok(entries) = entries(&target) else { return Ok(Some("a folder that cannot be read")) };
                self.folder(target, entries, name)?;
            }
        } else if !target.is_file() {
            return Ok(Some("not a regular file"));
        } else if (self.wanted)(&path) {
            self.listing.files.push(FoundFile { name: name.to_owned(), path: target });
        }
        Ok(None)
    }
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(folder)?.collect()
}

/// Parts without `.`, `..` and empty ones, joined by `/`.
fn clean_name(text: &str) -> String {
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    parts.join("/")
}

fn file_name(path: &Path) -> String {
    path.file_name().map(text).unwrap_or_default()
}

/// A name as text: bytes that are none are written as `\xE9`, and a name that is spelled so as `\x5CxE9`, so that names stay
/// apart.
fn text(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace("\\x", "\\x5Cx"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    text
}

/// Why a file did not arrive.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The file could not be read here.
    Read(io::Error),
    /// The file kept changing while it was read.
    Changing,
    /// The file has this many bytes, more than the control plane takes.
    TooLarge(u64),
    /// Asked to stop meanwhile.
    Stopped,
    /// The control plane did not take it.
    Refused(Error),
}

impl std::fmt::Display for UploadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot read it: {error}"),
            Self::Changing => f.write_str("it changed while it was being uploaded"),
            Self::TooLarge(length) => {
                write!(f, "it has {length} bytes, more than this control plane accepts")
            }
            Self::Stopped => f.write_str("the task was stopped"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// Uploads a file. Returns length and SHA-256, to be named in a record.
pub(super) fn upload(
    reporter: &Reporter,
    path: &Path,
    limit: u64,
    stop: &AtomicBool,
) -> Result<(u64, String), UploadError> {
    let mut size = PieceSize::new();
    for _ in 0..3 {
        let mut file = open_regular(path).map_err(UploadError::Read)?;
        let length = file.metadata().map_err(UploadError::Read)?.len();
        if length > limit {
            return Err(UploadError::TooLarge(length));
        }
        // Some files of `/proc` end never, and say that they have no bytes.
        let mut bounded = (&mut file).take(limit.saturating_add(1));
        let digest = sha256(&mut bounded, stop).map_err(UploadError::Read)?;
        let Some((length, sum)) = digest else { return Err(UploadError::Stopped) };
        if length > limit {
            return Err(UploadError::TooLarge(length));
        }
        let sha256 = hex(sum.as_ref());
        let address = format!("uploads/{sha256}?length={length}");
        let mut at =
            reporter.call::<UploadAnswer>("GET", &address, Body::Empty).map_err(UploadError::Refused)?.offset;
        let mut buffer = vec![0; MAX_CHUNK_BYTES];
        let mut backoff = Reporter::patience();
        let outcome = loop {
            if at >= length && length > 0 {
                break Some((length, sha256.clone()));
            }
            if stop.load(Ordering::Relaxed) {
                return Err(UploadError::Stopped);
            }
            file.seek(SeekFrom::Start(at)).map_err(UploadError::Read)?;
            let most = usize::try_from(length - at).unwrap_or(MAX_CHUNK_BYTES).min(size.bytes());
            let n = read_full(&mut file, &mut buffer[..most]).map_err(UploadError::Read)?;
            if n < most {
                break None;
            }
            let call = format!("{address}&offset={at}");
            match reporter.attempt::<UploadAnswer>("PATCH", &call, Body::Bytes(&buffer[..n]), &mut backoff) {
                Ok(Some(answer)) => {
                    backoff.succeeded();
                    size.arrived();
                    at = answer.offset;
                }
                Ok(None) => {
                    size.broke(n);
                    continue;
                }
                Err(Error::Refused { refusal: Some(refusal), .. })
                    if refusal.code == Some(RefusalCode::Gap) =>
                {
                    at = refusal.offset.unwrap_or(0);
                }
                Err(Error::Refused { refusal: Some(refusal), .. })
                    if refusal.code == Some(RefusalCode::Checksum) =>
                {
                    break None;
                }
                Err(error) => return Err(UploadError::Refused(error)),
            }
            if length == 0 {
                break Some((0, sha256.clone()));
            }
        };
        if let Some(done) = outcome {
            return Ok(done);
        }
    }
    Err(UploadError::Changing)
}

/// Length and SHA-256 of what is left to read of a file; nothing when it was told to stop meanwhile.
pub(super) fn sha256(file: &mut dyn Read, stop: &AtomicBool) -> io::Result<Option<(u64, Digest)>> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    let mut length = 0;
    loop {
        let n = read_full(file, &mut buffer)?;
        if n == 0 {
            return Ok(Some((length, context.finish())));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        context.update(&buffer[..n]);
        length += n as u64;
    }
}

fn read_full(file: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    fn names(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.name.as_str()).collect()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("out/.hidden")).unwrap();
        for name in ["out/a.xml", "out/b.txt", "out/.hidden/c.xml"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        symlink("a.xml", folder.path().join("out/link")).unwrap();
        symlink("/etc/passwd", folder.path().join("out/escape")).unwrap();
        symlink("nowhere", folder.path().join("out/broken")).unwrap();
        symlink(".", folder.path().join("out/loop")).unwrap();
        folder
    }

    #[test]
    fn names_follow_path_and_destination() {
        let folder = folder();
        let out = folder.path().join("out");
        let listing = artifacts(&out, "./out", None).unwrap();
        assert_eq!(names(&listing), ["out/.hidden/c.xml", "out/a.xml", "out/b.txt", "out/link"]);
        assert_eq!(listing.notes.len(), 3, "{:?}", listing.notes);
        assert_eq!(names(&artifacts(&out, "out", Some("d")).unwrap())[1], "d/a.xml");
        assert_eq!(names(&artifacts(&out.join("b.txt"), "/tmp/out/b.txt", None).unwrap()), ["tmp/out/b.txt"]);
        assert_eq!(names(&artifacts(&out.join("b.txt"), "x", Some("../../d")).unwrap()), ["d"]);
        assert!(artifacts(&out.join("missing"), "x", None).is_err());
    }

    #[test]
    fn links_to_folders_are_followed_inside_and_never_in_a_circle() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("out/real/deep")).unwrap();
        fs::create_dir_all(at("out/other")).unwrap();
        fs::create_dir_all(at("outside")).unwrap();
        fs::write(at("out/real/deep/x"), "x").unwrap();
        fs::write(at("out/other/y.xml"), "y").unwrap();
        symlink("real/deep", at("out/alias")).unwrap();
        symlink("../outside", at("out/leaves")).unwrap();
        symlink("../../real", at("out/real/deep/up")).unwrap();
        symlink("../real", at("out/other/to")).unwrap();
        symlink("../other", at("out/real/back")).unwrap();
        let listing = artifacts(&at("out"), "o", None).unwrap();
        let expected =
            ["o/alias/x", "o/other/to/deep/x", "o/other/y.xml", "o/real/back/y.xml", "o/real/deep/x"];
        assert_eq!(names(&listing), expected);
        let notes = [
            // `real` holds `real/deep`, which `alias` stands for.
            "skipped `o/alias/up`: a link that leads in a circle",
            "skipped `o/leaves`: a link that leaves the folder",
            "skipped `o/other/to/back`: a link that leads in a circle",
            "skipped `o/other/to/deep/up`: a link that leads in a circle",
            "skipped `o/real/back/to`: a link that leads in a circle",
            "skipped `o/real/deep/up`: a link that leads in a circle",
        ];
        assert_eq!(listing.notes, notes);
        assert_eq!(names(&test_results(&at("out")).unwrap()), ["other/y.xml"]);
    }

    #[test]
    fn folders_that_all_link_to_each_other_are_stored_once() {
        let folder = tempfile::tempdir().unwrap();
        for one in 0..12 {
            let path = folder.path().join(one.to_string());
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "").unwrap();
            for other in (0..12).filter(|other| *other != one) {
                symlink(format!("../{other}"), path.join(format!("to-{other}"))).unwrap();
            }
        }
        let listing = artifacts(folder.path(), "o", None).unwrap();
        assert_eq!(listing.files.len(), 12);
        assert_eq!(
            listing.notes.last().unwrap(),
            "links to folders were skipped: with them there are more than 100000 files and folders"
        );
    }

    #[test]
    fn test_results_are_xml_outside_hidden_folders() {
        let folder = folder();
        assert_eq!(names(&test_results(&folder.path().join("out")).unwrap()), ["a.xml"]);
        assert_eq!(names(&test_results(&folder.path().join("out/b.txt")).unwrap()), ["b.txt"]);
    }

    #[test]
    fn digests_are_those_of_the_bytes() {
        let folder = folder();
        fs::write(folder.path().join("abc"), "abc").unwrap();
        let mut file = File::open(folder.path().join("abc")).unwrap();
        let (length, sum) = sha256(&mut file, &AtomicBool::new(false)).unwrap().unwrap();
        let sum = hex(sum.as_ref());
        assert_eq!(
            (length, sum.as_str()),
            (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn names_that_are_no_text_stay_apart() {
        let folder = tempfile::tempdir().unwrap();
        for name in [&b"\xe8.txt"[..], b"\xe9.txt", "\u{e9}.txt".as_bytes(), b"\\xE9.txt"] {
            fs::write(folder.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        let listing = artifacts(folder.path(), "out", None).unwrap();
        let names: Vec<_> = listing.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["out/\\x5CxE9.txt", "out/\u{e9}.txt", "out/\\xE8.txt", "out/\\xE9.txt"]);
    }
}
