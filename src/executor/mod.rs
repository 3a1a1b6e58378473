//! The task agent, `runlet task`, which takes a task from start to finish.
//!
//! The agent reads a [`TaskInput`] on standard input, runs the steps in order, streams their output and
//! reports to the control plane by itself. The machine runner starts it and only waits. Nothing here
//! knows of claims or settings.

mod access;
mod background;
mod begin;
mod beside;
pub mod child;
pub mod cleanup;
mod control;
pub mod end;
pub mod environment;
#[cfg(test)]
mod example;
mod folder;
mod folder_names;
mod home;
mod host;
pub mod life;
mod mounts;
pub mod output;
pub mod places;
mod prepare;
mod private;
mod probe;
pub mod process;
mod records;
pub mod scratch;
mod steps;
pub mod task;
mod timings_fetch;

use crate::http::{Client, Endpoint};
use crate::logging::{self, Format};
use crate::outcome::{Failure, Outcome, exit};
use crate::protocol::task_input::{PROBE_BEGINS, ProbeInput, Said, TaskInput, task_exit};
use crate::protocol::{Secret, json};
use crate::system::signals::Stops;
use crate::system::threads;
use background::Background;
use begin::Beginning;
use child::TaskMessage;
use control::Control;
use host::TaskHost;
use mounts::Mount;
use output::forms::Forms;
use output::report::{Reporter, Wish};
use output::secrets::Secrets;
use records::Records;
use scratch::FolderKind;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;
use task::TaskRun;

/// The copy of a report of tests that is stored, for the fuzz target.
#[cfg(fuzzing)]
pub fn masked_report(report: &[u8], secrets: &Secrets) -> Vec<u8> {
    steps::masked_report(report, secrets)
}

/// Longest input that is read, in bytes.
const LONGEST_INPUT: u64 = 64 * 1024 * 1024;

/// `runlet task --help`.
pub const HELP: &str = "\
Run one claimed task. The machine runner starts this; it is not meant for people.

Usage: runlet task [TASK [RUNNER]] < INPUT

TASK and RUNNER say in lists of processes whose it is, also to a runner that has lost its record. INPUT is JSON: the
claim, its token, settings of the runner. TERM or INT stop the task. JSON lines on standard output tell the runner
whether it has begun. Exit code 0: nothing is left to report; 75: the outcome could not be reported.
";

/// Runs `runlet task` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    match args.first().and_then(|arg| arg.to_str()) {
        Some("--help" | "-h") => return crate::outcome::print(HELP),
        Some(other) if other.starts_with('-') => {
            return Err(Failure::usage(format!("`runlet task` takes no argument `{other}`")));
        }
        _ => {}
    }
    // Before any token is in its memory.
    crate::system::keep_memory_private();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        // The text of the panic may quote what the job has given.
        begin::say(Said::Words, panic.location().map(|place| format!("it panicked at {place}")).as_deref());
    }));
    let wrong = |why| Failure { code: exit::USAGE, message: why };
    let text = read_input().map_err(wrong)?;
    if text.starts_with(PROBE_BEGINS) {
        let input: ProbeInput = decode(&text).map_err(wrong)?;
        return Ok(probe::run(&input.runlet_probe));
    }
    let input: TaskInput = decode(&text).map_err(wrong)?;
    drop(text);
    init_logging(&input);
    // From here on the operator reads one log in one format: no plain line may stand in it.
    run(input).or_else(|failure| {
        ::log::error!("{}", failure.message);
        Ok(failure.code)
    })
}

fn read_input() -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = std::io::stdin().take(LONGEST_INPUT).read_to_end(&mut text);
    read.map_err(|e| format!("failed to read the task on standard input: {e}"))?;
    Ok(text)
}

fn decode<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    // The error of a parser may quote its input, which holds tokens: only the place is told.
    json::read(text).map_err(|error| {
        let place = json::place(&error);
        format!("failed to read the task on standard input: not what a runner writes ({place})")
    })
}

fn run(input: TaskInput) -> Outcome {
    process::adopt_descendants();
    let endpoint = Endpoint {
        url: input.endpoint.url.clone(),
        ca_file: input.endpoint.ca_file.clone(),
        client_certificate: input
            .endpoint
            .client_certificate_file
            .clone()
            .zip(input.endpoint.client_key_file.clone()),
    };
    let (sender, receiver) = mpsc::channel();
    let reporter = match start(&endpoint, &input, &sender) {
        Ok(reporter) => reporter,
        Err(why) => return Ok(exit_code(&begin::tell(why))),
    };
    if input.rest {
        return Ok(deliver_rest(&input, &reporter));
    }
    let folders = scratch::create(&input, FolderKind::Private).and_then(|private| {
        match scratch::create(&input, FolderKind::Spool) {
            Ok(spool) => Ok((private, spool)),
            Err(why) => {
                scratch::remove(&private, None);
                Err(why)
            }
        }
    });
    let (scratch, spool) = match folders {
        Ok(folders) => folders,
        Err(why) => return Ok(exit_code(&begin::failed(&reporter, why, input.pause_seconds))),
    };
    reporter.keep_in(&spool, input.drop_output);
    #[cfg(feature = "server")]
    reporter.share(input.output_directory.as_deref().map(|folder| folder.join(input.task.id.as_str())));
    private::leave_endpoint(&input, &scratch);
    let secrets = secrets_of(&input, &scratch);
    let background = Background::new(scratch.clone(), reporter.clone(), secrets.clone());
    let limit = Duration::from_millis(input.max_run_time_ms);
    let control = Control::new((sender, receiver), reporter.clone(), limit, background);
    let records = Records::new(reporter, secrets, spool, input.task.max_step_output_bytes);
    let host = TaskHost::new(&input, scratch, places::home());
    let mut task = TaskRun::new(input, host, control, records);
    let beginning = begin::begin(&mut task);
    let mut code = exit_code(&beginning);
    if matches!(beginning, Beginning::Begun) {
        let fetch =
            timings_fetch::Fetch::start(&task.input.task, &task.host.private.path, &task.records.reporter);
        let (status, message) = task.run();
        fetch.stop();
        begin::say(Said::Ended, Some(status.word()));
        let is_told = task.records.reporter.finish(status, message);
        code = if is_told { task_exit::REPORTED } else { task_exit::NOT_REPORTED };
        if let Some(why) = task.records.reporter.disowned() {
            begin::say(Said::Words, Some(&why));
        }
        task.host.clean_up(&task.input);
    }
    // Steps are over: one look at the mounts serves for what is removed now.
    let mounts = mounts::all();
    scratch::remove_private(&task.input.task.id, &task.host.private.path, &mounts);
    leave(&task.records.reporter, &task.records.spool, matches!(beginning, Beginning::Begun), Some(&mounts));
    Ok(code)
}

/// Sends what an earlier agent of the task has left.
fn deliver_rest(input: &TaskInput, reporter: &Reporter) -> u8 {
    // The runner has tried. Behind a prefix it knows neither the home nor TMPDIR of the user, and may not remove files.
    scratch::remove_left_behind(&input.task.id, input.working_directory.as_deref(), false);
    let Some(spool) = scratch::left_spool(input) else { return task_exit::REPORTED };
    if let Err(error) = reporter.deliver_rest(&spool) {
        ::log::error!("failed to read `{}`: {error}", spool.display());
        return task_exit::NOT_REPORTED;
    }
    let is_sent = leave(reporter, &spool, true, None);
    reporter.over();
    if is_sent { task_exit::REPORTED } else { task_exit::NOT_REPORTED }
}

/// Removes a spool, unless there is something in it that counts and was not sent.
fn leave(reporter: &Reporter, spool: &Path, counts: bool, mounts: Option<&[Mount]>) -> bool {
    let is_sent = !counts || reporter.is_sent();
    if is_sent {
        scratch::remove(spool, mounts);
    } else {
        ::log::error!("what the task has said could not be sent and stays in `{}`", spool.display());
    }
    is_sent
}

fn exit_code(beginning: &Beginning) -> u8 {
    match beginning {
        Beginning::Begun | Beginning::Over => task_exit::REPORTED,
        Beginning::Failed(why) => {
            ::log::error!("the task has not begun: {why}");
            task_exit::NOT_REPORTED
        }
    }
}

/// Starts to listen to signals and to the control plane. The error is a sentence for people.
fn start(
    endpoint: &Endpoint,
    input: &TaskInput,
    messages: &mpsc::Sender<TaskMessage>,
) -> Result<Reporter, String> {
    let client = Client::of_runner(endpoint).and_then(Client::of_output).map_err(|e| e.to_string())?;
    let wishes = messages.clone();
    let reporter = Reporter::new(client, &input.task, move |wish| {
        // The task may be over already; then nobody needs to know.
        let _ = wishes.send(if wish == Wish::Cancel { TaskMessage::Cancel } else { TaskMessage::Ended });
    });
    forward_signals(messages.clone(), reporter.clone())
        .map_err(|e| format!("failed to handle signals: {e}"))?;
    output::send::start(&reporter, &input.task).map_err(|e| e.to_string())?;
    Ok(reporter)
}

/// Values to mask: variables, what the control plane names, the task's token, credentials in the URL of the repository,
/// and passwords in URLs of this host's environment, which the steps inherit: those of proxies, say.
fn secrets_of(input: &TaskInput, scratch: &std::path::Path) -> Secrets {
    let task = &input.task;
    let mut further = task.mask.clone();
    further.push(task.token.clone());
    // Over ssh it is the name of a user, which is no secret.
    let url = task.source.as_ref().map(|source| source.repository_url.as_str());
    if let Some(user_info) = url.filter(|url| !url.starts_with("ssh:")).and_then(user_info) {
        let password = user_info.split_once(':').map_or(user_info, |(_, password)| password);
        if password != "git" {
            further.extend(as_written_and_meant(password));
        }
    }
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(url)) = (name.to_str(), value.to_str()) else { continue };
        // Proxies are named without a scheme, too.
        let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
        let written = if is_proxy && !url.contains("://") { format!("://{url}") } else { url.to_owned() };
        if let Some((_, password)) = user_info(&written).and_then(|user_info| user_info.split_once(':')) {
            further.extend(as_written_and_meant(password));
        }
    }
    let values = task.variables.iter().map(|variable| &variable.value).chain(&further);
    Secrets::of(values, Forms::named(&input.mask_forms), Some(crate::tool::secret::file(scratch)))
}

/// A password of a URL, and the same without its percent signs.
fn as_written_and_meant(password: &str) -> [Secret; 2] {
    let mut meant = Vec::new();
    let mut rest = password.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                meant.push(decoded);
                rest = &after[2..];
            }
            None => {
                meant.push(byte);
                rest = after;
            }
        }
    }
    [Secret::new(password), Secret::new(String::from_utf8_lossy(&meant))]
}

/// The part of a URL that says who is asking: `user:password`.
fn user_info(url: &str) -> Option<&str> {
    let host = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    Some(host.rsplit_once('@')?.0)
}

fn forward_signals(sender: mpsc::Sender<TaskMessage>, reporter: Reporter) -> std::io::Result<()> {
    let stops = Stops::listen()?;
    let forward = move || {
        stops.each(|| {
            reporter.told_to_stop();
            sender.send(TaskMessage::Terminate).is_ok()
        });
    };
    threads::start("signals", forward)?;
    Ok(())
}

/// The runner's choices. Where the log goes is standard error, which the runner has chosen as well.
fn init_logging(input: &TaskInput) {
    let level = input.log_level.as_deref().and_then(|level| logging::parse_level(level).ok());
    let format = input.log_format.as_deref().and_then(|format| Format::parse(format).ok());
    let options = logging::LogOptions {
        level: level.unwrap_or(::log::LevelFilter::Info),
        format: format.unwrap_or(Format::Text),
        file: None,
    };
    // Without a file it cannot fail.
    let _ = logging::init(&options);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_found_as_they_are_written_and_meant() {
        for (url, found) in [
            ("http://user:pass@proxy:3128", Some("user:pass")),
            ("https://a:b@c@host/path?x=@", Some("a:b@c")),
            ("https://host/a@b", None),
            ("git@host:path", None),
        ] {
            assert_eq!(user_info(url), found, "{url}");
        }
        let [written, meant] = as_written_and_meant("a%40b%2zé%");
        assert_eq!((written.expose(), meant.expose()), ("a%40b%2zé%", "a@b%2zé%"));
    }
}
