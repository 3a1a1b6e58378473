//! The machine runner: one host, one task at a time. Carries out what `lifecycle` decides.
//!
//! Claim, start the task agent, wait, report it lost if it died without reporting, clean up, again.
//! A task agent outlives the runner; a restarted runner finds it by the state file, waits for it and
//! answers for it. Called by `runlet machine` and, several at a time, by `runlet exec`.

mod check;
mod child;
mod death;
mod earlier;
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
use super::claims::{Claimed, Claims, GivenBackTask, Returned};
use super::lifecycle::{ExitReason, Next};
use super::service::Service;
use super::settings::{Mode, Settings};
use super::stop::{Level, Stop};
use crate::executor::scratch;
use crate::http;
use crate::logging::record;
use crate::protocol::task_input::{Said, TaskEndpoint, TaskInput, task_exit};
use crate::protocol::{GiveBackReason, Secret, Task, TaskKind, duration};
use crate::system::clock::{Rfc3339, since_boot};
use crate::system::proc;
pub(super) use check::writable;
pub(super) use child::command as agent_command;
use child::{Agent, End};
use death::Death;
pub use error::Error;
use group::Group;
use orphans::{Markers, Sweep};
use place::PlaceLock;
pub(super) use place::{held_by, holder};
use state::{RunnerRecord, RunningTask};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use watched::Watched;

/// Variables that a task agent may need to reach the control plane, and that a prefix may take away.
const PREFIX_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    http::ALLOW_PLAINTEXT,
];

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
    let reason = runner.run();
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
        let place = settings
            .owns_process
            .then(|| place::take(&settings.working_directory, settings.state_directory.as_deref()));
        let place = place.transpose().map_err(Error::Taken)?;
        let adopts = settings.owns_process && orphans::become_reaper();
        // A process is in one group at a time.
        let identity = record.identity().filter(|_| settings.owns_process);
        let mut group = identity.as_deref().and_then(Group::of);
        if settings.quotas.is_any() && settings.owns_process {
            let limited = match &mut group {
                Some(group) => group.limit(&settings.quotas),
                None => Err("this runner may make no control group".to_owned()),
            };
            limited.map_err(|why| {
                Error::Settings(format!(
                    "`runner.quota` cannot be kept: {why}; set `Delegate=yes` in its unit, or remove it"
                ))
            })?;
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
            identity,
            group,
            adopts,
            service,
            reloads,
            reload_waits: false,
            place,
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

    fn run(&mut self) -> ExitReason {
        self.adopt();
        loop {
            self.hear();
            let next = self.claims.life.next(Instant::now());
            self.tell(&next);
            match next {
                Next::Claim(wait) => self.claim(wait),
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
                Next::Exit(reason) => return reason,
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

    /// Starts the task agent of a claimed task.
    fn begin(&mut self, task: Task) {
        let (id, token, allocation) = (task.id.clone(), task.token.clone(), task.allocation.clone());
        let back = GivenBackTask { id: &id, token: &token, allocation: Some(&allocation) };
        if self.claims.stop.level() == Level::Cancel {
            let why = format!("the runner `{}` stops", self.settings.name);
            self.claims.give_back(&back, GiveBackReason::Runner, &why, Duration::ZERO);
            self.forget();
            self.claims.life.ended(Instant::now());
            return;
        }
        if let Some(rule) = self.settings.rules.refuse(&task) {
            let why = format!("the runner `{}` does not run this job: {rule}", self.settings.name);
            record!(Warn, task_id = id; "ended a task by a rule: {rule}");
            self.claims.board.refused(id.as_str(), &rule);
            self.claims.board.ended("refused");
            self.claims.refuse(&back, &why);
            self.forget();
            self.claims.life.ended(Instant::now());
            return;
        }
        let running = RunningTask {
            id: id.clone(),
            job_name: task.job_name.clone(),
            resource_class: task.job.resource_class.clone(),
            markers: Markers::of(&task),
            allocation: Some(allocation.clone()),
            claimed_since_boot_ms: u64::try_from(since_boot().as_millis()).ok(),
            agent: None,
        };
        self.claims.board.state(State::Running, &task.job_name);
        match self.start(task, running, false) {
            Ok((agent, running)) => self.watched = Some(Watched::of(agent, running, Some(token))),
            Err(why) => self.give_back(&back, GiveBackReason::Host, &why),
        }
    }

    /// Starts a task agent, and remembers it.
    fn start(
        &mut self,
        task: Task,
        mut running: RunningTask,
        rest: bool,
    ) -> Result<(Agent, RunningTask), String> {
        let input = self.input(task, rest)?;
        let mut agent = child::start(
            &self.settings,
            &self.program,
            &running.id,
            self.identity.as_deref(),
            self.group.as_ref(),
        )?;
        let process = agent.process();
        record!(Info, task_id = running.id, agent_pid = process.pid; "task agent started");
        running.agent = Some(process);
        // Before it is given its task: whoever comes after this runner knows of it.
        self.record.change(|remembered| remembered.task = Some(running.clone()));
        agent.feed(input);
        self.record.sync();
        Ok((agent, running))
    }

    /// Gives a task back that cannot begin on this host, and pauses, so that other hosts have the queue.
    fn give_back(&mut self, task: &GivenBackTask<'_>, reason: GiveBackReason, why: &str) {
        record!(Error, task_id = task.id; "the task cannot begin on this host: {why}");
        self.claims.give_back(task, reason, why, self.claims.life.host_pause());
        self.pause(why);
    }

    fn pause(&mut self, why: &str) {
        self.claims.board.ended("given_back");
        self.claims.trouble = why.to_owned();
        self.forget();
        let pause = self.claims.life.not_begun(Instant::now());
        log::warn!(
            "pausing for {}, since a task could not begin on this host: {why}",
            duration::format(pause)
        );
    }

    /// The document for the task agent's standard input.
    fn input(&self, task: Task, rest: bool) -> Result<Vec<u8>, String> {
        let endpoint = &self.settings.endpoint;
        let (certificate, key) = endpoint.client_certificate.clone().unzip();
        let input = TaskInput {
            endpoint: TaskEndpoint {
                url: endpoint.url.clone(),
                ca_file: endpoint.ca_file.clone(),
                client_certificate_file: certificate,
                client_key_file: key,
            },
            working_directory: Some(self.settings.working_directory.clone()),
            cleanup_working_directory: self.settings.cleanup_working_directory,
            confine: self.settings.confine,
            local_source: self.settings.local_source.clone(),
            use_home_ssh_dir_for_checkout_keys: self.settings.use_home_ssh_dir_for_checkout_keys,
            max_run_time_ms: u64::try_from(self.settings.max_run_time.as_millis()).unwrap_or(u64::MAX),
            runner_name: self.settings.name.clone(),
            runner_version: env!("CARGO_PKG_VERSION").to_owned(),
            tool_directory: self.tool_directory.clone(),
            log_level: Some(self.settings.logging.level.as_str().to_ascii_lowercase()),
            log_format: Some(self.settings.logging.settled().name().to_owned()),
            mask_forms: self.settings.mask_forms.clone(),
            pause_seconds: u32::try_from(self.claims.life.host_pause().as_secs()).unwrap_or(u32::MAX),
            drop_output: self.settings.drop_output_on_full_disk,
            rest,
            task,
        };
        serde_json::to_vec(&input).map_err(|error| format!("cannot write the task as JSON: {error}"))
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
        let Some(mut watched) = self.watched.take() else { return };
        if let Some(death) = watched.rest.take() {
            return self.rest_ended(watched, end, death);
        }
        let id = &watched.task.id;
        let code = end.code();
        let not_begun = watched.not_begun.as_deref().filter(|_| !watched.begun);
        let not_begun = match not_begun {
            Some(why) => Some(self.explain_not_begun(why)),
            None => self.explain_prefix(&watched, code, end),
        };
        let is_back = self.return_unheard(&watched, code);
        match (code, not_begun.or(is_back), &watched.token) {
            (Some(task_exit::REPORTED), None, _) => {
                let outcome = watched.outcome.as_deref().unwrap_or("not known");
                let took = duration::format(watched.since.elapsed().unwrap_or_default());
                record!(Info, task_id = id, outcome = outcome, job = watched.task.job_name, took = took; "task done");
                self.claims.board.ended(outcome);
                self.sweep(&watched.task, false);
                self.forget();
                self.claims.life.ended(Instant::now());
            }
            // It was given back, by the task agent or just now.
            (Some(task_exit::REPORTED), Some(why), _) => {
                record!(Error, task_id = id; "the task was given back, since it cannot begin on this host: {why}");
                self.sweep(&watched.task, false);
                self.pause(&why);
            }
            (_, Some(why), Some(token)) => {
                self.sweep(&watched.task, true);
                scratch::remove_left_behind(id, Some(&self.settings.working_directory), true);
                if self.settings.cleanup_working_directory && watched.not_begun.is_none() {
                    scratch::remove_left_working_directory(&self.settings.working_directory);
                }
                let allocation = watched.task.allocation.as_deref();
                let reason = watched.reason(!self.settings.command_prefix.is_empty());
                self.give_back(&GivenBackTask { id, token, allocation }, reason, &why);
            }
            _ => self.bury(watched, end, code == Some(task_exit::NOT_REPORTED)),
        }
    }

    /// The reason of a task agent that could not begin, with the setting that may be behind it.
    fn explain_not_begun(&self, why: &str) -> String {
        if self.settings.command_prefix.is_empty() {
            return why.to_owned();
        }
        let names =
            Vec::from_iter(PREFIX_VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()));
        let lost = match names.is_empty() {
            true => "the prefix changes the user or the environment".to_owned(),
            false => format!("the prefix may drop variables that this runner has: {}", names.join(", ")),
        };
        format!("the task agent behind `runner.command_prefix` says: {why} ({lost})")
    }

    /// Answers for a task whose agent ended without having reported.
    fn bury(&mut self, watched: Watched, end: End, not_reported: bool) {
        let id = &watched.task.id;
        let death = Death::of(end, not_reported, watched.ended_because, watched.agent.last_words.as_deref());
        match end {
            End::Gone => record!(Info, task_id = id; "the task agent of an earlier run has ended"),
            End::Exited(_) => record!(Warn, task_id = id; "{}", death.message),
        }
        // Of one that has not begun there is nothing to send, and one that could not report has tried for long.
        let has_rest = (watched.begun || watched.token.is_none()) && !not_reported;
        self.mourn(watched.task, watched.token, death, has_rest);
    }

    /// Sees to it that what the agent of a task has left is sent before the task is reported lost.
    fn mourn(&mut self, task: RunningTask, token: Option<Secret>, mut death: Death, has_rest: bool) {
        self.sweep(&task, true);
        let wanted = has_rest && self.claims.stop.level() < Level::Cancel;
        let token = match token {
            _ if !wanted => Ok(None),
            Some(token) => Ok(Some(token)),
            None => self.claims.rest(&task.id, task.allocation.as_deref(), &death.message),
        };
        let is_worthless = !death.spool_stays && (!has_rest || wanted && token == Ok(None));
        scratch::remove_left_behind(&task.id, Some(&self.settings.working_directory), is_worthless);
        if let Ok(Some(token)) = token {
            let id = task.id.clone();
            let rest = Task::without_steps(id.clone(), token.clone(), task.job_name.clone());
            match self.start(rest, task.clone(), true) {
                Ok((agent, task)) => {
                    record!(Info, task_id = id; "sending what the task agent has left");
                    self.claims.life.delivers();
                    death.rests += 1;
                    self.watched =
                        Some(Watched { rest: Some(death), ..Watched::of(agent, task, Some(token)) });
                    return;
                }
                Err(why) => record!(Error, task_id = id; "cannot send what the task agent has left: {why}"),
            }
        }
        self.answer_for(&task, &death);
    }

    /// An agent that sends what another one has left may be killed like any other: then the next one goes on.
    fn rest_ended(&mut self, watched: Watched, end: End, mut death: Death) {
        let id = &watched.task.id;
        if matches!(end.code(), Some(task_exit::REPORTED | task_exit::NOT_REPORTED)) {
            return self.answer_for(&watched.task, &death);
        }
        let why = format!("the agent that sends what the task agent has left died ({})", end.text());
        if !death.may_try_again() || self.claims.stop.level() == Level::Cancel {
            let left = death.leaves(id);
            record!(Error, task_id = id; "{why}: {left}");
            return self.answer_for(&watched.task, &death);
        }
        record!(Warn, task_id = id; "{why}, trying again");
        self.claims.stop.pause(death.rest_pause());
        self.mourn(watched.task, watched.token, death, true);
    }

    /// Reports a task whose agent is gone, and does what the agent would have done.
    fn answer_for(&mut self, task: &RunningTask, death: &Death) {
        self.sweep(task, false);
        self.claims.lost(&task.id, task.allocation.as_deref(), &death.message);
        if self.settings.cleanup_working_directory {
            scratch::remove_left_working_directory(&self.settings.working_directory);
        }
        self.forget();
        if !death.is_hosts_fault {
            self.claims.life.ended(Instant::now());
        } else if self.claims.life.lost(Instant::now()) {
            log::warn!("pausing for a minute, since the task agent died at once on this host");
        }
    }

    /// Why a prefix that ended before the task agent said anything is a fault of this host. Whether the task has begun
    /// all the same, unheard, the control plane knows.
    fn explain_prefix(&self, watched: &Watched, code: Option<u8>, end: End) -> Option<String> {
        let prefix = self.settings.command_prefix.first()?;
        let is_told = watched.begun || watched.ended_because.is_some();
        // A signal may have met the task agent as well as the prefix.
        let is_own = code.is_some_and(|code| code != task_exit::REPORTED && code != task_exit::NOT_REPORTED);
        if is_told || !is_own {
            return None;
        }
        let (end, words) = (end.text(), watched.agent.last_words.as_deref());
        let said = words.map_or_else(String::new, |words| format!(", saying `{words}`"));
        Some(format!(
            "`{prefix}` ended before the task began ({end}){said}: check `runner.command_prefix`, and what it says in the log of the runner"
        ))
    }

    /// Behind a prefix that ended well no task agent may ever have run. Where nothing was heard of one, the task is given
    /// back, and the control plane knows whether there was something to give back: then this is why.
    fn return_unheard(&mut self, watched: &Watched, code: Option<u8>) -> Option<String> {
        let prefix = self.settings.command_prefix.first()?;
        let token = watched.token.as_ref()?;
        let is_heard = watched.begun || watched.not_begun.is_some() || watched.ended_because.is_some();
        if is_heard || code != Some(task_exit::REPORTED) {
            return None;
        }
        let why = format!(
            "`{prefix}` ended with exit code 0, and no task agent was heard of: check that `runner.command_prefix` starts the command behind it, waits for its end, and leaves it its standard input and output"
        );
        let back = GivenBackTask { id: &watched.task.id, token, allocation: None };
        let pause = self.claims.life.host_pause();
        let returned = self.claims.try_give_back(&back, GiveBackReason::Host, &why, pause);
        (returned == Returned::Back).then_some(why)
    }

    /// Ends what the task has left behind. `died`: its agent could not.
    fn sweep(&self, task: &RunningTask, died: bool) {
        let sweep = Sweep {
            markers: &task.markers,
            agent: task.agent.as_ref().filter(|agent| agent.is_of_this_boot()).map(|agent| agent.pid),
            owns_children: self.adopts,
            group: self.group.as_ref(),
            // Without adoption nothing else proves that the agent has found everything.
            everywhere: died || self.settings.owns_process && !self.adopts,
        };
        for process in orphans::sweep(&sweep) {
            record!(Warn, task_id = task.id; "killed a process that the task left behind: {process}");
        }
    }

    /// The task is dealt with: the next claim is a new one.
    fn forget(&mut self) {
        if self.claims.stop.leaves() {
            // Perhaps nobody has heard of its end: the next runner asks.
            return;
        }
        self.claims.board.ended("lost");
        self.record.change(|remembered| {
            remembered.task = None;
            remembered.nonce = crate::system::random_id();
        });
    }
}
