//! The pipeline while it runs: drawn, cancelled by signals, approved by people.

use super::options::Options;
use super::render::{JobView, Screen};
use super::signals::Interrupts;
use super::style::Style;
use crate::config::OtherNames;
use crate::http::{Body, Client, Error, Request};
use crate::outcome::{Failure, print_bytes};
use crate::protocol::{Secret, WatchEvent};
use crate::server::pipelines::compile::is_named;
use crate::server::{self, Notification, Running, WatchEnded, Watcher};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// Size of the text, about, that is drawn at once at most.
const DRAW_BYTES: usize = 512 * 1024;
/// Pause between two looks at signals, and redraws of the progress line.
const LOOK: Duration = Duration::from_millis(200);

/// Sentence after the first signal.
const CANCELING: &str = "canceling (once more to stop at once)";
/// Sentence after the second signal.
pub(super) const STOPPING: &str = "stopping at once: what still runs is killed";

/// Names of jobs, as their control plane knows them. Those beside a job's own are read when they are asked for.
pub(super) struct JobNames<'a> {
    running: &'a Running,
    read: RefCell<BTreeMap<String, OtherNames>>,
}

impl<'a> JobNames<'a> {
    pub(super) fn of(running: &'a Running) -> Self {
        Self { running, read: RefCell::default() }
    }

    /// Whether `--approve` means a job with what was given. A job is found by what it is only where none is called so.
    pub(super) fn is_approved(&self, given: &str, screen: &Screen, of: (&str, &JobView)) -> bool {
        let is_other = |job: &str| !job.is_empty() && is_named(given, screen.workflow_of(of.1), job);
        self.is_called(given, screen, of)
            || (is_other(&self.beside(of.0).job)
                && !screen.jobs().any(|other| self.is_called(given, screen, other)))
    }

    fn is_called(&self, given: &str, screen: &Screen, (id, job): (&str, &JobView)) -> bool {
        let is_so = |name: &String| is_named(given, screen.workflow_of(job), name);
        is_so(&job.name) || self.beside(id).written.iter().any(is_so)
    }

    /// Names that could not be read are read again when they are asked for once more.
    fn beside(&self, id: &str) -> OtherNames {
        let known = self.read.borrow().get(id).cloned();
        known.unwrap_or_else(|| {
            let Ok(names) = self.running.other_names(id) else { return OtherNames::default() };
            self.read.borrow_mut().insert(id.to_owned(), names.clone());
            names
        })
    }
}

/// A pipeline that was watched.
pub(super) struct WatchedPipeline {
    /// The screen, which has all that is known of the pipeline.
    pub(super) screen: Screen,
    /// The failure to draw some of it, unless the reader has gone away.
    pub(super) unwritten: Option<Failure>,
}

/// Draws the pipeline until it has ended, waits for a person who is not here, or was interrupted for good. Whether nothing
/// goes on without a person `waits_for_people` says: jobs that wait for a key of one that is held look like others.
pub(super) fn watch(
    options: &Options,
    client: &Client,
    person: &Secret,
    mut watcher: Watcher,
    waits_for_people: &dyn Fn() -> bool,
    names: &JobNames<'_>,
    interrupts: &Interrupts,
) -> Result<WatchedPipeline, Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let terminal = is_terminal
        && !options.plain
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var("TERM").is_ok_and(|term| term != "dumb");
    let mut screen = Screen::new(Style { terminal, is_plain: is_terminal && !terminal, width: columns() });
    let mut told_interrupts = 0;
    let mut approvals = Approvals::new(options);
    let mut ended = false;
    let mut unwritten = None;
    let mut to_cancel: Vec<String> = Vec::new();
    loop {
        let mut next = watcher.next(LOOK).map_err(|WatchEnded| {
            Failure::new("lost sight of the pipeline: its control plane has stopped")
        })?;
        let is_quiet = next.is_none();
        // News that have gathered meanwhile are drawn in one go, unless they are very many.
        while let Some(Notification { event, output }) = next {
            ended = event == WatchEvent::End;
            screen.event(event, &output);
            next = if ended || screen.pending() >= DRAW_BYTES { None } else { watcher.ready() };
        }
        let mut notes = approvals.give(&screen, client, person, names);
        let count = interrupts.count();
        if count > told_interrupts {
            notes.push(if count == 1 { CANCELING } else { STOPPING }.to_owned());
            told_interrupts = count;
            if count > 1 {
                screen.close();
            }
        }
        for note in &notes {
            screen.note(note);
        }
        screen.resize(columns());
        // Neither a reader that has gone away stops the pipeline, nor a full disk.
        let drawn = print_bytes(&screen.take(server::time::Millis::now().0));
        unwritten = unwritten.or(drawn.err());
        // A signal that has come since was not told of yet.
        if ended || told_interrupts > 1 {
            return Ok(WatchedPipeline { screen, unwritten });
        }
        if told_interrupts > 0 && !approvals.is_closed {
            approvals.is_closed = true;
            to_cancel = screen.workflow_ids().map(str::to_owned).collect();
        }
        // A call without an answer is made again with the next look, a refused one is not.
        to_cancel.retain(|id| match post(client, person, &format!("/api/v2/workflow/{id}/cancel")) {
            Ok(()) => false,
            Err(error) => {
                super::tell::tell(format_args!("runlet: {error}"));
                error.is_retryable()
            }
        });
        if is_quiet && seems_held(&screen) && waits_for_people() && approvals.ask(&screen, client, person) {
            return Ok(WatchedPipeline { screen, unwritten });
        }
    }
}

/// Whether somebody is to approve something, and nothing runs, as far as was told.
fn seems_held(screen: &Screen) -> bool {
    screen.jobs().any(|(_, job)| job.status == "on_hold")
        && screen.jobs().all(|(_, job)| job.status != "running")
}

/// Approvals: given beforehand, and asked for on a terminal.
struct Approvals {
    given: Vec<String>,
    can_ask: bool,
    /// Jobs that were dealt with, and whether they were approved.
    settled: BTreeMap<String, bool>,
    /// The job that the person is asked about, and the line of the answer.
    asked: Option<(String, Receiver<String>)>,
    /// The pipeline is being cancelled.
    is_closed: bool,
}

impl Approvals {
    fn new(options: &Options) -> Self {
        let can_ask = !options.plain && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let given = options.approve.clone();
        Self { given, can_ask, settled: BTreeMap::new(), asked: None, is_closed: false }
    }

    /// Gives what was given beforehand. Returns what to tell.
    fn give(
        &mut self,
        screen: &Screen,
        client: &Client,
        person: &Secret,
        names: &JobNames<'_>,
    ) -> Vec<String> {
        let mut told = Vec::new();
        let waiting: Vec<_> = screen.jobs().filter(|(_, job)| job.status == "on_hold").collect();
        for (id, job) in waiting {
            let is_open = !self.is_closed && !self.settled.contains_key(id);
            if !is_open || !self.given.iter().any(|given| names.is_approved(given, screen, (id, job))) {
                continue;
            }
            let approved = approve(client, person, &job.workflow_id, id);
            self.settle(id, Some(&approved));
            told.push(match approved {
                Ok(()) => format!("approved `{}`, as `--approve` says", screen.name_of(job)),
                Err(error) => format!("cannot approve `{}`: {error}", screen.name_of(job)),
            });
        }
        told
    }

    /// Remembers what became of an approval; `None`: the person did not want it. One that was not answered waits on.
    fn settle(&mut self, id: &str, approved: Option<&Result<(), Error>>) {
        match approved {
            Some(Err(error)) if error.is_retryable() => {}
            _ => drop(self.settled.insert(id.to_owned(), matches!(approved, Some(Ok(()))))),
        }
    }

    /// Asks the person about the next approval that waits. True when nobody can be asked, or all was answered.
    fn ask(&mut self, screen: &Screen, client: &Client, person: &Secret) -> bool {
        if self.is_closed {
            return false;
        }
        if let Some((id, answer)) = &self.asked {
            let yes = match answer.try_recv() {
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => false,
                Ok(line) => matches!(line.trim(), "y" | "Y" | "yes"),
            };
            let job = screen.jobs().find(|(known, _)| known == id).filter(|_| yes);
            let approved = job.map(|(id, job)| approve(client, person, &job.workflow_id, id));
            if let Some(Err(error)) = &approved {
                super::tell::tell(format_args!("runlet: cannot approve: {error}"));
            }
            let id = id.clone();
            self.settle(&id, approved.as_ref());
            self.asked = None;
            return false;
        }
        let next = screen.jobs().find(|(id, job)| job.status == "on_hold" && !self.settled.contains_key(*id));
        let Some((id, job)) = next.filter(|_| self.can_ask) else {
            // A job that was approved just now may still be told of as on hold.
            let is_approved = |id: &str| self.settled.get(id) == Some(&true);
            return !screen.jobs().any(|(id, job)| job.status == "on_hold" && is_approved(id));
        };
        // Keys that were typed before were meant for something else.
        let _ = rustix::termios::tcflush(std::io::stdin(), rustix::termios::QueueSelector::IFlush);
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "`{}` waits for approval. Approve it? [y/N] ", screen.name_of(job));
        let _ = out.flush();
        let (sender, receiver) = channel();
        let read = move || {
            let mut line = String::new();
            if std::io::stdin().lock().read_line(&mut line).is_ok() {
                let _ = sender.send(line);
            }
        };
        if std::thread::Builder::new().name("answer".into()).spawn(read).is_ok() {
            self.asked = Some((id.to_owned(), receiver));
        }
        false
    }
}

fn approve(client: &Client, person: &Secret, workflow: &str, job: &str) -> Result<(), Error> {
    post(client, person, &format!("/api/v2/workflow/{workflow}/approve/{job}"))
}

fn post(client: &Client, person: &Secret, path: &str) -> Result<(), Error> {
    let timeout = Duration::from_secs(10);
    let request = Request { method: "POST", path, token: Some(person), body: Body::Empty, timeout };
    client.json::<serde_json::Value>(&request).map(drop)
}

/// Columns of the terminal: of the one that is written to, as it is now, unless the caller says otherwise.
fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    said.or_else(asked).filter(|&columns| columns > 0).unwrap_or(80)
}
