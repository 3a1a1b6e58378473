//! Breaks everything between and around real runners and a real control plane while jobs of known output run, and
//! accounts for every byte, process, status and step afterwards. `ci/faults` runs it.

mod account;
mod dice;
mod fault;
mod host;
mod line;
mod outages;
mod plane;
mod row;
mod table;
mod wire;
mod work;

use account::Count;
use fault::{Fault, Hurt, Victim};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Rows that are played at the same time unless `--parallel` says otherwise.
const PARALLEL: usize = 6;
/// Time that a row takes beside that of its faults, roughly: starts, and the end of what was hurt last.
const AROUND_SECONDS: u64 = 7;
/// In so long every fault is there.
const LONG_SECONDS: u64 = 600;
/// Longest that a run takes which goes on until faults were there so often.
const GOALS_SECONDS: u64 = 3_600;

struct Options {
    program: PathBuf,
    seed: u64,
    seconds: Option<u64>,
    kills: u64,
    network: u64,
    jobs: usize,
    parallel: usize,
    faults: Vec<String>,
    outages: bool,
    all: bool,
}

impl Options {
    /// Whether a fault that was never there is a failure: there was time for all of them, or it was asked for.
    fn wants_all(&self) -> bool {
        self.all || self.outages || self.has_goals() || self.seconds() >= LONG_SECONDS
    }

    /// Whether rows go on until their faults were there so often, rather than for their share of the time.
    fn has_goals(&self) -> bool {
        self.kills + self.network > 0
    }

    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.has_goals() { GOALS_SECONDS } else { 180 })
    }

    /// Runners of a row. Many where each fault takes long: a task agent has to get old enough, or a call hangs.
    fn runners(&self, fault: Fault) -> usize {
        let is_slow = fault.victims().is_some_and(|victims| victims.contains(&Victim::Agent))
            || matches!(fault, Fault::Calls(None, [Hurt::Stall]) | Fault::Cancel(_, [Hurt::Stall, ..]));
        match (self.jobs, self.has_goals()) {
            (0, true) if is_slow => 10,
            (0, true) => 4,
            (0, false) if matches!(fault, Fault::Cancel(_, [Hurt::Stall, ..])) => 6,
            (0, false) => 3,
            (jobs, _) => jobs,
        }
    }
}

fn main() -> ExitCode {
    let result = parse().and_then(|options| {
        let folder = tempfile::Builder::new().prefix("faults-").tempdir();
        let folder = folder.map_err(|error| format!("failed to make a folder: {error}"))?;
        end_when_told(folder.path())?;
        // A row whose findings need a look is kept with everything that it left.
        let rows = if options.outages {
            println!("faults: outages");
            outages::measure(&options.program, folder.path(), options.jobs)?
        } else {
            play(&options, folder.path())?
        };
        table::print(&rows);
        host::end_all(folder.path());
        let not_exercised = account::not_exercised(&rows);
        if !not_exercised.is_empty() {
            println!("not exercised, so that nothing is known of it: {}", not_exercised.join(", "));
        }
        let clean = rows.iter().all(|(_, count)| count.is_clean());
        let all = not_exercised.is_empty() || !options.wants_all();
        if !clean {
            println!(
                "faults: something that must be zero is not; logs and data are kept in `{}`",
                folder.keep().display()
            );
        }
        Ok(clean && all)
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("faults: {why}");
            ExitCode::from(2)
        }
    }
}

/// TERM and INT end what was started, too.
fn end_when_told(folder: &Path) -> Result<(), String> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(|error| error.to_string())?;
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        signals.forever().next();
        // Twice: a row may be starting something.
        for _ in 0..2 {
            host::end_all(&folder);
            std::thread::sleep(Duration::from_millis(300));
        }
        eprintln!("faults: stopped; logs and data are in `{}`", folder.display());
        std::process::exit(130);
    });
    Ok(())
}

fn parse() -> Result<Options, String> {
    let mut options = Options {
        program: PathBuf::new(),
        seed: dice::fresh_seed(),
        seconds: None,
        kills: 0,
        network: 0,
        jobs: 0,
        parallel: PARALLEL,
        faults: Vec::new(),
        outages: false,
        all: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().ok_or_else(|| format!("`{argument}` needs a value (see ci/faults --help)"));
        let number =
            |text: String| text.parse::<u64>().map_err(|_| format!("`{argument} {text}` is no number"));
        match argument.as_str() {
            "--program" => {
                let program = value()?;
                options.program = Path::new(&program)
                    .canonicalize()
                    .map_err(|error| format!("failed to find `{program}`: {error}"))?;
            }
            "--seed" => options.seed = number(value()?)?,
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--kills" => options.kills = number(value()?)?,
            "--network" => options.network = number(value()?)?,
            "--jobs" => options.jobs = number(value()?)? as usize,
            "--parallel" => options.parallel = (number(value()?)? as usize).max(1),
            "--fault" => options.faults.push(value()?),
            "--outages" => options.outages = true,
            "--all" => options.all = true,
            _ => return Err(format!("unknown option `{argument}` (see ci/faults --help)")),
        }
    }
    Ok(options)
}

fn play(options: &Options, folder: &Path) -> Result<Vec<(String, Count)>, String> {
    let all = fault::all();
    let wanted = |name: &str| options.faults.is_empty() || options.faults.iter().any(|fault| name == fault);
    if let Some(unknown) = options.faults.iter().find(|fault| all.iter().all(|(name, _)| name != *fault)) {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("unknown fault `{unknown}` (known faults: {})", names.join(", ")));
    }
    let goal = |fault: Fault| fault.goal(options.kills, options.network);
    let has_part = |fault: Fault| !options.has_goals() || goal(fault).is_some();
    let faults = all.into_iter().filter(|(name, fault)| wanted(name) && has_part(*fault));
    let faults: Vec<(String, Fault)> = faults.collect();
    let rounds = faults.len().div_ceil(options.parallel).max(1) as u64;
    let seconds = (options.seconds() / rounds).saturating_sub(AROUND_SECONDS).max(3);
    let end = Instant::now() + Duration::from_secs(options.seconds());
    if options.has_goals() {
        println!(
            "faults: seed {} ({} kills of each part and {} faults of the network, in {} rows)",
            options.seed,
            options.kills,
            options.network,
            faults.len()
        );
    } else {
        println!("faults: seed {} ({seconds} s of each of {} faults)", options.seed, faults.len());
    }
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.parallel {
            scope.spawn(|| {
                while let Some((name, fault)) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let time = if options.has_goals() {
                        end.saturating_duration_since(Instant::now())
                    } else {
                        Duration::from_secs(seconds)
                    };
                    let row = row::Row {
                        program: &options.program,
                        name,
                        fault: *fault,
                        seed: options.seed,
                        time,
                        goal: goal(*fault),
                        runners: options.runners(*fault),
                        folder: folder.join(name),
                    };
                    let count = row::play(&row).unwrap_or_else(|why| Count {
                        findings: vec![format!("could not be played: {why}")],
                        ..Count::default()
                    });
                    eprintln!(
                        "faults: {name}: {} times, {} jobs, {}",
                        count.times,
                        count.jobs,
                        match count.is_clean() {
                            true if count.times == 0 => "not exercised",
                            true => "clean",
                            false => "findings",
                        }
                    );
                    if count.is_clean() {
                        // Space for the next; what is left of it goes with the whole folder.
                        let _ = std::fs::remove_dir_all(&row.folder);
                    }
                    let position = faults.iter().position(|(one, _)| one == name).unwrap_or(0);
                    rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((
                        position,
                        name.clone(),
                        count,
                    ));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    rows.sort_by_key(|(position, ..)| *position);
    Ok(rows.into_iter().map(|(_, name, count)| (name, count)).collect())
}
