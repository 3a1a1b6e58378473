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

impl Outputs {
    /// Ends an output of `length` bytes, of which the runner cannot send what is missing. Repeating it is harmless.
    /// Returns how many bytes are missing.
    pub fn end_with_hole(&self, task: &TaskId, step: u32, length: u64) -> Result<u64, Error> {
        let _turn = self.turn(task, step);
        let (path, file, stored) = self.open_to_write(task, step)?;
        let fail = io_error(&path);
        let tail = read_piece(&file, stored.saturating_sub(LONGEST_MARK), LONGEST_MARK as usize);
        let tail = tail.map_err(&fail)?;
        // Bytes before the mark that was written by the same call before.
        let marked = (0..=tail.len() as u64).map(|back| (back, length.saturating_sub(stored - back)));
        let before = marked.filter(|(_, missing)| *missing > 0);
        let mut before = before.filter(|(back, missing)| {
            let mark = mark(*missing);
            mark.len() as u64 == *back && tail.ends_with(mark.as_bytes())
        });
        let missing = match before.next() {
            Some((_, missing)) => missing,
            None => {
                let missing = length.saturating_sub(stored);
                if missing > 0 {
                    file.write_all_at(mark(missing).as_bytes(), stored).map_err(|error| {
                        let _ = file.set_len(stored);
                        fail(error)
                    })?;
                }
                missing
            }
        };
        self.settle(task, step, &file)?;
        Ok(missing)
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
            for _ in 0..3 {
                assert_eq!(output.end_with_hole(&task, step, length).unwrap(), missing);
                assert_eq!(text(step), format!("{kept}{}", mark(missing)), "{step}");
            }
        }
        output.append(&task, 3, 0, b"abcdef").unwrap();
        for length in [6, 3, 0] {
            assert_eq!(output.end_with_hole(&task, 3, length).unwrap(), 0);
            assert_eq!(text(3), "abcdef");
        }
    }
}
