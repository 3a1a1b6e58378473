//! `secret add`: a value that a step has come by, masked from then on in all that the job prints.
//!
//! The values go to the task agent by a file in the task's private folder: a JSON string in each line, so that a value
//! may have several. Each is added by one write, at the end.

use super::halt::TASK_DATA;
use crate::outcome::exit;
use crate::protocol::json;
use crate::system::os::OpenOptionsExt;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Most bytes of the file: of all that the steps of a job may add.
pub(crate) const MOST_BYTES: u64 = 1024 * 1024;
/// Shorter values are in every text.
const SHORTEST: usize = 4;

/// The file in the private folder of a task.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("secrets")
}

/// Returns the values of complete lines and their length in bytes; lines that are not JSON strings are skipped.
pub(crate) fn values(bytes: &[u8]) -> (Vec<String>, u64) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..end].split(|byte| *byte == b'\n');
    (lines.filter_map(|line| json::read(line).ok()).collect(), end as u64)
}

/// Adds the value that `input` holds, by the variables of the step.
pub(super) fn add(input: &mut dyn Read, variable: impl Fn(&str) -> Option<OsString>) -> Result<u8, String> {
    let mut bytes = Vec::new();
    let read = input.take(MOST_BYTES).read_to_end(&mut bytes);
    read.map_err(|e| format!("failed to read the value from standard input: {e}"))?;
    let value =
        String::from_utf8(bytes).map_err(|_| "cannot mask the value: it is not UTF-8 text".to_owned())?;
    if value.trim().chars().count() < SHORTEST {
        return Err(format!(
            "cannot mask a value of less than {SHORTEST} characters: any text has those (it is read from standard input)"
        ));
    }
    let folder = variable(TASK_DATA).filter(|folder| !folder.is_empty()).ok_or_else(|| {
        format!("cannot mask the value: `{TASK_DATA}` is not set, so this is not a step of a job (or its environment was cleared, as `sudo` does)")
    })?;
    let file = file(Path::new(&folder));
    let fail =
        |e: std::io::Error| format!("cannot mask the value: failed to write `{}`: {e}", file.display());
    let line = format!("{}\n", serde_json::Value::from(value));
    let mut open = OpenOptions::new().create(true).append(true).mode(0o600).open(&file).map_err(fail)?;
    let length = open.metadata().map_err(fail)?.len();
    if length + line.len() as u64 > MOST_BYTES {
        return Err(format!(
            "cannot mask the value: the job has added {MOST_BYTES} bytes of secrets already"
        ));
    }
    open.write_all(line.as_bytes()).map_err(fail)?;
    Ok(exit::OK)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_added_line_by_line_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let variable = |name: &str| (name == TASK_DATA).then(|| folder.path().as_os_str().to_owned());
        for value in ["hunter22\n", "two\nlines \"é\" of it"] {
            add(&mut value.as_bytes(), variable).unwrap();
        }
        let mut bytes = std::fs::read(file(folder.path())).unwrap();
        let length = bytes.len() as u64;
        bytes.extend_from_slice(b"\"half");
        let expected = ["hunter22\n", "two\nlines \"é\" of it"].map(str::to_owned).to_vec();
        assert_eq!(values(&bytes), (expected, length));
        assert!(add(&mut &b" abc\n"[..], variable).unwrap_err().contains("less than 4"));
        assert!(add(&mut &b"\xff\xff\xff\xff"[..], variable).unwrap_err().contains("UTF-8"));
        assert!(add(&mut &b"hunter22"[..], |_| None).unwrap_err().contains("not a step"));
        let much = vec![b'x'; MOST_BYTES as usize];
        assert!(add(&mut &much[..], variable).unwrap_err().contains("already"));
    }
}
