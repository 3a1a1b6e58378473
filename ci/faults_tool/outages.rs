//! Outages: the whole line away for a while, from a known moment of a task on. In real time, all at once.

use crate::account::{self, Count, Done};
use crate::dice::Dice;
use crate::fault::Call;
use crate::host::{self, Home, Host, HostOptions};
use crate::line::{Cut, Line, Place, Way};
use crate::plane::{PROJECT, Plane};
use crate::work::{self, Leaves, Style};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Cuts in seconds, with the budget. The last ones are a cut of 70 minutes and a budget of 2 hours, both at a
/// twelfth: the lease, which is 1 minute, cannot be shortened with them.
const CUTS: [(&str, u64, &str); 5] = [
    ("20 s", 20, "15m"),
    ("45 s", 45, "15m"),
    ("90 s", 90, "15m"),
    ("5 min", 300, "15m"),
    ("70 min of 2 h at 1/12", 350, "10m"),
];
/// Longer than lease, budget and margins together.
const TOO_LONG: (&str, u64, &str) = ("5 min of 1 min", 300, "1m");

/// Moments of a task at which the line is cut: name, kind of call, how many pass before, and where in it.
const MOMENTS: [(&str, Call, u64, Place); 7] = [
    ("start", Call::Claim, 0, Place::Delivered),
    ("begin", Call::Begin, 0, Place::Answered),
    ("middle", Call::Output, 2, Place::Before),
    ("uploads", Call::Uploads, 1, Place::Before),
    ("caches", Call::Caches, 0, Place::Before),
    ("end", Call::Finish, 0, Place::Before),
    ("finish", Call::Finish, 0, Place::Answered),
];

/// Longest that a job may take after the line is back.
const LONGEST_END: Duration = Duration::from_secs(240);

struct Cell<'a> {
    program: &'a Path,
    plane: &'a Plane,
    folder: PathBuf,
    number: usize,
    way: Way,
    moment: (&'static str, Call, u64, Place),
    seconds: u64,
    budget: &'static str,
    is_too_long: bool,
}

/// Measures all of them; a row for each length, and for each way in which the network is away.
pub(crate) fn measure(program: &Path, folder: &Path, jobs: usize) -> Result<Vec<(String, Count)>, String> {
    let plane = Plane::start(program, folder, None)?;
    let (mut cells, mut rows) = (Vec::new(), Vec::new());
    for (cut, is_too_long) in CUTS.into_iter().map(|cut| (cut, false)).chain([(TOO_LONG, true)]) {
        for (way, word) in [(Way::Refuse, "refused"), (Way::Vanish, "vanished")] {
            let (name, seconds, budget) = cut;
            // A task that has ended its steps is past its fence, and one that has not begun is queued again.
            let moments = if is_too_long { &MOMENTS[2..3] } else { &MOMENTS[..] };
            for moment in moments.iter().flat_map(|moment| vec![*moment; jobs.max(1)]) {
                let number = cells.len();
                let folder = folder.join(format!("c{number}"));
                cells.push((
                    rows.len(),
                    Cell {
                        program,
                        plane: &plane,
                        folder,
                        number,
                        way,
                        moment,
                        seconds,
                        budget,
                        is_too_long,
                    },
                ));
            }
            rows.push((format!("{name}, {word}"), Count::default()));
        }
    }
    println!("faults: {} tasks, each cut once", cells.len());
    let counts = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (row, cell) in &cells {
            threads.push((*row, cell, scope.spawn(|| cell.play())));
            // Starts cost more than what follows.
            std::thread::sleep(Duration::from_millis(250));
        }
        let ends = threads.into_iter().map(|(row, cell, thread)| (row, cell, thread.join()));
        ends.collect::<Vec<_>>()
    });
    for (row, cell, result) in counts {
        let mut count = match result {
            Ok(Ok(count)) => count,
            Ok(Err(why)) => Count { findings: vec![why], ..Count::default() },
            Err(_) => Count { findings: vec!["the harness failed".to_owned()], ..Count::default() },
        };
        for finding in &mut count.findings {
            *finding = format!("{} (c{}): {finding}", cell.moment.0, cell.number);
        }
        rows[row].1.add(count);
    }
    Ok(rows)
}

impl Cell<'_> {
    fn play(&self) -> Result<Count, String> {
        let mut count = Count::default();
        fs::create_dir_all(self.folder.join("wrote")).map_err(|error| error.to_string())?;
        let class = format!("acme/c{}", self.number);
        let token = self.plane.class(&class)?;
        self.plane.budget(&class, self.budget)?;
        let line =
            Line::to(self.plane.address(), Dice::new(0, "outage")).map_err(|error| error.to_string())?;
        let (_, call, skip, place) = self.moment;
        line.cut(Cut { call, skip, place, way: self.way, length: Duration::from_secs(self.seconds) });
        let start = |name: &str, address| {
            let (prefix, denied, disk, home) = (None, None, None, &Home::Usual);
            let options = HostOptions { name, token: &token, address, prefix, denied, disk, home };
            Host::start(self.program, &self.folder, &options)
        };
        let host = start("r0", line.address())?;
        let style = Style {
            folder: &self.folder,
            class: &class,
            leaves: Leaves::Nothing,
            pause_ms: if self.is_too_long { 500 } else { 150 },
            // A task of 1,000 pieces is still at work when its fence comes.
            pieces: if self.is_too_long { 1_000 } else { 20 },
            splits: false,
        };
        let name = format!("p{}", self.number);
        let pipeline = self.plane.trigger(PROJECT, &work::config(&name, &style))?;
        let began = Instant::now();
        while line.cut_at().is_none() {
            if began.elapsed() > Duration::from_secs(180) {
                return Err(format!("{name} did not come to the moment of the cut"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        count.times = 1;
        // Somebody else is there to take what is given back, by a line that works.
        let other = (call == Call::Claim).then(|| start("r1", self.plane.address())).transpose()?;
        let cut_at = line.cut_at().unwrap_or(began);
        let limit = Duration::from_secs(self.seconds) + LONGEST_END;
        let mut jobs = None;
        while jobs.is_none() && cut_at.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(500));
            jobs = self.plane.jobs(&pipeline)?;
            if jobs.is_some() && self.is_too_long {
                self.wait_for_late_output(cut_at);
            }
        }
        let Some(jobs) = jobs else {
            count.wrong_status += 1;
            count.findings.push(format!("{name} (pipeline {pipeline}) has not ended"));
            return Ok(count);
        };
        let mut done = Done::default();
        if self.is_too_long {
            self.expect_a_fence(&name, &mut done);
        }
        account::check(self.plane, &name, &jobs, &mut done, &mut count)?;
        if self.is_too_long && count.declared == 0 {
            count.wrong_status += 1;
            count.findings.push(format!("{name} was to end behind its fence"));
        }
        account::check_ledger(&self.folder, &mut count);
        // A runner that has something to say for its task says it when the line is back, before it stops.
        while cut_at.elapsed() < Duration::from_secs(self.seconds) {
            std::thread::sleep(Duration::from_millis(500));
        }
        let hosts = [Some(&host), other.as_ref()];
        host::stop_all(hosts.into_iter().flatten(), &self.folder, &mut count);
        Ok(count)
    }

    /// The line is back after its time, and the task agent has said everything when it has ended.
    fn wait_for_late_output(&self, cut_at: Instant) {
        let limit = Duration::from_secs(self.seconds) + LONGEST_END;
        while cut_at.elapsed() < limit && host::processes_of(&self.folder).iter().any(host::Process::is_agent)
        {
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// A task that was silent for its budget is an infrastructure failure, with all that its step has written.
    fn expect_a_fence(&self, name: &str, done: &mut Done) {
        let job = format!("{name}a");
        let step = format!("{job}.1");
        let written = fs::read_to_string(self.folder.join("wrote").join(&step)).unwrap_or_default();
        let lines = written.trim().parse().unwrap_or(0);
        done.held.insert(step.clone(), work::expected(&step, lines).len() as u64);
        done.agent_killed.insert(job);
    }
}
