//! An archive of orbs: a tar file, plain or in an LZ4 frame, with `namespace/orb@1.2.3.yml` in it, at any depth.

use crate::archive::{lz4, tar};
use crate::config::SOURCE_BYTES;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How an LZ4 frame begins.
const LZ4: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Most bytes of all orbs of an archive.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// Reads the orbs of an archive, by `namespace/orb@version.yml`. The error is a sentence for people.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let fail = |error: io::Error| format!("failed to read the archive of orbs `{}`: {error}", path.display());
    let mut file = File::open(path).map_err(fail)?;
    let mut begins = [0; LZ4.len()];
    let is_packed = file.read_exact(&mut begins).is_ok() && begins == LZ4;
    file.seek(SeekFrom::Start(0)).map_err(fail)?;
    let file = BufReader::new(file);
    let source: Box<dyn Read> = if is_packed { Box::new(lz4::Reader::new(file)) } else { Box::new(file) };
    let orbs = entries(source).map_err(|error| {
        format!(
            "`{}` is no archive of orbs: {error} (it is a tar file, plain or as `runlet orb pack` writes it, with `namespace/orb@1.2.3.yml` in it; {})",
            path.display(),
            looks_like(&begins)
        )
    })?;
    if orbs.is_empty() {
        return Err(format!(
            "the archive of orbs `{}` holds no orb: its files have to be called `namespace/orb@1.2.3.yml`",
            path.display()
        ));
    }
    Ok(orbs)
}

/// Guesses the kind of a file that cannot be read by how it begins.
fn looks_like(begins: &[u8]) -> &'static str {
    match begins {
        [0x1f, 0x8b, ..] => "this one is packed with gzip: unpack it with `gunzip` first",
        [0x28, 0xb5, 0x2f, 0xfd] => "this one is packed with zstd: unpack it with `unzstd` first",
        [b'P', b'K', ..] => "this one is a zip file: unpack it, and name the folder",
        _ if begins == LZ4 => "this one was cut off or damaged: make it again",
        _ => "`--orbs` takes a folder as well",
    }
}

fn entries(source: impl Read) -> io::Result<BTreeMap<String, String>> {
    let mut archive = tar::Reader::new(source);
    let (mut orbs, mut bytes) = (BTreeMap::new(), 0);
    while let Some(entry) = archive.next_entry()? {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let mut parts = name.rsplit('/');
        let (Some(file), Some(namespace)) = (parts.next(), parts.next()) else { continue };
        if entry.kind != tar::EntryKind::File || !file.ends_with(".yml") {
            continue;
        }
        bytes += entry.size;
        if bytes > MOST_BYTES {
            return Err(io::Error::other(format!("its orbs have more than {MOST_BYTES} bytes")));
        }
        let mut text = String::new();
        // A byte more than allowed, so that the compiler sees and names the limit.
        (&mut archive).take(SOURCE_BYTES as u64 + 1).read_to_string(&mut text)?;
        orbs.insert(format!("{namespace}/{file}"), text);
    }
    Ok(orbs)
}

/// Writes an archive of orbs, by `namespace/orb@version.yml`.
pub(super) fn write(out: impl Write, orbs: &BTreeMap<String, String>) -> io::Result<()> {
    let mut out = lz4::Writer::new(out)?;
    for (name, text) in orbs {
        let size = text.len() as u64;
        let name = name.as_bytes().to_vec();
        let entry =
            tar::ArchiveEntry { kind: tar::EntryKind::File, name, mode: 0o644, size, changed: (0, 0) };
        tar::write_header(&mut out, &entry)?;
        out.write_all(text.as_bytes())?;
        tar::write_padding(&mut out, size)?;
    }
    tar::write_end(&mut out)?;
    out.finish()?.flush()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its file should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_was_put_in_and_tar_makes_one_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let orbs = BTreeMap::from([
            ("acme/tools@1.2.3.yml".to_owned(), "commands: {}\n".to_owned()),
            ("acme/tools@dev:next.yml".to_owned(), "jobs: {}\n".repeat(1000)),
        ]);
        let packed = folder.path().join("orbs.tar.lz4");
        write(File::create(&packed).unwrap(), &orbs).unwrap();
        assert_eq!(read(&packed).unwrap(), orbs);
        let mut plain = Vec::new();
        lz4::Reader::new(File::open(&packed).unwrap()).read_to_end(&mut plain).unwrap();
        let tar = folder.path().join("orbs.tar");
        std::fs::write(&tar, plain).unwrap();
        assert_eq!(read(&tar).unwrap(), orbs);
        let cut = std::fs::read(&packed).unwrap();
        for (bytes, why) in [
            (&b"orbs: {}\n"[..], "takes a folder as well"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "gunzip"),
            (b"PK\x03\x04aaaaaaaa", "name the folder"),
            (&cut[..cut.len() / 2], "cut off or damaged"),
        ] {
            std::fs::write(&tar, bytes).unwrap();
            let said = read(&tar).unwrap_err();
            assert!(said.contains("is no archive of orbs: ") && said.contains(why), "{said}");
        }
        std::fs::write(&tar, [0; 1024]).unwrap();
        assert!(read(&tar).unwrap_err().contains("holds no orb"));
    }
}
