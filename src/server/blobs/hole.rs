//! The end of an output of which bytes are missing that nobody has any more: what is here stays, and a mark says how
//! many bytes are not.

use crate::protocol::TaskId;
use crate::server::blobs::disk::{Error, io_error, read_piece};
use crate::server::blobs::outputs::Outputs;
use std::os::unix::fs::FileExt;

/// Longer than any mark, in bytes.
const LONGEST_MARK: u64 = 256;

fn mark(missing: u64) -> String {
    format!(
        "\n[{missing} bytes of output are missing here: the control plane lost them, and the runner had them no longer]\n"
    )
}

/// The end of an output of which bytes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Bytes that are missing.
    pub missing: u64,
    /// Length of what is kept in place of the output, with the mark at its end.
    pub kept: u64,
    is_marked: bool,
}

impl Hole {
    /// The hole at the end of an output that is to have `length` bytes, by what is stored of it: so many bytes, the last of
    /// which are `tail`.
    fn of(length: u64, stored: u64, tail: &[u8]) -> Self {
        // Bytes before the mark that was written before.
        let marked = (0..=tail.len() as u64).map(|back| (back, length.saturating_sub(stored - back)));
        let mut before = marked.filter(|(back, missing)| {
            let mark = mark(*missing);
            *missing > 0 && mark.len() as u64 == *back && tail.ends_with(mark.as_bytes())
        });
        match before.next() {
            Some((_, missing)) => Self { missing, kept: stored, is_marked: true },
            None => {
                let missing = length.saturating_sub(stored);
                let marked = if missing > 0 { mark(missing).len() as u64 } else { 0 };
                Self { missing, kept: stored + marked, is_marked: missing == 0 }
            }
        }
    }
}

impl Outputs {
    /// Looks for the hole at the end of an output of `length` bytes. Nothing is written.
    pub fn hole(&self, task: &TaskId, step: u32, length: u64) -> Result<Hole, Error> {
        let stored = self.length(task, step);
        let tail = self.read(task, step, stored.saturating_sub(LONGEST_MARK), LONGEST_MARK as usize)?;
        Ok(Hole::of(length, stored, &tail))
    }

    /// Ends an output of `length` bytes, of which the runner cannot send what is missing. Repeating it is harmless.
    /// Returns how many bytes are missing.
    pub fn end_with_hole(&self, task: &TaskId, step: u32, length: u64) -> Result<u64, Error> {
        let _turn = self.turn(task, step);
        let (path, file, stored) = self.open_to_write(task, step)?;
        let fail = io_error(&path);
        let tail = read_piece(&file, stored.saturating_sub(LONGEST_MARK), LONGEST_MARK as usize);
        let hole = Hole::of(length, stored, &tail.map_err(&fail)?);
        if !hole.is_marked {
            file.write_all_at(mark(hole.missing).as_bytes(), stored).map_err(|error| {
                let _ = file.set_len(stored);
                fail(error)
            })?;
        }
        self.settle(task, step, &file)?;
        Ok(hole.missing)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::Blobs;

    #[test]
    fn missing_bytes_are_counted_once_and_nothing_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let output = Blobs::open(dir.path(), true).unwrap().outputs;
        let task = TaskId::new("t").unwrap();
        let text = |step| String::from_utf8(output.read(&task, step, 0, 1000).unwrap()).unwrap();
        // Of many bytes, of fewer than the mark has, of all of them.
        for (step, kept, length) in [(0, "abc", 100_000), (1, "abc", 4), (2, "", 9)] {
            if !kept.is_empty() {
                output.append(&task, step, 0, kept.as_bytes()).unwrap();
            }
            let missing = length - kept.len() as u64;
            let seen = output.hole(&task, step, length).unwrap();
            assert_eq!((seen.missing, text(step)), (missing, kept.to_owned()), "a look writes nothing");
            for _ in 0..3 {
                assert_eq!(output.end_with_hole(&task, step, length).unwrap(), missing);
                assert_eq!(text(step), format!("{kept}{}", mark(missing)), "{step}");
                let after = output.hole(&task, step, length).unwrap();
                assert_eq!((after.missing, after.kept), (missing, seen.kept), "{step}");
                assert_eq!(after.kept, text(step).len() as u64, "{step}");
            }
        }
        output.append(&task, 3, 0, b"abcdef").unwrap();
        for length in [6, 3, 0] {
            assert_eq!(output.end_with_hole(&task, 3, length).unwrap(), 0);
            assert_eq!(text(3), "abcdef");
        }
    }
}
