//! The screen of a person while a pipeline runs: watch events in, text out. Time is passed in.
//!
//! Lines carry the name of their job when there are several. On a terminal there is colour and one
//! progress line at the bottom; elsewhere the lines are plain and nothing is ever redrawn.

mod failures;

use super::style::{Style, much, seconds};
use crate::protocol::WatchEvent;
use crate::terminal::{Lines, each_line, plain};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes of a step's end that are remembered.
const TAIL_BYTES: usize = 16 * 1024;

/// The terminal or file that a run is shown on.
pub(super) struct Screen {
    style: Style,
    jobs: BTreeMap<String, JobView>,
    steps: BTreeMap<(String, u32, u32), StepView>,
    order: Vec<String>,
    /// Name and status by id.
    workflows: BTreeMap<String, (String, String)>,
    /// Workflows that were run again: what became of them no longer counts.
    superseded: BTreeSet<String>,
    progress_drawn: bool,
    /// No progress line is drawn any more.
    is_closed: bool,
    /// The step record that the last line of each job and node belongs to.
    current: HashMap<(String, u32), u32>,
    out: Vec<u8>,
}

/// State of a job, as far as it was told.
#[derive(Clone, Debug, Default)]
pub(super) struct JobView {
    /// Name after expansion, which may differ from the one that the config writes.
    pub name: String,
    /// API v2 status.
    pub status: String,
    /// Unix time in milliseconds.
    pub started_at_ms: Option<u64>,
    /// Unix time in milliseconds.
    pub ended_at_ms: Option<u64>,
    /// Why it ended this way.
    pub message: Option<String>,
    /// The things that it goes without on this host. A reason that comes later does not replace it.
    pub remark: Option<String>,
    /// Whether it ended because it cannot run here.
    pub cannot_run: bool,
    /// Id of its workflow.
    pub workflow_id: String,
    nodes: u32,
}

#[derive(Default)]
struct StepView {
    name: String,
    kind: String,
    status: String,
    exit_code: Option<i32>,
    message: Option<String>,
    /// Name in the config, which all attempts share.
    title: String,
    attempt: u32,
    started_at_ms: Option<u64>,
    lines: Lines,
    bytes: u64,
    /// The end of the output.
    tail: Vec<u8>,
    headed: bool,
}

impl Screen {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            jobs: BTreeMap::new(),
            steps: BTreeMap::new(),
            order: Vec::new(),
            workflows: BTreeMap::new(),
            superseded: BTreeSet::new(),
            progress_drawn: false,
            is_closed: false,
            current: HashMap::new(),
            out: Vec::new(),
        }
    }

    /// Jobs of the workflows that count, in order of appearance, as `(id, view)`.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (&str, &JobView)> {
        let all = self.order.iter().filter_map(|id| Some((id.as_str(), self.jobs.get(id)?)));
        all.filter(|(_, job)| !self.superseded.contains(&job.workflow_id))
    }

    /// Ids and statuses of the workflows that count: those that were not run again.
    pub(super) fn workflow_statuses(&self) -> impl Iterator<Item = (&str, &str)> {
        let counts = |(id, _): &(&String, &(String, String))| !self.superseded.contains(*id);
        self.workflows.iter().filter(counts).map(|(id, (_, status))| (id.as_str(), status.as_str()))
    }

    /// Ids of the workflows.
    pub(super) fn workflow_ids(&self) -> impl Iterator<Item = &str> {
        self.workflows.keys().map(String::as_str)
    }

    /// Takes one event in; `output` is the decoded data of an output event.
    pub(super) fn event(&mut self, event: WatchEvent, output: &[u8]) {
        match event {
            WatchEvent::Workflow { id, name, status, rerun_of } => {
                self.workflows.insert(id, (plain(&name), status));
                self.superseded.extend(rerun_of);
            }
            WatchEvent::Job {
                id,
                workflow_id,
                name,
                status,
                parallelism,
                started_at_ms,
                ended_at_ms,
                message,
                cannot_run,
                is_remark,
            } => {
                if !self.jobs.contains_key(&id) {
                    self.order.push(id.clone());
                }
                let view = self.jobs.entry(id.clone()).or_default();
                let changed = view.status != status;
                view.name = plain(&name);
                view.workflow_id = workflow_id;
                view.status = status;
                view.started_at_ms = started_at_ms;
                view.ended_at_ms = ended_at_ms;
                view.message = message.as_deref().map(plain);
                if is_remark {
                    view.remark.clone_from(&view.message);
                }
                view.cannot_run = cannot_run;
                view.nodes = parallelism;
                if changed {
                    self.job_changed(&id);
                }
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
                started_at_ms,
                ended_at_ms,
                message,
                ..
            } => {
                let (name, message) = (plain(&name), message.as_deref().map(plain));
                let key = (job_id, execution, step);
                let view = self.steps.entry(key.clone()).or_default();
                let ended = view.status != status && status != "running";
                let title = name.clone();
                view.name = if attempt > 1 { format!("{name} (attempt {attempt})") } else { name };
                view.kind = kind;
                view.status = status;
                (view.exit_code, view.message) = (exit_code, message.clone());
                (view.title, view.attempt) = (title, attempt);
                view.started_at_ms = started_at_ms;
                if view.kind != "spinup_environment" && view.status != "not_run" {
                    self.head(&key);
                }
                if ended {
                    self.step_ended(&key, exit_code, ended_at_ms, message.as_deref());
                }
            }
            WatchEvent::Output { job_id, execution, step, .. } => {
                let key = (job_id, execution, step);
                let Some(view) = self.steps.get_mut(&key) else { return };
                // The spin-up record matters only when something went wrong there; its message says so.
                if view.kind == "spinup_environment" {
                    return;
                }
                view.bytes += output.len() as u64;
                view.tail.extend_from_slice(&output[output.len().saturating_sub(TAIL_BYTES)..]);
                view.tail.drain(..view.tail.len().saturating_sub(TAIL_BYTES));
                let mut lines = std::mem::take(&mut view.lines);
                self.resume(&key);
                self.output(&key, &mut lines, output);
                if let Some(view) = self.steps.get_mut(&key) {
                    view.lines = lines;
                }
            }
            WatchEvent::End => {}
        }
    }

    /// Says something that is not of a job: above the progress line, or beside the output of the pipeline.
    pub(super) fn note(&mut self, text: &str) {
        if self.style.terminal {
            self.out.extend_from_slice(format!("runlet: {text}\n").as_bytes());
        } else {
            super::tell::tell(format_args!("runlet: {text}"));
        }
    }

    /// The name of the workflow of a job.
    pub(super) fn workflow_of(&self, job: &JobView) -> &str {
        self.workflows.get(&job.workflow_id).map_or("", |(name, _)| name)
    }

    /// The name of a job, with that of its workflow where another workflow has one of the same name.
    pub(super) fn name_of(&self, job: &JobView) -> String {
        let workflow = self.workflow_of(job);
        let is_twin = |other: &JobView| other.name == job.name && self.workflow_of(other) != workflow;
        let is_ambiguous = !workflow.is_empty() && self.jobs.values().any(is_twin);
        if is_ambiguous { format!("{workflow}/{}", job.name) } else { job.name.clone() }
    }

    /// Takes note of the width of the terminal, in columns.
    pub(super) fn resize(&mut self, width: usize) {
        self.style.width = width;
    }

    /// Bytes of text that wait for [`Screen::take`].
    pub(super) fn pending(&self) -> usize {
        self.out.len()
    }

    /// The text since the last call, with the progress line redrawn below it.
    pub(super) fn take(&mut self, now_ms: u64) -> Vec<u8> {
        let lines = std::mem::take(&mut self.out);
        if !self.style.terminal {
            return lines;
        }
        let mut text = Vec::with_capacity(lines.len() + 256);
        if self.progress_drawn {
            text.extend_from_slice(b"\r\x1b[2K");
            self.progress_drawn = false;
        }
        text.extend_from_slice(&lines);
        if let Some(progress) = self.progress(now_ms) {
            text.extend_from_slice(progress.as_bytes());
            self.progress_drawn = true;
        }
        text
    }

    /// Draws no progress line any more: what comes next is not of this.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    fn progress(&self, now_ms: u64) -> Option<String> {
        if self.is_closed {
            return None;
        }
        let running: Vec<_> = self.jobs().filter(|(_, job)| job.status == "running").collect();
        running.first()?;
        let done = self.jobs.values().filter(|job| job.ended_at_ms.is_some()).count();
        let mut text = format!("[{done}/{}]", self.jobs.len());
        for (_, job) in running {
            let seconds = job.started_at_ms.map_or(0, |started| now_ms.saturating_sub(started) / 1000);
            text.push_str(&format!("  {} {seconds}s", self.name_of(job)));
        }
        let shown: String = text.chars().take(self.style.width.saturating_sub(1)).collect();
        Some(self.style.paint("2", &shown))
    }

    fn job_changed(&mut self, id: &str) {
        let Some(job) = self.jobs.get(id).cloned() else { return };
        let took = match (job.started_at_ms, job.ended_at_ms) {
            (Some(started), Some(ended)) => format!(" in {}", seconds(ended.saturating_sub(started))),
            _ => String::new(),
        };
        let why =
            job.message.as_deref().map_or_else(String::new, |why| match job.remark.as_deref() == Some(why) {
                true => format!(" ({why})"),
                false => format!(": {why}"),
            });
        let text = match job.status.as_str() {
            "success" => self.style.paint("32", &format!("= success{took}")),
            "running" => match &job.remark {
                Some(remark) => self.style.paint("2", &format!("= {remark}")),
                None => return,
            },
            "blocked" | "queued" | "not_running" => return,
            "not_run" => self.style.paint("2", &format!("= not run{why}")),
            "on_hold" => {
                // The first of several jobs has no prefix yet, and an approval is given by its name.
                let name = if self.is_alone() { format!("`{}` ", self.name_of(&job)) } else { String::new() };
                self.style.paint("33", &format!("= {name}waits for approval"))
            }
            other => self.style.paint("31", &format!("= {}{took}{why}", other.replace('_', " "))),
        };
        self.line(id, None, text.as_bytes());
    }

    /// Says which step the next line belongs to, when it is not the one of the line before.
    fn resume(&mut self, key: &(String, u32, u32)) {
        let node = (key.0.clone(), key.1);
        if self.current.get(&node).is_none_or(|&step| step == key.2) {
            return;
        }
        let Some(view) = self.steps.get(key).filter(|view| view.headed) else { return };
        let text = format!("> {} (continued)", first_line(&view.name));
        let text = self.style.paint("1", &text);
        self.current.insert(node, key.2);
        self.line(&key.0, Some(key.1), text.as_bytes());
    }

    fn head(&mut self, key: &(String, u32, u32)) {
        let Some(view) = self.steps.get_mut(key).filter(|view| !view.headed) else { return };
        view.headed = true;
        let title = first_line(&view.name);
        let text = self.style.paint("1", &format!("> {title}"));
        self.current.insert((key.0.clone(), key.1), key.2);
        self.line(&key.0, Some(key.1), text.as_bytes());
    }

    fn step_ended(
        &mut self,
        key: &(String, u32, u32),
        exit_code: Option<i32>,
        ended: Option<u64>,
        why: Option<&str>,
    ) {
        let Some(view) = self.steps.get_mut(key) else { return };
        let partial = view.lines.rest();
        let took = match (view.started_at_ms, ended) {
            (Some(started), Some(ended)) => {
                format!("{}{}", seconds(ended.saturating_sub(started)), much(view.bytes))
            }
            _ => String::new(),
        };
        // The log ends with the reason, as a rule.
        let why = why.filter(|why| !view.tail.trim_ascii_end().ends_with(why.trim_end().as_bytes()));
        let (status, kind, name) = (view.status.clone(), view.kind.clone(), view.name.clone());
        self.resume(key);
        if !partial.is_empty() {
            let label = self.label(&key.0, Some(key.1));
            self.output_line(&label, &partial);
        }
        let text = match status.as_str() {
            "success" if kind == "spinup_environment" => return,
            "success" => self.style.paint("32", &format!("  ok {took}")),
            "not_run" => {
                self.style.paint("2", &format!("- {} (skipped)", name.lines().next().unwrap_or_default()))
            }
            other => {
                let code = exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                self.style.paint("31", &format!("  {}{code} after {took}{why}", other.replace('_', " ")))
            }
        };
        self.line(&key.0, Some(key.1), text.as_bytes());
    }

    /// Writes the lines that `output` makes whole.
    fn output(&mut self, key: &(String, u32, u32), lines: &mut Lines, output: &[u8]) {
        let label = self.label(&key.0, Some(key.1));
        // All lines go out as they are where nothing is added to one.
        let as_it_is = label.is_empty() && !self.style.terminal && !self.style.is_plain;
        lines.add(output, |whole| match as_it_is {
            true => self.out.extend_from_slice(whole),
            false => each_line(whole, |line| self.output_line(&label, line)),
        });
    }

    fn output_line(&mut self, label: &[u8], line: &[u8]) {
        let line = self.style.shown_line(line);
        self.labelled(label, &line);
    }

    fn line(&mut self, id: &str, execution: Option<u32>, text: &[u8]) {
        let label = self.label(id, execution);
        self.labelled(&label, text);
    }

    /// Whether all lines are of one job and node, as far as is known.
    fn is_alone(&self) -> bool {
        self.jobs.len() <= 1 && self.jobs.values().all(|job| job.nodes <= 1)
    }

    /// The prefix of the lines of a job, or of one of its nodes; empty when there is only one.
    fn label(&self, id: &str, execution: Option<u32>) -> Vec<u8> {
        if self.is_alone() {
            return Vec::new();
        }
        let label = |job: &JobView, execution: Option<u32>| match execution.filter(|_| job.nodes > 1) {
            Some(execution) => format!("{}#{execution}", self.name_of(job)),
            None => self.name_of(job),
        };
        let longest = self.jobs.values().map(|job| label(job, job.nodes.checked_sub(1)).chars().count());
        let width = longest.max().unwrap_or(0).min(30);
        let label = self.jobs.get(id).map_or("?".to_owned(), |job| label(job, execution));
        let colour = 34 + self.order.iter().position(|known| known == id).unwrap_or(0) % 3;
        format!("{} ", self.style.paint(&colour.to_string(), &format!("{label:width$} |"))).into_bytes()
    }

    fn labelled(&mut self, label: &[u8], text: &[u8]) {
        self.out.extend_from_slice(label);
        self.out.extend_from_slice(text);
        if self.style.terminal && memchr::memchr(0x1b, text).is_some() {
            self.out.extend_from_slice(b"\x1b[0m");
        }
        self.out.push(b'\n');
    }
}

/// The name of a step in one line: a command of several ends in dots.
fn first_line(name: &str) -> String {
    let mut lines = name.lines();
    let first = lines.next().unwrap_or_default();
    format!("{first}{}", lines.next().map_or("", |_| " ..."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::LONGEST_LINE;

    fn job(id: &str, status: &str) -> WatchEvent {
        let ended_at_ms = (status == "success" || status == "failed").then_some(2500);
        let (id, name) = (id.to_owned(), format!("job-{id}"));
        let workflow_id = "w".to_owned();
        WatchEvent::Job {
            id,
            workflow_id,
            name,
            status: status.to_owned(),
            parallelism: 1,
            started_at_ms: Some(1000),
            ended_at_ms,
            message: None,
            cannot_run: false,
            is_remark: false,
        }
    }

    fn step(job: &str, status: &str, exit_code: Option<i32>) -> WatchEvent {
        WatchEvent::Step {
            job_id: job.to_owned(),
            execution: 0,
            step: 1,
            name: "make\ncheck".to_owned(),
            kind: "run".to_owned(),
            status: status.to_owned(),
            exit_code,
            attempt: 1,
            background: false,
            started_at_ms: Some(1000),
            ended_at_ms: exit_code.map(|_| 1400),
            message: None,
        }
    }

    fn output(screen: &mut Screen, job: &str, bytes: &[u8]) {
        let event = WatchEvent::Output {
            job_id: job.to_owned(),
            execution: 0,
            step: 1,
            offset: 0,
            data: String::new(),
        };
        screen.event(event, bytes);
    }

    fn text(screen: &mut Screen) -> String {
        String::from_utf8_lossy(&screen.take(3000)).into_owned()
    }

    #[test]
    fn one_job_has_no_prefix_and_partial_lines_wait() {
        let mut screen = Screen::new(Style { terminal: false, is_plain: false, width: 80 });
        screen.event(job("a", "running"), b"");
        screen.event(step("a", "running", None), b"");
        output(&mut screen, "a", b"one\ntw");
        assert_eq!(text(&mut screen), "> make ...\none\n");
        output(&mut screen, "a", b"o\xff");
        screen.event(step("a", "failed", Some(2)), b"");
        screen.event(job("a", "failed"), b"");
        assert_eq!(
            text(&mut screen),
            "two\u{fffd}\n  failed with exit code 2 after 0.4s\n= failed in 1.5s\n"
        );
    }

    #[test]
    fn several_jobs_are_told_apart() {
        let mut screen = Screen::new(Style { terminal: false, is_plain: false, width: 80 });
        screen.event(job("a", "running"), b"");
        screen.event(job("bb", "running"), b"");
        screen.event(step("a", "running", None), b"");
        output(&mut screen, "a", b"x\n");
        screen.event(job("bb", "success"), b"");
        assert_eq!(text(&mut screen), "job-a  | > make ...\njob-a  | x\njob-bb | = success in 1.5s\n");
    }

    #[test]
    fn lines_of_several_nodes_name_theirs_from_the_first_on() {
        let mut screen = Screen::new(Style { terminal: false, is_plain: false, width: 80 });
        for status in ["running", "success"] {
            let mut told = job("a", status);
            if let WatchEvent::Job { parallelism, .. } = &mut told {
                *parallelism = 11;
            }
            screen.event(told, b"");
            if status == "running" {
                screen.event(step("a", "running", None), b"");
                output(&mut screen, "a", b"x\n");
            }
        }
        let expected = "job-a#0  | > make ...\njob-a#0  | x\njob-a    | = success in 1.5s\n";
        assert_eq!(text(&mut screen), expected);
    }

    #[test]
    fn a_terminal_gets_one_progress_line_and_no_foreign_control_sequences() {
        let mut screen = Screen::new(Style { terminal: true, is_plain: false, width: 20 });
        screen.event(job("a", "running"), b"");
        screen.event(step("a", "running", None), b"");
        output(&mut screen, "a", b"10%\r\x1b[2J\x1b[31m100%\x07\r\n");
        let first = text(&mut screen);
        assert!(first.contains("\x1b[31m100%\x1b[0m\n"), "{first:?}");
        assert!(!first.contains("2J") && !first.contains("10%\r"), "{first:?}");
        assert!(first.ends_with("[0/1]  job-a 2s\x1b[0m"), "{first:?}");
        assert!(text(&mut screen).starts_with("\r\x1b[2K"));
        screen.close();
        screen.note("the end");
        let last = text(&mut screen);
        assert!(last.starts_with("\r\x1b[2K") && last.ends_with('\n'), "{last:?}");
    }

    #[test]
    fn a_terminal_without_colours_is_not_drawn_on_by_jobs_either() {
        let mut screen = Screen::new(Style { terminal: false, is_plain: true, width: 80 });
        screen.event(job("a", "running"), b"");
        screen.event(step("a", "running", None), b"");
        output(&mut screen, "a", b"\x1b[2J\x1b[H\x1b[31mred\x1b[0m\n");
        screen.event(step("a", "failed", Some(2)), b"");
        let all = text(&mut screen) + &screen.failures();
        assert!(all.matches("red\n").count() == 2 && !all.contains('\x1b'), "{all:?}");
    }

    #[test]
    fn an_endless_line_is_written_in_pieces() {
        let mut screen = Screen::new(Style { terminal: false, is_plain: false, width: 80 });
        screen.event(job("a", "running"), b"");
        screen.event(step("a", "running", None), b"");
        for _ in 0..3 {
            output(&mut screen, "a", &vec![b'x'; LONGEST_LINE]);
        }
        screen.event(step("a", "success", Some(0)), b"");
        let text = text(&mut screen);
        assert!(text.len() > 3 * LONGEST_LINE && text.ends_with("  ok 0.4s\n"));
        output(&mut screen, "a", &vec![b'x'; 2 << 20]);
        screen.event(step("a", "failed", Some(1)), b"");
        let text = self::text(&mut screen);
        assert!(text.ends_with("with exit code 1 after 0.4s, 2 MiB of output\n"));
    }
}
