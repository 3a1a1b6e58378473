//! Faults of the ends of jobs: bytes that are missing or there twice, statuses, steps that ran twice.

use crate::plane::Plane;
use crate::work::{self, FIRST, Printing, SECOND, SPLIT, SPLITTER};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Longest that output of a cancelled job may take to arrive behind its end.
const LONGEST_LATE: Duration = Duration::from_secs(300);

/// A row of the table, or a part of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    /// How often the fault was there.
    pub(crate) times: u64,
    pub(crate) jobs: u64,
    /// Jobs that ended by the fault, as is said of it: their agent or their step was killed, or they were cancelled.
    pub(crate) declared: u64,
    pub(crate) bytes_lost: u64,
    pub(crate) bytes_twice: u64,
    pub(crate) processes_left: u64,
    pub(crate) wrong_status: u64,
    pub(crate) steps_twice: u64,
    /// How often each part was killed, in the order of `Victim::NAMED`.
    pub(crate) killed: [u64; 4],
    /// How often the network was hurt.
    pub(crate) network: u64,
    /// Each finding in words.
    pub(crate) findings: Vec<String>,
}

impl Count {
    /// Adds what another part has counted, with its findings.
    pub(crate) fn add(&mut self, part: Self) {
        self.times += part.times;
        self.jobs += part.jobs;
        self.declared += part.declared;
        self.bytes_lost += part.bytes_lost;
        self.bytes_twice += part.bytes_twice;
        self.processes_left += part.processes_left;
        self.wrong_status += part.wrong_status;
        self.steps_twice += part.steps_twice;
        self.killed.iter_mut().zip(part.killed).for_each(|(sum, part)| *sum += part);
        self.network += part.network;
        self.findings.extend(part.findings);
    }

    /// Whether all that must be zero is.
    pub(crate) fn is_clean(&self) -> bool {
        self.bytes_lost + self.bytes_twice + self.processes_left + self.wrong_status + self.steps_twice == 0
            && self.findings.is_empty()
    }
}

/// Names of the rows whose fault was not there once: nothing is known about it.
pub(crate) fn not_exercised(rows: &[(String, Count)]) -> Vec<&str> {
    rows.iter().filter(|(_, count)| count.times == 0).map(|(name, _)| name.as_str()).collect()
}

/// Deeds to jobs on purpose, and the least that must be known of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Jobs whose task agent was killed, or stopped by its fence: they may end as infrastructure failures.
    pub(crate) agent_killed: BTreeSet<String>,
    /// Task agents that were killed before they had anything of a job.
    pub(crate) unknown_agents: u64,
    /// Jobs whose step was killed: they may fail.
    pub(crate) step_killed: BTreeSet<String>,
    /// Jobs that runners refuse: they must end as infrastructure failures, without a step.
    pub(crate) refused: BTreeSet<String>,
    /// Every pipeline has a job that splits tests.
    pub(crate) splits: bool,
    /// Bytes of the output of steps that were in the runner's keeping when it was hurt.
    pub(crate) held: BTreeMap<String, u64>,
    /// Output may be lost where the log says so, in an infrastructure failure.
    pub(crate) may_lose: bool,
    /// Pipelines that were cancelled, and when that had been answered.
    pub(crate) cancelled: BTreeMap<String, SystemTime>,
    /// Longest that a job may take to end after its cancel.
    pub(crate) longest_cancel: Duration,
    /// Folder of what steps say of themselves beside their output.
    pub(crate) wrote: PathBuf,
}

impl Done {
    /// Whether output of a cancelled pipeline may still be on its way.
    pub(crate) fn may_come(&self, name: &str) -> bool {
        self.cancelled.get(name).is_some_and(|at| at.elapsed().is_ok_and(|since| since < LONGEST_LATE))
    }
}

/// Looks at everything that a pipeline left.
pub(crate) fn check(
    plane: &Plane,
    name: &str,
    jobs: &[Value],
    done: &mut Done,
    count: &mut Count,
) -> Result<(), String> {
    let mut first_succeeded = false;
    let mut wanted =
        vec![(format!("{name}a"), FIRST.as_slice(), true), (format!("{name}b"), SECOND.as_slice(), false)];
    if done.splits {
        wanted.push((format!("{name}c0"), SPLIT.as_slice(), false));
    }
    for (job_name, printing, is_first) in wanted {
        let is_splitter = job_name.ends_with("c0");
        let shown = if is_splitter { SPLITTER } else { job_name.as_str() };
        let Some(job) = jobs.iter().find(|job| job["name"] == shown) else {
            count.wrong_status += 1;
            count.findings.push(format!("{job_name} is not there"));
            continue;
        };
        let status = job["status"].as_str().unwrap_or("none");
        if !is_first && !is_splitter && !first_succeeded && status == "not_run" {
            continue;
        }
        count.jobs += 1;
        if is_first {
            first_succeeded = status == "success";
        }
        let is_refused = done.refused.contains(&job_name);
        let cancelled = done.cancelled.get(name).copied();
        let is_cancelled = cancelled.is_some() && matches!(status, "canceled" | "not_run");
        if let Some(at) = cancelled {
            check_cancelled(job, &job_name, at, is_cancelled, done, count);
        }
        let whole = status == "success" && !is_refused;
        let by_rule = is_refused && status == "infrastructure_fail";
        let by_agent = status == "infrastructure_fail"
            && (done.may_lose || done.agent_killed.contains(&job_name) || {
                let known = done.unknown_agents > 0;
                done.unknown_agents = done.unknown_agents.saturating_sub(1);
                known
            });
        // Steps need space for archives, too, and say that they have none.
        let by_step = status == "failed" && (done.may_lose || done.step_killed.contains(&job_name));
        if by_rule || is_cancelled || !is_refused && (by_agent || by_step) {
            count.declared += 1;
        } else if !whole {
            count.wrong_status += 1;
            let id = job["id"].as_str().unwrap_or_default();
            let why = plane.call("GET", &format!("/api/v3/jobs/{id}"), None).unwrap_or_default();
            count.findings.push(format!("{job_name} ended as {status}: {}", told(&why)));
        }
        for step in printing {
            check_step(plane, job, &job_name, *step, whole, done, count)?;
        }
        if is_first && whole {
            check_stored(plane, job, &job_name, count)?;
        }
    }
    Ok(())
}

/// Looks at the end of a job whose cancel was answered then: it is its own only where it came before, the cancel's comes
/// soon, and no step begins behind it.
fn check_cancelled(
    job: &Value,
    name: &str,
    at: SystemTime,
    is_cancelled: bool,
    done: &Done,
    count: &mut Count,
) {
    let stopped = job["stopped_at"].as_str().and_then(|text| humantime::parse_rfc3339(text).ok());
    let Some(stopped) = stopped else { return };
    // The control plane tells milliseconds.
    let late = stopped.duration_since(at).unwrap_or_default();
    if !is_cancelled && late > Duration::from_millis(1) {
        count.wrong_status += 1;
        count.findings.push(format!("{name} ended as its own {late:?} behind its cancel"));
    }
    if late > done.longest_cancel {
        count.findings.push(format!("{name} ended {late:?} behind its cancel"));
    }
    for step in 0..10 {
        let began =
            done.wrote.join(format!("{name}.{step}.began")).metadata().and_then(|file| file.modified());
        let behind = began.ok().and_then(|began| began.duration_since(stopped).ok()).unwrap_or_default();
        if behind > Duration::from_millis(20) {
            count.findings.push(format!("{name}.{step} began {behind:?} behind the end of its job"));
        }
    }
}

/// Messages of the control plane about a job's end.
fn told(job: &Value) -> String {
    let attributes = &job["data"]["attributes"];
    let text = if attributes.is_null() { job.to_string() } else { attributes.to_string() };
    let start = text.find("\"messages\"").or_else(|| text.find("\"message\"")).unwrap_or(0);
    text[start..].chars().take(400).collect()
}

fn check_step(
    plane: &Plane,
    job: &Value,
    job_name: &str,
    step: Printing,
    whole: bool,
    done: &Done,
    count: &mut Count,
) -> Result<(), String> {
    let name = format!("{job_name}.{}", step.record);
    let output = plane.output(job, step.record)?;
    let must = if whole {
        work::expected(&name, step.lines).len() as u64
    } else {
        done.held.get(&name).copied().unwrap_or(0)
    };
    let seen = look(&name, step.lines, &output);
    let marked = done.may_lose && String::from_utf8_lossy(&output).contains("bytes of output were lost");
    let lost = if marked { 0 } else { seen.holes + must.saturating_sub(seen.covered) };
    if lost + seen.twice > 0 {
        count.findings.push(format!(
            "{name}: {lost} bytes lost, {} twice or foreign; the output has {} bytes, {must} were there",
            seen.twice,
            output.len()
        ));
    }
    count.bytes_lost += lost;
    count.bytes_twice += seen.twice;
    Ok(())
}

/// An output beside what it should be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Bytes of it that are right, holes before them included.
    covered: u64,
    /// Bytes of lines that are missing before one that is there.
    holes: u64,
    /// Bytes of lines that are there again, or that nobody wrote.
    twice: u64,
}

fn look(step: &str, lines: u32, output: &[u8]) -> Seen {
    let length = |line: u32| format!("{step} {line}\n").len() as u64;
    let mut seen = Seen::default();
    let mut next = 1;
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        let number = work::numbered(line.trim_ascii_end()).filter(|(name, _)| *name == step).map(|(_, n)| n);
        match number {
            Some(number) if is_whole && number >= next && number <= lines => {
                let hole: u64 = (next..number).map(length).sum();
                seen.holes += hole;
                seen.covered += hole + line.len() as u64;
                next = number + 1;
            }
            Some(_) if is_whole => seen.twice += line.len() as u64,
            // The rest of an output that ends in the middle of a line, or behind it a line of the agent's own.
            _ if format!("{step} {next}\n").as_bytes().starts_with(line) => seen.covered += line.len() as u64,
            _ if numbered_part(step, line) => seen.twice += line.len() as u64,
            _ => {}
        }
    }
    seen
}

/// Whether a line that is not as it should be has something of this step's output.
fn numbered_part(step: &str, line: &[u8]) -> bool {
    String::from_utf8_lossy(line).matches(step).count() > 1
}

fn check_stored(plane: &Plane, job: &Value, name: &str, count: &mut Count) -> Result<(), String> {
    let id = job["id"].as_str().unwrap_or_default();
    let found = plane.call("GET", &format!("/api/v3/jobs/{id}/artifacts"), None)?;
    let artifacts = found["data"].as_array().cloned().unwrap_or_default();
    let wanted = work::artifact();
    if artifacts.len() > 1 {
        count.bytes_twice += wanted.len() as u64;
        count.findings.push(format!("{name} has {} artifacts", artifacts.len()));
    }
    let url = artifacts.first().and_then(|one| one["attributes"]["url"].as_str()).unwrap_or_default();
    let is_there = !url.is_empty() && plane.bytes("GET", plane.url_path(url), None)? == wanted.as_bytes();
    if !is_there {
        count.bytes_lost += wanted.len() as u64;
        count.findings.push(format!("{name} has no whole artifact"));
    }
    let tests = plane.bytes("GET", &format!("/api/v3/jobs/{id}/tests"), None)?;
    let tests = tests.iter().filter(|byte| **byte == b'\n').count();
    if tests != 1 {
        count.wrong_status += 1;
        count.findings.push(format!("{name} has {tests} test results"));
    }
    Ok(())
}

/// Steps that are in the ledger more than once.
pub(crate) fn check_ledger(folder: &Path, count: &mut Count) {
    let ledger = std::fs::read_to_string(folder.join("ledger")).unwrap_or_default();
    let mut times = BTreeMap::<&str, u64>::new();
    for line in ledger.lines() {
        *times.entry(line).or_default() += 1;
    }
    for (step, times) in times.into_iter().filter(|(_, times)| *times > 1) {
        count.steps_twice += times - 1;
        count.findings.push(format!("{step} ran {times} times"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_was_never_there_proves_nothing() {
        let mut sum = Count::default();
        let once = Count { times: 1, jobs: 2, ..Count::default() };
        let found = Count { findings: vec!["something".to_owned()], ..once.clone() };
        [once.clone(), found].into_iter().for_each(|part| sum.add(part));
        assert_eq!((sum.times, sum.jobs, sum.is_clean()), (2, 4, false));
        let rows = [("there".to_owned(), once), ("away".to_owned(), Count::default())];
        assert!(rows[1].1.is_clean());
        assert_eq!(not_exercised(&rows), ["away"]);
    }

    #[test]
    fn lost_and_doubled_lines_are_counted() {
        let whole = work::expected("p1a.1", 12);
        let length = whole.len() as u64;
        assert_eq!(look("p1a.1", 12, whole.as_bytes()), Seen { covered: length, holes: 0, twice: 0 });
        let hole = whole.replace("p1a.1 5\n", "");
        assert_eq!(look("p1a.1", 12, hole.as_bytes()), Seen { covered: length, holes: 8, twice: 0 });
        let twice = whole.replace("p1a.1 5\n", "p1a.1 5\np1a.1 5\n");
        assert_eq!(look("p1a.1", 12, twice.as_bytes()), Seen { covered: length, holes: 0, twice: 8 });
        let cut = &whole.as_bytes()[..whole.len() - 3];
        assert_eq!(look("p1a.1", 12, cut), Seen { covered: length - 3, holes: 0, twice: 0 });
        assert_eq!(look("p1a.1", 12, b"p1a.1 1\n\nkilled by signal 9\n").covered, 8);
    }
}
