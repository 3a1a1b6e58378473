//! LZ4 frames: independent blocks of at most 256 KiB, no checksums. The control plane checks archives by
//! their SHA-256.

use std::io::{self, Read, Write};

/// Most bytes of a block before compression.
const BLOCK: usize = 256 * 1024;
/// Magic number, version 1 with independent blocks of 256 KiB, and the checksum of these two.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
/// Set in the length of a block that is stored as it is.
const STORED: u32 = 1 << 31;

/// Compresses what is written to it.
pub struct Writer<W: Write> {
    inner: W,
    block: Vec<u8>,
    packed: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a frame.
    pub fn new(mut inner: W) -> io::Result<Self> {
        inner.write_all(&HEADER)?;
        let packed = vec![0; lz4_flex::block::get_maximum_output_size(BLOCK)];
        Ok(Self { inner, block: Vec::with_capacity(BLOCK), packed })
    }

    /// Ends the frame.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        self.inner.write_all(&[0; 4])?;
        Ok(self.inner)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = lz4_flex::block::compress_into(&self.block, &mut self.packed).unwrap_or(BLOCK);
        let (length, bytes) = if packed < self.block.len() {
            (packed as u32, &self.packed[..packed])
        } else {
            (self.block.len() as u32 | STORED, &self.block[..])
        };
        self.inner.write_all(&length.to_le_bytes())?;
        self.inner.write_all(bytes)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.end_block()?;
        }
        Ok(taken)
    }

    /// Only whole blocks are worth writing.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses what is read through it.
pub struct Reader<R: Read> {
    inner: R,
    block: Vec<u8>,
    at: usize,
    length: usize,
    packed: Vec<u8>,
    begun: bool,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads a frame from `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            block: vec![0; BLOCK],
            at: 0,
            length: 0,
            packed: Vec::new(),
            begun: false,
            ended: false,
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        if !self.begun {
            let mut header = [0; HEADER.len()];
            self.inner.read_exact(&mut header)?;
            if header != HEADER {
                return Err(damaged("it does not begin as one"));
            }
            self.begun = true;
        }
        let mut length = [0; 4];
        self.inner.read_exact(&mut length)?;
        let word = u32::from_le_bytes(length);
        let length = (word & !STORED) as usize;
        (self.at, self.length) = (0, 0);
        if word == 0 {
            self.ended = true;
            return Ok(());
        }
        if length > BLOCK {
            return Err(damaged("a block is too long"));
        }
        if word & STORED != 0 {
            self.inner.read_exact(&mut self.block[..length])?;
            self.length = length;
            return Ok(());
        }
        self.packed.resize(length, 0);
        self.inner.read_exact(&mut self.packed)?;
        self.length = lz4_flex::block::decompress_into(&self.packed, &mut self.block)
            .map_err(|_| damaged("a block cannot be decompressed"))?;
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.length && !self.ended && !buffer.is_empty() {
            self.next_block()?;
        }
        let n = buffer.len().min(self.length - self.at);
        buffer[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is no archive of a runner: {why}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Reader::new(bytes).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn blocks_come_back_whatever_they_hold() {
        let mut noise = Vec::new();
        let mut state = 1u32;
        for _ in 0..BLOCK + 1000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.push((state >> 24) as u8);
        }
        for bytes in [Vec::new(), b"x".to_vec(), vec![7; 3 * BLOCK + 5], noise] {
            assert_eq!(unpacked(&packed(&bytes)).unwrap(), bytes);
        }
        assert!(packed(&vec![7; 3 * BLOCK]).len() < BLOCK / 10);
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = packed(&b"some text, some text, some text".repeat(1000));
        for length in [0, 3, 7, 9, whole.len() - 5, whole.len() - 1] {
            assert!(unpacked(&whole[..length]).is_err(), "{length}");
        }
        let text = unpacked(b"<html>not what you think</html>").unwrap_err().to_string();
        assert!(text.contains("no archive of a runner"), "{text}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpacked(&bytes);
            let mut framed = HEADER.to_vec();
            framed.append(&mut bytes);
            let _ = unpacked(&framed);
        }

        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(0u8..4, 0..5000)) {
            prop_assert_eq!(unpacked(&packed(&bytes)).unwrap(), bytes);
        }
    }
}
