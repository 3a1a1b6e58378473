//! A row of the table: a control plane, runners and a line of its own, work, a fault, and the account of it.

use crate::account::{self, Count, Done};
use crate::dice::Dice;
use crate::fault::{Call, Disk, Fault, Hurt, Room, Victim};
use crate::host::{self, Home, Host, HostOptions, Process};
use crate::line::{Line, Plan, Way};
use crate::plane::{DENIED, PROJECT, Plane};
use crate::work::{self, Leaves, Style};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

const CLASS: &str = "acme/faults";
/// Longest that jobs may take to end after the last fault: a call that hangs, a lease, a budget's backoff.
const LONGEST_END: Duration = Duration::from_secs(420);

/// Age of a task agent whose death does not make its runner pause, and a little more.
const OLD_SECONDS: u64 = 11;

/// Parameters of a row.
pub(crate) struct Row<'a> {
    pub(crate) program: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) fault: Fault,
    pub(crate) seed: u64,
    /// How long faults happen.
    pub(crate) time: Duration,
    /// How often the fault is to be there at most.
    pub(crate) goal: Option<u64>,
    /// How many runners work at the same time.
    pub(crate) runners: usize,
    /// Folder that is kept when something is wrong.
    pub(crate) folder: PathBuf,
}

impl Row<'_> {
    /// A runner whose task agent dies young pauses for a minute. With time for it the agents get old enough, so that
    /// there are many kills.
    fn spares_young_agents(&self) -> bool {
        let Some(victims) = self.fault.victims() else { return false };
        let dies_alone = victims.contains(&Victim::Agent) && !victims.contains(&Victim::Runner);
        dies_alone && self.time >= Duration::from_secs(60)
    }

    /// Whether its jobs ask what tests took.
    fn splits(&self) -> bool {
        matches!(self.fault, Fault::Calls(Some(Call::TestTimings), _))
    }

    /// Whether its runners refuse some of its jobs.
    fn refuses(&self) -> bool {
        matches!(self.fault, Fault::Calls(Some(Call::Fail), _))
    }

    /// Longest that a job may take to end after its cancel. Where heartbeats pass it is heard of at once, and said to have
    /// ended by a call that passes as well; otherwise a heartbeat may hang, and then what is said.
    fn longest_cancel(&self) -> Duration {
        Duration::from_secs(if matches!(self.fault, Fault::Cancel(Some(_), _)) { 40 } else { 150 })
    }

    /// Pause between pieces of the first step of a job: twenty of them are long enough for what is to happen to it.
    fn pause_ms(&self) -> u32 {
        match self.fault {
            _ if self.spares_young_agents() => 700,
            // So that a control plane or a runner is killed several times within one job, and a step is still there when it
            // was found among the processes of a busy machine.
            Fault::Kill(_) if self.goal.is_some() => 200,
            _ => 40,
        }
    }
}

struct Scene<'a> {
    row: &'a Row<'a>,
    dice: Dice,
    plane: Plane,
    line: Line,
    hosts: Vec<Host>,
    home: Home,
    done: Mutex<Done>,
    /// Pipelines that are to be cancelled.
    to_cancel: Mutex<Vec<ToCancel>>,
    /// Held while the control plane must not be killed: what it was asked is to be known.
    quiet: Mutex<()>,
    over: AtomicBool,
    /// Kills and full disks; the line counts its own.
    times: AtomicU64,
    /// How often each part was killed, by its number as a `Victim`.
    killed: [AtomicU64; 4],
}

/// A pipeline that is to be cancelled: behind a moment of its own, a while after that.
struct ToCancel {
    name: String,
    pipeline: String,
    /// The step of its first job that has to have begun.
    behind: Option<u32>,
    since: Instant,
    wait: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays a row. The error says why it could not be played.
pub(crate) fn play(row: &Row<'_>) -> Result<Count, String> {
    let scene = Scene::new(row)?;
    let mut count = Count::default();
    let style = Style {
        folder: &row.folder,
        class: CLASS,
        leaves: match row.fault {
            Fault::Kill(_) | Fault::Cancel(..) => Leaves::Session,
            Fault::Daemons(..) => Leaves::Daemon,
            Fault::Refuse | Fault::Vanish | Fault::Calls(..) | Fault::Full(_) => Leaves::Nothing,
        },
        pause_ms: row.pause_ms(),
        pieces: 20,
        splits: row.splits(),
    };
    if style.splits {
        scene.store_timings()?;
    }
    let mut open = Vec::new();
    std::thread::scope(|scope| {
        let troubles = scope.spawn(|| scene.trouble());
        scene.keep_busy(&style, &mut open, &mut count);
        scene.over.store(true, Ordering::Relaxed);
        drop(troubles.join());
    });
    scene.line.hurt(None);
    scene.line.turn(Way::Open);
    count.times = scene.times();
    count.network = scene.line.times();
    count.killed = scene.killed.each_ref().map(|times| times.load(Ordering::Relaxed));
    scene.end(open, &mut count)?;
    Ok(count)
}

impl<'a> Scene<'a> {
    fn new(row: &'a Row<'a>) -> Result<Self, String> {
        let make = || {
            fs::create_dir_all(row.folder.join("wrote"))?;
            File::create(row.folder.join("ledger")).map(drop)
        };
        make().map_err(|error| format!("failed to make `{}`: {error}", row.folder.display()))?;
        let disk = |which| (row.fault == Fault::Full(which)).then_some("24m");
        let plane = Plane::start(row.program, &row.folder, disk(Disk::Data))?;
        let dice = Dice::new(row.seed, row.name);
        let line =
            Line::to(plane.address(), dice.part("line")).map_err(|error| format!("no line: {error}"))?;
        let token = plane.class(CLASS)?;
        let prefix = match row.fault {
            Fault::Calls(Some(Call::Unclaim), _) => Some(spoiling_prefix(&row.folder)?),
            _ => None,
        };
        let home = match row.fault {
            Fault::Daemons(_, Room::Group) => Home::group(row.name)?,
            Fault::Daemons(_, Room::Bare) => Home::Bare,
            _ => Home::Usual,
        };
        let denied = row.refuses().then(|| format!("acme/{DENIED}"));
        let hosts = (0..row.runners).map(|number| {
            let name = format!("r{number}");
            let address = line.address();
            let disk = disk(Disk::Spool);
            let prefix = prefix.as_deref();
            let denied = denied.as_deref();
            let options =
                HostOptions { name: &name, token: &token, address, prefix, denied, disk, home: &home };
            Host::start(row.program, &row.folder, &options)
        });
        let hosts = hosts.collect::<Result<_, _>>()?;
        Ok(Self {
            row,
            dice,
            plane,
            line,
            hosts,
            home,
            done: Mutex::new(Done {
                may_lose: row.fault == Fault::Full(Disk::Spool),
                splits: row.splits(),
                wrote: row.folder.join("wrote"),
                longest_cancel: row.longest_cancel(),
                ..Done::default()
            }),
            to_cancel: Mutex::default(),
            quiet: Mutex::new(()),
            over: AtomicBool::new(false),
            times: AtomicU64::new(0),
            killed: Default::default(),
        })
    }

    /// How often the fault was there. One that is made of a call counts by its calls.
    fn times(&self) -> u64 {
        let times = self.times.load(Ordering::Relaxed);
        match self.row.fault {
            Fault::Cancel(..) => times,
            fault if fault.is_of_network() => self.line.times(),
            _ => times + self.line.times(),
        }
    }

    fn has_enough(&self) -> bool {
        self.row.goal.is_some_and(|goal| self.times() >= goal)
    }

    /// Stores what tests took before anything is hurt: which run a job goes by is decided when it is queued.
    fn store_timings(&self) -> Result<(), String> {
        let pipeline = self.plane.trigger(PROJECT, &work::timings(CLASS))?;
        let began = Instant::now();
        loop {
            match self.plane.jobs(&pipeline)? {
                Some(jobs) if jobs.iter().all(|job| job["status"] == "success") => return Ok(()),
                Some(jobs) => return Err(format!("no test timings were stored: {jobs:?}")),
                None if began.elapsed() > LONGEST_END => {
                    return Err(format!("the pipeline {pipeline} that stores test timings has not ended"));
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Keeps every runner busy until the time of the row is over; what has ended is checked, what has not stays
    /// in `open`.
    fn keep_busy(&self, style: &Style<'_>, open: &mut Vec<(String, String)>, count: &mut Count) {
        let began = Instant::now();
        let mut number = 0;
        while began.elapsed() < self.row.time && !self.has_enough() {
            // A pipeline runs one of its two jobs at a time, and a few wait.
            if open.len() < self.row.runners + self.row.runners.div_ceil(2) {
                let name = format!("p{number}");
                // Every third one, so that those between them have a runner that has just refused a job.
                let is_refused = self.row.refuses() && number % 3 == 0;
                number += 1;
                let project = if is_refused { DENIED } else { PROJECT };
                if is_refused {
                    lock(&self.done).refused.insert(format!("{name}a"));
                }
                let config = work::config(&name, style);
                let quiet = lock(&self.quiet);
                match self.plane.trigger(project, &config) {
                    Ok(pipeline) => {
                        self.note_cancel(number, &name, &pipeline);
                        open.push((name, pipeline));
                    }
                    // A full disk refuses, and says so.
                    Err(why) if self.row.fault == Fault::Full(Disk::Data) && why.contains(": 507 ") => {}
                    Err(why) => count.findings.push(format!("a trigger failed: {why}")),
                }
                drop(quiet);
                continue;
            }
            std::thread::sleep(Duration::from_millis(150));
            self.take_ended(open, count);
        }
    }

    /// Checks the pipelines that have ended.
    fn take_ended(&self, open: &mut Vec<(String, String)>, count: &mut Count) {
        open.retain(|(name, pipeline)| match self.plane.jobs(pipeline) {
            Ok(None) => true,
            Ok(Some(jobs)) => {
                // A kill waits for what it has to write down.
                let _quiet = lock(&self.quiet);
                let mut done = lock(&self.done);
                self.hold_written(name, &mut done);
                let (mut after, mut part) = (done.clone(), Count::default());
                if let Err(why) = account::check(&self.plane, name, &jobs, &mut after, &mut part) {
                    count.findings.push(format!("{name} cannot be checked: {why}"));
                }
                if part.bytes_lost > 0 && done.may_come(name) {
                    return true;
                }
                *done = after;
                count.add(part);
                false
            }
            Err(why) => {
                count.findings.push(format!("{name} cannot be asked for: {why}"));
                false
            }
        });
    }

    /// Output of a step before it was killed went into a pipe that its agent reads to the end.
    fn hold_written(&self, name: &str, done: &mut Done) {
        let job = format!("{name}a");
        let is_cancelled = done.cancelled.contains_key(name);
        if (is_cancelled || done.step_killed.contains(&job)) && !done.agent_killed.contains(&job) {
            let step = format!("{job}.1");
            let written = fs::read_to_string(self.row.folder.join("wrote").join(&step)).unwrap_or_default();
            let lines = written.trim().parse().unwrap_or(0);
            done.held.insert(step.clone(), work::expected(&step, lines).len() as u64);
        }
    }

    /// Waits for the rest, then looks at what is left.
    fn end(&self, mut open: Vec<(String, String)>, count: &mut Count) -> Result<(), String> {
        let began = Instant::now();
        while !open.is_empty() && began.elapsed() < LONGEST_END {
            self.take_ended(&mut open, count);
            std::thread::sleep(Duration::from_millis(100));
        }
        for (name, pipeline) in &open {
            count.wrong_status += 1;
            count.findings.push(format!("{name} (pipeline {pipeline}) has not ended"));
        }
        account::check_ledger(&self.row.folder, count);
        count.findings.extend(self.plane.faults_of_data());
        for host in &self.hosts {
            let left = host.folders_left();
            if left > 0 && open.is_empty() {
                // A task agent that has just ended clears up.
                std::thread::sleep(Duration::from_secs(2));
                let left = host.folders_left();
                if left > 0 {
                    count
                        .findings
                        .push(format!("{left} files or folders are left in `{}`", host.tmp().display()));
                }
            }
        }
        host::stop_all(self.hosts.iter(), &self.row.folder, count);
        self.home.clear(count);
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn pause(&self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until && !self.is_over() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Does to the scene what its row says, until it is over.
    fn trouble(&self) {
        match self.row.fault {
            Fault::Refuse => self.cut_again(Way::Refuse, 300, 3_000, 500, 4_000),
            Fault::Vanish => self.cut_again(Way::Vanish, 100, 2_000, 2_000, 12_000),
            Fault::Calls(call, hurts) => {
                let percent = if call.is_some() {
                    45
                } else if hurts == [Hurt::Stall] {
                    4
                } else {
                    22
                };
                self.line.hurt(Some(Plan { call, hurts, percent }));
                if let Some(victims) = self.row.fault.victims() {
                    self.kill_again(victims);
                }
            }
            Fault::Kill(victims) | Fault::Daemons(victims, _) => self.kill_again(victims),
            Fault::Full(disk) => self.fill_again(disk),
            Fault::Cancel(None, []) => std::thread::scope(|scope| {
                scope.spawn(|| self.cut_again(Way::Vanish, 100, 2_000, 2_000, 12_000));
                self.cancel_again();
            }),
            Fault::Cancel(call, hurts) => {
                let percent = match (call, hurts.contains(&Hurt::Stall)) {
                    (Some(_), _) => 60,
                    (None, true) => 6,
                    (None, false) => 22,
                };
                self.line.hurt(Some(Plan { call, hurts, percent }));
                self.cancel_again();
            }
        }
    }

    /// Chooses when a pipeline is cancelled: a while after its trigger, or after its first job has begun its last step
    /// before or behind the uploads. Every fourth one is let be.
    fn note_cancel(&self, number: u64, name: &str, pipeline: &str) {
        let roll = self.dice.roll(2 * number);
        if !matches!(self.row.fault, Fault::Cancel(..)) || roll % 4 == 3 {
            return;
        }
        let (behind, most_ms) = [(None, 4_000), (Some(2), 300), (Some(7), 600)][roll as usize % 4];
        let wait = Duration::from_millis(self.dice.between(2 * number + 1, 0, most_ms));
        let (name, pipeline) = (name.to_owned(), pipeline.to_owned());
        lock(&self.to_cancel).push(ToCancel { name, pipeline, behind, since: Instant::now(), wait });
    }

    fn cancel_again(&self) {
        while !self.is_over() && !self.has_enough() {
            let mut all = std::mem::take(&mut *lock(&self.to_cancel));
            all.retain_mut(|one| {
                if let Some(step) = one.behind {
                    let began = self.row.folder.join(format!("wrote/{}a.{step}.began", one.name));
                    if !began.exists() {
                        return true;
                    }
                    (one.behind, one.since) = (None, Instant::now());
                }
                if one.since.elapsed() < one.wait {
                    return true;
                }
                let _quiet = lock(&self.quiet);
                match self.plane.cancel(&one.pipeline) {
                    Ok(false) => {}
                    Ok(true) => {
                        lock(&self.done).cancelled.insert(one.name.clone(), SystemTime::now());
                        self.times.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(why) => eprintln!("faults: {} cannot be cancelled: {why}", one.name),
                }
                false
            });
            lock(&self.to_cancel).append(&mut all);
            self.pause(10);
        }
    }

    fn cut_again(&self, way: Way, least_ms: u64, most_ms: u64, least_open_ms: u64, most_open_ms: u64) {
        for number in 0.. {
            self.pause(self.dice.between(2 * number, least_open_ms, most_open_ms));
            if self.is_over() {
                return;
            }
            self.line.turn(way);
            self.pause(self.dice.between(2 * number + 1, least_ms, most_ms));
            self.line.turn(Way::Open);
        }
    }

    fn kill_again(&self, victims: &[Victim]) {
        for number in 0.. {
            self.pause(self.dice.between(4 * number, 50, 1_600));
            let roll = self.dice.roll(4 * number + 1);
            let down = Duration::from_millis(self.dice.between(4 * number + 2, 0, 600));
            while !self.is_over() && !self.kill_once(victims, roll, down) {
                // The next job is on its way.
                self.pause(100);
            }
            if self.is_over() || self.has_enough() {
                return;
            }
        }
    }

    /// Kills one of each, at the same time as far as one thread can, and starts again what is to be started. False
    /// when one of them is not there: then nothing is killed.
    fn kill_once(&self, victims: &[Victim], roll: u64, down: Duration) -> bool {
        let host = &self.hosts[roll as usize % self.hosts.len()];
        // Taken before anybody is looked for: processes that are known for long may be others by now.
        let quiet = victims.contains(&Victim::Server).then(|| lock(&self.quiet));
        let processes = if victims == [Victim::Server] || victims == [Victim::Runner] {
            Vec::new()
        } else {
            host::processes_of(&self.row.folder)
        };
        let least_seconds = if self.row.spares_young_agents() { OLD_SECONDS } else { 0 };
        let agents =
            processes.iter().filter(|process| process.is_agent() && process.age_seconds >= least_seconds);
        let agents: Vec<_> = agents.collect();
        let steps = processes.iter().filter(|process| {
            agents.iter().any(|agent| agent.pid == process.parent) && !process.line.starts_with(work::LEFT)
        });
        let steps: Vec<_> = steps.filter_map(|step| Some((step, job_of_process(step.pid)?))).collect();
        let step = steps.get((roll >> 16) as usize % steps.len().max(1));
        // Of a pair the step is that of the agent.
        let agent = match (victims.contains(&Victim::Step), step) {
            (true, Some((step, _))) => agents.iter().find(|agent| agent.pid == step.parent).copied(),
            _ => agents.get((roll >> 8) as usize % agents.len().max(1)).copied(),
        };
        let is_same = |(step, job): &&(&Process, String)| job_of_process(step.pid).as_ref() == Some(job);
        let is_there = |victim: &Victim| match victim {
            Victim::Server | Victim::Runner => true,
            Victim::Agent => agent.is_some(),
            Victim::Step => step.is_some_and(|step| is_same(&step)),
        };
        if !victims.iter().all(is_there) {
            return false;
        }
        let mut all = true;
        for victim in victims {
            match victim {
                Victim::Server => self.plane.kill(),
                Victim::Runner => host.kill(),
                Victim::Agent => {
                    if let Some(agent) = agent {
                        // Owner of the task, by the environment of what it has started.
                        let jobs = jobs_below(agent.pid);
                        let held = host::kill_agent(agent.pid);
                        let mut done = lock(&self.done);
                        let names = held.keys().map(|step| work::job_of(step).to_owned()).chain(jobs);
                        let names: Vec<String> = names.collect();
                        done.unknown_agents += u64::from(names.is_empty());
                        done.agent_killed.extend(names);
                        for (step, length) in held {
                            let known = done.held.entry(step).or_default();
                            *known = length.max(*known);
                        }
                    }
                }
                Victim::Step => {
                    // The step may have ended while the others were killed.
                    let Some((step, job)) = step.filter(is_same) else {
                        all = false;
                        continue;
                    };
                    lock(&self.done).step_killed.insert(job.clone());
                    host::signal(step.pid, Signal::KILL);
                }
            }
            self.killed[*victim as usize].fetch_add(1, Ordering::Relaxed);
        }
        self.times.fetch_add(u64::from(all), Ordering::Relaxed);
        std::thread::sleep(down);
        if victims.contains(&Victim::Server) {
            self.plane.rise_again();
        }
        drop(quiet);
        if victims.contains(&Victim::Runner) {
            host.rise_again();
        }
        true
    }

    fn fill_again(&self, disk: Disk) {
        for number in 0.. {
            self.pause(self.dice.between(2 * number, 800, 3_000));
            if self.is_over() {
                return;
            }
            let fillers: Vec<PathBuf> = match disk {
                Disk::Data => vec![self.plane.data().join("filler")],
                Disk::Spool => self.hosts.iter().map(|host| host.tmp().join("filler")).collect(),
            };
            fillers.iter().for_each(|path| fill(path));
            self.times.fetch_add(1, Ordering::Relaxed);
            self.pause(self.dice.between(2 * number + 1, 300, 2_500));
            for path in &fillers {
                if let Err(error) = fs::remove_file(path) {
                    eprintln!("faults: cannot empty `{}`: {error}", path.display());
                }
            }
        }
    }
}

/// Takes every byte that is left.
fn fill(path: &Path) {
    let Ok(mut file) = File::create(path) else { return };
    for size in [64 * 1024, 512] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// The job of a process, by its environment.
fn job_of_process(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let job = variables.find_map(|variable| variable.strip_prefix(b"CIRCLE_JOB="))?;
    String::from_utf8(job.to_owned()).ok()
}

fn jobs_below(agent: u32) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap_or_default();
    children.split_ascii_whitespace().filter_map(|pid| job_of_process(pid.parse().ok()?)).collect()
}

/// A prefix that puts a file in the place of the working directory the first time and every third one after it, so that
/// tasks are given back.
fn spoiling_prefix(folder: &Path) -> Result<PathBuf, String> {
    let path = folder.join("prefix");
    let text = format!(
        "#!/bin/sh\necho >> '{0}.count'\nrm -rf work\n[ $(($(wc -l < '{0}.count') % 3)) != 1 ] || echo > work\nexec \"$@\"\n",
        path.display()
    );
    let write = || {
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
    };
    write().map_err(|error| format!("failed to write `{}`: {error}", path.display()))?;
    Ok(path)
}
