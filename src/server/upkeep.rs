//! `runlet server check`, `backup` and `restore`: data folders, looked after from outside.

use crate::outcome::{Failure, Outcome, exit, print};
use crate::server::backup::{self, Copied};
use crate::server::check::{self, CheckReport};
use crate::system::locks;
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const HELP: &str = "\
Look after the data folder of a control plane.

Usage: runlet server check --data DIR [--quick] [--json]
       runlet server backup --data DIR TARGET [--json]
       runlet server restore BACKUP --data DIR [--json]

check    says what is wrong with a data folder or a backup, and changes nothing: a task twice, a status gone
         back, output that is not complete, uploads that are missing, damaged, or that nothing names, damage
         in the database. Works beside a running control plane. --quick leaves the contents of files out.
         Exit code 1 when something is wrong.
backup   copies the data folder to TARGET, beside a running control plane: a new folder, or that of an earlier
         backup, which then takes what has changed. `secrets.key` is left out; keep it elsewhere.
restore  copies a backup to a new data folder, after a check. The next start holds what had not ended, until
         `runlet admin task release` or `task end` says what becomes of each. Put `secrets.key` back before it.
";

/// The arguments of all three.
#[derive(Default)]
struct Arguments {
    data: Option<PathBuf>,
    words: Vec<PathBuf>,
    quick: bool,
    json: bool,
}

/// Runs `runlet server VERB` with the arguments after `server`; `None` where they begin with none of these verbs.
pub(super) fn command(args: &[OsString]) -> Option<Outcome> {
    let (verb, rest) = args.split_first()?;
    let verb = verb.to_str()?;
    let run = match verb {
        "check" => check_folder,
        "backup" => back_up,
        "restore" => restore,
        _ => return None,
    };
    // A second logger (in tests) changes nothing.
    let _ = crate::logging::init(&crate::logging::LogOptions::default());
    Some(match parse(verb, rest) {
        Ok(Some(arguments)) => run(arguments),
        Ok(None) => print(HELP),
        Err(failure) => Err(failure),
    })
}

fn parse(verb: &str, args: &[OsString]) -> Result<Option<Arguments>, Failure> {
    use lexopt::prelude::*;
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("data") => arguments.data = Some(parser.value()?.into()),
            Long("quick") if verb == "check" => arguments.quick = true,
            Long("json") => arguments.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(word) => arguments.words.push(word.into()),
            _ => {
                return Err(Failure::usage(format!(
                    "{}; see `runlet server {verb} --help`",
                    argument.unexpected()
                )));
            }
        }
    }
    Ok(Some(arguments))
}

impl Arguments {
    fn data(&self, verb: &str) -> Result<PathBuf, Failure> {
        let data = self.data.clone();
        data.ok_or_else(|| Failure::usage(format!("`runlet server {verb}` needs `--data DIR`")))
    }

    /// The only word.
    fn word(&self, verb: &str, what: &str) -> Result<PathBuf, Failure> {
        match self.words.as_slice() {
            [word] => Ok(word.clone()),
            _ => Err(Failure::usage(format!("`runlet server {verb}` needs one {what}"))),
        }
    }
}

/// The moment up to which the sweep had the chance to remove what nothing names: now while a control plane runs, and
/// else when the database was written last.
fn swept_until(data: &Path) -> SystemTime {
    let lock = File::open(data.join("lock"));
    if lock.is_ok_and(|lock| !locks::is_free(&lock)) {
        return SystemTime::now();
    }
    let written = |name: &str| fs::metadata(data.join(name)).and_then(|about| about.modified()).ok();
    written("runlet.db").max(written("runlet.db-wal")).unwrap_or_else(SystemTime::now)
}

fn check_folder(arguments: Arguments) -> Outcome {
    let data = arguments.data("check")?;
    if let Some(word) = arguments.words.first() {
        return Err(Failure::usage(format!("`{}` means nothing to `runlet server check`", word.display())));
    }
    let report = checked(&data, !arguments.quick)?;
    let code = if report.faults.is_empty() { exit::OK } else { exit::FAILED };
    if arguments.json {
        let faults: Vec<_> =
            report.faults.iter().map(|fault| json!({ "kind": fault.kind, "what": fault.what })).collect();
        let told = json!({
            "faults": faults, "uploads": report.uploads, "outputs": report.outputs,
            "open_tasks": report.open_tasks, "read_bytes": report.read_bytes,
        });
        print(&format!("{told:#}\n"))?;
        return Ok(code);
    }
    for fault in &report.faults {
        print(&format!("{}: {}\n", fault.kind, fault.what))?;
    }
    let found = match report.faults.len() {
        0 => "all is well".to_owned(),
        count => format!("{count} faults"),
    };
    print(&format!(
        "{found}: {} uploads, {} complete outputs, {} tasks that have not ended, {} bytes read\n",
        report.uploads, report.outputs, report.open_tasks, report.read_bytes
    ))?;
    Ok(code)
}

fn checked(data: &Path, contents: bool) -> Result<CheckReport, Failure> {
    check::check(data, contents, swept_until(data)).map_err(|error| Failure::new(error.to_string()))
}

fn back_up(arguments: Arguments) -> Outcome {
    let (data, target) = (arguments.data("backup")?, arguments.word("backup", "TARGET folder")?);
    let copied = backup::back_up(&data, &target).map_err(|error| Failure::new(error.to_string()))?;
    tell(&copied, arguments.json, &format!("backed up `{}` to `{}`", data.display(), target.display()))
}

fn restore(arguments: Arguments) -> Outcome {
    let (data, source) = (arguments.data("restore")?, arguments.word("restore", "BACKUP folder")?);
    if !source.join(backup::MARK).exists() {
        return Err(Failure::new(format!(
            "failed to restore `{}`: it is no backup that `runlet server backup` has made and nothing has run on",
            source.display()
        )));
    }
    let report = checked(&source, true)?;
    if let Some(fault) = report.faults.first() {
        return Err(Failure::new(format!(
            "refusing to restore `{}`: {} things are wrong with it, the first is: {} (see `runlet server check --data {}`; a copy of the folder by other means is taken as it is)",
            source.display(),
            report.faults.len(),
            fault.what,
            source.display()
        )));
    }
    let copied = backup::restore(&source, &data).map_err(|error| Failure::new(error.to_string()))?;
    let key = if data.join("secrets.key").exists() { "" } else { "put `secrets.key` back, then " };
    let next = format!(
        "restored `{}` to `{}`; {key}start `runlet server --data {}`: what had not ended is held",
        source.display(),
        data.display(),
        data.display()
    );
    tell(&copied, arguments.json, &next)
}

fn tell(copied: &Copied, as_json: bool, sentence: &str) -> Outcome {
    let Copied { files, bytes, kept, missing } = copied;
    if as_json {
        let told = json!({ "files": files, "bytes": bytes, "kept": kept, "missing": missing });
        print(&format!("{told:#}\n"))?;
    } else {
        print(&format!("{sentence}; {files} files with {bytes} bytes copied, {kept} were there\n"))?;
    }
    if let Some(first) = missing.first() {
        return Err(Failure::new(format!(
            "{} uploads that rows name are not in the data folder, such as {first}: they were missing before; see `runlet server check`",
            missing.len()
        )));
    }
    Ok(exit::OK)
}
