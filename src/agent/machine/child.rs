//! The process of a task agent: started, waited for, signalled; or found again after a restart.

use super::group::Group;
use super::lines::PipeLines;
use super::orphans::TASK_VARIABLE;
use super::state::AgentProcess;
use crate::agent::settings::{Settings, token_variables};
use crate::agent::stop::StopListener;
use crate::logging::{self, record};
use crate::protocol::TaskId;
use crate::protocol::task_input::Said;
use crate::system::os::{self, Pid};
use crate::system::proc::{boot_id, stat};
use crate::system::{service, threads};
use rustix::fd::{AsFd, OwnedFd};
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a process is looked at when the kernel has no pidfd.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// Pause between two looks at a child of our own, whose end should be noticed soon.
const CHILD_POLL: Duration = Duration::from_millis(200);

/// How often it is looked at whether a step has stopped its task agent: before the lease of the task ends.
const STOPPED_LOOK: Duration = Duration::from_secs(30);

/// Longest last words that reach a job, in characters.
const LONGEST_WORDS: usize = 300;

/// A task agent.
pub(super) struct Agent {
    kind: Kind,
    pid: Pid,
    pidfd: Option<OwnedFd>,
    /// Standard output of the agent, while it is open.
    lines: Option<PipeLines>,
    said: Vec<(Said, Option<String>)>,
    /// The standard error of a wrapper, while it is open. It goes to the log as it is.
    errors: Option<PipeLines>,
    /// The last line of that, or what a task agent said of its own fault.
    pub(super) last_words: Option<String>,
    /// The task has begun: standard error may quote what the job has named, which nobody masks, and goes to the
    /// log of the runner alone.
    is_quiet: bool,
    logging: logging::LogOptions,
    /// A wrapper has a process group of its own, so that a terminal's Ctrl-C does not reach it.
    has_group: bool,
    /// Hands over the task.
    feeder: Option<JoinHandle<()>>,
}

enum Kind {
    /// Started by this process.
    Child(Child),
    /// Started by an earlier runner.
    Adopted(AgentProcess),
}

/// How a task agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Exited with this status.
    Exited(ExitStatus),
    /// Somehow: it was not our child.
    Gone,
}

impl End {
    /// The exit code, of one that ended by itself.
    pub(super) fn code(self) -> Option<u8> {
        match self {
            End::Exited(status) => status.code().and_then(|code| u8::try_from(code).ok()),
            End::Gone => None,
        }
    }

    /// Tells the end, for people and for the control plane.
    pub(super) fn text(self) -> String {
        match self {
            End::Exited(status) => match (status.code(), os::signal_of(status)) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => status.to_string(),
            },
            End::Gone => "unknown exit code, since it was started by an earlier run of the runner".to_owned(),
        }
    }
}

/// The command `program task`, wrapped in the command prefix, with pipes to and from it. Whatever it runs as the user of
/// jobs, it has none of the variables that are meant for the runner alone.
pub(in crate::agent) fn command(settings: &Settings, program: &Path) -> Command {
    let task = [program.as_os_str(), OsStr::new("task")];
    let mut words = settings.command_prefix.iter().map(OsStr::new).chain(task);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in token_variables().chain(service::VARIABLES) {
        command.env_remove(name);
    }
    command
}

/// Starts the task agent `program task`, wrapped in the command prefix. It gets nothing to read yet.
/// The error says what could not be started.
pub(super) fn start(
    settings: &Settings,
    program: &Path,
    task: &TaskId,
    identity: Option<&str>,
    group: Option<&Group>,
) -> Result<Agent, String> {
    let wrapped = !settings.command_prefix.is_empty();
    let mut command = command(settings, program);
    if wrapped {
        os::lead_group(&mut command);
    } else {
        os::without_console(&mut command);
        command.stderr(settings.logging.stdio());
    }
    // A runner that has lost its record finds it by its arguments.
    command.arg(task.as_str()).args(identity).env(TASK_VARIABLE, task.as_str());
    // A failure to join the group is only logged: the task runs without it.
    if let Some(Err(error)) = group.map(Group::join) {
        log::warn!("cannot start the task agent in a control group of its own: {error}");
    }
    let mut child = command.spawn().map_err(|error| {
        let setting = if wrapped { "; check `runner.command_prefix`" } else { "" };
        let first = command.get_program().to_string_lossy();
        format!("cannot start the task agent: `{first}`: {error}{setting}")
    })?;
    let pid = Pid::from_raw(child.id() as i32).ok_or("the task agent has no process id")?;
    let lines = child.stdout.take().and_then(|out| PipeLines::of(out.into()));
    let errors = child.stderr.take().and_then(|errors| PipeLines::of(errors.into()));
    Ok(Agent {
        kind: Kind::Child(child),
        pid,
        pidfd: os::end_of(pid),
        lines,
        said: Vec::new(),
        errors,
        last_words: None,
        is_quiet: false,
        logging: settings.logging.clone(),
        has_group: wrapped,
        feeder: None,
    })
}

impl Agent {
    /// The process, for the state file.
    pub(super) fn process(&self) -> AgentProcess {
        match &self.kind {
            Kind::Adopted(process) => process.clone(),
            Kind::Child(_) => Self::now(self.pid.as_raw_nonzero().get()),
        }
    }

    /// A process of this start of the system.
    pub(super) fn now(pid: i32) -> AgentProcess {
        AgentProcess { pid, start_time: stat(pid).map(|stat| stat.start_time), boot_id: boot_id() }
    }

    /// The process of an earlier run, if it still runs.
    pub(super) fn find(process: &AgentProcess) -> Option<Self> {
        let pid = Pid::from_raw(process.pid)?;
        // The pidfd comes first: once it is open, the number cannot pass to another process unseen.
        let pidfd = os::end_of(pid);
        let agent = Agent {
            kind: Kind::Adopted(process.clone()),
            pid,
            pidfd,
            lines: None,
            said: Vec::new(),
            errors: None,
            last_words: None,
            is_quiet: false,
            logging: logging::LogOptions::default(),
            has_group: false,
            feeder: None,
        };
        is_same(process).then_some(agent)
    }

    /// Goes over from its wrapper, which has ended, to itself. What it says is heard as before.
    pub(super) fn follow(&mut self, process: AgentProcess) {
        let Some(pid) = Pid::from_raw(process.pid) else { return };
        self.pid = pid;
        self.pidfd = os::end_of(pid);
        self.kind = Kind::Adopted(process);
        self.has_group = false;
    }

    /// Hands over the task. A wrapper may never read: a thread of its own writes what the pipe has no room for.
    pub(super) fn feed(&mut self, input: Vec<u8>) {
        let Kind::Child(child) = &mut self.kind else { return };
        let Some(mut stdin) = child.stdin.take() else { return };
        let fits = os::pipe_room(&stdin).is_some_and(|room| input.len() <= room);
        let mut write = move || {
            if let Err(error) = stdin.write_all(&input) {
                record!(Debug; "the task agent did not read its task: {error}");
            }
        };
        if fits {
            return write();
        }
        match threads::start_small("task input", 64 * 1024, write) {
            Ok(thread) => self.feeder = Some(thread),
            // The agent sees the end of its input and exits; that is reported as its end.
            Err(error) => log::error!("cannot start a thread to hand over the task: {error}"),
        }
    }

    /// Whether the task is still being handed over.
    pub(super) fn is_being_fed(&self) -> bool {
        self.feeder.as_ref().is_some_and(|feeder| !feeder.is_finished())
    }

    /// Lines about its task since the last call.
    pub(super) fn take_said(&mut self) -> Vec<(Said, Option<String>)> {
        std::mem::take(&mut self.said)
    }

    fn listen(&mut self) {
        if let Some(errors) = &mut self.errors {
            for line in errors.read() {
                logging::pass_on(&self.logging, &line);
                let shown: String = line.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
                self.last_words = Some(shown).filter(|_| !self.is_quiet);
            }
            if errors.is_closed() {
                self.errors = None;
            }
        }
        let Some(lines) = &mut self.lines else { return };
        for line in lines.read() {
            match Said::read(&line) {
                Some(said) => {
                    if said.0 == Said::Begun {
                        (self.last_words, self.is_quiet) = (None, true);
                    }
                    self.said.push(said);
                }
                None => log::info!("the task agent, or what wraps it, says: {line}"),
            }
        }
        if lines.is_closed() {
            self.lines = None;
        }
    }

    /// Waits for its end, at most until `until`. `None`: not yet; it said something, or the stop level changed.
    pub(super) fn wait(&mut self, until: Option<Instant>, stop: &StopListener) -> Option<End> {
        if let Some(end) = self.ended() {
            self.listen();
            return Some(end);
        }
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let slice = match (&self.pidfd, &self.kind) {
            (Some(_), _) => STOPPED_LOOK,
            (None, Kind::Child(_)) => CHILD_POLL,
            (None, Kind::Adopted(_)) => SLOW_POLL,
        };
        let timeout = left.map_or(slice, |left| left.min(slice));
        let mut also = Vec::new();
        also.extend(self.pidfd.as_ref().map(AsFd::as_fd));
        also.extend(self.lines.iter().chain(&self.errors).map(PipeLines::as_fd));
        stop.wait(&also, Some(timeout));
        self.listen();
        self.wake();
        self.ended().inspect(|_| self.listen())
    }

    /// Lets one go on that a step has stopped: it would hear neither of a cancel nor of the end of its time.
    fn wake(&self) {
        let pid = self.pid.as_raw_nonzero();
        if stat(pid.get()).is_some_and(|stat| stat.stopped) {
            record!(Warn, agent_pid = pid; "the task agent was stopped by a signal: it is let go on");
            os::go_on(self.pid);
        }
    }

    fn ended(&mut self) -> Option<End> {
        match &mut self.kind {
            Kind::Child(child) => match child.try_wait() {
                Ok(status) => status.map(End::Exited),
                Err(error) => {
                    log::warn!("cannot wait for the task agent: {error}");
                    (!os::is_alive(self.pid)).then_some(End::Gone)
                }
            },
            Kind::Adopted(process) => (!is_same(process)).then_some(End::Gone),
        }
    }

    /// Asks it to end. With a prefix the wrapper is asked, which has to pass it on.
    pub(super) fn term(&self) {
        if let Err(error) = os::stop(self.pid) {
            record!(Warn, agent_pid = self.pid.as_raw_nonzero(); "cannot send TERM to the task agent: {error}");
        }
    }

    /// Ends it, its wrapper and the wrapper's process group. The steps are for the sweep.
    pub(super) fn kill(&self) {
        if self.has_group {
            os::kill_group(self.pid);
        }
        if let Err(error) = os::kill(self.pid) {
            record!(Warn, agent_pid = self.pid.as_raw_nonzero(); "cannot kill the task agent: {error}");
        }
    }
}

impl AgentProcess {
    /// Whether its number can still mean anything.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot_id.is_none() || boot_id().is_none_or(|now| Some(now) == self.boot_id)
    }
}

/// Whether the process still runs and is the one that was meant.
fn is_same(process: &AgentProcess) -> bool {
    let Some(pid) = Pid::from_raw(process.pid) else { return false };
    if !process.is_of_this_boot() {
        return false;
    }
    match (process.start_time, stat(process.pid)) {
        (Some(start), Some(now)) => start == now.start_time && !now.zombie,
        // Without `/proc` only the number is known.
        (None, _) => os::is_alive(pid),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::agent::stop::Stop;

    fn sleeper() -> Agent {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        Agent {
            kind: Kind::Child(child),
            pid,
            pidfd: os::end_of(pid),
            lines: None,
            said: Vec::new(),
            errors: None,
            last_words: None,
            is_quiet: false,
            logging: logging::LogOptions::default(),
            has_group: false,
            feeder: None,
        }
    }

    #[test]
    fn what_is_said_on_standard_error_once_the_task_has_begun_is_not_passed_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo early >&2; read go; echo late S3cr3t >&2"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (said, out) = os::pipe().unwrap();
        let mut out = std::fs::File::from(out);
        let mut agent = Agent {
            lines: PipeLines::of(said),
            errors: PipeLines::of(child.stderr.take().unwrap().into()),
            ..sleeper()
        };
        let until = |agent: &mut Agent, wanted: &dyn Fn(&Agent) -> bool| {
            let deadline = Instant::now() + Duration::from_secs(300);
            while !wanted(agent) && Instant::now() < deadline {
                agent.listen();
                std::thread::yield_now();
            }
            assert!(wanted(agent));
        };
        until(&mut agent, &|agent| agent.last_words.as_deref() == Some("early"));
        writeln!(out, "{}", Said::Begun.line(None)).unwrap();
        until(&mut agent, &|agent| !agent.said.is_empty());
        assert_eq!(agent.last_words, None);
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        until(&mut agent, &|agent| agent.errors.is_none());
        assert_eq!(agent.last_words, None);
        child.wait().unwrap();
        agent.kill();
        wait(&mut agent);
    }

    fn wait(agent: &mut Agent) -> End {
        let stop = Stop::new().listen().unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            if let Some(end) = agent.wait(Some(deadline), &stop) {
                return end;
            }
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn an_end_is_noticed_with_and_without_pidfd() {
        for with in [true, false] {
            let mut agent = sleeper();
            if !with {
                agent.pidfd = None;
            }
            let stop = Stop::new().listen().unwrap();
            assert_eq!(agent.wait(Some(Instant::now()), &stop), None);
            agent.term();
            assert_eq!(wait(&mut agent).text(), "signal 15");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn one_that_was_stopped_goes_on() {
        let mut agent = sleeper();
        let stop = Stop::new().listen().unwrap();
        let is_stopped = || stat(agent.pid.as_raw_nonzero().get()).unwrap().stopped;
        rustix::process::kill_process(agent.pid, rustix::process::Signal::STOP).unwrap();
        while !is_stopped() {
            std::thread::yield_now();
        }
        assert_eq!(agent.wait(Some(Instant::now()), &stop), None);
        agent.term();
        assert_eq!(wait(&mut agent).text(), "signal 15");
    }

    #[test]
    fn a_stop_request_ends_a_wait() {
        let mut agent = sleeper();
        let stop = Stop::new();
        let listener = stop.listen().unwrap();
        stop.escalate();
        assert_eq!(agent.wait(None, &listener), None);
        agent.kill();
        assert_eq!(wait(&mut agent).text(), "signal 9");
    }

    #[test]
    fn a_process_is_found_again_unless_it_is_another_one() {
        let mut agent = sleeper();
        let process = agent.process();
        let mut found = Agent::find(&process).unwrap();
        if process.start_time.is_some() {
            let later = AgentProcess { start_time: process.start_time.map(|t| t + 1), ..process.clone() };
            assert!(Agent::find(&later).is_none());
            let reboot = AgentProcess { boot_id: Some("another".into()), ..process.clone() };
            assert!(Agent::find(&reboot).is_none());
        }
        agent.kill();
        wait(&mut agent);
        assert_eq!(wait(&mut found), End::Gone);
        assert!(Agent::find(&process).is_none());
    }
}
