//! Output of one step on disk: what the redactor lets through is appended here, and the uploader sends it from
//! here, so memory stays bounded whatever a job prints and however long the network is away.
//!
//! The place of a byte in the file is its place in the output. What the control plane has for good is taken out
//! again, as a hole, so that the disk holds only what is on its way. Of output beyond the limit the first three
//! quarters are here and the last quarter in a `Tail`, which is appended when the step ends: errors stand at the
//! end. While the disk takes nothing a little is kept in a `Spare`, which goes to the disk as soon as that has room; of a
//! step whose file cannot be made all passes through one.
//!
//! Nothing is synced: against the crash of a process the system's cache is enough, and on the slow disks of small
//! hosts a sync of each step would cost more than many a step takes. A host that loses power loses the last seconds.

use super::spare::{MOST, Spare};
use super::tail::Tail;
use crate::system::os::{Errno, FileExt};
use crate::system::{opening, os};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// End of the name of a tail.
pub(super) const TAIL: &str = "tail";
/// How much of the tail is moved at a time.
const MOVED: usize = 64 * 1024;

/// State of the file that both sides know.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes that something on the host has taken out of the file; none when empty.
    gone: Range<u64>,
    /// Bytes below are not wanted any more.
    freed: u64,
    /// The place of what came while the disk was full.
    spare: Option<Spare>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writing side.
pub struct Spool {
    file: File,
    shared: Arc<Mutex<Shared>>,
    length: u64,
    /// Bytes that are kept at the front, and at the end.
    head: u64,
    last: u64,
    tail_path: PathBuf,
    tail: Option<Tail>,
    /// Bytes beyond the front that there was no tail for.
    dropped: u64,
    /// Bytes that are missing where the output goes on.
    lost: u64,
    why_lost: String,
    /// A mark that has to be written before anything else.
    mark: Vec<u8>,
    /// The end has come: the tail is being moved here.
    ends: bool,
    /// Most bytes in memory.
    most: u64,
}

impl Spool {
    /// Creates the file. `limit` is the number of bytes of output that are kept.
    pub fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        Ok(Self::of(file, 0, path, limit))
    }

    /// Creates a spool in memory alone, where the disk has no room for the file; `error` is that of the disk.
    pub(super) fn in_memory(error: io::Error, path: &Path, limit: u64) -> io::Result<Self> {
        let spare = Spare { stays: true, ..Spare::instead(error, 0, 0)? };
        let spool = Self::of(spare.file.try_clone()?, 0, path, limit);
        lock(&spool.shared).spare = Some(spare);
        Ok(spool)
    }

    fn of(file: File, length: u64, path: &Path, limit: u64) -> Self {
        Self {
            file,
            shared: Arc::default(),
            length,
            head: limit - limit / 4,
            last: limit / 4,
            tail_path: path.with_extension(TAIL),
            tail: None,
            dropped: 0,
            lost: 0,
            why_lost: String::new(),
            mark: Vec::new(),
            ends: false,
            most: MOST,
        }
    }

    /// The spool of a task agent that is gone, with its tail where it belongs.
    pub(super) fn left_behind(path: &Path) -> io::Result<Self> {
        let file = opening::open(path, File::options().read(true).write(true))?;
        let mut spool = Self::of(file.try_clone()?, file.metadata()?.len(), path, 0);
        spool.tail = Tail::open(&spool.tail_path).ok();
        spool.end()?;
        Ok(spool)
    }

    /// A handle for reading what was written, at any offset.
    pub fn reader(&self) -> io::Result<SpoolReader> {
        Ok(SpoolReader {
            file: self.file.try_clone()?,
            shared: self.shared.clone(),
            freed: 0,
            digest: Context::new(&SHA256),
            summed: 0,
            damaged: false,
        })
    }

    /// Bytes of output that can be read.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether the disk has taken all output so far.
    pub(super) fn is_on_disk(&self) -> bool {
        lock(&self.shared).spare.is_none()
    }

    /// Takes output; returns how many bytes of it were taken. An error when the disk takes nothing more.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_mark()?;
        let room = usize::try_from(self.head.saturating_sub(self.length)).unwrap_or(usize::MAX);
        if room > 0 {
            return self.append(&bytes[..bytes.len().min(room)]);
        }
        if self.tail.is_none() && self.dropped == 0 {
            self.tail = Tail::create(&self.tail_path, self.last);
        }
        match &mut self.tail {
            Some(tail) => tail.write(bytes)?,
            None => self.dropped += bytes.len() as u64,
        }
        Ok(bytes.len())
    }

    /// Counts bytes that could not be written; a mark where the output goes on will say how many.
    pub fn lose(&mut self, bytes: usize, why: &io::Error) {
        self.lost += bytes as u64;
        self.why_lost = why.to_string();
    }

    /// Moves the tail behind the front and says what is missing. May be called again after an error.
    pub fn end(&mut self) -> io::Result<()> {
        self.write_mark()?;
        if !std::mem::replace(&mut self.ends, true) {
            let beyond = self.tail.as_ref().map_or(self.dropped, Tail::dropped);
            if beyond > 0 {
                let kept = if self.tail.is_some() { " and the last" } else { "" };
                self.mark = format!("\n[{beyond} bytes of output were dropped here: of a step that prints so much only the first{kept} part is kept]\n").into_bytes();
            }
        }
        self.write_mark()?;
        while let Some(tail) = &mut self.tail {
            let bytes = tail.peek(MOVED)?;
            if bytes.is_empty() {
                let _ = std::fs::remove_file(&self.tail_path);
                self.tail = None;
                break;
            }
            let moved = self.append(&bytes)?;
            if let Some(tail) = &mut self.tail {
                tail.took(moved);
            }
        }
        Ok(())
    }

    /// The end that nobody waits for any more: there is room in memory for a mark.
    pub(super) fn end_without_room(&mut self) {
        self.most = MOST + 4096;
        let _ = self.end();
    }

    fn write_mark(&mut self) -> io::Result<()> {
        if self.lost > 0 && self.mark.is_empty() {
            let mark = format!(
                "\n[{} bytes of output were lost here: the runner could not keep them on its disk: {}]\n",
                self.lost, self.why_lost
            );
            // Of a mark without room nothing is kept: by then more may be lost.
            let written = self.append(mark.as_bytes())?;
            self.mark = mark.as_bytes()[written..].to_vec();
            self.lost = 0;
        }
        while !self.mark.is_empty() {
            let mark = std::mem::take(&mut self.mark);
            let written = self.append(&mark);
            self.mark = mark;
            self.mark.drain(..written?);
        }
        Ok(())
    }

    /// Writes some of the bytes; the number is 0 only when there are none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut guard = lock(&self.shared);
        let shared = &mut *guard;
        // Bytes that a step has cut off would come back as zeros when more is written behind them.
        let there = self.file.metadata()?.len();
        let mut meant = shared.spare.as_ref().map_or(self.length, |spare| spare.on_disk);
        if there < meant {
            let start = if shared.gone.is_empty() { there } else { shared.gone.start.min(there) };
            shared.gone = start..meant;
        }
        // The disk has its turn again when it has taken what is still wanted of that in memory.
        while let Some(spare) = shared.spare.as_mut().filter(|spare| !spare.stays) {
            let from = spare.start.max(shared.freed);
            let mut held = vec![0; usize::try_from(self.length - from).unwrap_or(MOVED).min(MOVED)];
            let moved = spare.read(&mut held, from).and_then(|read| self.write_to_disk(&held[..read], from));
            match moved {
                _ if held.is_empty() => shared.spare = None,
                Ok(moved) => {
                    meant = from + moved as u64;
                    (spare.start, spare.on_disk) = (meant, meant);
                }
                Err(_) => break,
            }
        }
        let taken = match &shared.spare {
            Some(spare) => spare.write(bytes, self.length, shared.freed, self.most)?,
            None => match self.write_to_disk(bytes, self.length) {
                Ok(taken) => taken,
                Err(error) => {
                    let spare = Spare::instead(error, self.length, meant)?;
                    let taken = spare.write(bytes, self.length, shared.freed, self.most)?;
                    shared.spare = Some(spare);
                    taken
                }
            },
        };
        self.length += taken as u64;
        Ok(taken)
    }

    fn write_to_disk(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        loop {
            match self.file.write_at(bytes, at) {
                Ok(0) => return Err(Errno::NOSPC.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }
}

/// The reading side. It also sums what it reads for the first time.
pub struct SpoolReader {
    file: File,
    shared: Arc<Mutex<Shared>>,
    /// Bytes below are not there any more, since nobody needs them.
    freed: u64,
    digest: Context,
    summed: u64,
    /// Bytes were missing, and others stand in their place.
    damaged: bool,
}

impl SpoolReader {
    /// Reads `length` bytes at `offset`, which were written before.
    pub fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, offset, length);
        bytes
    }

    /// Makes `bytes` the `length` bytes at `offset`, which were written before. In the place of what is not there any
    /// more, because a step emptied the file, stands a line that says so.
    pub fn read_into(&mut self, bytes: &mut Vec<u8>, offset: u64, length: usize) {
        bytes.resize(length, 0);
        let mut filled = 0;
        let spare = lock(&self.shared).spare.clone();
        while filled < length {
            let at = offset + filled as u64;
            let read = match &spare {
                Some(spare) if at >= spare.start => spare.read(&mut bytes[filled..], at),
                Some(spare) => {
                    let before = usize::try_from(spare.start - at).unwrap_or(usize::MAX);
                    self.file.read_at(&mut bytes[filled..length.min(filled.saturating_add(before))], at)
                }
                None => self.file.read_at(&mut bytes[filled..], at),
            };
            match read {
                Ok(n @ 1..) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        self.cover(&mut bytes[filled..]);
        let gone = lock(&self.shared).gone.clone();
        let at = |place: u64| place.saturating_sub(offset).min(length as u64) as usize;
        self.cover(&mut bytes[at(gone.start)..at(gone.end)]);
        let end = offset + length as u64;
        if (offset..end).contains(&self.summed) {
            let new = usize::try_from(self.summed - offset).unwrap_or(length);
            self.digest.update(&bytes[new..]);
            self.summed = end;
        }
    }

    /// Writes into the place of missing bytes that they are missing.
    fn cover(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        self.damaged = true;
        let text = format!(
            "\n[{} bytes of output are gone: something on this host took them out of the runner's spool",
            bytes.len()
        );
        log::error!("{}", &text[1..]);
        let mut text = text.bytes();
        bytes.fill_with(|| text.next().unwrap_or(b' '));
        if let [.., before, last] = bytes {
            (*before, *last) = (b']', b'\n');
        }
    }

    /// Whether the file has all that was written so far.
    pub(super) fn is_on_disk(&self) -> bool {
        lock(&self.shared).spare.is_none()
    }

    /// Whether something was missing.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// The control plane has what is below `offset` for good: the disk gets the room back, where that is at least
    /// `least` bytes. False when the file system cannot do that.
    pub fn free(&mut self, offset: u64, least: u64) -> bool {
        if offset < self.freed + least.max(1) {
            return true;
        }
        self.freed = offset;
        let spare = {
            let mut shared = lock(&self.shared);
            shared.freed = offset;
            shared.spare.clone()
        };
        spare.iter().for_each(|spare| spare.free(offset));
        os::free_below(&self.file, offset)
    }

    /// Bytes below are not there any more.
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// SHA-256 of everything that was read; empty when that says nothing, since bytes were missing.
    pub fn sum(&self) -> String {
        match self.damaged {
            true => String::new(),
            false => crate::system::hex(self.digest.clone().finish().as_ref()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use crate::system::fault::is_full;

    fn written(spool: &mut Spool, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = spool.write(bytes).unwrap();
            bytes = &bytes[taken..];
        }
    }

    fn all(spool: &Spool) -> String {
        String::from_utf8(spool.reader().unwrap().read(0, spool.length() as usize)).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_and_summed_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("0"), 1000).unwrap();
        let mut reader = spool.reader().unwrap();
        written(&mut spool, b"ab");
        assert_eq!(reader.read(0, 2), b"ab");
        written(&mut spool, b"c");
        assert_eq!(reader.read(1, 2), b"bc");
        assert_eq!(reader.read(0, 1), b"a");
        spool.end().unwrap();
        assert_eq!(spool.length(), 3);
        assert_eq!(reader.sum(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn bytes_beyond_four_gigabytes_have_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        // A hole: it takes no room on the disk.
        let far = (1 << 32) + 5;
        File::create(&path).unwrap().write_all_at(b"far", far).unwrap();
        let spool = Spool::left_behind(&path).unwrap();
        assert_eq!(spool.length(), far + 3);
        assert_eq!(spool.reader().unwrap().read(far, 3), b"far");
    }

    #[test]
    fn of_too_much_output_the_front_and_the_end_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        let mut spool = Spool::create(&path, 8).unwrap();
        written(&mut spool, b"123456789");
        assert_eq!(all(&spool), "123456");
        written(&mut spool, b"abc");
        let mark = |count, kept| {
            format!(
                "123456\n[{count} bytes of output were dropped here: of a step that prints so much only the first{kept} part is kept]\n"
            )
        };
        // A task agent that dies here has left both.
        let copy = folder.path().join("1");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(path.with_extension(TAIL), copy.with_extension(TAIL)).unwrap();
        spool.end().unwrap();
        spool.end().unwrap();
        let expected = mark(4, " and the last") + "bc";
        assert_eq!(all(&spool), expected);
        assert_eq!(all(&Spool::left_behind(&copy).unwrap()), expected);
        // Without room for the end there is the mark alone.
        let path = folder.path().join("2");
        std::fs::create_dir(path.with_extension(TAIL)).unwrap();
        let mut spool = Spool::create(&path, 8).unwrap();
        written(&mut spool, b"123456789");
        spool.end().unwrap();
        assert_eq!(all(&spool), mark(3, ""));
        // A limit that has no quarter leaves no room for the end.
        let mut spool = Spool::create(&folder.path().join("3"), 3).unwrap();
        written(&mut spool, b"1234");
        spool.end().unwrap();
        assert!(all(&spool).starts_with("123\n[1 bytes of output were dropped here"));
    }

    #[test]
    fn output_that_just_fits_has_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("0"), 8).unwrap();
        written(&mut spool, b"12345678");
        spool.end().unwrap();
        assert_eq!(all(&spool), "12345678");
    }

    #[test]
    fn lost_bytes_are_marked_where_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("0"), 1000).unwrap();
        written(&mut spool, b"before");
        spool.lose(5, &Errno::NOSPC.into());
        spool.lose(2, &Errno::NOSPC.into());
        written(&mut spool, b"after");
        let mark = "[7 bytes of output were lost here: the runner could not keep them on its disk: No space left on device (os error 28)]";
        assert_eq!(all(&spool), format!("before\n{mark}\nafter"));
    }

    /// A device that takes nothing stands for the disk.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_leaves_a_little_room_in_memory() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let mut spool = Spool::of(file, 0, Path::new("x"), 1 << 30);
        let mut reader = spool.reader().unwrap();
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let mut at = 0;
        let full = loop {
            match spool.write(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(error) => break error,
            }
        };
        assert!(is_full(&full) && (200_000..300_000).contains(&at), "{at} {full}");
        assert_eq!(reader.read(0, at), &bytes[..at]);
        // Output that is stored for good makes room, all of it or a part.
        reader.free(100_000, 1);
        written(&mut spool, &bytes[at..]);
        assert_eq!(reader.read(100_000, 200_000), &bytes[100_000..]);
        reader.free(300_000, 1);
        written(&mut spool, b"more");
        assert_eq!(reader.read(300_000, 4), b"more");
        assert!(!reader.is_damaged());
        assert!(!is_full(&io::ErrorKind::PermissionDenied.into()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_disk_that_has_room_again_has_its_turn_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        let mut spool = Spool::create(&path, 1 << 30).unwrap();
        let mut reader = spool.reader().unwrap();
        written(&mut spool, b"disk,");
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut spool.file, full);
        // A device has no length of its own.
        let spare = Spare::instead(Errno::NOSPC.into(), 5, 0).unwrap();
        lock(&spool.shared).spare = Some(spare);
        written(&mut spool, &[b'm'; 100_000]);
        let mut reading = SpoolReader { file: reader.file.try_clone().unwrap(), ..spool.reader().unwrap() };
        reader.free(20, 1);
        spool.file = disk;
        lock(&spool.shared).spare.as_mut().unwrap().on_disk = 5;
        assert_eq!(reading.read(100_000, 5), b"mmmmm");
        written(&mut spool, b"disk again");
        assert!(lock(&spool.shared).spare.is_none(), "nothing was sent, and there is room");
        let on_disk = std::fs::read(&path).unwrap();
        assert_eq!(on_disk[20..], [&[b'm'; 100_005 - 20][..], b"disk again"].concat());
        assert_eq!(reader.read(100_000, 15), b"mmmmmdisk again");
        assert!(!reader.is_damaged() && !reading.is_damaged());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_lost_without_room_is_counted_in_one_mark_where_the_output_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&folder.path().join("0"), 1 << 30).unwrap();
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut spool.file, full);
        written(&mut spool, &[b'm'; 256 * 1024]);
        for _ in 0..1000 {
            let error = spool.write(b"lost").unwrap_err();
            spool.lose(4, &error);
        }
        assert!(spool.mark.is_empty(), "memory is bounded");
        spool.file = disk;
        written(&mut spool, b"after");
        let all = all(&spool);
        let behind = all.trim_start_matches('m');
        assert!(
            behind.starts_with("\n[4000 bytes of output were lost here: ") && behind.ends_with("]\nafter"),
            "{behind}"
        );
    }

    #[test]
    fn a_spool_that_is_emptied_says_so_and_keeps_what_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        let mut spool = Spool::create(&path, 10_000).unwrap();
        let mut reader = spool.reader().unwrap();
        written(&mut spool, &[b'a'; 300]);
        assert_eq!(reader.read(0, 100), [b'a'; 100]);
        File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        written(&mut spool, b"later");
        let text = String::from_utf8(reader.read(100, 205)).unwrap();
        assert!(
            text.starts_with("\n[200 bytes of output are gone: ") && text.ends_with("]\nlater"),
            "{text}"
        );
        assert!(reader.is_damaged() && reader.sum().is_empty());
        // Before anything comes later, too.
        let mut cut = SpoolReader { shared: Arc::default(), ..reader };
        assert!(cut.read(300, 200).starts_with(b"later\n[195 bytes of output are gone: "));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_stored_for_good_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        let mut spool = Spool::create(&path, 1 << 30).unwrap();
        let mut reader = spool.reader().unwrap();
        written(&mut spool, &vec![b'x'; 1 << 20]);
        assert!(reader.free(1000, 2000));
        assert_eq!(reader.freed, 0, "too little to be worth while");
        if !reader.free(1 << 19, 1) {
            return;
        }
        let about = std::fs::metadata(&path).unwrap();
        assert!(about.len() == 1 << 20 && about.blocks() * 512 <= (1 << 19) + 8192, "{about:?}");
        assert_eq!(reader.read(1 << 19, 10), b"xxxxxxxxxx");
        assert!(!reader.is_damaged());
    }
}
