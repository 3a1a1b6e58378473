//! Tar files as POSIX has them: ustar headers, pax records for what does not fit into those. Written so that
//! every tar reads them; read are the kinds of entries that are written.

use crate::system::os::OsStrExt;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;

const BLOCK: usize = 512;
/// Longest pax record block that is read, in bytes: two paths and little else.
const LONGEST_PAX: u64 = 64 * 1024;
/// The largest number that eleven octal digits hold.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// Kind of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; its bytes follow.
    File,
    /// Folder, without the files in it.
    Folder,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// Another name of an earlier file, by its name in the archive.
    HardLink(Vec<u8>),
}

/// An entry of an archive, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Kind of the entry.
    pub kind: EntryKind,
    /// Name in the archive, `/` between parts.
    pub name: Vec<u8>,
    /// Permission bits, `0o777` at most.
    pub mode: u32,
    /// Bytes of a file; 0 for everything else.
    pub size: u64,
    /// Time of the last change: Unix seconds and nanoseconds.
    pub changed: (i64, u32),
}

impl ArchiveEntry {
    /// The name as a path.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.name))
    }
}

/// Writes the header of an entry. The bytes of a file are the caller's to write, followed by
/// [`write_padding`].
pub fn write_header(out: &mut impl Write, entry: &ArchiveEntry) -> io::Result<()> {
    let (flag, link): (u8, &[u8]) = match &entry.kind {
        EntryKind::File => (b'0', b""),
        EntryKind::HardLink(target) => (b'1', target),
        EntryKind::Symlink(target) => (b'2', target),
        EntryKind::Folder => (b'5', b""),
    };
    let mut records = Vec::new();
    let (seconds, nanos) = entry.changed;
    if entry.name.len() > 100 {
        add_record(&mut records, "path", &entry.name);
    }
    if link.len() > 100 {
        add_record(&mut records, "linkpath", link);
    }
    if entry.size > OCTAL_MAX {
        add_record(&mut records, "size", entry.size.to_string().as_bytes());
    }
    let plain_time = u64::try_from(seconds).ok().filter(|seconds| nanos == 0 && *seconds <= OCTAL_MAX);
    if plain_time.is_none() {
        add_record(&mut records, "mtime", time_text(seconds, nanos).as_bytes());
    }
    if !records.is_empty() {
        out.write_all(&header(b'x', b"pax", b"", 0o644, records.len() as u64, 0))?;
        out.write_all(&records)?;
        write_padding(out, records.len() as u64)?;
    }
    let cut = |text: &[u8]| text[..text.len().min(100)].to_vec();
    let size = if entry.size > OCTAL_MAX { 0 } else { entry.size };
    let time = plain_time.or(u64::try_from(seconds).ok()).unwrap_or(0).min(OCTAL_MAX);
    out.write_all(&header(flag, &cut(&entry.name), &cut(link), entry.mode, size, time))
}

/// Fills up the last block of a file of `size` bytes.
pub fn write_padding(out: &mut impl Write, size: u64) -> io::Result<()> {
    out.write_all(&[0; BLOCK][..padding(size)])
}

/// Ends the archive.
pub fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn add_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Decimal seconds. Before 1970 the nanoseconds still count upwards, as file systems have them.
fn time_text(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        (-1, _) => format!("-0.{:09}", 1_000_000_000 - nanos),
        _ => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanos),
    }
}

fn read_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let mut nanos = 0;
    for digit in digits {
        nanos = nanos * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    let seconds: i64 = whole.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

fn header(flag: u8, name: &[u8], link: &[u8], mode: u32, size: u64, time: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{:07o}", mode & 0o7777).as_bytes());
    put(108, b"0000000\x000000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{time:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, link);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Reads an archive entry by entry.
pub struct Reader<R: Read> {
    inner: R,
    /// Bytes of the current file that were not read yet, and the padding after them.
    left: u64,
    padding: usize,
}

impl<R: Read> Reader<R> {
    /// Reads an archive from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The source, right after what was read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; `None` at the end. Whatever was not read of the last file is passed over.
    pub fn next_entry(&mut self) -> io::Result<Option<ArchiveEntry>> {
        self.pass_over()?;
        let mut pax = Pax::default();
        loop {
            let mut block = [0; BLOCK];
            self.inner.read_exact(&mut block)?;
            if block == [0; BLOCK] {
                return Ok(None);
            }
            let sum = octal(&block[148..156])?;
            block[148..156].fill(b' ');
            if sum != block.iter().map(|byte| u64::from(*byte)).sum::<u64>() {
                return Err(damaged("the checksum of a header is wrong"));
            }
            let size = octal(&block[124..136])?;
            if block[156] == b'x' {
                if size > LONGEST_PAX {
                    return Err(damaged("a name is too long"));
                }
                let mut records = vec![0; size as usize];
                self.inner.read_exact(&mut records)?;
                pax = Pax::parse(&records)?;
                self.padding = padding(size);
                self.pass_over()?;
                continue;
            }
            let link = pax.link.unwrap_or_else(|| text(&block[157..257]));
            let kind = match block[156] {
                b'0' | 0 => EntryKind::File,
                b'1' => EntryKind::HardLink(link),
                b'2' => EntryKind::Symlink(link),
                b'5' => EntryKind::Folder,
                _ => return Err(damaged("it has a kind of entry that runners do not write")),
            };
            let size = if kind == EntryKind::File { pax.size.unwrap_or(size) } else { 0 };
            (self.left, self.padding) = (size, padding(size));
            let seconds = i64::try_from(octal(&block[136..148])?).unwrap_or(0);
            return Ok(Some(ArchiveEntry {
                kind,
                name: pax.name.unwrap_or_else(|| text(&block[..100])),
                mode: octal(&block[100..108])? as u32 & 0o777,
                size,
                changed: pax.changed.unwrap_or((seconds, 0)),
            }));
        }
    }

    fn pass_over(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding as u64;
        (self.left, self.padding) = (0, 0);
        let passed = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        if passed < rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// The bytes of the current file.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[derive(Default)]
struct Pax {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    changed: Option<(i64, u32)>,
}

impl Pax {
    fn parse(mut records: &[u8]) -> io::Result<Self> {
        let wrong = || damaged("a pax record is malformed");
        let mut pax = Self::default();
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length: usize = number(&records[..blank]).ok_or_else(wrong)?;
            let record = records.get(blank + 1..length).ok_or_else(wrong)?;
            records = &records[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => pax.name = Some(value.to_vec()),
                b"linkpath" => pax.link = Some(value.to_vec()),
                b"size" => pax.size = Some(number(value).ok_or_else(wrong)?),
                b"mtime" => {
                    let time = std::str::from_utf8(value).ok().and_then(read_time);
                    pax.changed = Some(time.ok_or_else(wrong)?);
                }
                _ => {}
            }
        }
        Ok(pax)
    }
}

fn number<N: std::str::FromStr>(bytes: &[u8]) -> Option<N> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut value = 0u64;
    for byte in digits.take_while(|byte| !matches!(byte, b' ' | 0)) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8);
        let digit = digit.ok_or_else(|| damaged("a number in a header is none"))?;
        value = value << 3 | u64::from(digit);
    }
    Ok(value)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the archive is damaged: {why}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<(ArchiveEntry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            all.push((entry, content));
        }
        Ok(all)
    }

    fn written(entries: &[(ArchiveEntry, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (entry, content) in entries {
            write_header(&mut out, entry).unwrap();
            out.write_all(content).unwrap();
            write_padding(&mut out, content.len() as u64).unwrap();
        }
        write_end(&mut out).unwrap();
        out
    }

    fn entry(kind: EntryKind, name: &[u8]) -> (ArchiveEntry, Vec<u8>) {
        (
            ArchiveEntry { kind, name: name.to_vec(), mode: 0o640, size: 0, changed: (1_700_000_000, 5) },
            Vec::new(),
        )
    }

    #[test]
    fn times_before_and_after_1970_come_back() {
        for time in [(0, 0), (5, 0), (-5, 0), (5, 1), (-1, 500_000_000), (-5, 250_000_000), (1 << 40, 7)] {
            assert_eq!(read_time(&time_text(time.0, time.1)), Some(time), "{}", time_text(time.0, time.1));
        }
        assert_eq!(time_text(-1, 500_000_000), "-0.500000000");
        assert_eq!(read_time("1.x"), None);
    }

    #[test]
    fn files_that_are_too_large_for_octal_say_so_in_a_record() {
        let (mut large, _) = entry(EntryKind::File, b"large");
        large.size = 9 << 30;
        let mut out = Vec::new();
        write_header(&mut out, &large).unwrap();
        let mut reader = Reader::new(&out[..]);
        assert_eq!(reader.next_entry().unwrap().unwrap(), large);
    }

    #[test]
    fn damage_is_told() {
        let whole =
            written(&[(ArchiveEntry { size: 5, ..entry(EntryKind::File, b"a").0 }, b"hello".to_vec())]);
        for length in [0, 100, 600, 1500, whole.len() - 1024] {
            assert!(read_all(&whole[..length]).is_err(), "{length}");
        }
        let mut flipped = whole.clone();
        flipped[1024 + 5] ^= 1;
        assert!(read_all(&flipped).unwrap_err().to_string().contains("checksum"));
    }

    /// The host's tar must be able to read every archive that is written here.
    #[test]
    fn the_tar_of_the_host_reads_it() {
        let long = [b"d/".to_vec(), vec![b'n'; 180]].concat();
        let bytes = written(&[
            entry(EntryKind::Folder, b"d/"),
            (ArchiveEntry { size: 3, ..entry(EntryKind::File, &long).0 }, b"abc".to_vec()),
            entry(EntryKind::Symlink(long.clone()), b"link"),
            entry(EntryKind::HardLink(long.clone()), b"hard"),
        ]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.tar"), bytes).unwrap();
        let listed =
            std::process::Command::new("tar").arg("tvf").arg("a.tar").current_dir(folder.path()).output();
        let Ok(listed) = listed else {
            eprintln!("SKIPPED the_tar_of_the_host_reads_it: there is no tar");
            return;
        };
        let shown = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let kinds: String = shown.lines().filter_map(|line| line.chars().next()).collect();
        assert_eq!(kinds, "d-lh", "{shown}");
        assert_eq!(shown.matches(&"n".repeat(180)).count(), 3, "{shown}");
    }

    prop_compose! {
        fn any_entry()(
            name in proptest::collection::vec(1u8.., 1..300),
            link in proptest::collection::vec(1u8.., 1..300),
            content in proptest::collection::vec(any::<u8>(), 0..1200),
            kind in 0..4, mode in 0u32..0o1000, seconds in -10_000_000_000i64..10_000_000_000, nanos in 0u32..1_000_000_000,
        ) -> (ArchiveEntry, Vec<u8>) {
            let kind = match kind {
                0 => EntryKind::File,
                1 => EntryKind::Folder,
                2 => EntryKind::Symlink(link),
                _ => EntryKind::HardLink(link),
            };
            let content = if kind == EntryKind::File { content } else { Vec::new() };
            (ArchiveEntry { kind, name, mode, size: content.len() as u64, changed: (seconds, nanos) }, content)
        }
    }

    proptest! {
        #[test]
        fn every_entry_comes_back(entries in proptest::collection::vec(any_entry(), 0..5)) {
            prop_assert_eq!(read_all(&written(&entries)).unwrap(), entries);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read_all(&bytes);
            let _ = Pax::parse(&bytes);
        }
    }
}
