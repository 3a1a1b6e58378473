//! An archive from the control plane, as a reader: fetched piece by piece, resumed where a piece broke, its
//! SHA-256 checked at its end.

use crate::executor::output::piece::PieceSize;
use crate::executor::output::report::Reporter;
use crate::http::Error;
use crate::protocol::Archive;
use crate::system::hex;
use ring::digest::{Context, SHA256};
use std::io::{self, Read};

/// Reads one archive. The last read fails when what came is not what was stored.
pub(super) struct Download<'r> {
    reporter: &'r Reporter,
    /// Path below `tasks/{id}/`.
    path: String,
    archive: Archive,
    fetched: u64,
    piece: Vec<u8>,
    at: usize,
    size: PieceSize,
    digest: Option<Context>,
}

impl<'r> Download<'r> {
    pub(super) fn new(reporter: &'r Reporter, path: String, archive: Archive) -> Self {
        Self {
            reporter,
            path,
            archive,
            fetched: 0,
            piece: Vec::new(),
            at: 0,
            size: PieceSize::new(),
            digest: Some(Context::new(&SHA256)),
        }
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let mut backoff = Reporter::patience();
        let left = self.archive.length - self.fetched;
        loop {
            let most = u64::try_from(self.size.bytes()).unwrap_or(left).min(left);
            let path = format!("{}?offset={}&most={most}", self.path, self.fetched);
            match self.reporter.attempt_bytes(&path, &mut backoff) {
                Ok(Some(piece)) if piece.is_empty() || piece.len() as u64 > left => {
                    return Err(io::Error::other("the control plane has lost a part of it"));
                }
                Ok(Some(piece)) => {
                    self.size.arrived();
                    self.fetched += piece.len() as u64;
                    if let Some(digest) = &mut self.digest {
                        digest.update(&piece);
                    }
                    (self.piece, self.at) = (piece, 0);
                    return Ok(());
                }
                Ok(None) => self.size.broke(usize::try_from(most).unwrap_or(usize::MAX)),
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

fn failed(error: &Error) -> io::Error {
    io::Error::other(format!("failed to download it: {error}"))
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.at == self.piece.len() {
            if self.fetched == self.archive.length {
                let sum = self.digest.take().map(|digest| hex(digest.finish().as_ref()));
                return match sum {
                    Some(sum) if sum != self.archive.sha256 => {
                        Err(io::Error::other("its checksum is wrong: it was damaged where it is stored"))
                    }
                    _ => Ok(0),
                };
            }
            self.next_piece()?;
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
