//! Archives of caches and workspace layers: a tar file in an LZ4 frame, which `lz4 -d | tar x` reads as well.
//!
//! [`pack`] walks folders and writes, [`unpack`] reads and puts files in their places; both stream, so that
//! memory does not grow with what goes through. [`tar`] and [`lz4`] are the two formats, of which only what is
//! written here is read. LZ4, because the machines this runs on have slow processors and fast networks more
//! often than the other way round: it costs 12 KB of the runner, deflate 83 KB and ten times the time.

pub mod lz4;
pub mod pack;
pub mod tar;
pub mod unpack;

/// Why nothing more is unpacked.
#[derive(Debug)]
pub enum Error {
    /// The task was stopped.
    Stopped,
    /// The archive has no place for something where it is to go; a sentence for people.
    Failed(String),
    /// The host could not write it, or the archive did not come whole: no fault of whoever asked for it. A sentence for
    /// people.
    Infrastructure(String),
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::pack::Packer;
    use super::tar::{ArchiveEntry, EntryKind};
    use super::unpack::{self, Target, unpack};
    use super::{Error, lz4, tar};
    use std::fs::{self, Permissions};
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    struct Below<'p>(&'p Path);

    impl Target for Below<'_> {
        fn place(&mut self, name: &Path, _is_folder: bool) -> Result<PathBuf, String> {
            unpack::inside(name).map(|inside| self.0.join(inside)).ok_or_else(|| "outside".to_owned())
        }

        fn root(&self) -> Option<&Path> {
            Some(self.0)
        }

        fn is_stopped(&mut self) -> bool {
            false
        }
    }

    fn packed(folder: &Path) -> (Vec<u8>, Vec<String>) {
        let mut never = || false;
        let mut packer =
            Packer::new(lz4::Writer::new(Vec::new()).unwrap(), folder.join("left-out"), &mut never);
        packer.add(folder, b"").unwrap();
        let notes = std::mem::take(&mut packer.notes);
        (packer.finish().unwrap().finish().unwrap(), notes)
    }

    /// Every path with what it is: type, mode, names on disk, content or target.
    fn described(folder: &Path) -> Vec<String> {
        let mut waiting = vec![folder.to_owned()];
        let mut found = Vec::new();
        while let Some(path) = waiting.pop() {
            let about = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(folder).unwrap().display();
            let time = (about.mtime(), about.mtime_nsec());
            if about.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                found.push(format!("{name}/ {:o}", about.mode() & 0o777));
            } else if about.is_symlink() {
                found.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else {
                let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                found.push(format!("{name} {:o} {} {time:?} {content}", about.mode() & 0o777, about.nlink()));
            }
        }
        found.sort();
        found
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("deep/er")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("left-out")).unwrap();
        fs::write(at("left-out/x"), "x").unwrap();
        for (name, mode) in [("a", 0o644), ("deep/b", 0o751), ("deep/er/c", 0o400)] {
            fs::write(at(name), name.repeat(1000)).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::hard_link(at("a"), at("deep/same-as-a")).unwrap();
        symlink("er/c", at("deep/link")).unwrap();
        symlink("/nowhere", at("broken")).unwrap();
        fs::write(at(&"long".repeat(40)), "").unwrap();
        fs::set_permissions(at("deep/er"), Permissions::from_mode(0o555)).unwrap();
        folder
    }

    #[test]
    fn a_path_that_is_gone_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (_, notes) = packed(&folder.path().join("gone"));
        assert!(notes.len() == 1 && notes[0].contains("gone`: cannot read it"), "{notes:?}");
    }

    #[test]
    fn what_was_packed_comes_back_also_over_itself() {
        let from = tree();
        let (archive, notes) = packed(from.path());
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(packed(from.path()).0, archive);
        let to = tempfile::tempdir().unwrap();
        fs::remove_dir_all(from.path().join("left-out")).unwrap();
        // Obstacles: a link where a file belongs, a file where a folder does.
        symlink("/etc/passwd", to.path().join("a")).unwrap();
        fs::write(to.path().join("empty"), "").unwrap();
        for _ in 0..2 {
            let done = unpack(lz4::Reader::new(&archive[..]), &mut Below(to.path())).unwrap();
            assert_eq!((done.files, done.bytes), (7, 1000 * (1 + 6 + 9)));
            let (mut before, mut after) = (described(from.path()), described(to.path()));
            // The top is nobody's entry.
            before.remove(0);
            after.remove(0);
            assert_eq!(before, after);
        }
        fs::set_permissions(from.path().join("deep/er"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(to.path().join("deep/er"), Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn nothing_leaves_the_root() {
        let entry = |kind: EntryKind, name: &str| ArchiveEntry {
            kind,
            name: name.as_bytes().to_vec(),
            mode: 0o644,
            size: 0,
            changed: (0, 0),
        };
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = || entry(EntryKind::Symlink(outside.display().to_string().into_bytes()), "link");
        for (number, entries) in [
            vec![entry(EntryKind::File, "../outside/x")],
            vec![entry(EntryKind::File, "/tmp/runlet-test-outside")],
            vec![link(), entry(EntryKind::File, "link/x")],
            vec![link(), entry(EntryKind::Folder, "link/x")],
            vec![link(), entry(EntryKind::File, "link/deeper/x")],
            vec![entry(EntryKind::HardLink(b"../outside/y".to_vec()), "x")],
            vec![link(), entry(EntryKind::HardLink(b"link/y".to_vec()), "x")],
        ]
        .into_iter()
        .enumerate()
        {
            fs::write(outside.join("y"), "").unwrap();
            let to = folder.path().join(number.to_string());
            fs::create_dir(&to).unwrap();
            let mut archive = lz4::Writer::new(Vec::new()).unwrap();
            for entry in &entries {
                tar::write_header(&mut archive, entry).unwrap();
            }
            tar::write_end(&mut archive).unwrap();
            let archive = archive.finish().unwrap();
            let result = unpack(lz4::Reader::new(&archive[..]), &mut Below(&to));
            assert!(matches!(result, Err(Error::Failed(_))), "{number}: {result:?}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{number}");
            assert!(fs::symlink_metadata(to.join("x")).is_err(), "{number}");
        }
    }

    /// The bytes of an archive, written on x86_64 and checked with `lz4` and `tar`: every architecture reads
    /// them. What the compressor makes of the same tar file may differ.
    #[test]
    fn archives_are_read_on_every_architecture() {
        let archive: Vec<u8> = (0..ARCHIVE.len() / 2)
            .map(|at| u8::from_str_radix(&ARCHIVE[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let mut reader = tar::Reader::new(lz4::Reader::new(&archive[..]));
        let entry = ArchiveEntry {
            kind: EntryKind::File,
            name: b"a/file".to_vec(),
            mode: 0o750,
            size: 5,
            changed: (1_700_000_000, 123_456_789),
        };
        assert_eq!(reader.next_entry().unwrap().as_ref(), Some(&entry));
        let mut content = String::new();
        reader.read_to_string(&mut content).unwrap();
        assert_eq!((content.as_str(), reader.next_entry().unwrap()), ("hello", None));

        let mut file = Vec::new();
        tar::write_header(&mut file, &entry).unwrap();
        file.extend(b"hello");
        tar::write_padding(&mut file, 5).unwrap();
        tar::write_end(&mut file).unwrap();
        let mut unpacked = Vec::new();
        lz4::Reader::new(&archive[..]).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == file, "the tar file differs");
    }

    const ARCHIVE: &str = "\
        04224d186050fbaf0000004f7061780001004d713030303036343408003c3030300800443030333614000002009f00303036\
        35363700209a004fb100000075737461720030300d000f0200dfb03330206d74696d653d31377c01000200bf2e3132333435\
        363738390a1001df0f0200dd6f612f66696c65f6004b0055022d3735f80307f403b1350031343532343737303418006f3730\
        363200209403520f0004ec5f68656c6c6fff014b0f0200ffffffffff896000000000000000000000\
        ";
}
