//! The machine runner: one host, one task at a time. Carries out what `lifecycle` decides.
//!
//! Claim, start the task agent, wait, report it lost if it died without reporting, clean up, again.
//! A task agent outlives the runner; a restarted runner finds it by the state file, waits for it and
//! answers for it. Called by `runlet machine` and, several at a time, by `runlet exec`.

mod child;
mod orphans;
mod state;
mod tools;

use super::calls;
use super::lifecycle::{ExitReason, Lifecycle, Limits, Next, Notice};
use super::settings::Settings;
use super::stop::{Level, Stop, StopListener};
use crate::executor::scratch;
use crate::http::{self, Client, retry};
use crate::protocol::Task;
use crate::protocol::duration;
use crate::protocol::task_input::{TaskEndpoint, TaskInput, task_exit};
use crate::system::proc;
use child::{Agent, End};
use orphans::{Markers, Sweep};
use state::{OpenError, RunnerRecord, RunningTask};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long the control plane may be away before a lost task is left to its lease.
const REPORT_BUDGET: Duration = Duration::from_secs(600);

/// Why a runner could not begin.
#[derive(Debug)]
pub enum Error {
    /// Trust, URL or proxy cannot be set up.
    Http(http::Error),
    /// Another runner of the same name runs on this host; the message names its pid.
    Taken(String),
    /// The system refused something essential.
    System(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Http(error) => error.fmt(f),
            Error::Taken(message) | Error::System(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

/// Runs a machine runner until it is told to stop or has reason to end. Blocks; installs no signal
/// handlers.
pub fn run(settings: Settings, stop: &Stop) -> Result<ExitReason, Error> {
    let mut runner = Runner::new(settings, stop)?;
    log::info!(
        "starting agent version={} name={} url={} mode={} pid={}",
        env!("CARGO_PKG_VERSION"),
        runner.settings.name,
        runner.settings.endpoint.url,
        if runner.limits.mode == super::settings::Mode::Continuous { "continuous" } else { "single-task" },
        std::process::id()
    );
    if let Some(proxy) = runner.client.proxy() {
        log::info!("calls go through a proxy proxy={proxy}");
    }
    let reason = runner.run();
    match &reason {
        ExitReason::Stopped => log::info!("stopped as asked"),
        ExitReason::SingleTask => log::info!("exiting after one task (mode `single-task`)"),
        ExitReason::Idle => log::info!("exiting: no task within `runner.idle_timeout`"),
        ExitReason::Fatal(_) => {}
    }
    Ok(reason)
}

struct Runner {
    settings: Settings,
    limits: Limits,
    life: Lifecycle,
    stop: StopListener,
    level: Level,
    record: RunnerRecord,
    program: PathBuf,
    tool_directory: Option<PathBuf>,
    /// For reports; claims have a sibling of their own, which a stop request closes.
    client: Client,
    claims: Option<Arc<Client>>,
    running: Option<Watched>,
}

struct Watched {
    agent: Agent,
    task: RunningTask,
    /// A decision of the runner to end it, for the report.
    ended_because: Option<&'static str>,
}

impl Runner {
    fn new(settings: Settings, stop: &Stop) -> Result<Self, Error> {
        let system = |what: &str, error: std::io::Error| Error::System(format!("{what}: {error}"));
        let client = Client::new(&settings.endpoint).map_err(Error::Http)?;
        let stop = stop.listen().map_err(|error| system("cannot make a socket pair", error))?;
        let program = match &settings.task_agent {
            Some(program) => program.clone(),
            None => own_program().map_err(|error| system("cannot find this program", error))?,
        };
        let record = open_record(&settings)?;
        if settings.owns_process {
            orphans::become_reaper();
        }
        if !proc::is_mounted() {
            log::warn!(
                "/proc is not mounted: processes that a task leaves behind cannot be found and ended; mount it"
            );
        }
        let tool_directory = tools::prepare(&settings, &program);
        let limits = Limits {
            mode: settings.mode,
            idle_timeout: settings.idle_timeout,
            max_run_time: settings.max_run_time,
        };
        let life = Lifecycle::new(limits, Instant::now());
        Ok(Self {
            settings,
            limits,
            life,
            stop,
            level: Level::Run,
            record,
            program,
            tool_directory,
            client,
            claims: None,
            running: None,
        })
    }

    fn run(&mut self) -> ExitReason {
        self.adopt();
        loop {
            self.hear();
            match self.life.next(Instant::now()) {
                Next::Claim(wait) => self.claim(wait),
                Next::Sleep(time) => child::pause(&self.stop, time),
                Next::Watch(until) => self.watch(until),
                Next::Term(why) => {
                    if let Some(running) = &mut self.running {
                        log::warn!("ending the task: {} task_id={}", why.text(), running.task.id);
                        running.ended_because = Some(why.text());
                        running.agent.term();
                    }
                }
                Next::Kill(why) => {
                    if let Some(running) = &self.running {
                        log::warn!(
                            "the task agent did not end in time and is killed: {} task_id={}",
                            why.text(),
                            running.task.id
                        );
                        running.agent.kill();
                    }
                }
                Next::Exit(reason) => return reason,
            }
        }
    }

    /// Takes notice of the stop level.
    fn hear(&mut self) {
        let level = self.stop.level();
        if level == self.level {
            return;
        }
        self.level = level;
        self.life.stop(level, Instant::now());
        match (&self.running, level) {
            (Some(running), Level::Drain) => log::info!(
                "draining: no further tasks; the running one may finish within {} task_id={}",
                duration::format(self.settings.max_run_time),
                running.task.id
            ),
            (None, Level::Drain) => log::info!("draining: no further tasks, none is running"),
            _ => {}
        }
    }

    fn claim(&mut self, wait: Duration) {
        let claims = match self.claims_client() {
            Ok(claims) => claims,
            Err(error) => {
                self.failed(&error, Instant::now());
                return;
            }
        };
        if self.record.remembered.nonce.is_empty() {
            self.record.change(|state| state.nonce = nonce());
        }
        let started = Instant::now();
        match calls::claim(&claims, &self.settings, &self.record.remembered.nonce, wait) {
            Ok(None) => {
                let notice = self.life.nothing_came(started, Instant::now(), retry::random());
                self.tell(notice);
            }
            Ok(Some(task)) => {
                // The connection would only grow stale while the task runs.
                self.claims = None;
                self.stop.release();
                let now = Instant::now();
                let notice = self.life.claimed(now, now);
                self.tell(notice);
                self.begin(task);
            }
            Err(error) => {
                log::debug!("a claim failed: {error}");
                self.hear();
                self.failed(&error, started);
            }
        }
    }

    fn claims_client(&mut self) -> Result<Arc<Client>, http::Error> {
        if let Some(claims) = &self.claims {
            return Ok(claims.clone());
        }
        let claims = Arc::new(self.client.sibling()?);
        self.stop.guard(claims.clone());
        self.claims = Some(claims.clone());
        Ok(claims)
    }

    fn failed(&mut self, error: &http::Error, started: Instant) {
        let notice = self.life.claim_failed(error, started, Instant::now(), retry::random());
        self.tell(notice);
    }

    fn tell(&self, notice: Option<Notice>) {
        match notice {
            None => {}
            Some(Notice::Away(why)) => log::error!("cannot claim tasks, trying on quietly: {why}"),
            Some(Notice::Back(time)) => {
                log::info!("claims are answered again after {}", duration::format(time));
            }
            Some(Notice::Shortened(wait)) => log::warn!(
                "something between here and the control plane cuts calls that wait; asking every {} from now on",
                duration::format(wait)
            ),
        }
    }

    /// Starts the task agent of a claimed task.
    fn begin(&mut self, task: Task) {
        log::info!("claimed a task task_id={} job={:?}", task.id, task.job_name);
        if self.stop.level() == Level::Cancel {
            match calls::unclaim(&self.client, &task) {
                Ok(()) => log::info!("gave the task back, since the runner stops task_id={}", task.id),
                Err(error) => log::warn!("cannot give the task back task_id={}: {error}", task.id),
            }
            self.forget();
            self.life.ended(Instant::now());
            return;
        }
        let remembered = RunningTask {
            id: task.id.clone(),
            job_name: task.job_name.clone(),
            markers: Markers::of(&task),
            claimed_at_ms: unix_ms(),
            agent: None,
        };
        self.record.change(|state| state.task = Some(remembered.clone()));
        let started = self
            .input(task)
            .and_then(|input| Ok((child::start(&self.settings, &self.program, &remembered.id)?, input)));
        let (mut agent, input) = match started {
            Ok(started) => started,
            Err(why) => {
                log::error!("{why} task_id={}", remembered.id);
                self.answer_for(&remembered, &why, true);
                return;
            }
        };
        let process = agent.process();
        log::info!("task agent started task_id={} agent_pid={}", remembered.id, process.pid);
        self.record.change(|state| {
            if let Some(task) = &mut state.task {
                task.agent = Some(process);
            }
        });
        agent.feed(input);
        let task = self.record.remembered.task.clone().unwrap_or(remembered);
        self.running = Some(Watched { agent, task, ended_because: None });
    }

    /// The document for the task agent's standard input.
    fn input(&self, task: Task) -> Result<Vec<u8>, String> {
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
            use_home_ssh_dir_for_checkout_keys: self.settings.use_home_ssh_dir_for_checkout_keys,
            max_run_time_ms: u64::try_from(self.settings.max_run_time.as_millis()).unwrap_or(u64::MAX),
            runner_name: self.settings.name.clone(),
            runner_version: env!("CARGO_PKG_VERSION").to_owned(),
            tool_directory: self.tool_directory.clone(),
            log_level: Some(self.settings.logging.level.as_str().to_ascii_lowercase()),
            log_format: Some(self.settings.logging.format.name().to_owned()),
            task,
        };
        serde_json::to_vec(&input).map_err(|error| format!("cannot write the task as JSON: {error}"))
    }

    fn watch(&mut self, until: Option<Instant>) {
        let Some(running) = &mut self.running else {
            // The lifecycle only watches what was begun; if that ever breaks, it must not spin.
            self.life.ended(Instant::now());
            return;
        };
        let Some(end) = running.agent.wait(until, &self.stop) else { return };
        let Some(running) = self.running.take() else { return };
        let id = &running.task.id;
        let reported =
            matches!(end, End::Exited(status) if status.code() == Some(i32::from(task_exit::REPORTED)));
        if reported {
            log::info!("task done task_id={id}");
            self.sweep(&running.task);
            self.forget();
            self.life.ended(Instant::now());
            return;
        }
        let not_reported =
            matches!(end, End::Exited(status) if status.code() == Some(i32::from(task_exit::NOT_REPORTED)));
        let mut message = match not_reported {
            true => "the task agent could not report the outcome".to_owned(),
            false => format!("the task agent died ({})", end.text()),
        };
        if let Some(why) = running.ended_because {
            message = format!("{message} after being told to end: {why}");
        }
        match end {
            End::Gone => log::info!("the task agent of an earlier run has ended task_id={id}"),
            End::Exited(_) => log::warn!("{message} task_id={id}"),
        }
        self.answer_for(&running.task, &message, !not_reported && end != End::Gone);
    }

    /// Reports a task whose agent is gone, and does what the agent would have done. With
    /// `is_hosts_fault`, the next task might well meet the same end.
    fn answer_for(&mut self, task: &RunningTask, message: &str, is_hosts_fault: bool) {
        self.sweep(task);
        self.report(task, message);
        scratch::remove_left_behind(&task.id, &self.settings.working_directory);
        if self.settings.cleanup_working_directory {
            scratch::remove_working_directory(&self.settings.working_directory);
        }
        self.forget();
        if !is_hosts_fault {
            self.life.ended(Instant::now());
        } else if self.life.lost(Instant::now()) {
            log::warn!("pausing for a minute, since the task agent died at once on this host");
        }
    }

    fn sweep(&self, task: &RunningTask) {
        let sweep = Sweep {
            markers: &task.markers,
            agent: task.agent.as_ref().filter(|agent| agent.is_of_this_boot()).map(|agent| agent.pid),
            owns_children: self.settings.owns_process,
        };
        for process in orphans::sweep(&sweep) {
            log::warn!("killed a process that the task left behind: {process} task_id={}", task.id);
        }
    }

    fn report(&mut self, task: &RunningTask, message: &str) {
        let mut backoff = retry::Backoff::new(Duration::from_secs(1), Duration::from_secs(30), REPORT_BUDGET);
        let mut told = false;
        loop {
            let error = match calls::lost(&self.client, &self.settings, &task.id, message) {
                Ok(()) => {
                    return log::info!(
                        "told the control plane that the task agent is gone task_id={}",
                        task.id
                    );
                }
                Err(error) => error,
            };
            let wait = backoff.after(&error, Instant::now(), retry::random());
            let (Some(wait), false) = (wait, self.stop.level() == Level::Cancel) else {
                log::error!("cannot report the lost task, its lease will lapse task_id={}: {error}", task.id);
                return;
            };
            if !std::mem::replace(&mut told, true) {
                log::warn!("cannot report the lost task yet, trying on task_id={}: {error}", task.id);
            }
            child::pause(&self.stop, wait);
        }
    }

    /// The task is dealt with: the next claim is a new one.
    fn forget(&mut self) {
        self.record.change(|state| {
            state.task = None;
            state.nonce = nonce();
        });
    }

    /// Takes over the task of an earlier run.
    fn adopt(&mut self) {
        let Some(task) = self.record.remembered.task.clone() else { return };
        let now = Instant::now();
        let age = Duration::from_millis(unix_ms().saturating_sub(task.claimed_at_ms));
        self.life.claimed(now.checked_sub(age).unwrap_or(now), now);
        match task.agent.as_ref().and_then(Agent::find) {
            Some(agent) => {
                log::info!(
                    "found the running task of an earlier run, waiting for it task_id={} agent_pid={}",
                    task.id,
                    agent.process().pid
                );
                self.running = Some(Watched { agent, task, ended_because: None });
            }
            None => {
                let message = "the task agent was gone when the runner started again";
                log::warn!("{message} task_id={}", task.id);
                self.answer_for(&task, message, false);
            }
        }
    }
}

/// Opens the state; a directory that cannot be used costs the memory, not the runner.
fn open_record(settings: &Settings) -> Result<RunnerRecord, Error> {
    let Some(directory) = &settings.state_directory else { return Ok(RunnerRecord::forgetful()) };
    let uid = rustix::process::geteuid().as_raw();
    let fallback = std::env::temp_dir().join(format!("runlet-{uid}"));
    let mut reasons = Vec::new();
    for directory in [directory, &fallback] {
        match RunnerRecord::open(directory, &settings.name) {
            Ok(record) => {
                if let Some(reason) = reasons.first() {
                    log::warn!("{reason}; keeping state in `{}` instead", directory.display());
                }
                return Ok(record);
            }
            Err(OpenError::Taken(message)) => return Err(Error::Taken(message)),
            Err(OpenError::Unusable(reason)) => reasons.push(reason),
        }
    }
    log::warn!(
        "{}; a runner restarted during a task will not know of it; set `runner.state_directory`",
        reasons.join("; ")
    );
    Ok(RunnerRecord::forgetful())
}

/// The path of this program. Without `/proc` the system cannot tell, but the one it was called by may do.
fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe().or_else(|error| {
        let called = std::env::args_os().next().map(PathBuf::from);
        called.filter(|path| path.components().count() > 1).ok_or(error)?.canonicalize()
    })
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// 128 random bits. Not a secret, but it should not be guessed by chance.
fn nonce() -> String {
    let mut bytes = [0u8; 16];
    if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).is_err() {
        bytes = (u128::from(unix_ms()) << 32 | u128::from(std::process::id())).to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One authenticated call that changes nothing, for `--check`. The error says what is wrong.
pub(in crate::agent) fn check(settings: &Settings) -> Result<(), String> {
    let client = Client::new(&settings.endpoint).map_err(|error| error.to_string())?;
    let none = crate::protocol::TaskId::new("00000000-0000-0000-0000-000000000000")
        .map_err(|error| error.to_string())?;
    match calls::lost(&client, settings, &none, "check of the runner's settings") {
        Ok(()) => Ok(()),
        // Only a control plane that knows the token says that the task is unknown, in its own words.
        Err(http::Error::Refused { status: 404, refusal: Some(_), .. }) => Ok(()),
        Err(error) => Err(super::lifecycle::advice(&error)),
    }
}
