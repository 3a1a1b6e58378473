//! Test timings for `circleci-agent tests split`, fetched beside the steps: the command itself has no token.
//!
//! `tool::suite::timings_source` says which files these are and waits for them. Nothing here delays a step or
//! fails the task; a step that needs timings which did not come fails by itself, with the reason.

use super::output::report::Reporter;
use crate::http::Body;
use crate::protocol::Task;
use crate::system::{opening, threads};
use crate::tool::suite::timings_source::{failed, fetched, offered};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A fetch that may still be under way.
pub(super) struct Fetch {
    /// Whether the task is over. Held while files are written: none may appear in a folder being removed.
    over: Arc<Mutex<bool>>,
}

impl Fetch {
    /// Starts it, if the control plane has timings.
    pub(super) fn start(task: &Task, scratch: &Path, reporter: &Reporter) -> Self {
        let over = Arc::new(Mutex::new(false));
        if !task.has_test_timings {
            return Self { over };
        }
        if let Err(error) = opening::write(&offered(scratch), &[]) {
            ::log::warn!("failed to write `{}`: {error}", offered(scratch).display());
            return Self { over };
        }
        let work = {
            let (over, scratch, reporter) = (over.clone(), scratch.to_owned(), reporter.clone());
            move || {
                let answer = reporter.call::<Value>("GET", "test-timings", Body::Empty);
                let answer = answer.map(|timings| timings.to_string()).map_err(|error| error.to_string());
                let over = over.lock().unwrap_or_else(PoisonError::into_inner);
                if !*over {
                    leave(&scratch, answer);
                }
            }
        };
        if let Err(error) = threads::start("timings", work) {
            leave(scratch, Err(format!("failed to start a thread: {error}")));
        }
        Self { over }
    }

    /// Lets nothing more appear in the scratch folder.
    pub(super) fn stop(self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Writes what came, or why nothing did; whole, or not at all.
fn leave(scratch: &Path, answer: Result<String, String>) {
    let write = |file: PathBuf, text: &str| {
        let part = file.with_extension("part");
        opening::write(&part, text.as_bytes())
            .and_then(|_| fs::rename(&part, &file))
            .map_err(|e| format!("failed to write `{}`: {e}", file.display()))
    };
    let why = match answer.and_then(|timings| write(fetched(scratch), &timings)) {
        Ok(()) => return,
        Err(why) => why,
    };
    ::log::warn!("there are no test timings for the steps: {why}");
    if let Err(error) = write(failed(scratch), &why) {
        ::log::warn!("{error}");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_left_whole_and_so_is_the_reason() {
        let scratch = tempfile::tempdir().unwrap();
        leave(scratch.path(), Ok("{}".to_owned()));
        assert_eq!(fs::read_to_string(fetched(scratch.path())).unwrap(), "{}");
        leave(scratch.path(), Err("why".to_owned()));
        assert_eq!(fs::read_to_string(failed(scratch.path())).unwrap(), "why");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    }
}
