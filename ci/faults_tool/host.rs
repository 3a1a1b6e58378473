//! Runners under test, and the processes below them, as /proc shows them.

use crate::account::Count;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Set for every runner, and so for task agents and steps: the folder of the row whose they are.
const MARK: &str = "RUNLET_FAULTS_ROW";

/// Starts the program, with a folder on a file system of its own of this size.
pub(crate) fn on_disk(program: &Path, disk: Option<(&Path, &str)>) -> Command {
    let Some((folder, size)) = disk else { return Command::new(program) };
    let mut command = Command::new("unshare");
    let mount = format!("mount -t tmpfs -o size={size} none '{}'; exec \"$@\"", folder.display());
    command.args(["-Urm", "--propagation", "private", "/bin/sh", "-ec", &mount, "sh"]).arg(program);
    command
}

/// Place of a runner among the control groups.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// The group of this program.
    Usual,
    /// No group is to be had.
    Bare,
    /// In this group.
    Group(PathBuf),
}

impl Home {
    /// A group below that of this program, in the unified hierarchy. The error says why there is none.
    pub(crate) fn group(name: &str) -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = own.ok_or("there is no unified hierarchy of control groups")?;
        let mounted = Path::new("/sys/fs/cgroup");
        let unified = mounted.join("unified");
        let root = if unified.is_dir() { unified.as_path() } else { mounted };
        let group = root.join(own).join(format!("runlet-faults-{}-{name}", std::process::id()));
        let made = fs::create_dir(&group);
        made.map_err(|error| format!("cannot make the control group `{}`: {error}", group.display()))?;
        Ok(Home::Group(group))
    }

    /// Process ids of the members of its group, and of the groups below it.
    fn members(&self) -> Vec<u32> {
        let mut members = Vec::new();
        if let Home::Group(group) = self {
            for folder in with_folders_below(group) {
                let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                members.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            }
        }
        members
    }

    /// Ends whatever is in its group, and the group.
    pub(crate) fn clear(&self, count: &mut Count) {
        let Home::Group(group) = self else { return };
        for pid in self.members() {
            count.processes_left += 1;
            count.findings.push(format!("left in its control group: {pid}"));
            signal(pid, Signal::KILL);
        }
        for folder in with_folders_below(group) {
            for _ in 0..100 {
                match fs::remove_dir(&folder) {
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// A folder behind those below it.
fn with_folders_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = below.flat_map(|entry| with_folders_below(&entry.path())).collect();
    all.push(folder.to_owned());
    all
}

/// A machine runner.
pub(crate) struct Host {
    program: PathBuf,
    folder: PathBuf,
    row: PathBuf,
    disk: Option<&'static str>,
    home: Home,
    child: Mutex<Option<Child>>,
}

/// Settings of a runner that differ.
pub(crate) struct HostOptions<'a> {
    pub(crate) name: &'a str,
    pub(crate) token: &'a str,
    pub(crate) address: SocketAddr,
    /// The task agent is started through this.
    pub(crate) prefix: Option<&'a Path>,
    /// A project whose jobs it refuses: `ORGANIZATION/REPOSITORY`.
    pub(crate) denied: Option<&'a str>,
    /// Size of the file system that holds the spool.
    pub(crate) disk: Option<&'static str>,
    pub(crate) home: &'a Home,
}

impl Host {
    pub(crate) fn start(program: &Path, row: &Path, options: &HostOptions<'_>) -> Result<Self, String> {
        let folder = row.join(options.name);
        let prefix = options
            .prefix
            .map_or_else(String::new, |path| format!("  command_prefix: [\"{}\"]\n", path.display()));
        let denied =
            options.denied.map_or_else(String::new, |project| format!("  deny_projects: [\"{project}\"]\n"));
        let text = format!(
            "api:\n  url: http://{}\n  auth_token: {}\nrunner:\n  name: {}\n  working_directory: {dir}/work\n  state_directory: {dir}/state\n  task_agent_directory: {dir}/bin\n  cleanup_working_directory: true\n{prefix}{denied}",
            options.address,
            options.token,
            options.name,
            dir = folder.display()
        );
        let make = || {
            fs::create_dir_all(folder.join("tmp"))?;
            let settings = folder.join("runner.yaml");
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(settings)?;
            file.write_all(text.as_bytes())
        };
        make().map_err(|error| format!("failed to write settings: {error}"))?;
        let host = Self {
            program: program.to_owned(),
            folder,
            row: row.to_owned(),
            disk: options.disk,
            home: options.home.clone(),
            child: Mutex::new(None),
        };
        host.rise()?;
        Ok(host)
    }

    fn rise(&self) -> Result<(), String> {
        let tmp = self.folder.join("tmp");
        let disk = self.disk.map(|size| (tmp.as_path(), size));
        let mut command = match &self.home {
            Home::Usual => on_disk(&self.program, disk),
            // An empty folder in the place of the groups.
            Home::Bare => on_disk(&self.program, Some((Path::new("/sys/fs/cgroup"), "4k"))),
            Home::Group(group) => {
                let mut command = Command::new("/bin/sh");
                let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
                command.args(["-c", enter]).arg(group).arg(&self.program);
                command
            }
        };
        command.args(["machine", "--config"]).arg(self.folder.join("runner.yaml"));
        command.env(MARK, &self.row).env("TMPDIR", &tmp).env("HOME", &self.folder).current_dir(&self.folder);
        let log = File::options().create(true).append(true).open(self.folder.join("runner.log"));
        let log = log.map_err(|error| format!("failed to open a log: {error}"))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.map_err(|error| format!("failed to start a runner: {error}"))?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    pub(crate) fn rise_again(&self) {
        if let Err(why) = self.rise() {
            eprintln!("faults: {why}");
        }
    }

    /// Ends the runner without mercy; what it started lives on.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the runner as a service manager does: TERM, and time. False when it had to be killed.
    pub(crate) fn stop(&self) -> bool {
        let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return true;
        };
        let began = Instant::now();
        signal(child.id(), Signal::TERM);
        while began.elapsed() < Duration::from_secs(60) {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// The folder of its spool as it is seen from here.
    pub(crate) fn tmp(&self) -> PathBuf {
        let tmp = self.folder.join("tmp");
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.disk, child.as_ref()) {
            (Some(_), Some(child)) => PathBuf::from(format!("/proc/{}/root{}", child.id(), tmp.display())),
            _ => tmp,
        }
    }

    /// Private folders of tasks that are there.
    pub(crate) fn folders_left(&self) -> usize {
        fs::read_dir(self.tmp()).map_or(0, |entries| entries.flatten().count())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process of a row.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) age_seconds: u64,
    pub(crate) line: String,
}

/// Processes that run because of the runners of a row: marked by their environment or by their command line.
pub(crate) fn processes_of(row: &Path) -> Vec<Process> {
    let variable = format!("{MARK}={}", row.display()).into_bytes();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: u64 = uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|line| !line.is_empty())?;
        let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_marked = environment.split(|byte| *byte == 0).any(|one| one == variable);
        let is_server = line.contains(" server --");
        let is_it = !is_server && (is_marked || line.split(' ').any(|word| Path::new(word).starts_with(row)));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|_| is_it)?;
        let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_dead = words.next() == Some("Z");
        let parent = words.next()?.parse().ok()?;
        // The 22nd field of the line, in hundredths of a second since the start of the system.
        let started: u64 = words.nth(17)?.parse().ok()?;
        let age_seconds = uptime.saturating_sub(started / 100);
        (!is_dead).then_some(Process { pid, parent, age_seconds, line })
    });
    found.collect()
}

/// Stops runners, and counts what they have left: processes that are ended now.
pub(crate) fn stop_all<'a>(hosts: impl Iterator<Item = &'a Host>, row: &Path, count: &mut Count) {
    for host in hosts {
        if !host.stop() {
            count.findings.push("a runner did not stop within a minute of TERM".to_owned());
        }
    }
    let began = Instant::now();
    let mut left = processes_of(row);
    while !left.is_empty() && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(100));
        left = processes_of(row);
    }
    count.processes_left += left.len() as u64;
    for process in left {
        count.findings.push(format!("left: {} {}", process.pid, process.line));
        signal(process.pid, Signal::KILL);
    }
}

/// Ends everything that has to do with a folder, control planes included.
pub(crate) fn end_all(folder: &Path) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = read("cmdline");
        let mut words = line.split(|byte| *byte == 0);
        let is_named = words.any(|word| Path::new(OsStr::from_bytes(word)).starts_with(folder));
        let environment = read("environ");
        let mark = format!("{MARK}=");
        let mut variables = environment.split(|byte| *byte == 0);
        let is_marked = variables.any(|variable| {
            let value = variable.strip_prefix(mark.as_bytes());
            value.is_some_and(|value| Path::new(OsStr::from_bytes(value)).starts_with(folder))
        });
        if is_named || is_marked {
            signal(pid, Signal::KILL);
        }
    }
}

impl Process {
    pub(crate) fn is_agent(&self) -> bool {
        let mut words = self.line.split(' ');
        words.next().is_some_and(|word| word.ends_with("runlet")) && words.next() == Some("task")
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have ended by now.
        let _ = kill_process(pid, signal);
    }
}

/// Stops a task agent, notes how much its spools hold of each step that says whose it is, and kills it.
pub(crate) fn kill_agent(pid: u32) -> BTreeMap<String, u64> {
    signal(pid, Signal::STOP);
    for _ in 0..200 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T')) {
            Some(false) => std::thread::sleep(Duration::from_millis(2)),
            _ => break,
        }
    }
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let is_file = fs::metadata(entry.path()).is_ok_and(|data| data.is_file());
        let is_log =
            fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().ends_with("runner.log"));
        if !is_file || is_log {
            continue;
        }
        let Ok(bytes) = fs::read(entry.path()) else { continue };
        if let Some((step, _)) = crate::work::first_line(&bytes) {
            let known = held.entry(step.to_owned()).or_default();
            *known = (bytes.len() as u64).max(*known);
        }
    }
    signal(pid, Signal::KILL);
    held
}
