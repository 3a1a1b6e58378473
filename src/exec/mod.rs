//! `runlet exec`: the embedded default. A control plane and a machine runner in this process, for one
//! pipeline, on the working tree as it is; nothing is left but the results.

mod options;
mod render;
mod results;
mod snapshot;

use crate::agent::machine;
use crate::agent::settings::Settings;
use crate::agent::{Level, Stop};
use crate::http::{Body, Client, Endpoint, Request};
use crate::outcome::{Failure, Outcome, exit};
use crate::protocol::{Secret, WatchEvent};

use crate::server::pipelines::types::{ConfigOrigin, Only, Revision, Trigger};
use crate::server::{self, CANNOT_RUN_HERE, Running, ServerOptions, Told, WatchEnded, Watcher};
use options::Options;
use render::{Screen, Style};
use results::Folder;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// This much text is drawn at once at most, about.
const DRAW_BYTES: usize = 4 * 1024 * 1024;
/// The class that everything runs in.
const CLASS: &str = "runlet/exec";

/// Runs `runlet exec` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    match Options::parse(args)? {
        Some(options) => exec(&options),
        None => crate::outcome::print(options::HELP),
    }
}

fn exec(options: &Options) -> Outcome {
    let root = std::fs::canonicalize(&options.path)
        .map_err(|e| Failure::usage(format!("cannot open the folder `{}`: {e}", options.path.display())))?;
    let file = options.config.clone().unwrap_or_else(|| root.join(".circleci/config.yml"));
    let config = std::fs::read_to_string(&file).map_err(|e| Failure {
        code: exit::USAGE,
        message: format!(
            "failed to read the config `{}`: {e} (name another with `--config`)",
            file.display()
        ),
    })?;
    let wrong = |wrong: crate::config::WrongParameter| Failure::usage(wrong.to_string());
    let parameters = crate::config::typed_parameters(&config, &options.parameters).map_err(wrong)?;
    crate::config::check_parameters(&config, &parameters).map_err(wrong)?;
    let folder = Folder::open(options.artifacts.as_deref(), &root).map_err(Failure::usage)?;
    let scratch = Scratch::create().map_err(Failure::new)?;
    let snapshot = snapshot::take(&root, &scratch.0).map_err(Failure::new)?;
    let interrupts =
        Interrupts::start().map_err(|e| Failure::new(format!("failed to handle signals: {e}")))?;

    let mut server_options = ServerOptions::new(scratch.0.join("data"));
    server_options.listen.set_port(0);
    server_options.route_all_to = Some(CLASS.to_owned());
    server_options.default_resource_class = Some(CLASS.to_owned());
    server_options.is_for_this_host(options.on_host);
    server_options.orbs = options.orbs.clone();
    server_options.max_step_output_bytes = 4 << 30;
    // It lives as long as this process: waiting for the disk would buy nothing.
    server_options.durable = false;
    let running = server::start(server_options).map_err(|error| Failure::new(error.to_string()))?;
    let person = running.first_token.clone().unwrap_or_else(|| Secret::new(""));
    let slug = slug_of(&snapshot, &root);
    running
        .ensure_project(&slug, snapshot.origin.as_deref())
        .map_err(|error| Failure::new(format!("failed to register the project: {error}")))?;
    let class_token = running
        .class_token(CLASS, "exec")
        .map_err(|error| Failure::new(format!("failed to make a resource class token: {error}")))?;
    let runners = Runners::start(options, &scratch.0, &running, &class_token);

    let file_name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
    let trigger = Trigger {
        config: config.clone(),
        parameters,
        revision: Some(Revision {
            repository_url: format!("file://{}", snapshot.repository.display()),
            revision: snapshot.revision.clone(),
            branch: Some(snapshot.branch.clone()),
            tag: None,
            subject: snapshot.subject.clone(),
            body: String::new(),
            author: String::new(),
            is_default_branch: snapshot.is_default_branch,
        }),
        config_origin: Some(ConfigOrigin {
            reference: format!("refs/heads/{}", snapshot.branch),
            revision: snapshot.revision.clone(),
        }),
        actor: std::env::var("USER").unwrap_or_else(|_| "exec".to_owned()),
        only: Some(Only { workflow: options.workflow.clone(), job: options.job.clone() }),
        ..Trigger::explicit(&slug, &file_name)
    };
    let outcome = run(options, &folder, &running, &person, trigger, &interrupts);
    runners.stop(outcome.is_err() || interrupts.count() > 0);
    running.stop();
    outcome
}

fn run(
    options: &Options,
    folder: &Folder,
    running: &Running,
    person: &Secret,
    trigger: Trigger,
    interrupts: &Interrupts,
) -> Outcome {
    let created = running.trigger(trigger).map_err(|error| Failure::usage(error.to_string()))?;
    for warning in &created.warnings {
        eprintln!("warning: {warning}");
    }
    if !created.made_contexts.is_empty() {
        eprintln!(
            "note: contexts are empty here ({}): set what their variables hold in this environment, where jobs need it",
            created.made_contexts.join(", ")
        );
    }
    if created.is_errored() {
        let why = created.errors.map(|errors| errors.to_string()).unwrap_or_default();
        return Err(Failure {
            code: exit::INVALID_CONFIG,
            message: format!("the config is not valid:\n{why}"),
        });
    }
    let client = Client::new(&Endpoint { url: running.url.clone(), ..Endpoint::default() });
    let client = client.map_err(|e| Failure::new(e.to_string()))?;
    let screen = watch(options, &client, person, running.watch(&created.id), interrupts)?;
    if interrupts.count() > 1 {
        return Ok(exit::INTERRUPTED);
    }
    if screen.jobs().next().is_none() {
        crate::outcome::print("nothing to run: every workflow or job of the config is filtered out here\n")?;
        return Ok(exit::OK);
    }
    let summary = results::collect(&client, person, &screen, folder).map_err(Failure::new)?;
    crate::outcome::print(&summary.text)?;
    for lost in &summary.lost {
        eprintln!("runlet: {lost}");
    }
    if interrupts.count() > 0 {
        return Ok(exit::INTERRUPTED);
    }
    let left_out = screen
        .jobs()
        .any(|(_, job)| job.message.as_ref().is_some_and(|why| why.starts_with(CANNOT_RUN_HERE)));
    let good = summary.lost.is_empty() && screen.workflow_statuses().all(|status| status == "success");
    let waits = screen.workflow_statuses().any(|status| status == "on_hold");
    if waits {
        crate::outcome::print(
            "an approval is waiting, and nobody can give it here: the jobs behind it did not run\n",
        )?;
    }
    let good = good || waits && screen.jobs().all(|(_, job)| !job.failed());
    Ok(match (good, left_out) {
        (false, _) => exit::FAILED,
        (true, true) => exit::INCOMPLETE,
        (true, false) => exit::OK,
    })
}

/// Draws the pipeline until it has ended, waits for a person, or was interrupted for good.
fn watch(
    options: &Options,
    client: &Client,
    person: &Secret,
    mut watcher: Watcher,
    interrupts: &Interrupts,
) -> Result<Screen, Failure> {
    let terminal = std::io::stdout().is_terminal()
        && !options.plain
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var("TERM").is_ok_and(|term| term != "dumb");
    let mut screen = Screen::new(Style { terminal, width: columns() });
    let mut told_interrupts = 0;
    loop {
        let mut next = watcher.next(Duration::from_millis(200)).map_err(|WatchEnded| {
            Failure::new("lost sight of the pipeline: its control plane has stopped")
        })?;
        let mut ended = false;
        // What has gathered meanwhile is drawn in one go, unless it is very much.
        while let Some(Told { event, output }) = next {
            ended = event == WatchEvent::End;
            screen.event(event, &output);
            next = if ended || screen.pending() >= DRAW_BYTES { None } else { watcher.ready() };
        }
        screen.resize(columns());
        let text = screen.take(server::time::Millis::now().0);
        // A reader that has gone away does not stop the pipeline.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&text).and_then(|()| out.flush());
        drop(out);
        // Jobs are told after their workflow: one that runs has its end still to come.
        let rests = |status: &str| !matches!(status, "running" | "queued" | "failing");
        let held = screen.workflow_statuses().all(rests)
            && screen.workflow_statuses().any(|status| status == "on_hold")
            && screen.jobs().any(|(_, job)| job.status == "on_hold")
            && screen.jobs().all(|(_, job)| rests(&job.status));
        if ended || held || interrupts.count() > 1 {
            return Ok(screen);
        }
        if interrupts.count() > told_interrupts {
            told_interrupts = interrupts.count();
            eprintln!("runlet: canceling (once more to stop at once)");
            for id in screen.workflow_ids() {
                let path = format!("/api/v2/workflow/{id}/cancel");
                let timeout = Duration::from_secs(10);
                let request =
                    Request { method: "POST", path: &path, token: Some(person), body: Body::Empty, timeout };
                if let Err(error) = client.json::<serde_json::Value>(&request) {
                    eprintln!("runlet: {error}");
                }
            }
        }
    }
}

/// Columns of the terminal: of the one that is written to, as it is now, unless the caller says otherwise.
fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col));
    said.or_else(asked).filter(|&columns| columns > 0).unwrap_or(80)
}

/// `gh/org/repo` from the origin when it says so, else a slug of this host.
fn slug_of(snapshot: &snapshot::Snapshot, root: &Path) -> String {
    let origin = snapshot.origin.as_deref().unwrap_or_default().trim_end_matches(".git");
    let vcs = [("github.com", "gh"), ("bitbucket.org", "bb"), ("gitlab.com", "gl")];
    let found = vcs.into_iter().find_map(|(host, vcs)| Some((vcs, origin.split_once(host)?.1)));
    if let Some((vcs, rest)) = found {
        let mut parts = rest.trim_start_matches([':', '/']).splitn(2, '/');
        if let (Some(org), Some(repo)) = (parts.next(), parts.next()) {
            return format!("{vcs}/{org}/{}", repo.replace('/', "-"));
        }
    }
    let name =
        root.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned());
    format!("local/exec/{name}")
}

/// The runners, a thread each.
struct Runners {
    threads: Vec<std::thread::JoinHandle<()>>,
    stop: Stop,
}

impl Runners {
    fn start(options: &Options, scratch: &Path, running: &Running, token: &Secret) -> Self {
        let stop = Stop::new();
        let failures = Arc::new(Mutex::new(()));
        let mut threads = Vec::new();
        for number in 0..options.concurrency {
            let endpoint = Endpoint { url: running.url.clone(), ..Endpoint::default() };
            let directory = scratch.join(format!("work-{number}"));
            let mut settings = Settings::new(token.clone(), endpoint, format!("exec-{number}"), directory);
            settings.cleanup_working_directory = true;
            settings.confine = true;
            settings.task_agent_directory = Some(scratch.join(format!("bin-{number}")));
            settings.logging.format = crate::logging::Format::None;
            let (stop, failures) = (stop.clone(), failures.clone());
            let work = move || {
                if let Err(error) = machine::run(settings, &stop) {
                    let _one_at_a_time = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    eprintln!("runlet: a runner stopped: {error}");
                }
            };
            threads.extend(std::thread::Builder::new().name(format!("runner-{number}")).spawn(work));
        }
        Self { threads, stop }
    }

    fn stop(self, cancel: bool) {
        self.stop.request(if cancel { Level::Cancel } else { Level::Drain });
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Counts Ctrl-C and TERM.
struct Interrupts(Arc<AtomicU32>);

impl Interrupts {
    fn start() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let count = Arc::new(AtomicU32::new(0));
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let counter = Arc::clone(&count);
        let wait = move || {
            for _ in signals.forever() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(Self(count))
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A temporary folder that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Result<Self, String> {
        use std::os::unix::fs::DirBuilderExt;
        let place = std::fs::canonicalize(std::env::temp_dir()).unwrap_or_else(|_| std::env::temp_dir());
        let folder = place.join(format!("runlet-exec-{}", uuid::Uuid::new_v4()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|e| {
            format!("failed to create `{}`: {e} (set TMPDIR to a writable folder)", folder.display())
        })?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("runlet: failed to remove `{}`: {error}", self.0.display());
        }
    }
}
