//! Test results and the timings of earlier ones, as task agents call them: docs/protocol.md.

use crate::protocol::limits::TEST_RESULTS_BYTES;
use crate::protocol::{TaskId, TestResultsRecord, TestTimings};
use crate::server::api::runner::holder::Holder;
use crate::server::api::runner::uploads::complete;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::engine::commit::task;
use crate::server::engine::task::Call;
use crate::server::engine::test_timings;
use crate::server::junit::Cases;
use crate::server::state::{Shared, State as Server};
use crate::server::store::tables::results::{self, TestFile};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Tests that are stored at once: other writes have their turn in between.
const BATCH: usize = 500;
/// Files that are read at once: each may hold a text that is as long as a file.
static READERS: Semaphore = Semaphore::const_new(4);
/// Files that are being read, by task and path: the tests of one that is sent again meanwhile would be stored twice.
static READING: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    let task = "/api/v3/runner/tasks/{id}";
    Router::new()
        .route(&format!("{task}/test-results"), post(test_results))
        .route(&format!("{task}/test-timings"), get(timings))
}

async fn test_results(
    State(state): State<Shared>,
    task: Holder,
    Json(record): Json<TestResultsRecord>,
) -> Answer<Json<Value>> {
    let task = task.alive(&state).await?;
    complete(&state, &record.sha256, record.length).await?;
    let stopping = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping");
    let reading = Reading::begin(&task.id, &record.path).ok_or_else(|| {
        let why = format!("`{}` is being read already: send it again for the answer", record.path);
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
    })?;
    let permit = READERS.acquire().await.map_err(|_| stopping())?;
    let work = tokio::task::spawn_blocking(move || {
        // Held until the file is read, even when the caller hangs up meanwhile.
        let _held = (reading, permit);
        read_file(&state, &task, &record)
    });
    let file = work.await.map_err(|_| stopping())??;
    Ok(Json(json!({ "tests": file.tests, "message": file.message })))
}

/// A file that is being read, as long as this lives.
struct Reading((String, String));

impl Reading {
    /// Begins to read a file, unless another call reads it.
    fn begin(task: &TaskId, path: &str) -> Option<Self> {
        let name = (task.to_string(), path.to_owned());
        let mut reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
        // Not `then_some`: a value that is made for nobody ends at once, and its end wants the lock that is held here.
        reading.insert(name.clone()).then(|| Self(name))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
        reading.remove(&self.0);
    }
}

/// Reads a file and stores its tests as it goes, as long as the task takes them; that it was read is stored with the
/// last of them.
fn read_file(state: &Server, holder: &Holder, record: &TestResultsRecord) -> Answer<TestFile> {
    let (task, job, lease) = (&holder.id, &holder.job, state.settings.lease());
    // Reports of several steps often have one name (`unit/results.xml`, `integration/results.xml`): none replaces another.
    let mut record = record.clone();
    let given = record.path.clone();
    let mut same = 1;
    while let Some((is_it, file)) =
        state.store.read_blocking(|view| results::test_file(view, task, &record))?
    {
        // Named before: the answer was lost on the way, or two steps name one file.
        if is_it {
            return Ok(file);
        }
        same += 1;
        record.path = numbered(&given, same);
    }
    let mut file = TestFile { tests: 0, message: None };
    let mut cases = Cases::new(state.blobs.objects.file(&record.sha256)?);
    let mut is_first = true;
    loop {
        let mut batch = Vec::new();
        if record.length > TEST_RESULTS_BYTES {
            file.message = Some(format!("it is larger than {TEST_RESULTS_BYTES} bytes"));
        } else {
            for case in cases.by_ref().take(BATCH) {
                match case {
                    Ok(case) => batch.push(case),
                    Err(why) => file.message = Some(why.to_string()),
                }
            }
        }
        file.tests += batch.len() as u64;
        let is_last = batch.len() < BATCH;
        let (task, job, record, read) = (task.clone(), job.clone(), record.clone(), file.clone());
        let written = state.store.write_blocking(move |tx| {
            task::call_and(tx, &task, Call::Other, lease, Millis::now(), |tx| {
                if is_first && !is_last {
                    // The control plane may have stopped when it had stored a part.
                    results::delete_tests(tx, &task, &job, &record.path)?;
                }
                results::insert_tests(tx, &task, &job, &record.path, &batch)?;
                if is_last {
                    results::insert_test_file(tx, &task, &job, &record, &read)?;
                    if read.tests > 0 {
                        test_timings::stored(tx, &job)?;
                    }
                }
                Ok(())
            })
        })?;
        holder.answered(written)?;
        if is_last {
            return Ok(file);
        }
        is_first = false;
    }
}

/// The path of the `n`-th file of one name: `a/results.xml`, `a/results-2.xml`.
fn numbered(path: &str, n: u32) -> String {
    let begins = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[begins..].rfind('.').filter(|dot| *dot > 0) {
        Some(dot) => format!("{}-{n}{}", &path[..begins + dot], &path[begins + dot..]),
        None => format!("{path}-{n}"),
    }
}

async fn timings(State(state): State<Shared>, task: Holder) -> Answer<Json<TestTimings>> {
    let job = task.job.clone();
    let found = task.reads(&state, Call::Other, move |view| test_timings::of_job(view, &job)).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("there are no test timings for this job"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_are_numbered() {
        for (path, second) in [("r.xml", "r-2.xml"), ("a.b/r", "a.b/r-2"), ("a/.r", "a/.r-2"), ("", "-2")] {
            assert_eq!(numbered(path, 2), second);
        }
    }

    /// Two calls at the same time, as a proxy makes that sends one twice: the second must neither wait for ever nor
    /// let a third in beside the first.
    #[test]
    fn a_file_that_is_read_is_not_read_beside() {
        let (told, telling) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let task = TaskId::new("00000000-0000-0000-0000-00000000f11e").unwrap();
            let first = Reading::begin(&task, "t.xml");
            let beside = [Reading::begin(&task, "t.xml"), Reading::begin(&task, "t.xml")];
            let other = Reading::begin(&task, "u.xml").is_some();
            let seen = (first.is_some(), beside.iter().any(Option::is_some), other);
            drop(first);
            told.send((seen, Reading::begin(&task, "t.xml").is_some())).unwrap();
        });
        let seen = telling.recv_timeout(std::time::Duration::from_secs(240)).unwrap();
        assert_eq!(seen, ((true, false, true), true));
    }
}
