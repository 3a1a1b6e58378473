//! `runlet status`: asks runners of this host what they do.

use super::doors::{candidates, folders};
use super::socket;
use crate::agent::board::{BoardReport, seconds};
use crate::agent::settings;
use crate::outcome::{Failure, Outcome, exit, print};
use crate::protocol::{duration, json};
use crate::system::clock::Rfc3339;
use lexopt::Arg::{Long, Short, Value};
use std::ffi::OsString;
use std::fmt::Write;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `runlet status --help`.
pub const HELP: &str = "\
runlet status: what the runners of this host do

Usage: runlet status [NAME] [--config FILE] [--socket PATH] [--json]

  NAME            the runner of this name only
  --config FILE   the runner of these settings
  --socket PATH   the runner that answers there
  --json          print what the runners say
  --help          this text

Exit codes: 0 every runner that was asked answered; 1 none did; 2 wrong usage.
";

/// Longest wait for a runner to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MOST: u64 = 1 << 20;

/// Runs `runlet status` with the arguments after it.
pub fn command(args: Vec<OsString>) -> Outcome {
    let (mut sockets, mut name, mut json): (Vec<PathBuf>, Option<String>, bool) = (Vec::new(), None, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") | Short('c') => {
                let file = PathBuf::from(parser.value()?);
                let settings = settings::load(Some(&file)).map_err(Failure::usage)?;
                // The first that is there: an older socket may lie in another place.
                sockets.extend(candidates(&settings).into_iter().find(|path| path.exists()));
            }
            Long("socket") => sockets.push(parser.value()?.into()),
            Long("json") => json = true,
            Long("help") | Short('h') => return print(HELP),
            Value(word) if name.is_none() => name = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let searches = sockets.is_empty();
    if searches {
        sockets = all(name.as_deref());
    }
    let mut failures = Vec::new();
    let mut text = String::new();
    for socket in &sockets {
        match ask(socket) {
            Ok((answer, _)) if json => {
                text += &answer;
                text.push('\n');
            }
            Ok((_, report)) => show(&report, &mut text),
            // A runner that was killed leaves its socket behind.
            Err(error) if searches && error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => failures.push(format!("`{}`: {error}", socket.display())),
        }
    }
    print(&text)?;
    match (text.is_empty(), failures.is_empty()) {
        (true, true) => {
            Err(Failure::new("no runner was found on this host that this user may ask; see --help"))
        }
        (_, true) => Ok(exit::OK),
        (_, false) => Err(Failure::new(format!("no answer from {}", failures.join("; ")))),
    }
}

/// The sockets in the usual places.
fn all(name: Option<&str>) -> Vec<PathBuf> {
    let home = |name: &str, below: &str| std::env::var_os(name).map(|home| PathBuf::from(home).join(below));
    let state =
        home("XDG_STATE_HOME", "runlet").or_else(|| home(crate::system::os::HOME, ".local/state/runlet"));
    let mut found = Vec::new();
    for folder in folders(state.as_deref()) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let fits = name.is_none_or(|name| {
                path.file_name().is_some_and(|file| file == format!("{name}.sock").as_str())
            });
            if fits && path.extension().is_some_and(|extension| extension == "sock") {
                found.push(path);
            }
        }
    }
    found
}

fn ask(socket: &Path) -> std::io::Result<(String, BoardReport)> {
    let caller = socket::connect(socket)?;
    caller.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    caller.take(MOST).read_to_string(&mut text)?;
    let report = json::read(text.as_bytes());
    report
        .map(|report| (text, report))
        .map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "what answers is no runner of this version"))
}

fn show(report: &BoardReport, text: &mut String) {
    let now = seconds();
    let ago = |at: u64| duration::format(Duration::from_secs(now.saturating_sub(at)));
    let reason = if report.reason.is_empty() { String::new() } else { format!(" ({})", report.reason) };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} {}: {}{reason} for {}",
        report.name,
        report.resource_class,
        report.state.word(),
        ago(report.since)
    );
    if let Some(task) = &report.task {
        let _ = writeln!(text, "  task {} of the job {}, for {}", task.id, task.job, ago(task.since));
    }
    let contact = report.last_contact.map_or("never".to_owned(), |at| format!("{} ago", ago(at)));
    let _ = writeln!(text, "  {}, last answer {contact}", report.url);
    let _ =
        writeln!(text, "  version {}, pid {}, up for {}", report.version, report.pid, ago(report.started));
    for decision in &report.decisions {
        let time =
            Rfc3339 { time: SystemTime::UNIX_EPOCH + Duration::from_secs(decision.at), milliseconds: false };
        let _ = writeln!(text, "  {time} {}", decision.what);
    }
}
