//! View of a watcher on a pipeline, gathered from its event stream to the end.

use crate::server::Server;
use base64::Engine;
use runlet::protocol::WatchEvent;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{BufRead, BufReader};

/// A step record.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenStep {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) execution: u32,
    pub(crate) record: u32,
    pub(crate) status: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) attempt: u32,
    pub(crate) background: bool,
    pub(crate) message: String,
    pub(crate) output: Vec<u8>,
}

/// A job and its records, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenJob {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) message: String,
    pub(crate) steps: Vec<SeenStep>,
}

/// A pipeline that has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) jobs: Vec<SeenJob>,
}

impl Seen {
    /// Watches a pipeline to its end.
    pub(crate) fn watch(server: &Server, pipeline: &str) -> Self {
        Self::watch_until(server, pipeline, |_| false)
    }

    /// Watches until `enough` says so, or to the end. The order of what is told is checked.
    pub(crate) fn watch_until(server: &Server, pipeline: &str, enough: impl Fn(&Self) -> bool) -> Self {
        let path = format!("/api/v3/runs/{pipeline}/events");
        let stream = server.client.open(&path, &server.token).unwrap();
        let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
        let mut seen = Self::default();
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap_or_else(|error| panic!("lost the events: {error}\n{seen}"));
            let Some(data) = line.strip_prefix("data: ") else { continue };
            match serde_json::from_str(data).unwrap() {
                WatchEvent::End => return seen,
                WatchEvent::Workflow { .. } => {}
                WatchEvent::Job { id, name, status, message, .. } => {
                    let at = *jobs.entry(id.clone()).or_insert_with(|| {
                        seen.jobs.push(SeenJob::default());
                        seen.jobs.len() - 1
                    });
                    let steps = std::mem::take(&mut seen.jobs[at].steps);
                    let message = message.unwrap_or_default();
                    seen.jobs[at] = SeenJob { id, name, status, message, steps };
                }
                WatchEvent::Step {
                    job_id,
                    execution,
                    step,
                    name,
                    kind,
                    status,
                    exit_code,
                    attempt,
                    background,
                    message,
                    ..
                } => {
                    let found = seen.jobs[jobs[&job_id]].record(execution, step);
                    let output = std::mem::take(&mut found.output);
                    let message = message.unwrap_or_default();
                    *found = SeenStep {
                        name,
                        kind,
                        execution,
                        record: step,
                        status,
                        exit_code,
                        attempt,
                        background,
                        message,
                        output,
                    };
                }
                WatchEvent::Output { job_id, execution, step, offset, data } => {
                    let found = seen.jobs[jobs[&job_id]].record(execution, step);
                    assert_eq!(
                        offset,
                        found.output.len() as u64,
                        "a hole in the output, or a part of it twice"
                    );
                    assert!(!found.status.is_empty(), "output of a step that nobody was told of");
                    found.output.extend(base64::engine::general_purpose::STANDARD.decode(data).unwrap());
                }
            }
            if enough(&seen) {
                return seen;
            }
        }
        panic!("the events ended too early:\n{seen}")
    }

    /// The job of this name.
    #[track_caller]
    pub(crate) fn job(&self, name: &str) -> &SeenJob {
        self.jobs.iter().find(|job| job.name == name).unwrap_or_else(|| panic!("no job `{name}` in\n{self}"))
    }
}

impl SeenJob {
    fn record(&mut self, execution: u32, record: u32) -> &mut SeenStep {
        let at = self.steps.iter().position(|step| step.execution == execution && step.record == record);
        let at = at.unwrap_or_else(|| {
            self.steps.push(SeenStep { execution, record, ..SeenStep::default() });
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }

    /// The step with this title; `title#2` is its second attempt, `title@1` that of the second node.
    pub(crate) fn step(&self, title: &str) -> Option<&SeenStep> {
        let (title, execution) = match title.rsplit_once('@') {
            Some((title, node)) if node.parse::<u32>().is_ok() => (title, node.parse::<u32>().ok()),
            _ => (title, None),
        };
        let (title, attempt) = match title.rsplit_once('#') {
            Some((title, attempt)) if attempt.parse::<u32>().is_ok() => (title, attempt.parse::<u32>().ok()),
            _ => (title, None),
        };
        self.steps.iter().find(|step| {
            step.name == title
                && execution.is_none_or(|node| step.execution == node)
                && attempt.is_none_or(|attempt| step.attempt == attempt)
        })
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for job in &self.jobs {
            writeln!(f, "job {}: {} {:?}", job.name, job.status, job.message)?;
            for step in &job.steps {
                let mut shown = String::from_utf8_lossy(&step.output).into_owned();
                if shown.len() > 2000 {
                    let cut = (0..=2000).rev().find(|&at| shown.is_char_boundary(at)).unwrap_or(0);
                    shown.truncate(cut);
                    write!(shown, "... ({} bytes)", step.output.len())?;
                }
                writeln!(
                    f,
                    "  {}.{} {:?} (attempt {}, {}): {} {:?} {:?}\n    {}",
                    step.execution,
                    step.record,
                    step.name,
                    step.attempt,
                    step.kind,
                    step.status,
                    step.exit_code,
                    step.message,
                    shown.replace('\n', "\n    ")
                )?;
            }
        }
        Ok(())
    }
}
