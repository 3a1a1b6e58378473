//! The machine runner: one host, one task at a time. Carries out what `lifecycle` decides.
//!
//! Claim, start the task agent, wait, report it lost if it died without reporting, clean up, again.
//! A task agent outlives the runner; a restarted runner finds it by the state file, waits for it and
//! answers for it. Called by `runlet machine` and, several at a time, by `runlet exec`.

mod agents;
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
mod tasks;
pub(super) mod tools;
mod watched;

use super::board::{Activity, Board};
use super::claims::{ClaimOutcome, Claims};
use super::lifecycle::{ExitReason, Next};
use super::service::Service;
use super::settings::{Mode, Settings};
use super::stop::Stop;
use crate::logging::record;
use crate::protocol::TaskKind;
use crate::protocol::task_input::Said;
use crate::system::clock::Rfc3339;
use agents::Agents;
pub(super) use check::{takes, writable};
pub(super) use child::command as agent_command;
pub use error::Error;
pub(super) use place::{held_by, holder};
use requests::Reloads;
use std::time::{Duration, Instant, SystemTime};
use tasks::Tasks;

/// Longest wait of a runner that asks for nothing: `runner.idle_timeout` counts meanwhile, and settings may be odd.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Runs a machine runner until it is told to stop or has reason to end. Blocks; installs no signal
/// handlers.
pub fn run(settings: Settings, stop: &Stop) -> Result<ExitReason, Error> {
    let board = Board::new(&settings.name, &settings.endpoint.url);
    run_shown(settings, stop, board)
}

/// Runs as [`run`] does, and shows the runner's work on the board.
pub(super) fn run_shown(settings: Settings, stop: &Stop, board: Board) -> Result<ExitReason, Error> {
    let mut runner = Runner::new(settings, stop)?;
    runner.tasks.claims.board = board;
    let class = runner.class()?;
    let mode = if runner.tasks.settings.mode == Mode::Continuous { "continuous" } else { "single-task" };
    record!(Info,
        version = env!("CARGO_PKG_VERSION"),
        name = runner.tasks.settings.name,
        url = runner.tasks.settings.endpoint.url,
        mode = mode,
        resource_class = class.as_deref().unwrap_or("not known yet"),
        pid = std::process::id();
        "starting agent"
    );
    if runner.tasks.settings.owns_process {
        check::at_start(&runner.tasks.settings);
    }
    if let Some(proxy) = runner.tasks.claims.client.proxy() {
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

/// A machine runner: the loop around its tasks.
struct Runner {
    tasks: Tasks,
    service: Service,
    reloads: Reloads,
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
        let (agents, unkept) = Agents::new(&settings, program, record.identity());
        refusal = unkept.map(Error::Settings).or(refusal);
        let service = Service::new(settings.owns_process);
        let reloads = Reloads::since(claims.stop.reloads());
        let tasks = Tasks { settings, claims, record, agents, watched: None, before: None, place };
        Ok(Self { tasks, service, reloads, refusal, closed: None })
    }

    /// The class of the token, which has to be the one that is expected.
    fn class(&self) -> Result<Option<String>, Error> {
        let class = if self.tasks.settings.owns_process { self.tasks.claims.class() } else { None };
        if let (Some(class), Some(wanted)) = (&class, &self.tasks.settings.resource_class) {
            if class != wanted {
                return Err(Error::Settings(format!(
                    "the token is of the resource class `{class}`, but CIRCLECI_RESOURCE_CLASS is `{wanted}`: use a token of that class, or correct the variable"
                )));
            }
        }
        class.iter().for_each(|class| self.tasks.claims.board.class(class));
        Ok(class)
    }

    fn run(&mut self) -> Result<ExitReason, Error> {
        self.tasks.adopt(&mut self.service);
        loop {
            requests::hear(&mut self.service, &mut self.reloads, &mut self.tasks);
            let next = self.tasks.claims.life.next(Instant::now());
            requests::tell(&mut self.service, &self.tasks, &next);
            match next {
                Next::Claim(wait) => match self.refusal.take() {
                    None => self.claim(wait),
                    Some(refusal) => return Err(refusal),
                },
                Next::Sleep(time) => {
                    let until = Rfc3339 { time: SystemTime::now() + time, milliseconds: false };
                    let why = format!("until {until}: {}", self.tasks.claims.trouble);
                    self.tasks.claims.board.state(Activity::BackingOff, why.trim_end_matches(": "));
                    self.tasks.claims.stop.pause(time);
                }
                Next::Watch(until) => self.watch(self.service.until(until)),
                Next::Term(why) => {
                    if let Some(watched) = &mut self.tasks.watched {
                        record!(Warn, task_id = watched.task.id; "ending the task: {}", why.text());
                        watched.ended_because = Some(why.text());
                        watched.agent.term();
                    }
                }
                Next::Kill(why) => {
                    if let Some(watched) = &self.tasks.watched {
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
        let closed =
            self.tasks.settings.gates.closed(&self.tasks.settings.working_directory, SystemTime::now());
        let kind = closed.as_ref().map(|closed| closed.kind);
        if self.closed != kind {
            match &closed {
                Some(closed) => log::info!("asking for no task: {}", closed.why),
                None => log::info!("asking for tasks again"),
            }
            self.closed = kind;
        }
        let Some(closed) = closed else { return false };
        self.tasks.claims.board.state(Activity::Closed, &closed.why);
        self.tasks.claims.stop.pause(closed.wait.min(LOOK_AGAIN));
        true
    }

    fn claim(&mut self, wait: Duration) {
        if self.is_closed() {
            return;
        }
        // A pause is over only when a claim is answered.
        if self.tasks.claims.trouble.is_empty() {
            self.tasks.claims.board.state(Activity::Idle, "");
        }
        // Whole seconds are what the wire knows.
        let wait =
            wait.min(self.tasks.settings.gates.open_for(SystemTime::now()).max(Duration::from_secs(1)));
        if self.tasks.record.remembered.nonce.is_empty() {
            self.tasks.record.change(|remembered| remembered.nonce = crate::system::random_id());
        }
        match self.tasks.claims.claim(&self.tasks.record.remembered.nonce, wait) {
            ClaimOutcome::Task(task) => self.tasks.begin(*task),
            ClaimOutcome::Nothing => {}
            ClaimOutcome::NonceSpent => self.tasks.forget(),
            ClaimOutcome::Held(held) => self.tasks.disown(*held),
        }
    }

    fn watch(&mut self, until: Option<Instant>) {
        let Tasks { claims, watched: present, .. } = &mut self.tasks;
        let Some(watched) = present else {
            // The lifecycle only watches what was begun; if that ever breaks, it must not spin.
            claims.life.ended(Instant::now());
            return;
        };
        let wake = until.into_iter().chain(claims.kept_until).min();
        let end = watched.agent.wait(wake, &claims.stop);
        claims.close_idle();
        for (said, message) in watched.agent.take_said() {
            match said {
                Said::Begun => {
                    watched.begun = true;
                    claims.life.begun();
                }
                Said::Failed => watched.not_begun = Some(message.unwrap_or_default()),
                Said::Ended => {
                    watched.outcome = message;
                    claims.life.delivers();
                }
                Said::Words => watched.agent.last_words = message,
            }
        }
        let Some(end) = end else { return };
        if let Some(watched) = present.take() {
            self.tasks.ended(watched, end);
        }
    }
}
