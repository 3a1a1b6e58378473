//! `runlet doctor`: whether this host can run tasks of its control plane, and what to do about it if not. `runlet machine
//! --check` is its short form.
//!
//! Every check is made, whatever the others have found; none needs root or a network, and each has a time of its own. The
//! checks of `job` are made behind `runner.command_prefix`, as the user of the jobs.

mod host;
mod job;
mod network;
mod unit;

use crate::agent::settings::{self, Settings};
use crate::outcome::{Failure, Outcome, exit, print};
use crate::protocol::finding::{Finding, FindingLevel, Findings};
use lexopt::Arg::{Long, Short};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// `runlet doctor --help`.
pub const HELP: &str = "\
runlet doctor: check this host, its settings and the way to the control plane

Usage: runlet doctor [--config FILE] [--unit NAME] [--json]

  --config FILE   settings (YAML), as for `runlet machine`
  --unit NAME     the systemd unit that runs the runner; otherwise the one that the doctor runs in
  --json          a list of {id, result, evidence, advice}
  --help          this text

Needs neither root nor network. It is best run as the runner's user. Exit codes: 0 good, or warnings only; 1 something
failed; 2 wrong usage or settings.
";

/// Runs `runlet doctor` with the arguments after it.
pub fn command(args: Vec<OsString>) -> Outcome {
    let (mut file, mut unit, mut json): (Option<PathBuf>, Option<String>, bool) = (None, None, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") | Short('c') => file = Some(parser.value()?.into()),
            Long("unit") => unit = Some(parser.value()?.to_string_lossy().into_owned()),
            Long("json") => json = true,
            Long("help") | Short('h') => return print(HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut found = Findings::default();
    let code = match settings::load(file.as_deref()) {
        Err(wrong) => {
            for line in wrong.lines().filter(|line| !line.ends_with("settings are wrong:")) {
                found.add(
                    "settings",
                    FindingLevel::Fail,
                    line.trim(),
                    "correct it; docs/runner.md lists all settings",
                );
            }
            exit::USAGE
        }
        Ok(settings) => {
            examine(&settings, unit.as_deref(), &mut found);
            if found.worst() == FindingLevel::Fail { exit::FAILED } else { exit::OK }
        }
    };
    print(&if json { as_json(&found) } else { as_text(&found, FindingLevel::Ok) })?;
    Ok(code)
}

/// `--check`: what is not as it should be, and whether the control plane agrees.
pub fn check(file: Option<&Path>) -> Outcome {
    let settings = settings::load(file).map_err(Failure::usage)?;
    let mut found = Findings::default();
    examine(&settings, None, &mut found);
    print(&as_text(&found, FindingLevel::Warn))?;
    if found.worst() == FindingLevel::Fail {
        return Err(Failure::new("this runner cannot work here as it is; `runlet doctor` tells more"));
    }
    let token = found.0.iter().find(|finding| finding.id == "token");
    let told = token.map_or_else(String::new, |finding| format!("{}\n", finding.evidence));
    print(&format!("runner `{}` can work here\n{told}", settings.name))
}

fn examine(settings: &Settings, unit: Option<&str>, found: &mut Findings) {
    found.fine("settings", format!("they can be read; the runner's name is `{}`", settings.name));
    for warning in &settings.warnings {
        found.add("settings", FindingLevel::Warn, warning.as_str(), "");
    }
    host::look(settings, found);
    unit::look(settings, unit, found);
    job::look(settings, found);
    network::look(settings, found);
}

fn as_json(found: &Findings) -> String {
    let mut text = serde_json::to_string(&found.0).unwrap_or_default();
    text.push('\n');
    text
}

fn as_text(found: &Findings, least: FindingLevel) -> String {
    let mut text = String::new();
    for Finding { id, result, evidence, advice } in found.0.iter().filter(|finding| finding.result >= least) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<4}  {id:<18} {evidence}", result.word());
        if !advice.is_empty() {
            let _ = writeln!(text, "{:26}{advice}", "-> ");
        }
    }
    if least == FindingLevel::Ok {
        let count = |level| found.0.iter().filter(|finding| finding.result == level).count();
        let _ = writeln!(
            text,
            "{} checks: {} failed, {} warnings, {} notes, {} could not be made",
            found.0.len(),
            count(FindingLevel::Fail),
            count(FindingLevel::Warn),
            count(FindingLevel::Note),
            count(FindingLevel::Skipped)
        );
    }
    text
}
