//! A pipeline as it happens, as plain lines: its jobs, their steps and output, the reasons of what did not run.

use super::remote::{Remote, encode};
use crate::outcome::{Failure, exit};
use crate::protocol::WatchEvent;
use base64::Engine;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, ErrorKind, Write};

/// Longest line of the stream: an event of output has less than half a megabyte.
const LONGEST_LINE: u64 = 4 * 1024 * 1024;

/// Prints a pipeline until all of its workflows have ended. Returns the exit code for it.
pub(super) fn follow(remote: &Remote, pipeline: &str) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    let path = format!("/api/v3/runs/{}/events", encode(pipeline));
    let mut lines = BufReader::new(remote.open(&path)?);
    let mut view = View::default();
    loop {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut lines, LONGEST_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|e| lost(pipeline, &e.to_string()))?;
        if read == 0 {
            return Err(lost(pipeline, "the control plane closed it"));
        }
        let Some(data) = line.strip_prefix(b"data:") else { continue };
        let event = serde_json::from_slice(data)
            .map_err(|e| lost(pipeline, &format!("an event of it cannot be read: {e}")))?;
        let text = view.event(event);
        match out.write_all(&text).and_then(|()| out.flush()) {
            Ok(()) => {}
            // A reader that has gone away wants no more: the pipeline goes on all the same.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(exit::FAILED),
            Err(error) => return Err(Failure::unwritten(&error)),
        }
        if view.has_ended {
            return Ok(view.exit_code());
        }
    }
}

fn lost(pipeline: &str, why: &str) -> Failure {
    Failure::new(format!(
        "lost the events of pipeline {pipeline}: {why} (it goes on; `runlet admin pipeline show {pipeline}` says how it stands)"
    ))
}

/// A step record: job, parallel node, number.
type Step = (String, u32, u32);

/// State of the pipeline as it was told so far.
#[derive(Default)]
struct View {
    /// Status of each workflow that was not run again.
    workflows: BTreeMap<String, String>,
    replaced: HashSet<String>,
    /// Name, status and message of each job.
    jobs: HashMap<String, (String, String, Option<String>)>,
    steps: HashMap<Step, (String, String)>,
    /// Output of each step that waits for the end of its line.
    partial: HashMap<Step, Vec<u8>>,
    /// Records of how runners prepared, which say nothing of the job.
    hidden: HashSet<Step>,
    has_ended: bool,
}

impl View {
    /// The lines for an event.
    fn event(&mut self, event: WatchEvent) -> Vec<u8> {
        let mut out = Vec::new();
        match event {
            WatchEvent::Workflow { id, status, rerun_of, .. } => {
                self.replaced.extend(rerun_of);
                self.workflows.insert(id, status);
            }
            WatchEvent::Job { id, name, status, message, .. } => {
                let now = (name.clone(), status.clone(), message.clone());
                if self.jobs.get(&id) != Some(&now) && status != "blocked" {
                    let why = message.map_or_else(String::new, |why| format!(": {why}"));
                    out = format!("{name}: {}{why}\n", status.replace('_', " ")).into_bytes();
                }
                self.jobs.insert(id, now);
            }
            WatchEvent::Step { job_id, execution, step, name, kind, status, exit_code, message, .. } => {
                let key = (job_id, execution, step);
                if kind == "spinup_environment" && status != "infrastructure_fail" {
                    self.hidden.insert(key);
                    return out;
                }
                let job = self.label(&key);
                let known = self.steps.insert(key.clone(), (name.clone(), status.clone()));
                let title = name.lines().next().unwrap_or_default().to_owned();
                if known.is_none() && status != "not_run" {
                    out.extend(format!("{job} > {title}\n").into_bytes());
                }
                let is_new = known.is_none_or(|(_, before)| before != status);
                if is_new && !matches!(status.as_str(), "running" | "success" | "not_run") {
                    out.extend(self.rest(&key));
                    let code = exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                    let why = message.map_or_else(String::new, |why| format!(": {why}"));
                    let status = status.replace('_', " ");
                    out.extend(format!("{job} > {title}: {status}{code}{why}\n").into_bytes());
                }
            }
            WatchEvent::Output { job_id, execution, step, data, .. } => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
                let key = (job_id, execution, step);
                if !self.hidden.contains(&key) {
                    out = self.output(&key, &bytes);
                }
            }
            WatchEvent::End => {
                let open: Vec<Step> = self.partial.keys().cloned().collect();
                for key in open {
                    out.extend(self.rest(&key));
                }
                if self.workflows.is_empty() {
                    out.extend(
                        b"nothing ran: no workflow of the config applies here, or the config is wrong\n",
                    );
                }
                self.has_ended = true;
            }
        }
        out
    }

    fn label(&self, (job, execution, _): &Step) -> String {
        let name = self.jobs.get(job).map_or("?", |(name, ..)| name.as_str());
        if *execution == 0 { name.to_owned() } else { format!("{name} [{execution}]") }
    }

    /// Whole lines of output, with the name of their job.
    fn output(&mut self, key: &Step, bytes: &[u8]) -> Vec<u8> {
        let label = format!("{} | ", self.label(key)).into_bytes();
        let partial = self.partial.entry(key.clone()).or_default();
        partial.extend_from_slice(bytes);
        let whole = partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = partial.drain(..whole).collect();
        lines
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| [label.as_slice(), line].concat())
            .collect()
    }

    /// The last line of a step, which has no end.
    fn rest(&mut self, key: &Step) -> Vec<u8> {
        match self.partial.remove(key) {
            Some(rest) if !rest.is_empty() => {
                [format!("{} | ", self.label(key)).as_bytes(), &rest, b"\n"].concat()
            }
            _ => Vec::new(),
        }
    }

    /// A pipeline in which nothing ran has not done what anybody wanted of it.
    fn exit_code(&self) -> u8 {
        let mut counted = self.workflows.iter().filter(|(id, _)| !self.replaced.contains(*id));
        if !self.workflows.is_empty() && counted.all(|(_, status)| status == "success") {
            exit::OK
        } else {
            exit::FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &str, message: Option<&str>) -> WatchEvent {
        WatchEvent::Job {
            id: "j".into(),
            workflow_id: "w".into(),
            name: "build".into(),
            status: status.into(),
            started_at_ms: None,
            ended_at_ms: None,
            message: message.map(str::to_owned),
            cannot_run: false,
        }
    }

    fn output(text: &str) -> WatchEvent {
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        WatchEvent::Output { job_id: "j".into(), execution: 0, step: 1, offset: 0, data }
    }

    fn step(status: &str) -> WatchEvent {
        WatchEvent::Step {
            job_id: "j".into(),
            execution: 0,
            step: 1,
            name: "make\nall".into(),
            kind: "run".into(),
            status: status.into(),
            exit_code: (status == "failed").then_some(2),
            attempt: 1,
            background: false,
            started_at_ms: None,
            ended_at_ms: None,
            message: None,
        }
    }

    #[test]
    fn a_pipeline_is_told_in_lines() {
        let mut view = View::default();
        let workflow = |status: &str| WatchEvent::Workflow {
            id: "w".into(),
            name: "w".into(),
            status: status.into(),
            rerun_of: None,
        };
        let events = [
            workflow("running"),
            job("blocked", None),
            job("running", None),
            step("running"),
            output("one\ntw"),
            output("o\nthree"),
            step("failed"),
            job("failed", Some("why")),
            job("failed", Some("why")),
            workflow("failed"),
            WatchEvent::End,
        ];
        let text: Vec<u8> = events.into_iter().flat_map(|event| view.event(event)).collect();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "build: running\nbuild > make\nbuild | one\nbuild | two\nbuild | three\nbuild > make: failed with exit code 2\nbuild: failed: why\n"
        );
        assert_eq!((view.has_ended, view.exit_code()), (true, exit::FAILED));
    }

    #[test]
    fn a_pipeline_without_workflows_is_no_success() {
        let mut view = View::default();
        assert!(view.event(WatchEvent::End).starts_with(b"nothing ran: "));
        assert_eq!(view.exit_code(), exit::FAILED);
    }
}
