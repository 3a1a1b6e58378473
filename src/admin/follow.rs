//! A pipeline as it happens, as plain lines: its jobs, their steps and output, the reasons of what did not run.

use super::remote::{Remote, encode};
use super::verb::text;
use crate::outcome::{Failure, exit};
use crate::protocol::WatchEvent;
use crate::terminal::{self, Lines, each_line, plain};
use base64::Engine;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Write};

/// Longest line of the stream: an event of output has less than half a megabyte.
const LONGEST_LINE: u64 = 4 * 1024 * 1024;

/// Prints a pipeline until all of its workflows have ended. Returns the exit code for it.
pub(super) fn follow(remote: &Remote, pipeline: &str) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    let path = format!("/api/v3/runs/{}/events", encode(pipeline));
    let mut lines = BufReader::new(remote.open(&path)?);
    let shared = shared_names(remote, pipeline)?;
    let mut view = View { terminal: out.is_terminal(), shared, ..View::default() };
    loop {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut lines, LONGEST_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|e| lost(pipeline, &e.to_string()))?;
        if read == 0 {
            return Err(lost(pipeline, "the control plane closed it"));
        }
        let text = if let Some(data) = line.strip_prefix(b"data:") {
            let mut event = serde_json::from_slice(data)
                .map_err(|e| lost(pipeline, &format!("an event of it cannot be read: {e}")))?;
            if let WatchEvent::Job { id, status, message: message @ None, .. } = &mut event {
                *message = if status == "queued" { reason(remote, id)? } else { None };
            }
            let mut text = view.event(event);
            if view.has_ended && view.workflows.is_empty() {
                text.extend(nothing_ran(remote, pipeline)?.into_bytes());
            }
            text
        } else if line.starts_with(b":") {
            // A comment says that it was quiet for a while: a runner that was there may be gone.
            let mut text = Vec::new();
            for id in view.unexplained() {
                text.extend(reason(remote, &id)?.map(|why| view.explained(&id, why)).unwrap_or_default());
            }
            text
        } else {
            continue;
        };
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

/// Names that jobs of several workflows have: known before the first line, lines of such jobs name the workflow.
fn shared_names(remote: &Remote, pipeline: &str) -> Result<HashSet<String>, Failure> {
    let workflows = remote.list(&format!("/api/v2/pipeline/{}/workflow", encode(pipeline)))?;
    let (mut seen, mut shared) = (BTreeMap::<String, String>::new(), HashSet::new());
    for workflow in workflows.iter().filter(|_| workflows.len() > 1) {
        let of = text(workflow, "name");
        for job in remote.list(&format!("/api/v2/workflow/{}/job", encode(text(workflow, "id"))))? {
            let name = text(&job, "name");
            match seen.insert(name.to_owned(), of.to_owned()) {
                Some(other) if other != of => {
                    shared.insert(plain(name));
                }
                _ => {}
            }
        }
    }
    Ok(shared)
}

/// The outcome of a pipeline without workflows.
fn nothing_ran(remote: &Remote, pipeline: &str) -> Result<String, Failure> {
    let told = remote.call("GET", &format!("/api/v2/pipeline/{}", encode(pipeline)), None)?;
    Ok(plain(&why_nothing_ran(&told)))
}

fn why_nothing_ran(pipeline: &Value) -> String {
    let errors: Vec<&str> =
        pipeline["errors"].as_array().into_iter().flatten().map(|error| text(error, "message")).collect();
    if !errors.is_empty() {
        return format!("nothing ran: the pipeline has errors:\n{}\n", errors.join("\n"));
    }
    let named = |kind: &str| pipeline["vcs"][kind].as_str().map(|name| format!("the {kind} `{name}`"));
    let what = named("tag").or_else(|| named("branch")).unwrap_or_else(|| "this pipeline".to_owned());
    format!(
        "nothing ran: no workflow of the config applies to {what} (filters and conditions leave all of them out)\n"
    )
}

/// Why a job waits, which the control plane works out when it is asked; `None` where a runner is about to take it.
fn reason(remote: &Remote, job: &str) -> Result<Option<String>, Failure> {
    let told = remote.call("GET", &format!("/api/v3/jobs/{}", encode(job)), None)?;
    let attributes = &told["data"]["attributes"];
    let last = attributes["messages"].as_array().and_then(|messages| messages.last());
    Ok(last.and_then(|message| message["message"].as_str()).map(str::to_owned))
}

fn lost(pipeline: &str, why: &str) -> Failure {
    Failure::new(format!(
        "lost the events of pipeline {pipeline}: {why} (it goes on; `runlet admin pipeline show {pipeline}` says how it stands)"
    ))
}

/// A step record: job, parallel node, number.
type Step = (String, u32, u32);

/// A job as it was told last.
#[derive(Clone, PartialEq)]
struct Job {
    name: String,
    /// Id of its workflow.
    workflow: String,
    status: String,
    why: Option<String>,
}

/// State of the pipeline as it was told so far.
#[derive(Default)]
struct View {
    /// Name and status of each workflow.
    workflows: BTreeMap<String, (String, String)>,
    /// Workflows that were run again.
    replaced: HashSet<String>,
    jobs: BTreeMap<String, Job>,
    /// Names that jobs of several workflows have.
    shared: HashSet<String>,
    /// Jobs of several nodes: lines name theirs.
    parallel: HashSet<String>,
    steps: BTreeMap<Step, (String, String)>,
    /// Output of each step that waits for the end of its line.
    partial: BTreeMap<Step, Lines>,
    /// Records of how runners prepared, which say nothing of the job.
    hidden: HashSet<Step>,
    has_ended: bool,
    /// Somebody's terminal is written to, and no file.
    terminal: bool,
}

impl View {
    /// The lines for an event.
    fn event(&mut self, event: WatchEvent) -> Vec<u8> {
        let mut out = Vec::new();
        match event {
            WatchEvent::Workflow { id, name, status, rerun_of } => {
                self.replaced.extend(rerun_of);
                self.workflows.insert(id, (plain(&name), status));
            }
            WatchEvent::Job { id, workflow_id, name, status, parallelism, message, .. } => {
                if parallelism > 1 {
                    self.parallel.insert(id.clone());
                }
                let (name, why) = (plain(&name), message.as_deref().map(plain));
                let now = Job { name, workflow: workflow_id, status, why };
                if self.jobs.values().any(|other| other.name == now.name && self.differs(other, &now)) {
                    self.shared.insert(now.name.clone());
                }
                if self.jobs.get(&id) != Some(&now) && now.status != "blocked" {
                    out = self.told(&now);
                }
                self.jobs.insert(id, now);
            }
            WatchEvent::Step { job_id, execution, step, name, kind, status, exit_code, message, .. } => {
                let key = (job_id, execution, step);
                if kind == "spinup_environment" && status != "infrastructure_fail" {
                    self.hidden.insert(key);
                    return out;
                }
                let (name, message) = (plain(&name), message.as_deref().map(plain));
                let job = self.label(&key);
                let known = self.steps.insert(key.clone(), (name.clone(), status.clone()));
                let title = name.lines().next().unwrap_or_default().to_owned();
                if known.is_none() && status != "not_run" {
                    out.extend(format!("{job} > {title}\n").into_bytes());
                }
                let is_new = known.is_none_or(|(_, before)| before != status);
                if status != "running" {
                    // The end of a step is told after all of its output.
                    out.extend(self.rest(&key));
                }
                if is_new && !matches!(status.as_str(), "running" | "success" | "not_run") {
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
                self.has_ended = true;
            }
        }
        out
    }

    fn label(&self, (job, execution, _): &Step) -> String {
        let name = self.jobs.get(job).map_or_else(|| "?".to_owned(), |job| self.name_of(job));
        match *execution == 0 && !self.parallel.contains(job) {
            true => name,
            false => format!("{name} [{execution}]"),
        }
    }

    /// Name of the workflow of a job; that of a rerun is the same.
    fn workflow(&self, job: &Job) -> Option<&str> {
        self.workflows.get(&job.workflow).map(|(name, _)| name.as_str())
    }

    fn differs(&self, job: &Job, other: &Job) -> bool {
        self.workflow(job) != self.workflow(other)
    }

    /// The name of a job, with that of its workflow where another workflow has one of the same name.
    fn name_of(&self, job: &Job) -> String {
        match self.workflow(job).filter(|_| self.shared.contains(&job.name)) {
            Some(workflow) => format!("{workflow}/{}", job.name),
            None => job.name.clone(),
        }
    }

    /// The line of a job: its name, status and reason.
    fn told(&self, job: &Job) -> Vec<u8> {
        let why = job.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        format!("{}: {}{why}\n", self.name_of(job), job.status.replace('_', " ")).into_bytes()
    }

    /// Whole lines of output, with the name of their job.
    fn output(&mut self, key: &Step, bytes: &[u8]) -> Vec<u8> {
        let (label, terminal) = (self.label(key), self.terminal);
        let mut out = Vec::new();
        let whole = |whole: &[u8]| each_line(whole, |line| out.extend(labelled(&label, line, terminal)));
        self.partial.entry(key.clone()).or_default().add(bytes, whole);
        out
    }

    /// The last line of a step, which has no end.
    fn rest(&mut self, key: &Step) -> Vec<u8> {
        match self.partial.remove(key).map(|mut lines| lines.rest()) {
            Some(rest) if !rest.is_empty() => labelled(&self.label(key), &rest, self.terminal),
            _ => Vec::new(),
        }
    }

    /// Jobs that wait, nobody has said for what.
    fn unexplained(&self) -> Vec<String> {
        let waits = |job: &Job| job.status == "queued" && job.why.is_none();
        self.jobs.iter().filter(|(_, job)| waits(job)).map(|(id, _)| id.clone()).collect()
    }

    /// The line of a job that waits, with its reason.
    fn explained(&mut self, id: &str, why: String) -> Vec<u8> {
        let Some(job) = self.jobs.get_mut(id) else { return Vec::new() };
        job.why = Some(plain(&why));
        self.jobs.get(id).map(|job| self.told(job)).unwrap_or_default()
    }

    /// A pipeline in which nothing ran has not done what anybody wanted of it.
    fn exit_code(&self) -> u8 {
        let mut counted = self.workflows.iter().filter(|(id, _)| !self.replaced.contains(*id));
        if !self.workflows.is_empty() && counted.all(|(_, (_, status))| status == "success") {
            exit::OK
        } else {
            exit::FAILED
        }
    }
}

/// A line of output; a file gets it as it is.
fn labelled(label: &str, line: &[u8], terminal: bool) -> Vec<u8> {
    match terminal {
        true => [label.as_bytes(), b" | ", &terminal::line(line), b"\x1b[0m\n"].concat(),
        false => [label.as_bytes(), b" | ", line, b"\n"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(status: &str, message: Option<&str>) -> WatchEvent {
        WatchEvent::Job {
            id: "j".into(),
            workflow_id: "w".into(),
            name: "build".into(),
            status: status.into(),
            parallelism: 1,
            started_at_ms: None,
            ended_at_ms: None,
            message: message.map(str::to_owned),
            cannot_run: false,
            is_remark: false,
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
    fn lines_of_several_nodes_name_theirs_from_the_first_on() {
        let mut view = View::default();
        let mut parallel = job("running", None);
        if let WatchEvent::Job { parallelism, .. } = &mut parallel {
            *parallelism = 2;
        }
        let text: Vec<u8> = [parallel, step("running"), output("one\n")]
            .into_iter()
            .flat_map(|event| view.event(event))
            .collect();
        assert_eq!(String::from_utf8_lossy(&text), "build: running\nbuild [0] > make\nbuild [0] | one\n");
    }

    #[test]
    fn a_last_line_without_an_end_comes_before_what_is_next() {
        let mut view = View::default();
        let events =
            [job("running", None), step("running"), output("one"), step("success"), job("success", None)];
        let text: Vec<u8> = events.into_iter().flat_map(|event| view.event(event)).collect();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "build: running\nbuild > make\nbuild | one\nbuild: success\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_foreign_control_sequences_and_reasons_once() {
        let mut view = View { terminal: true, ..View::default() };
        let mut text = view.event(job("queued", None));
        assert_eq!(view.unexplained(), ["j"]);
        text.extend(view.explained("j", "no runner\x1b]0;x\x07".to_owned()));
        assert_eq!(view.unexplained(), [""; 0]);
        text.extend(view.event(output("a\x1b[2J\x1b[31mb\x07\n")));
        assert_eq!(
            String::from_utf8_lossy(&text),
            "build: queued\nbuild: queued: no runner\u{fffd}]0;x\u{fffd}\nbuild | a\x1b[31mb\x1b[0m\n"
        );
    }

    #[test]
    fn a_pipeline_without_workflows_is_no_success() {
        let mut view = View::default();
        assert_eq!((view.event(WatchEvent::End), view.has_ended), (Vec::new(), true));
        assert_eq!(view.exit_code(), exit::FAILED);
        let told = |pipeline: Value| why_nothing_ran(&pipeline);
        let errors = json!({ "errors": [{ "message": "a" }, { "message": "b" }], "vcs": { "tag": "v1" } });
        assert_eq!(told(errors), "nothing ran: the pipeline has errors:\na\nb\n");
        let tagged = told(json!({ "errors": [], "vcs": { "tag": "v1" } }));
        assert!(
            tagged.starts_with("nothing ran: no workflow of the config applies to the tag `v1` ("),
            "{tagged}"
        );
        assert!(told(json!({ "vcs": { "branch": "x" } })).contains(" the branch `x` "));
        assert!(told(json!({})).contains(" this pipeline "));
    }

    #[test]
    fn jobs_of_one_name_in_two_workflows_are_told_apart_and_those_of_a_rerun_are_not() {
        let mut view = View::default();
        let workflow = |id: &str, name: &str, rerun_of: Option<&str>| WatchEvent::Workflow {
            id: id.into(),
            name: name.into(),
            status: "running".into(),
            rerun_of: rerun_of.map(str::to_owned),
        };
        let of = |workflow: &str, id: &str, event: WatchEvent| match event {
            WatchEvent::Job { name, status, parallelism, cannot_run, is_remark, .. } => WatchEvent::Job {
                id: id.into(),
                workflow_id: workflow.into(),
                name,
                status,
                parallelism,
                started_at_ms: None,
                ended_at_ms: None,
                message: None,
                cannot_run,
                is_remark,
            },
            other => other,
        };
        let events = [
            workflow("w", "one", None),
            workflow("again", "one", Some("w")),
            of("w", "j", job("running", None)),
            of("again", "k", job("running", None)),
            workflow("v", "two", None),
            of("v", "l", job("queued", None)),
            step("running"),
            output("x\n"),
            of("w", "j", job("success", None)),
        ];
        let text: Vec<u8> = events.into_iter().flat_map(|event| view.event(event)).collect();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "build: running\nbuild: running\ntwo/build: queued\none/build > make\none/build | x\none/build: success\n"
        );
    }
}
