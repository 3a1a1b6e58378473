//! Transcripts under `tests/scenarios/transcripts/`: each is a config that `runlet exec` runs, and what it
//! must show and leave.
//!
//! - `config.yml` becomes `.circleci/config.yml`; what is in `files/` is copied beside it;
//! - `args`: arguments, one a line; `env`: `NAME=VALUE` lines for the environment of the program;
//! - `unordered`: steps run side by side, so only the lines count and not their order;
//! - `expected`: exit code, the whole terminal, and every file that is left. Times, identifiers and
//!   folders are replaced by words, nothing else is.
//!
//! `RUNLET_BLESS=1` rewrites `expected`. Whoever does that reads the difference against the rules: an
//! expectation that repeats what the program does proves nothing.

use regex::Regex;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn scenarios() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/transcripts");
    let mut found: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}

/// Replaces the parts that vary from run to run by words.
fn steady(text: &str, place: &Path) -> String {
    let mut text = text.replace(&*place.to_string_lossy(), "PLACE");
    for (pattern, word) in [
        (r"/\S*/runlet-exec-[0-9a-f-]{36}", "PRIVATE"),
        (r"/\S*/runlet-task-[0-9a-f-]{36}", "SCRATCH"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"\b[0-9a-f]{40}\b", "REVISION"),
        (r"\b([0-9]+\.[0-9]|[0-9]+m[0-9]+)s\b", "TIME"),
        // A column is as wide as the longest time.
        (r"\btime +tests\b", "time  tests"),
        (r"  TIME +([0-9])", "  TIME  $1"),
        (r"  TIME *\n", "  TIME\n"),
        (r"pid [0-9]+", "pid PID"),
        // Times of files are in their archive as well.
        (r"[0-9]+ bytes compressed", "SIZE compressed"),
        (r"(found the cache `[^`]*`) \([0-9]+ bytes\)", "$1 (SIZE)"),
        // A line without end is broken depending on how it arrived.
        (r"(?:x{1000,}\n)+(?:x+\n)?", "LONG LINE\n"),
        (r"PRIVATE/work-[0-9]+", "JOBDIR"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    by_job(&text)
}

/// Lines of jobs that run side by side, those of each job together.
fn by_job(text: &str) -> String {
    let label = Regex::new(r"^(\S+ +)\| ").unwrap();
    let (mut jobs, mut rest): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in text.split_inclusive('\n') {
        if label.is_match(line) { jobs.push(line) } else { rest.push(line) }
    }
    jobs.sort_by_key(|line| label.captures(line).map(|found| found[1].to_owned()));
    jobs.concat() + &rest.concat()
}

/// Every file below `folder`, with its text where that is short.
fn left(folder: &Path, prefix: &str, out: &mut String) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            left(&entry.path(), &format!("{name}/"), out);
        } else if name != ".gitignore" {
            let bytes = fs::read(entry.path()).unwrap();
            match std::str::from_utf8(&bytes) {
                Ok(text) if bytes.len() <= 400 => writeln!(out, "{name}: {text:?}").unwrap(),
                _ => writeln!(out, "{name}: {} bytes", bytes.len()).unwrap(),
            }
        }
    }
}

/// Runs one scenario; what came of it.
fn run(scenario: &Path) -> String {
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join("repository");
    fs::create_dir_all(repository.join(".circleci")).unwrap();
    fs::copy(scenario.join("config.yml"), repository.join(".circleci/config.yml")).unwrap();
    if scenario.join("files").is_dir() {
        let copied = Command::new("cp").arg("-R").arg(scenario.join("files/.")).arg(&repository).status();
        assert!(copied.unwrap().success());
    }
    let home = place.path().join("home");
    fs::create_dir(&home).unwrap();
    // Output and errors share one stream, as a terminal has them.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>&1", env!("CARGO_BIN_EXE_runlet")]);
    command.arg("exec").arg(&repository).args(lines(&scenario.join("args")));
    command.env_clear().env("HOME", &home).env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    for line in lines(&scenario.join("env")) {
        let (name, value) = line.split_once('=').unwrap();
        command.env(name, value);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (bytes, code) = (output.stdout, output.status.code());
    let mut text = format!("exit {}\n", code.map_or("by a signal".to_owned(), |code| code.to_string()));
    let mut shown = steady(&String::from_utf8_lossy(&bytes), place.path());
    if scenario.join("unordered").exists() {
        let mut lines: Vec<&str> =
            shown.split_inclusive('\n').filter(|line| !line.ends_with(" (continued)\n")).collect();
        lines.sort_unstable();
        shown = lines.concat();
    }
    text.push_str(&shown);
    let mut files = String::new();
    left(&repository.join(".runlet"), "", &mut files);
    if !files.is_empty() {
        text.push_str("--- left\n");
        text.push_str(&steady(&files, place.path()));
    }
    text
}

#[test]
fn every_scenario_shows_and_leaves_what_it_says() {
    let bless = std::env::var_os("RUNLET_BLESS").is_some();
    let only = std::env::var("RUNLET_SCENARIO").ok();
    let wanted = |path: &PathBuf| {
        only.as_ref().is_none_or(|only| path.file_name().is_some_and(|name| name.to_string_lossy() == **only))
    };
    let all: Vec<PathBuf> = scenarios().into_iter().filter(wanted).collect();
    assert!(!all.is_empty(), "there is no scenario");
    // Each has a control plane and runners of its own; a few at a time.
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(scenario) = all.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let actual = run(scenario);
                    let file = scenario.join("expected");
                    if bless {
                        fs::write(&file, &actual).unwrap();
                    }
                    let expected = fs::read_to_string(&file).unwrap_or_default();
                    if actual != expected {
                        let name = scenario.file_name().unwrap().to_string_lossy();
                        let head = |text: &str| text.chars().take(4000).collect::<String>();
                        let (wanted, got) = (head(&expected), head(&actual));
                        let failure = format!("=== {name}\n--- expected\n{wanted}--- got\n{got}");
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} scenarios:\n{}", failures.len(), all.len(), failures.join("\n"));
}
