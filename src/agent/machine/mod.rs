//! The machine runner: one host, one task at a time. Carries out what `lifecycle` decides.
//!
//! Claim, start the task agent, wait, report it lost if it died without reporting, clean up, again.
//! A task agent outlives the runner; a restarted runner finds it by the state file, waits for it and
//! answers for it. Called by `runlet machine` and, several at a time, by `runlet exec`.

mod begin;
mod check;
mod child;
mod death;
mod earlier;
mod ended;
mod error;
mod group;
mod lines;
mod orphans;
mod place;
mod record;
mod requests;
mod state;
pub(super) mod tools;
mod watched;

use super::board::{Board, State};
use super::claims::{Claimed, Claims};
use super::lifecycle::{ExitReason, Next};
use super::service::Service;
use super::settings::{Mode, Settings};
use super::stop::Stop;
use crate::executor::cleanup::Before;
use crate::logging::record;
use crate::protocol::TaskKind;
use crate::protocol::task_input::Said;
use crate::system::clock::Rfc3339;
use crate::system::proc;
pub(super) use check::{takes, writable};
pub(super) use child::command as agent_command;
pub use error::Error;
use group::Group;
use place::PlaceLock;
pub(super) use place::{held_by, holder};
use state::RunnerRecord;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use watched::Watched;

/// Longest wait of a runner that asks for nothing: `runner.idle_timeout` counts meanwhile, and settings may be odd.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Runs a machine runner until it is told to stop or has reason to end. Blocks; installs no signal
/// handlers.
pub fn run(settings: Settings, stop: &Stop) -> Result<ExitReason, Error> {
    let board = Board::new(&settings.name, &settings.endpoint.url);
    run_shown(settings, stop, board)
}

/// As [`run`]; the board shows others what it does.
pub(super) fn run_shown(settings: Settings, stop: &Stop, board: Board) -> Result<ExitReason, Error> {
    let mut runner = Runner::new(settings, stop)?;
    runner.claims.board = board;
    let class = runner.class()?;
    let mode = if runner.settings.mode == Mode::Continuous { "continuous" } else { "single-task" };
    record!(Info,
        version = env!("CARGO_PKG_VERSION"),
        name = runner.settings.name,
        url = runner.settings.endpoint.url,
        mode = mode,
        resource_class = class.as_deref().unwrap_or("not known yet"),
        pid = std::process::id();
        "starting agent"
    );
    if runner.settings.owns_process {
        check::at_start(&runner.settings);
    }
    if let Some(proxy) = runner.claims.client.proxy() {
        record!(Info, proxy = proxy; "calls go through a proxy");
    }
    let reason = runner.run()?;
    match &reason {
        ExitReason::Stopped => log::info!("stopped as asked"),
        ExitReason::SingleTask => log::info!("exiting after one task (mode `single-task`)"),
        ExitReason::Idle => log::info!("exiting: no task within `runner.idle_timeout`"),
        ExitReason::Left => {
            log::info!("left as asked: a running task goes on, and the next runner waits for it")
        }
        ExitReason::Fatal(_) => {}
    }
    Ok(reason)
}

struct Runner {
    settings: Settings,
    claims: Claims,
    record: RunnerRecord,
    program: PathBuf,
    tool_directory: Option<PathBuf>,
    watched: Option<Watched>,
    /// The working directory before the task that this run of the runner has started.
    before: Option<Before>,
    /// The mark of what belongs to this runner and no other.
    identity: Option<String>,
    /// Control group of the processes of its tasks.
    group: Option<Group>,
    /// Orphans of its tasks become its children.
    adopts: bool,
    service: Service,
    /// The requests to read the settings again that were heard; whether the last one waits for the end of the task.
    reloads: u32,
    reload_waits: bool,
    /// Nobody else works in its working directory.
    place: Option<PlaceLock>,
    /// Why it ends before it asks for a task. First it answers for the one of an earlier run.
    refusal: Option<Error>,
    /// The reason for asking for nothing that was told.
    closed: Option<&'static str>,
}

impl Runner {
    fn new(settings: Settings, stop: &Stop) -> Result<Self, Error> {
        let claims = Claims::new(&settings, stop, TaskKind::Machine).map_err(Error::Http)?;
        let program = match &settings.task_agent {
            Some(program) => program.clone(),
            None => tools::own_program()
                .map_err(|error| Error::System(format!("cannot find this program: {error}")))?,
        };
        let record = record::open(&settings)?;
        let taken = settings
            .owns_process
            .then(|| place::take(&settings.working_directory, settings.state_directory.as_deref()));
        let (place, mut refusal) = match taken.transpose() {
            Ok(place) => (place, None),
            Err(why) => (None, Some(Error::Taken(why))),
        };
        let adopts = settings.owns_process && orphans::become_reaper();
        // A process is in one group at a time.
        let identity = record.identity().filter(|_| settings.owns_process);
        let mut group = identity.as_deref().and_then(Group::of);
        if settings.quotas.is_any() && settings.owns_process {
            let limited = match &mut group {
                Some(group) => group.limit(&settings.quotas),
                None => Err("this runner may make no control group".to_owned()),
            };
            if let Err(why) = limited {
                refusal = Some(Error::Settings(format!(
                    "`runner.quota` cannot be kept: {why}; set `Delegate=yes` in its unit, or remove it"
                )));
            }
        }
        if settings.owns_process && group.is_none() {
            log::info!(
                "no control group is to be had: what a task leaves behind is found by descent, and after a kill of runner and task agent by its environment only"
            );
        }
        if !proc::is_mounted() {
            log::warn!(
                "/proc is not mounted: processes that a task leaves behind cannot be found and ended; mount it"
            );
        }
        let tool_directory = tools::prepare(&settings, &program);
        let service = Service::new(settings.owns_process);
        let reloads = claims.stop.reloads();
        Ok(Self {
            settings,
            claims,
            record,
            program,
            tool_directory,
            watched: None,
            before: None,
            identity,
            group,
            adopts,
            service,
            reloads,
            reload_waits: false,
            place,
            refusal,
            closed: None,
        })
    }

    /// The class of the token, which has to be the one that is expected.
    fn class(&self) -> Result<Option<String>, Error> {
        let class = if self.settings.owns_process { self.claims.class() } else { None };
        if let (Some(class), Some(wanted)) = (&class, &self.settings.resource_class) {
            if class != wanted {
                return Err(Error::Settings(format!(
                    "the token is of the resource class `{class}`, but CIRCLECI_RESOURCE_CLASS is `{wanted}`: use a token of that class, or correct the variable"
                )));
            }
        }
        class.iter().for_each(|class| self.claims.board.class(class));
        Ok(class)
    }

    fn run(&mut self) -> Result<ExitReason, Error> {
        self.adopt();
        loop {
            self.hear();
            let next = self.claims.life.next(Instant::now());
            self.tell(&next);
            match next {
                Next::Claim(wait) => match self.refusal.take() {
                    None => self.claim(wait),
                    Some(refusal) => return Err(refusal),
                },
                Next::Sleep(time) => {
                    let until = Rfc3339 { time: SystemTime::now() + time, milliseconds: false };
                    let why = format!("until {until}: {}", self.claims.trouble);
                    self.claims.board.state(State::BackingOff, why.trim_end_matches(": "));
                    self.claims.stop.pause(time);
                }
                Next::Watch(until) => self.watch(self.service.until(until)),
                Next::Term(why) => {
                    if let Some(watched) = &mut self.watched {
                        record!(Warn, task_id = watched.task.id; "ending the task: {}", why.text());
                        watched.ended_because = Some(why.text());
                        watched.agent.term();
                    }
                }
                Next::Kill(why) => {
                    if let Some(watched) = &self.watched {
                        record!(Warn, task_id = watched.task.id;
                            "the task agent did not end in time and is killed: {}", why.text()
                        );
                        watched.agent.kill();
                    }
                }
                Next::Exit(reason) => return Ok(reason),
            }
        }
    }

    /// Whether the operator's limits keep this runner from asking now; then it waits a while.
    fn is_closed(&mut self) -> bool {
        let closed = self.settings.gates.closed(&self.settings.working_directory, SystemTime::now());
        let kind = closed.as_ref().map(|closed| closed.kind);
        if self.closed != kind {
            match &closed {
                Some(closed) => log::info!("asking for no task: {}", closed.why),
                None => log::info!("asking for tasks again"),
            }
            self.closed = kind;
        }
        let Some(closed) = closed else { return false };
        self.claims.board.state(State::Closed, &closed.why);
        self.claims.stop.pause(closed.wait.min(LOOK_AGAIN));
        true
    }

    fn claim(&mut self, wait: Duration) {
        if self.is_closed() {
            return;
        }
        // A pause is over only when a claim is answered.
        if self.claims.trouble.is_empty() {
            self.claims.board.state(State::Idle, "");
        }
        // Whole seconds are what the wire knows.
        let wait = wait.min(self.settings.gates.open_for(SystemTime::now()).max(Duration::from_secs(1)));
        if self.record.remembered.nonce.is_empty() {
            self.record.change(|remembered| remembered.nonce = crate::system::random_id());
        }
        match self.claims.claim(&self.record.remembered.nonce, wait) {
            Claimed::Task(task) => self.begin(*task),
            Claimed::Nothing => {}
            Claimed::NonceSpent => self.forget(),
        }
    }

    fn watch(&mut self, until: Option<Instant>) {
        let Some(watched) = &mut self.watched else {
            // The lifecycle only watches what was begun; if that ever breaks, it must not spin.
            self.claims.life.ended(Instant::now());
            return;
        };
        let wake = until.into_iter().chain(self.claims.kept_until).min();
        let end = watched.agent.wait(wake, &self.claims.stop);
        self.claims.close_idle();
        for (said, message) in watched.agent.take_said() {
            match said {
                Said::Begun => {
                    watched.begun = true;
                    self.claims.life.begun();
                }
                Said::Failed => watched.not_begun = Some(message.unwrap_or_default()),
                Said::Ended => {
                    watched.outcome = message;
                    self.claims.life.delivers();
                }
                Said::Words => watched.agent.last_words = message,
            }
        }
        let Some(end) = end else { return };
        if let Some(watched) = self.watched.take() {
            self.ended(watched, end);
        }
    }
}
