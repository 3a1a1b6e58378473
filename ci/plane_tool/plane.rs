//! The control plane under test: a process of its own on a folder of its own, and what it costs.

use crate::caller::Caller;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a start or a stop may take.
const LONGEST: Duration = Duration::from_secs(120);
/// The unit of processor time that the system tells of a process, the same on every Linux.
const TICK_MS: u64 = 10;
const PROJECT: &str = "/api/v2/project/gh/acme/bench";
/// The class of all runners and jobs.
pub(crate) const CLASS: &str = "acme/bench";

pub(crate) struct Plane {
    program: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    /// Of the administrator.
    token: String,
    /// Of the runners.
    pub(crate) class_token: String,
}

/// Contents of the data folder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stored {
    /// Files and folders of output.
    pub(crate) files: u64,
    /// Bytes on the disk, without those of the write-ahead log, which does not grow with what is stored.
    pub(crate) bytes: u64,
}

impl Plane {
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self, String> {
        let mut plane = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            child: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: String::new(),
            class_token: String::new(),
        };
        plane.rise()?;
        let path = plane.data().join("admin-token");
        plane.token = waited_for("a token of the administrator", || {
            fs::read_to_string(&path).ok().filter(|text| !text.is_empty())
        })?;
        let mut caller = plane.caller()?;
        let mut call = |line: &str, body: Value| {
            caller.call(line, &plane.token, body.to_string().as_bytes()).and_then(|answer| answer.json())
        };
        call("POST /api/v2/organization/gh/acme/project", json!({ "name": "bench" }))?;
        call("POST /api/v3/runner/resource", json!({ "resource_class": CLASS }))?;
        let body = json!({ "resource_class": CLASS, "nickname": "bench" });
        let made = call("POST /api/v3/runner/token", body)?;
        plane.class_token = made["token"].as_str().ok_or_else(|| format!("no token in {made}"))?.to_owned();
        Ok(plane)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("runlet.db")
    }

    /// Starts the process, and waits until it says where it listens.
    pub(crate) fn rise(&mut self) -> Result<(), String> {
        fs::create_dir_all(self.data()).map_err(|error| format!("failed to make a folder: {error}"))?;
        let path = self.folder.join("server.log");
        let log = File::create(&path).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, log) = log.map_err(|error| format!("failed to open a log: {error}"))?;
        let mut command = Command::new(&self.program);
        command.args(["server", "--listen", "127.0.0.1:0", "--data"]).arg(self.data());
        command.stdin(Stdio::null()).stdout(out).stderr(log);
        let child = command.spawn().map_err(|error| format!("failed to start the control plane: {error}"))?;
        self.child = Some(child);
        self.address = waited_for("an address", || address_in(&fs::read_to_string(&path).ok()?))?;
        Ok(())
    }

    /// Ends the process and waits for its end.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        waited_for("the end of the control plane", || child.try_wait().ok().flatten()).map(drop)
    }

    pub(crate) fn caller(&self) -> Result<Caller, String> {
        Caller::connect(self.address)
    }

    /// Makes a pipeline of so many jobs, each of one step.
    pub(crate) fn trigger(&self, caller: &mut Caller, jobs: u64) -> Result<(), String> {
        let mut config = format!(
            "version: 2.1\njobs:\n  one:\n    machine: true\n    resource_class: {CLASS}\n    steps:\n      - run: echo hello\nworkflows:\n  all:\n    jobs:\n"
        );
        for n in 0..jobs {
            config.push_str(&format!("      - one:\n          name: job-{n}\n"));
        }
        let body = json!({ "config": { "content": config } }).to_string();
        caller.call(&format!("POST {PROJECT}/pipeline/run"), &self.token, body.as_bytes()).map(drop)
    }

    fn proc(&self, name: &str) -> Result<String, String> {
        let pid = self.child.as_ref().map_or(0, Child::id);
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(|error| format!("failed to read `{path}`: {error}"))
    }

    /// Processor time of the process so far, its threads that have ended included.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        let stat = self.proc("stat")?;
        // Behind the name, which may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * TICK_MS))
    }

    /// Memory of the process that no other has, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, String> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| "the system does not say how much memory a process has".to_owned())
    }

    pub(crate) fn stored(&self) -> Stored {
        let mut stored = Stored::default();
        add(&self.data().join("output"), &mut stored);
        if let Ok(about) = fs::metadata(self.database()) {
            stored.bytes += about.blocks() * 512;
        }
        stored
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn add(folder: &Path, stored: &mut Stored) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else { continue };
        stored.files += 1;
        stored.bytes += about.blocks() * 512;
        if about.is_dir() {
            add(&entry.path(), stored);
        }
    }
}

/// The address in the first line of the log that has one.
fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("http://")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    rest[..end].trim_end_matches(['.', ':']).parse().ok()
}

fn waited_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > LONGEST {
            return Err(format!("waited in vain for {what}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
