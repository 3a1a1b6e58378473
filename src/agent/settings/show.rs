//! `runlet config show`: the settings that a runner would have here, and where each comes from.

use super::keys::{AUTH_TOKEN, AUTH_TOKEN_FILE};
use super::load::with_sources;
use super::resolve::{Mode, Settings};
use super::sources::Sources;
use crate::agent::gates::bytes_text;
use crate::outcome::{Failure, Outcome, print};
use crate::protocol::duration;
use lexopt::Arg::{Long, Short};
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const HELP: &str = "\
runlet config show: the settings of the machine runner as they are here

Usage: runlet config show [--config FILE] [--origin]

  --config FILE   settings (YAML), as for `runlet machine`
  --origin        where each value comes from: FILE:LINE:COLUMN, a variable, or the default
  --help          this text

Tokens are not shown. Exit code 2: settings are wrong.
";

/// Runs `runlet config show` with the arguments after it.
pub fn command(args: Vec<OsString>) -> Outcome {
    let (mut file, mut origin): (Option<PathBuf>, bool) = (None, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") | Short('c') => file = Some(parser.value()?.into()),
            Long("origin") => origin = true,
            Long("help") | Short('h') => return print(HELP),
            other => return Err(other.unexpected().into()),
        }
    }
    let text = with_sources(file.as_deref(), |sources, settings| table(sources, &settings, origin));
    print(&text.map_err(Failure::usage)?)
}

fn table(sources: &Sources<'_>, settings: &Settings, origin: bool) -> String {
    let mut text = String::new();
    for (key, value) in rows(sources, settings) {
        let from = match sources.get(key) {
            Some(given) if given.from_variable => given.what,
            Some(given) => given.place.trim_end_matches(": ").to_owned(),
            None => "default".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = match origin {
            true => writeln!(text, "{key:<42} {value:<42} {from}"),
            false => writeln!(text, "{key:<42} {value}"),
        };
    }
    text
}

/// Every key with the value that counts.
fn rows(sources: &Sources<'_>, settings: &Settings) -> Vec<(&'static str, String)> {
    let path = |path: &Option<PathBuf>| path.as_deref().map_or_else(none, shown);
    let text = |text: &Option<String>| text.clone().unwrap_or_else(none);
    let list = |list: &[String]| if list.is_empty() { none() } else { list.join(" ") };
    let flag = |flag: bool| flag.to_string();
    let certificates = settings.endpoint.client_certificate.clone().unzip();
    let given = |key: &'static str| {
        sources.get(key).and_then(|given| Some(given.text().ok()?.to_owned())).unwrap_or_else(none)
    };
    let mode = if settings.mode == Mode::Continuous { "continuous" } else { "single-task" };
    let (quotas, status, rules) = (&settings.quotas, &settings.status, &settings.rules);
    let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
    vec![
        (AUTH_TOKEN, "(not shown)".to_owned()),
        (AUTH_TOKEN_FILE, given(AUTH_TOKEN_FILE)),
        ("api.url", settings.endpoint.url.clone()),
        ("api.ca_file", path(&settings.endpoint.ca_file)),
        ("api.client_certificate", path(&certificates.0)),
        ("api.client_key", path(&certificates.1)),
        ("runner.name", settings.name.clone()),
        ("runner.mode", mode.to_owned()),
        ("runner.working_directory", shown(&settings.working_directory)),
        ("runner.cleanup_working_directory", flag(settings.cleanup_working_directory)),
        ("runner.drop_output_on_full_disk", flag(settings.drop_output_on_full_disk)),
        ("runner.task_agent_directory", path(&settings.task_agent_directory)),
        ("runner.command_prefix", list(&settings.command_prefix)),
        ("runner.use_home_ssh_dir_for_checkout_keys", flag(settings.use_home_ssh_dir_for_checkout_keys)),
        ("runner.max_run_time", duration::format(settings.max_run_time)),
        ("runner.idle_timeout", settings.idle_timeout.map_or_else(none, duration::format)),
        ("runner.ssh.advertise_addr", text(&settings.ssh_advertise_addr)),
        ("runner.state_directory", path(&settings.state_directory)),
        ("runner.allow_projects", list(&rules.allow_projects)),
        ("runner.deny_projects", list(&rules.deny_projects)),
        ("runner.allow_branches", list(&rules.allow_branches)),
        ("runner.deny_branches", list(&rules.deny_branches)),
        ("runner.mask_forms", list(&settings.mask_forms)),
        ("runner.max_load", given("runner.max_load")),
        (
            "runner.quiet_hours",
            list(&settings.gates.quiet_hours.iter().map(|hours| hours.text()).collect::<Vec<_>>()),
        ),
        ("runner.min_free_disk", settings.gates.min_free_disk.map_or_else(none, |room| room.text())),
        ("runner.quota.memory", quotas.memory_bytes.map_or_else(none, bytes_text)),
        ("runner.quota.processes", number(quotas.processes)),
        ("runner.quota.cpu_weight", number(quotas.cpu_weight)),
        ("status.socket", path(&status.socket)),
        ("status.mode", format!("{:04o}", status.mode)),
        ("status.group", text(&status.group)),
        ("status.listen", status.listen.map_or_else(none, |address| address.to_string())),
        ("status.textfile", path(&status.textfile)),
        ("logging.level", settings.logging.level.as_str().to_ascii_lowercase()),
        ("logging.format", settings.logging.format.name().to_owned()),
        ("logging.file", path(&settings.logging.file)),
    ]
}

fn none() -> String {
    "-".to_owned()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
