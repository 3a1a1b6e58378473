//! Source of timings: a file that was named, or what the task agent has fetched.
//!
//! The task agent knows from the claim whether there are any. Then it leaves the file [`offered`] in its
//! scratch directory before the first step, fetches while steps run, and renames what came to [`fetched`],
//! or writes why nothing came to [`failed`].

use crate::protocol::json;
use crate::tool::halt::TASK_DATA;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a fetch that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest file, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// The file of a scratch directory that says that there are timings.
pub(crate) fn offered(scratch: &Path) -> PathBuf {
    scratch.join("test-timings.offered")
}

/// The file of a scratch directory with the timings.
pub(crate) fn fetched(scratch: &Path) -> PathBuf {
    scratch.join("test-timings.json")
}

/// The file of a scratch directory that says why there are none after all.
pub(crate) fn failed(scratch: &Path) -> PathBuf {
    scratch.join("test-timings.failed")
}

/// Result of the search.
#[derive(Debug, PartialEq)]
pub(super) enum FoundTimings {
    /// Timings, as [`TestTimings`](crate::protocol::TestTimings).
    Timings(Value),
    /// There are none, for any node; with the reason.
    Nothing(String),
}

/// Reads `file`, or the timings that the task agent fetches for this job. The error is a sentence for people.
pub(super) fn find(
    file: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<FoundTimings, String> {
    if let Some(file) = file {
        return read(file).map(FoundTimings::Timings);
    }
    let Some(scratch) = variable(TASK_DATA).filter(|value| !value.is_empty()).map(PathBuf::from) else {
        return Ok(FoundTimings::Nothing(format!(
            "no timings: `{TASK_DATA}` is not set, so this is not a step of a job"
        )));
    };
    if !offered(&scratch).exists() {
        let why = "no timings: no earlier run of this job has stored test results";
        return Ok(FoundTimings::Nothing(why.to_owned()));
    }
    wait(&scratch, PATIENCE)
}

fn wait(scratch: &Path, patience: Duration) -> Result<FoundTimings, String> {
    // Other nodes may well have them and split by them. A share by name would leave tests out.
    let stop = |why: &str| {
        format!(
            "cannot split by timings: {why}; other nodes may have them, and shares would not fit together: \
             run the job again, or use `--split-by=name`"
        )
    };
    let deadline = Instant::now() + patience;
    loop {
        if fetched(scratch).exists() {
            return read(&fetched(scratch)).map(FoundTimings::Timings);
        }
        if let Ok(why) = std::fs::read_to_string(failed(scratch)) {
            return Err(stop(why.trim()));
        }
        if Instant::now() >= deadline {
            return Err(stop(&format!(
                "the control plane has not sent them after {} seconds",
                patience.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn read(file: &Path) -> Result<Value, String> {
    let fail = |why: String| format!("failed to read the timings in `{}`: {why}", file.display());
    let mut text = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text))
        .map_err(|e| fail(e.to_string()))?;
    if text.len() as u64 > LONGEST {
        return Err(fail(format!("longer than {LONGEST} bytes")));
    }
    match json::tree(&text) {
        Ok(timings @ Value::Object(_)) => Ok(timings),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
    .map_err(|why| {
        fail(format!(
            "{why} (expected {{\"filename\": {{NAME: SECONDS}}, \"classname\": ..., \"testname\": ...}})"
        ))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_task_agent_left_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let variable = |name: &str| (name == TASK_DATA).then(|| scratch.path().as_os_str().to_owned());
        let find = || find(None, &variable);
        assert!(matches!(find(), Ok(FoundTimings::Nothing(why)) if why.contains("no earlier run")));
        std::fs::write(offered(scratch.path()), "").unwrap();
        let error = wait(scratch.path(), Duration::from_millis(1)).unwrap_err();
        assert!(error.contains("has not sent") && error.contains("--split-by=name"), "{error}");
        std::fs::write(failed(scratch.path()), "the network is down\n").unwrap();
        assert!(find().unwrap_err().contains("the network is down; other nodes"));
        std::fs::write(fetched(scratch.path()), r#"{"classname":{"a":1.5}}"#).unwrap();
        assert!(matches!(find(), Ok(FoundTimings::Timings(timings)) if timings["classname"]["a"] == 1.5));
    }

    #[test]
    fn a_fetch_under_way_is_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(offered(scratch.path()), "").unwrap();
        let file = fetched(scratch.path());
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let part = file.with_extension("part");
            std::fs::write(&part, "{}").unwrap();
            std::fs::rename(part, file).unwrap();
        });
        let found = wait(scratch.path(), Duration::from_secs(300));
        assert_eq!(found, Ok(FoundTimings::Timings(serde_json::json!({}))));
        late.join().unwrap();
    }

    #[test]
    fn a_file_that_is_no_timings_is_explained() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "[1]", "{", "1"] {
            std::fs::write(file.path(), text).unwrap();
            let error = find(Some(file.path()), &|_| None).unwrap_err();
            assert!(error.contains("NAME: SECONDS"), "{text}: {error}");
        }
        assert!(
            find(Some(Path::new("/nowhere/t")), &|_| None).unwrap_err().contains("`/nowhere/t`: No such")
        );
    }
}
