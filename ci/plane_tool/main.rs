//! Costs of a control plane: a real one is driven by calls of its protocol, without any runner, and its processor time,
//! its answers, its memory and its disk are measured. `ci/bench-plane` runs it.

mod caller;
mod growth;
mod parked;
mod plane;
mod work;

use parked::Parked;
use plane::Plane;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Jobs of one pipeline.
const JOBS: u64 = 10;
/// Runners that work at the same time.
const RUNNERS: u64 = 8;

struct Options {
    program: PathBuf,
    short: bool,
    tasks: u64,
    parked: u64,
    stored: Vec<u64>,
}

fn main() -> ExitCode {
    match parse().and_then(|options| measure(&options)) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in findings {
                println!("bench-plane: {finding}");
            }
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("bench-plane: {why}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Options, String> {
    let mut options =
        Options { program: PathBuf::new(), short: false, tasks: 4000, parked: 5000, stored: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--short" {
            options = Options { short: true, tasks: 600, parked: 300, stored: vec![20_000], ..options };
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("`{argument}` needs a value (see ci/bench-plane --help)"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("`{argument} {value}` is no number"));
        match argument.as_str() {
            "--program" => options.program = PathBuf::from(&value),
            "--tasks" => options.tasks = number()?.max(JOBS),
            "--parked" => options.parked = number()?,
            "--stored" => options.stored.push(number()?),
            _ => return Err(format!("unknown option `{argument}` (see ci/bench-plane --help)")),
        }
    }
    if options.stored.is_empty() {
        options.stored = vec![20_000, 240_000, 1_000_000];
    }
    Ok(options)
}

/// Cost of tasks while so many are stored.
struct Cost {
    stored: u64,
    cpu_us: f64,
}

/// Measures, prints, and returns what is not as it must be.
fn measure(options: &Options) -> Result<Vec<String>, String> {
    raise_file_limit();
    let folder = tempfile::Builder::new().prefix("bench-plane-").tempdir();
    let folder = folder.map_err(|error| format!("failed to make a folder: {error}"))?;
    let mut plane = Plane::start(&options.program, folder.path())?;
    let mut findings = Vec::new();
    println!("{:<44} {:>12}", "durable commit of this disk, ms (median)", ms(commit_time(folder.path())?));
    // Code and pages that are needed once.
    tasks(&plane, JOBS * 10, RUNNERS)?;

    let files = plane.stored();
    let mut stored = JOBS * 10;
    let mut costs = vec![row_of_tasks(&plane, options.tasks, &mut stored)?];
    let now = plane.stored();
    let new_files = now.files.saturating_sub(files.files) as f64 / options.tasks as f64;
    println!("{:<44} {:>12.2}", "files and folders of output, for each task", new_files);
    println!(
        "{:<44} {:>12.1}",
        "disk, KiB for each task",
        now.bytes.saturating_sub(files.bytes) as f64 / 1024.0 / options.tasks as f64
    );
    if new_files > 0.1 {
        findings.push(format!("{new_files:.2} files stay of each task whose output is small"));
    }

    let times = one_by_one(&plane, options.tasks / 10)?;
    row("one runner: whole task, ms", &times);

    let before = plane.memory()?;
    let mut runners = Parked::park(&plane, options.parked)?;
    let each = plane.memory()?.saturating_sub(before) / options.parked.max(1);
    println!(
        "{:<44} {:>12.1}",
        format!("{} parked: memory of each, KiB", options.parked),
        each as f64 / 1024.0
    );
    let times = runners.dispatch(&plane, options.tasks / 20)?;
    row(&format!("{} parked: trigger to claim, ms", options.parked), &times);
    drop(runners);
    if each > 24 * 1024 {
        findings.push(format!("a parked claim has {each} bytes of memory"));
    }

    for wanted in &options.stored {
        stored = growth::grow(&mut plane, *wanted)?;
        // Pages that are read once after a start.
        tasks(&plane, JOBS * 10, RUNNERS)?;
        stored += JOBS * 10;
        costs.push(row_of_tasks(&plane, options.tasks, &mut stored)?);
    }
    let Some(first) = costs.first() else { return Ok(findings) };
    for cost in &costs[1..] {
        let ratio = cost.cpu_us / first.cpu_us;
        println!(
            "{:<44} {ratio:>12.2}",
            format!("{} stored to {}: CPU of a task", cost.stored, first.stored)
        );
        if ratio > 1.5 {
            findings.push(format!("a task costs {ratio:.2} times as much when {} are stored", cost.stored));
        }
    }
    if options.short && findings.is_empty() {
        println!("bench-plane: as it must be");
    }
    plane.stop()?;
    Ok(findings)
}

/// Queues tasks and runs them.
fn tasks(plane: &Plane, count: u64, runners: u64) -> Result<Vec<Duration>, String> {
    let mut caller = plane.caller()?;
    for _ in 0..count / JOBS {
        plane.trigger(&mut caller, JOBS)?;
    }
    work::drain(plane, count / JOBS * JOBS, runners)
}

/// Triggers pipelines and runs their tasks with all runners at once; prints what that costs.
fn row_of_tasks(plane: &Plane, count: u64, stored: &mut u64) -> Result<Cost, String> {
    let mut caller = plane.caller()?;
    let (cpu, pipelines) = (plane.cpu()?, count / JOBS);
    for _ in 0..pipelines {
        plane.trigger(&mut caller, JOBS)?;
    }
    let triggered = plane.cpu()?;
    let began = Instant::now();
    let times = work::drain(plane, pipelines * JOBS, RUNNERS)?;
    let (took, drained) = (began.elapsed(), plane.cpu()?);
    let each = |cpu: Duration, of: u64| cpu.as_secs_f64() * 1e6 / of as f64;
    let cpu_us = each(drained.saturating_sub(triggered), pipelines * JOBS);
    let name = |what: &str| format!("{stored} stored: {what}");
    println!(
        "{:<44} {:>12.0}",
        name("CPU of a trigger, for each job, us"),
        each(triggered.saturating_sub(cpu), pipelines * JOBS)
    );
    println!("{:<44} {cpu_us:>12.0}", name("CPU of a task, five calls, us"));
    println!("{:<44} {:>12.0}", name("tasks a second"), times.len() as f64 / took.as_secs_f64());
    row(&name("task, ms"), &times);
    let cost = Cost { stored: *stored, cpu_us };
    *stored += pipelines * JOBS;
    Ok(cost)
}

/// Times tasks of one runner, each triggered when the one before has ended.
fn one_by_one(plane: &Plane, count: u64) -> Result<Vec<Duration>, String> {
    let (mut caller, mut all) = (plane.caller()?, Vec::new());
    for _ in 0..count {
        plane.trigger(&mut caller, 1)?;
        all.extend(work::drain(plane, 1, 1)?);
    }
    all.sort_unstable();
    Ok(all)
}

/// Time that a durable write of a page takes here, of which every call that binds has one.
fn commit_time(folder: &Path) -> Result<Duration, String> {
    use std::io::Write;
    let path = folder.join("commits");
    let mut times = Vec::new();
    let mut write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&path)?;
        for _ in 0..50 {
            let began = Instant::now();
            file.write_all(&[1; 4096])?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        std::fs::remove_file(&path)
    };
    write().map_err(|error| format!("failed to write to `{}`: {error}", path.display()))?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// Prints the median and the tail of times that are in order.
fn row(name: &str, times: &[Duration]) {
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let shown = |share| at(share).map_or_else(|| "-".to_owned(), |time| ms(*time));
    println!(
        "{name:<44} {:>12}   90 %: {}   99 %: {}   most: {}",
        shown(0.5),
        shown(0.9),
        shown(0.99),
        shown(1.0)
    );
}

/// Each runner that waits is a connection.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
