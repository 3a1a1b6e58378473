//! How many bytes go into one call: less when calls break in the middle or something in between finds them too
//! large, more again when they arrive. On a line that carries only so many bytes at a time every upload and all
//! output thus make progress.

use crate::protocol::MAX_CHUNK_BYTES;

/// Small enough for lines that hardly carry a call's own headers.
const SMALLEST: usize = 4 * 1024;
/// First piece of output: it passes any proxy, and most steps print no more.
const FIRST_OF_OUTPUT: usize = 64 * 1024;
/// Pieces that have to arrive before a larger one is tried: a line that breaks at a certain length is
/// not tested with every other piece.
const ARRIVALS_TO_GROW: u32 = 4;

/// The size of the next piece. Pure: it is told what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) struct PieceSize {
    bytes: usize,
    arrived: u32,
}

impl PieceSize {
    /// The largest piece.
    pub(in crate::executor) fn new() -> Self {
        Self { bytes: MAX_CHUNK_BYTES, arrived: 0 }
    }

    /// A small one, for what should arrive soon.
    pub(in crate::executor) fn small() -> Self {
        Self { bytes: FIRST_OF_OUTPUT, arrived: 0 }
    }

    /// Most bytes of the next piece.
    pub(in crate::executor) fn bytes(self) -> usize {
        self.bytes
    }

    /// The line broke under a piece of this many bytes.
    pub(in crate::executor) fn broke(&mut self, sent: usize) {
        // A short last piece says nothing about larger ones, but the next must be shorter than it was.
        self.bytes = (self.bytes.min(sent.max(1)) / 2).clamp(SMALLEST, MAX_CHUNK_BYTES);
        self.arrived = 0;
    }

    /// Whether a piece of this many bytes, found too large, can be made smaller.
    pub(in crate::executor) fn can_shrink(self, sent: usize) -> bool {
        sent > SMALLEST
    }

    /// A piece arrived.
    pub(in crate::executor) fn arrived(&mut self) {
        self.arrived += 1;
        if self.arrived >= ARRIVALS_TO_GROW {
            self.bytes = (self.bytes * 2).min(MAX_CHUNK_BYTES);
            self.arrived = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_shrink_to_a_floor_and_grow_back_to_the_whole() {
        let mut size = PieceSize::new();
        let mut seen = Vec::new();
        for _ in 0..12 {
            size.broke(size.bytes());
            seen.push(size.bytes());
        }
        assert_eq!(seen[..3], [MAX_CHUNK_BYTES / 2, MAX_CHUNK_BYTES / 4, MAX_CHUNK_BYTES / 8]);
        assert_eq!(seen.last(), Some(&SMALLEST));
        for _ in 0..ARRIVALS_TO_GROW - 1 {
            size.arrived();
        }
        assert_eq!(size.bytes(), SMALLEST);
        size.arrived();
        assert_eq!(size.bytes(), SMALLEST * 2);
        for _ in 0..100 {
            size.arrived();
        }
        assert_eq!(size.bytes(), MAX_CHUNK_BYTES);
    }

    #[test]
    fn a_break_under_a_short_piece_makes_the_next_one_shorter_still() {
        let mut size = PieceSize::new();
        size.broke(100_000);
        assert_eq!(size.bytes(), 50_000);
        size.broke(10);
        assert_eq!(size.bytes(), SMALLEST);
    }

    /// A line that loses every call of more than so many bytes.
    fn calls_to_send(total: usize, line: usize) -> usize {
        let (mut size, mut sent, mut calls) = (PieceSize::new(), 0, 0);
        while sent < total {
            calls += 1;
            assert!(calls < 100_000, "no progress");
            let piece = size.bytes().min(total - sent);
            if piece > line {
                size.broke(piece);
            } else {
                size.arrived();
                sent += piece;
            }
        }
        calls
    }

    #[test]
    fn every_line_makes_progress_and_few_calls_are_wasted() {
        let total = 20 * MAX_CHUNK_BYTES;
        assert_eq!(calls_to_send(total, usize::MAX), 20);
        for line in [SMALLEST, 10_000, 70_000, 900_000, MAX_CHUNK_BYTES - 1] {
            // Half of what the line carries, and one lost call in five.
            let most = total / (line / 2).max(SMALLEST) * 2 + 40;
            assert!(calls_to_send(total, line) <= most, "{line}");
        }
    }
}
