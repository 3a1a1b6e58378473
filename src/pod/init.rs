//! The first process of a task's container: it gets the task, starts the task agent, reaps whatever loses its parent,
//! and passes signals on. When it ends, the system ends everything in the container.
//!
//! ```text
//! fetch the task -> wait for the other containers -> task agent -> (killed: send what it has left) -> exit
//! ```

use super::user;
use crate::http::{Body, Client, Endpoint, Error, Request, retry};
use crate::outcome::{Failure, Outcome, exit};
use crate::protocol::pod_task::{PodTask, SHARED, VARIABLE};
use crate::protocol::task_input::{TaskEndpoint, TaskInput, task_exit};
use crate::protocol::{RefusalCode, Task, json};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Address of the probes.
const PROBES: &str = "[::]:7623";
/// How long the control plane may be out of reach before the pod gives up: another node may reach it.
const FETCH_PATIENCE: Duration = Duration::from_secs(120);
/// How long the other containers may take to start.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(50);
/// How often the claim is renewed meanwhile.
const RENEW: Duration = Duration::from_secs(15);
/// Longest wait for a call that is answered at once.
const SHORT: Duration = Duration::from_secs(30);

/// Runs the task of the environment.
pub(super) fn run() -> Outcome {
    // The token is in its environment and in its memory.
    crate::system::keep_memory_private();
    let text = std::env::var(VARIABLE)
        .map_err(|_| Failure::usage(format!("`runlet pod run` finds its task in the variable {VARIABLE}")))?;
    // The error of a parser may quote its input, which holds the token.
    let pod: PodTask = json::read(text.as_bytes()).map_err(|error| {
        Failure::usage(format!("{VARIABLE} is not what a runner writes ({})", json::place(&error)))
    })?;
    let level = pod.log_level.as_deref().and_then(|level| crate::logging::parse_level(level).ok());
    let options = crate::logging::LogOptions {
        level: level.unwrap_or(log::LevelFilter::Info),
        format: crate::logging::Format::Text,
        file: None,
    };
    crate::logging::init(&options).map_err(Failure::new)?;
    let signals = Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT]);
    let signals = signals.map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
    // An init of the image, where that is the first process, would get the orphans.
    let _ = crate::system::os::adopt_orphans();
    let ready = Arc::new(AtomicBool::new(false));
    crate::system::probes::serve(PROBES, Arc::clone(&ready));
    Init { pod, signals, ready, entrypoint: None }
        .run()
        .map_err(|message| Failure { code: task_exit::NOT_REPORTED, message })
}

struct Init {
    pod: PodTask,
    signals: Signals,
    ready: Arc<AtomicBool>,
    entrypoint: Option<Pid>,
}

/// How a child ended.
enum End {
    Exited(u8),
    Killed(i32),
}

impl Init {
    fn run(&mut self) -> Result<u8, String> {
        let endpoint = self.endpoint()?;
        let client = Client::of_runner(&Endpoint {
            url: endpoint.url.clone(),
            ca_file: endpoint.ca_file.clone(),
            client_certificate: None,
        });
        let client = client.map_err(|error| error.to_string())?;
        self.start_entrypoint()?;
        let Some(task) = self.fetch(&client)? else { return Ok(exit::OK) };
        if !self.wait_for_others(&client)? {
            return Ok(exit::OK);
        }
        drop(client);
        let agent = self.start_agent(&endpoint, task, false)?;
        self.ready.store(true, Ordering::Relaxed);
        match self.wait(agent) {
            End::Exited(code) => Ok(code),
            End::Killed(signal) => {
                log::error!(
                    "the task agent was killed by signal {signal}{}; sending what it has left",
                    if signal == 9 { ", perhaps because the container is out of memory" } else { "" }
                );
                let id = self.pod.id.clone();
                let nothing = Task::without_steps(id, self.pod.token.clone(), String::new());
                let rest = self.start_agent(&endpoint, nothing, true)?;
                self.wait(rest);
                Ok(exit::FAILED)
            }
        }
    }

    /// The control plane, and the file of the authorities to trust.
    fn endpoint(&self) -> Result<TaskEndpoint, String> {
        let mut endpoint = TaskEndpoint { url: self.pod.url.clone(), ..TaskEndpoint::default() };
        if let Some(ca) = &self.pod.ca {
            let file = Path::new(SHARED).join("control-plane-ca.pem");
            fs::write(&file, ca).map_err(|error| format!("cannot write `{}`: {error}", file.display()))?;
            endpoint.ca_file = Some(file);
        }
        Ok(endpoint)
    }

    fn start_entrypoint(&mut self) -> Result<(), String> {
        let [program, arguments @ ..] = self.pod.entrypoint.as_slice() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).env_remove(VARIABLE).stdin(Stdio::null()).process_group(0);
        self.switch_user(&mut command);
        let child =
            command.spawn().map_err(|error| format!("cannot start the entry point `{program}`: {error}"))?;
        self.entrypoint = Some(Pid::from_child(&child));
        Ok(())
    }

    /// The task; nothing when it is nobody's any more, or another pod's.
    fn fetch(&mut self, client: &Client) -> Result<Option<Task>, String> {
        let mut backoff =
            retry::Backoff::new(Duration::from_millis(200), Duration::from_secs(10), FETCH_PATIENCE);
        let path = format!("/api/v3/runner/tasks/{}", self.pod.id);
        loop {
            let request = Request {
                method: "GET",
                path: &path,
                token: Some(&self.pod.token),
                body: Body::Empty,
                timeout: SHORT,
            };
            let error = match client.json::<Task>(&request) {
                Ok(task) => return Ok(Some(task)),
                Err(error) if is_over(&error) => {
                    log::warn!("the task does not begin: {error}");
                    return Ok(None);
                }
                Err(error) => error,
            };
            let Some(wait) = backoff.after(&error, Instant::now(), retry::random()) else {
                return Err(format!("the pod cannot get its task: {error}"));
            };
            log::warn!("{error}; trying again in {} ms", wait.as_millis());
            self.pause(wait)?;
        }
    }

    /// Waits for the files of the other containers, and keeps the claim. False when the task is over meanwhile.
    fn wait_for_others(&mut self, client: &Client) -> Result<bool, String> {
        let started = Instant::now();
        let mut renewed = started;
        while let Some(missing) = self.pod.wait_for.iter().find(|file| !file.exists()) {
            if started.elapsed() > START_PATIENCE {
                let minutes = START_PATIENCE.as_secs() / 60;
                return Err(format!(
                    "a service container has not started in {minutes} minutes (`{}` is missing)",
                    missing.display()
                ));
            }
            if renewed.elapsed() > RENEW {
                renewed = Instant::now();
                let path = format!("/api/v3/runner/tasks/{}/heartbeat?wait=0", self.pod.id);
                let request = Request {
                    method: "POST",
                    path: &path,
                    token: Some(&self.pod.token),
                    body: Body::Json(b"{}"),
                    timeout: SHORT,
                };
                match client.bytes(&request) {
                    Err(error) if is_over(&error) => return Ok(false),
                    Err(error) => log::warn!("the claim could not be renewed: {error}"),
                    Ok(_) => {}
                }
            }
            self.pause(LOOK)?;
        }
        Ok(true)
    }

    /// Waits, unless somebody wants it to end.
    fn pause(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        loop {
            if self.signals.pending().any(|signal| signal != SIGCHLD) {
                return Err("the pod was told to stop before the task had begun".to_owned());
            }
            self.reap(None);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn start_agent(&self, endpoint: &TaskEndpoint, task: Task, rest: bool) -> Result<Pid, String> {
        let input = TaskInput {
            endpoint: endpoint.clone(),
            working_directory: None,
            cleanup_working_directory: false,
            confine: false,
            local_source: None,
            #[cfg(feature = "server")]
            output_directory: None,
            use_home_ssh_dir_for_checkout_keys: false,
            max_run_time_ms: self.pod.max_run_time_ms,
            runner_name: self.pod.runner_name.clone(),
            runner_version: self.pod.runner_version.clone(),
            tool_directory: std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned)),
            log_level: self.pod.log_level.clone(),
            log_format: None,
            mask_forms: self.pod.mask_forms.clone(),
            pause_seconds: 0,
            drop_output: false,
            rest,
            task,
        };
        let input =
            serde_json::to_vec(&input).map_err(|error| format!("cannot write the task as JSON: {error}"))?;
        let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let mut command = Command::new(own);
        command.arg("task").env_remove(VARIABLE).stdin(Stdio::piped());
        if std::env::var_os("TMPDIR").is_none() && !is_writable(Path::new("/tmp")) {
            // A root that cannot be written: the pod has one folder that can.
            command.env("TMPDIR", SHARED);
        }
        self.switch_user(&mut command);
        let mut child = command.spawn().map_err(|error| format!("cannot start the task agent: {error}"))?;
        let pid = Pid::from_child(&child);
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(&input)
                .map_err(|error| format!("the task agent did not read its task: {error}"))?;
        }
        Ok(pid)
    }

    /// Has the command run as the user that the config names, where the image has that user.
    fn switch_user(&self, command: &mut Command) {
        let Some(wanted) = &self.pod.user else { return };
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        match user::find(wanted, &file("/etc/passwd"), &file("/etc/group")) {
            Some(user) if user.uid == rustix::process::getuid().as_raw() => {}
            Some(user) => {
                command.uid(user.uid).gid(user.gid).env("HOME", user.home);
            }
            None => {
                log::error!("the image has no user `{wanted}`: the steps run as the user of the container")
            }
        }
    }

    /// Takes in all children that have ended; the end of `child`, if it is among them.
    fn reap(&mut self, child: Option<Pid>) -> Option<End> {
        let mut found = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            // The number may be another process's from now on.
            self.entrypoint = self.entrypoint.filter(|entrypoint| *entrypoint != pid);
            if Some(pid) == child {
                found = Some(end_of(status));
            }
        }
        found
    }

    /// Waits for the end of a child, passes signals on, and reaps everything else.
    fn wait(&mut self, child: Pid) -> End {
        loop {
            if let Some(end) = self.reap(Some(child)) {
                return end;
            }
            for number in self.signals.wait() {
                let Some(signal) = Signal::from_named_raw(number).filter(|_| number != SIGCHLD) else {
                    continue;
                };
                for pid in [Some(child), self.entrypoint].into_iter().flatten() {
                    // A process that ended a moment ago is not reaped yet: the number is still its own.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

/// Whether the task is none of this pod's any more, or has begun elsewhere.
fn is_over(error: &Error) -> bool {
    matches!(error.code(), Some(RefusalCode::TaskEnded | RefusalCode::Begun))
}

fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".runlet-{}", crate::system::random_id()));
    fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).is_ok()
}

fn end_of(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => End::Killed(signal.unwrap_or_default()),
    }
}
