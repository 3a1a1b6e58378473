//! Any bytes are unpacked into their folder or refused; nothing lands outside, whatever links the archive brings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::archive::lz4;
use runlet::archive::unpack::{Target, inside, unpack};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

struct Below<'p>(&'p Path);

impl Target for Below<'_> {
    fn place(&mut self, name: &Path, _is_folder: bool) -> Result<PathBuf, String> {
        inside(name).map(|inside| self.0.join(inside)).ok_or_else(|| "outside".to_owned())
    }

    fn root(&self) -> Option<&Path> {
        Some(self.0)
    }

    fn is_stopped(&mut self) -> bool {
        false
    }
}

/// Puts the right checksum into every header, which no fuzzer finds.
fn with_checksums(mut tar: Vec<u8>) -> Vec<u8> {
    for header in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

// The frame has checksums as well: the first byte says whether the rest is a frame or goes into one.
fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let around = tempfile::tempdir().expect("a folder can be made");
    let place = around.path().join("in");
    fs::create_dir(&place).expect("a folder can be made");
    let other = around.path().join("other");
    fs::write(&other, "as it was").expect("a file can be made");
    let archive = if kind % 2 == 0 {
        let mut frame = lz4::Writer::new(Vec::new()).expect("memory takes everything");
        frame.write_all(&with_checksums(bytes.to_vec())).expect("memory takes everything");
        frame.finish().expect("memory takes everything")
    } else {
        bytes.to_vec()
    };
    let _ = unpack(lz4::Reader::new(Cursor::new(archive)), &mut Below(&place));
    let names: Vec<_> =
        fs::read_dir(around.path()).expect("it is there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read_to_string(&other).expect("it is there"), "as it was");
});
