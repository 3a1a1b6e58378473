//! The machine runner as a process, with settings, log and directories of its own.

use super::poll;
use runlet::protocol::{Job, Run, Secret, Step, StepAction, Task, TaskId, When};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The built program.
pub(crate) const RUNLET: &str = env!("CARGO_BIN_EXE_runlet");

/// Builds a runner: `Machine::new(url).setting("mode", "single-task").start()`.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    api: String,
    runner: String,
    logging: String,
    variables: Vec<(String, String)>,
    program: PathBuf,
    wrapper: Vec<String>,
}

/// A runner that was started. Killed with the value.
pub(crate) struct Running {
    pub(crate) machine: Machine,
    child: Child,
}

impl Machine {
    pub(crate) fn new(url: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), url)
    }

    /// With its files in this directory.
    pub(crate) fn at(directory: tempfile::TempDir, url: &str) -> Self {
        let path = directory.path();
        let runner = format!(
            "  name: tester\n  working_directory: {0}/work\n  state_directory: {0}/state\n  task_agent_directory: {0}/tools\n",
            path.display()
        );
        let api = format!("  auth_token: class-token\n  url: {url}\n");
        Self {
            directory,
            api,
            runner,
            logging: "  format: text\n".to_owned(),
            variables: Vec::new(),
            program: RUNLET.into(),
            wrapper: Vec::new(),
        }
    }

    /// Starts this program in place of the built one.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// A key below `runner`, in place of what it was.
    pub(crate) fn setting(mut self, key: &str, value: &str) -> Self {
        let start = format!("  {key}: ");
        self.runner = self.runner.split_inclusive('\n').filter(|line| !line.starts_with(&start)).collect();
        self.runner += &format!("  {key}: {value}\n");
        self
    }

    /// A key below `api`.
    pub(crate) fn api(mut self, key: &str, value: &str) -> Self {
        self.api += &format!("  {key}: {value}\n");
        self
    }

    /// The keys below `logging`.
    pub(crate) fn logging(mut self, lines: &[&str]) -> Self {
        self.logging = lines.iter().map(|line| format!("  {line}\n")).collect();
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a command in front of the runner's own, which has to become it.
    pub(crate) fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Uses a shell script in place of the task agent: it is the command prefix, and its arguments
    /// are the task agent's. `$DIR` is the runner's directory.
    pub(crate) fn task_agent(self, script: &str) -> Self {
        let text = format!("DIR='{}'\n{script}\n", self.directory.path().display());
        let path = self.file("agent.sh", &text);
        self.setting("command_prefix", &format!("[/bin/sh, {}]", path.display()))
    }

    fn command(&self) -> Command {
        self.command_of(&["machine"])
    }

    /// A command of the program, with the settings.
    fn command_of(&self, verb: &[&str]) -> Command {
        let text = format!("api:\n{}runner:\n{}logging:\n{}", self.api, self.runner, self.logging);
        // Whole at any time: a runner that was just started may be reading it.
        let written = self.file("config.yaml.new", &text);
        fs::set_permissions(&written, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let config = self.path("config.yaml");
        fs::rename(&written, &config).unwrap();
        let mut words: Vec<_> = self.wrapper.iter().map(OsString::from).collect();
        words.push(self.program.clone().into());
        let mut command = Command::new(words.remove(0));
        command.args(words).args(verb).arg("--config").arg(config).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.to_ascii_lowercase().ends_with("_proxy")
                || name.starts_with("SSL_CERT")
                || name == "TMPDIR"
            {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.directory.path()).envs(self.variables.iter().cloned());
        command
    }

    /// Starts it; its log goes to a file.
    pub(crate) fn start(self) -> Running {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Running { machine: self, child }
    }

    /// Runs another command with the settings; returns the exit code, standard output and standard error.
    pub(crate) fn ask(&self, verb: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command_of(verb).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs it with `--check` and returns the status and everything it printed.
    pub(crate) fn check(self) -> (ExitStatus, String) {
        let output = self.command().arg("--check").output().unwrap();
        (output.status, String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.machine.path("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn term(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn wait_log(&self, text: &str) -> String {
        poll(&format!("`{text}` in the log"), || {
            let log = self.log();
            if log.contains(text) { Ok(log) } else { Err(log) }
        })
    }

    /// Waits for its end; returns the exit code (`None` for a signal).
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let log = self.machine.path("log");
        poll("the end of the runner", || {
            let seen = || fs::read_to_string(&log).unwrap_or_default();
            self.child.try_wait().unwrap().ok_or_else(seen)
        })
        .code()
    }

    /// Ends the runner without mercy and starts another one in its place.
    pub(crate) fn crash_and_restart(mut self) -> Running {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again()
    }

    /// Starts another one in the place of one that has ended.
    pub(crate) fn start_again(mut self) -> Running {
        let log = fs::OpenOptions::new().append(true).open(self.machine.path("log")).unwrap();
        self.child = self.machine.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self
    }

    /// Waits until a file exists and returns its text.
    pub(crate) fn wait_file(&self, name: &str) -> String {
        let path = self.machine.path(name);
        wait_file(&path, || self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        super::processes::end(&mut self.child);
    }
}

fn wait_file(path: &Path, state: impl Fn() -> String) -> String {
    poll(&format!("`{}`", path.display()), || match fs::read_to_string(path) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim().to_owned()),
        _ => Err(state()),
    })
}

/// The program that runs another one as an ordinary user, and the folder handed over to that user.
pub(crate) fn as_ordinary_user(machine: Machine, folder: &Path) -> Option<Machine> {
    if !rustix::process::geteuid().is_root() {
        return Some(machine);
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let works = Command::new(user[0]).args(&user[1..]).arg("true").status();
    if !works.is_ok_and(|status| status.success()) {
        crate::hostile::skip("no other user can be had (`setpriv`)");
        return None;
    }
    // The folder of the build may be closed to others.
    let program = folder.join("runlet");
    fs::copy(env!("CARGO_BIN_EXE_runlet"), &program).unwrap();
    let script = format!("chown -R 65534:65534 \"$0\" && exec {} \"$@\"", user.join(" "));
    let wrapper = ["/bin/sh", "-c", &script, &folder.display().to_string()];
    Some(machine.program(&program).wrapper(&wrapper))
}

/// A task that runs these commands, a step each.
pub(crate) fn task_of(id: &str, commands: &[&str]) -> Task {
    let mut task = task(id);
    let step = |command: &&str| Step {
        name: (*command).to_owned(),
        when: When::OnSuccess,
        action: StepAction::Run(Run {
            command: (*command).to_owned(),
            shell: None,
            environment: Default::default(),
            background: false,
            working_directory: None,
            no_output_timeout_ms: 60_000,
            max_auto_reruns: 0,
            auto_rerun_delay_ms: 0,
            first_node_only: false,
        }),
    };
    task.job.steps = commands.iter().map(step).collect();
    task
}

/// Suffix of the ids of tasks of the test whose thread this is. A runner ends every process that carries the id of its
/// task, whoever started it: those of another test, too, if it used the same.
pub(crate) fn id_suffix() -> String {
    let mut test = DefaultHasher::new();
    std::thread::current().name().hash(&mut test);
    format!("-{}x{:08x}", std::process::id(), test.finish() as u32)
}

/// A text without the suffix of the id in it, whatever test's.
pub(crate) fn without_suffix(text: &str) -> String {
    let mark = format!("-{}x", std::process::id());
    let parts = text.split_once(&mark).and_then(|(before, rest)| Some((before, rest.get(8..)?)));
    parts.map_or_else(|| text.to_owned(), |(before, rest)| format!("{before}{rest}"))
}

/// A task without steps. Its id is `id` with [`id_suffix`]; the fake control plane records it without.
pub(crate) fn task(id: &str) -> Task {
    let numbered = TaskId::new(format!("{id}{}", id_suffix())).unwrap();
    let token = Secret::new(format!("task-token-of-{id}"));
    let task = Task::without_steps(numbered, token, "build".to_owned());
    Task {
        allocation: format!("allocation-{id}"),
        job_url: "http://localhost/jobs/1".to_owned(),
        job: Job { resource_class: "acme/linux".to_owned(), ..task.job.clone() },
        max_step_output_bytes: 1 << 20,
        max_artifact_bytes: 1 << 20,
        ..task
    }
}
