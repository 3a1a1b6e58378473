//! Whether all output of a step is here. A runner may tell the end of a step before the last of its
//! output has arrived, and whoever follows the output stops at the end: it is shown after the last byte.

use rusqlite::Row;

/// How much output of a step there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    ended: bool,
    awaited: u64,
}

/// Columns of [`Extent`], of the tables `steps` as `s` and `tasks` as `t`. Nothing comes after the end of
/// a task, whatever was announced: its runner may be gone.
pub const EXTENT: &str = "s.ended_at_ms IS NOT NULL,
    CASE WHEN t.stopped_at_ms IS NULL THEN coalesce(s.output_bytes, 0) ELSE 0 END";

impl Extent {
    /// From a row that has the columns of [`EXTENT`] from `at`.
    pub fn from_row(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self { ended: row.get(at)?, awaited: row.get(at + 1)? })
    }

    /// Whether the step has ended and these many bytes are all that it wrote.
    pub fn is_complete(self, bytes: u64) -> bool {
        self.ended && bytes >= self.awaited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_with_the_last_byte() {
        let extent = |ended, awaited| Extent { ended, awaited };
        assert!(!extent(false, 0).is_complete(10), "it may write more");
        assert!(!extent(true, 10).is_complete(9));
        assert!(extent(true, 10).is_complete(10));
        assert!(extent(true, 0).is_complete(0), "a task that is over sends nothing more");
    }
}
