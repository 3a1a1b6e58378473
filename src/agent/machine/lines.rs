//! Lines that a child writes, read as they come and without waiting.

use crate::system::os::{self, HeardPipe, OwnedPipe};
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{ErrorKind, Read};

/// Longest line, in bytes; the rest of a longer one is read as further lines.
const LONGEST_LINE: usize = 16 * 1024;

/// The reading end of a pipe.
pub(super) struct PipeLines {
    pipe: HeardPipe,
    begun: Vec<u8>,
    closed: bool,
}

impl PipeLines {
    /// Listens to a pipe; `None` when the system cannot read it without waiting.
    pub(super) fn of(pipe: OwnedPipe) -> Option<Self> {
        Some(Self { pipe: os::hear(pipe).ok()?, begun: Vec::new(), closed: false })
    }

    /// Readable when there is something to read, or when it was closed.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Whether nothing more will come.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The lines that have come since the last call. The last one needs no end once the pipe is closed.
    pub(super) fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 4096];
        while !self.closed {
            match self.pipe.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(n) => self.begun.extend(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
            while let Some(at) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=at).collect();
                lines.push(text(&line));
            }
            if self.begun.len() > LONGEST_LINE || self.closed {
                lines.push(text(&std::mem::take(&mut self.begun)));
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    /// A pipe that the children of other tests do not keep.
    fn piped() -> (PipeLines, File) {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (PipeLines::of(reader).unwrap(), File::from(writer))
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let (mut lines, mut out) = piped();
        assert!(lines.read().is_empty() && !lines.is_closed());
        out.write_all(b"one\ntw").unwrap();
        assert_eq!(lines.read(), ["one"]);
        out.write_all(b"o\n\n\xff\nthree").unwrap();
        assert_eq!(lines.read(), ["two", "\u{fffd}"]);
        drop(out);
        // A process that another test forks holds the pipe until it is the program that it becomes.
        let mut last = Vec::new();
        while !lines.is_closed() {
            last.extend(lines.read());
            std::thread::yield_now();
        }
        assert_eq!(last, ["three"]);
        assert!(lines.read().is_empty());
    }

    #[test]
    fn a_line_without_end_takes_no_room_without_end() {
        let (mut lines, mut out) = piped();
        let mut length = 0;
        for _ in 0..10 {
            out.write_all(&[b'x'; 4096]).unwrap();
            length += lines.read().iter().map(String::len).sum::<usize>();
            assert!(lines.begun.len() <= LONGEST_LINE);
        }
        assert!(length > 2 * LONGEST_LINE);
    }
}
