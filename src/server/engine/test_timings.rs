//! How long the tests of earlier runs took, for nodes that share tests by it.
//!
//! Which run a job goes by is decided when the job is queued, not when a node asks: a run that ends in
//! between must not give one node other numbers than the next, or their shares would not fit together.

use crate::protocol::TestTimings;
use crate::server::ids::JobId;
use crate::server::store::tables::jobs_with_tests::{self, By};
use crate::server::store::{Error, Tx, View};
use std::collections::BTreeMap;

/// Most bytes of an answer, about. Beyond it the quickest tests are left out.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Notes that a job has stored test results.
pub fn stored(tx: &Tx<'_>, job: &JobId) -> Result<(), Error> {
    jobs_with_tests::insert_job(tx, job)
}

/// Chooses the timings of a job: those of the latest run of the job of the same name, of any branch, that
/// has ended and stored some.
pub fn choose(tx: &Tx<'_>, job: &JobId) -> Result<(), Error> {
    let latest = jobs_with_tests::latest(tx, job)?;
    jobs_with_tests::set_chosen(tx, job, latest.as_ref())
}

/// The timings that were chosen for a job, of all nodes of that run. `None` when there are none.
pub fn of_job(view: &View, job: &JobId) -> Result<Option<TestTimings>, Error> {
    of_job_within(view, job, MOST_BYTES)
}

fn of_job_within(view: &View, job: &JobId, most_bytes: usize) -> Result<Option<TestTimings>, Error> {
    let Some(chosen) = jobs_with_tests::chosen(view, job)? else { return Ok(None) };
    let mut room = most_bytes;
    // Files and classes first: those are what jobs split by.
    Ok(Some(TestTimings {
        filename: sums(view, &chosen, By::File, &mut room)?,
        classname: sums(view, &chosen, By::Classname, &mut room)?,
        testname: sums(view, &chosen, By::Name, &mut room)?,
    }))
}

/// Seconds by a property of tests, the longest first as long as there is room.
fn sums(view: &View, job: &JobId, by: By, room: &mut usize) -> Result<BTreeMap<String, f64>, Error> {
    let mut sums = BTreeMap::new();
    jobs_with_tests::each_sum(view, job, by, |name, seconds| {
        // The names to split are separated by white space.
        if name.contains(|c: char| c.is_ascii_whitespace()) {
            return true;
        }
        // Quotes, colon, comma, and digits to a microsecond.
        let size = name.len() + 20;
        if size > *room {
            return false;
        }
        *room -= size;
        sums.insert(name, (seconds * 1e6).round() / 1e6);
        true
    })?;
    Ok(sums)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::protocol::TaskId;
    use crate::server::store::Store;
    use crate::server::store::scene::{self, insert_job};
    use crate::server::store::status::TestResult;
    use crate::server::store::tables::results::{self, TestCase};

    fn result(
        tx: &Tx<'_>,
        job: &str,
        name: &str,
        classname: &str,
        file: Option<&str>,
        time: f64,
    ) -> Result<(), Error> {
        let case = TestCase {
            name: name.to_owned(),
            classname: classname.to_owned(),
            file: file.map(str::to_owned),
            run_time: time,
            result: TestResult::Success,
            message: String::new(),
            place: None,
        };
        results::insert_tests(tx, &TaskId::new("t").unwrap(), &job.into(), "p", &[case])?;
        stored(tx, &job.into())
    }

    fn with_store<T: Send + 'static>(work: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static) -> T {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), false, |_| ()).unwrap();
        store.write_blocking(move |tx| scene::without_references(tx, work)).unwrap()
    }

    #[test]
    fn the_latest_run_that_has_ended_is_chosen() {
        let chosen = with_store(|tx| {
            let of = |id: &str| {
                insert_job(tx, id, "test", "r", None)?;
                choose(tx, &id.into())?;
                let chosen = jobs_with_tests::chosen(tx, &id.into())?;
                Ok::<_, Error>(chosen.map(String::from).unwrap_or_default())
            };
            let mut all = vec![of("none")?];
            for (id, name, project, stopped) in [
                ("first", "test", "r", Some(5)),
                ("second", "test", "r", Some(4)),
                ("running", "test", "r", None),
                ("other-name", "build", "r", Some(6)),
                ("other-project", "test", "s", Some(7)),
            ] {
                insert_job(tx, id, name, project, stopped)?;
                result(tx, id, "n", "c", None, 1.0)?;
            }
            insert_job(tx, "without-tests", "test", "r", Some(8))?;
            all.push(of("some")?);
            scene::stop_job(tx, "running")?;
            all.push(of("later")?);
            // The choice stays.
            all.push(jobs_with_tests::chosen(tx, &"some".into())?.map(String::from).unwrap_or_default());
            Ok(all)
        });
        assert_eq!(chosen, ["", "second", "running", "second"]);
    }

    #[test]
    fn times_are_added_up_within_bounds() {
        let (all, some, none) = with_store(|tx| {
            insert_job(tx, "old", "test", "r", Some(1))?;
            insert_job(tx, "new", "test", "r", None)?;
            for (name, classname, file, time) in [
                ("works", "A", Some("a.rb"), 0.1),
                ("works", "A", Some("a.rb"), 0.2),
                ("works", "B", Some("b.rb"), 1.0),
                ("with space", "", None, 2.0),
                ("quick", "C", None, 0.0),
            ] {
                result(tx, "old", name, classname, file, time)?;
            }
            let none = of_job(tx, &"new".into())?;
            choose(tx, &"new".into())?;
            Ok((of_job(tx, &"new".into())?, of_job_within(tx, &"new".into(), 24)?, none))
        });
        assert_eq!(none, None);
        let all = serde_json::to_string(&all).unwrap();
        let expected =
            r#"{"filename":{"a.rb":0.3,"b.rb":1.0},"classname":{"A":0.3,"B":1.0},"testname":{"works":1.3}}"#;
        assert_eq!(all, expected);
        assert_eq!(serde_json::to_string(&some).unwrap(), r#"{"filename":{"b.rb":1.0}}"#);
    }
}
