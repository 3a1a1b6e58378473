//! `runlet exec`: the embedded default. A control plane and a machine runner in this process, for one
//! pipeline, on the working tree as it is; nothing is left but the results, and the caches of jobs.

mod caches;
mod embedded;
mod env_file;
#[cfg(test)]
mod example;
mod filters;
mod git;
mod index;
mod layout;
mod list;
mod modules;
mod options;
mod remains;
mod render;
mod repository;
mod results;
mod settings;
mod signals;
mod snapshot;
mod style;
mod tell;
mod underway;
mod watch;

use crate::agent::machine;
use crate::agent::settings::Settings;
use crate::agent::{Level, Stop};
use crate::http::{Client, Endpoint};
use crate::outcome::{Failure, Outcome, exit, print};
use crate::protocol::Secret;
use crate::protocol::task_input::LocalSource;

use crate::server::pipelines::types::{ConfigOrigin, Revision, Trigger};
use crate::server::{self, NeverCame, Running, ServerOptions};
use crate::terminal::plain;
use caches::Caches;
pub use options::HELP;
use options::{CommandLine, Options};
use remains::Scratch;
use results::Folder;
use signals::Interrupts;
use snapshot::{Name, Named, Purpose, Snapshot};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tell::tell;

/// Whether a file is an index of git that is read here, for the fuzz target.
#[cfg(fuzzing)]
pub fn is_index(file: &[u8]) -> bool {
    index::is_known(file)
}

/// The class that everything runs in.
const CLASS: &str = "runlet/exec";
/// Threads of the control plane: as many as processors would cost more to start than one person's runners give them to do.
const THREADS: usize = 2;
/// Between two looks at signals while runners end.
const LOOK: Duration = Duration::from_millis(20);
/// The config of a repository.
const CONFIG: &str = ".circleci/config.yml";

/// Runs `runlet exec` with the arguments after the command.
pub fn command(args: Vec<OsString>) -> Outcome {
    match Options::parse(args)? {
        // Failures quote the config, which others may have written.
        CommandLine::Run(options) => {
            exec(&options).map_err(|failure| Failure { message: plain(&failure.message), ..failure })
        }
        CommandLine::Help => print(options::HELP),
        CommandLine::Guard(folder) => {
            remains::guard(&folder);
            Ok(exit::OK)
        }
    }
}

fn exec(options: &Options) -> Outcome {
    let ConfigPlace { root, file } = ConfigPlace::find(options)?;
    let config = std::fs::read_to_string(&file).map_err(|e| {
        refused(&root).unwrap_or_else(|| {
            let other = file.with_extension("yaml");
            let hint = match other.exists() {
                true => {
                    format!("`{}` is there, and only `config.yml` is looked for: rename it", other.display())
                }
                false => "name another".to_owned(),
            };
            Failure::usage(format!(
                "failed to read the config `{}`: {e} ({hint}, or use `--config`)",
                file.display()
            ))
        })
    })?;
    let wrong = |wrong: crate::config::WrongParameter| Failure::usage(wrong.to_string());
    let parameters = crate::config::typed_parameters(&config, &options.parameters).map_err(wrong)?;
    crate::config::check_parameters(&config, &parameters).map_err(wrong)?;
    let variables = env_file::read(&options.env_files, &options.variables).map_err(Failure::usage)?;
    if let Name::Given(name) = &options.name {
        name.check(&root).map_err(Failure::usage)?;
    }
    let folder = Folder::open(options.artifacts.as_deref(), &root).map_err(Failure::usage)?;
    let interrupts =
        Interrupts::start().map_err(|e| Failure::new(format!("failed to handle signals: {e}")))?;
    let cleaning = std::thread::Builder::new().name("remains".into()).spawn(remains::clean_others);
    let mut scratch = Scratch::create().map_err(Failure::new)?;
    let mut server_options = ServerOptions::new(scratch.path.join("data"));
    server_options.listen.set_port(0);
    server_options.route_all_to = Some(CLASS.to_owned());
    server_options.default_resource_class = Some(CLASS.to_owned());
    server_options.is_for_this_host(options.on_host);
    server_options.orbs = options.orbs.clone();
    server_options.orbs.let_be_missing();
    server_options.only.workflow.clone_from(&options.workflow);
    server_options.only.jobs.clone_from(&options.jobs);
    server_options.max_step_output_bytes = 4 << 30;
    // The control plane lives as long as this process: waiting for the disk would buy nothing.
    server_options.durable = false;
    server_options.threads = Some(THREADS);
    // An orb may use it, and so may a config that is made by a job.
    let with_subject = ["subject", "orbs", "setup"].iter().any(|word| config.contains(word));
    let purpose = Purpose { is_for_jobs: !options.list, with_subject };
    let mut running = None;
    let snapshot = std::thread::scope(|scope| {
        // Git works on the files while the control plane comes up.
        let starting = (!options.list).then(|| scope.spawn(|| server::start(server_options.clone())));
        let snapshot = snapshot::take(&root, &scratch.path, &options.name, purpose)
            .map_err(|why| refused(&root).unwrap_or_else(|| Failure::new(why)))?;
        running = match starting.map(|starting| starting.join()) {
            Some(Ok(started)) => Some(started.map_err(|error| Failure::new(error.to_string()))?),
            Some(Err(_)) => return Err(Failure::new("the control plane died while it was started")),
            None => None,
        };
        Ok(snapshot)
    });
    // A stop that git was told is no fault of the repository.
    if interrupts.count() > 0 {
        if let Some(running) = running {
            running.stop();
        }
        return Ok(interrupts.code());
    }
    let snapshot: Snapshot = snapshot?;
    for note in &snapshot.notes {
        tell(format_args!("note: {note}"));
    }
    let slug = slug_of(&snapshot, &root);
    let file_name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
    let trigger = Trigger { config, parameters, ..trigger(&snapshot, &slug, &file_name) };
    let Some(running) = running else {
        return list(&server_options, &trigger, options, &list::beside(&file, &root));
    };
    let person = running.first_token.clone().unwrap_or_else(|| Secret::new(""));
    running
        .ensure_project(&slug, snapshot.origin.as_deref(), snapshot.default_branch.as_deref())
        .map_err(|error| Failure::new(format!("failed to register the project: {error}")))?;
    for (name, value) in variables {
        running
            .set_variable(&slug, &name, value)
            .map_err(|error| Failure::usage(format!("cannot set the variable `{name}`: {error}")))?;
    }
    let caches = Caches::open(&slug, &root).filter(|_| options.caches);
    if let Some(caches) = &caches {
        caches.load(&running, &slug);
    }
    let class_token = running
        .class_token(CLASS, "exec")
        .map_err(|error| Failure::new(format!("failed to make a resource class token: {error}")))?;
    let source = LocalSource { repository: snapshot.repository.clone(), is_partial: snapshot.is_partial };
    scratch.wait_for_guard();
    let runners = Runners::start(options, &scratch.path, source, &running, &class_token);

    let outcome = run(options, &folder, &running, &person, trigger, &interrupts);
    let ended_early = outcome.is_err() || interrupts.count() > 0;
    runners.stop(ended_early, &scratch, &interrupts);
    scratch.is_quiet = !ended_early;
    // A terminal that is gone refuses what is written to it; the signal says why.
    let outcome = match outcome {
        Err(failure) if interrupts.count() > 0 => {
            tell(format_args!("runlet: {}", failure.message));
            Ok(interrupts.code())
        }
        outcome => outcome,
    };
    if let Some(Err(why)) = caches.map(|caches| caches.keep(&running, &slug)) {
        tell(format_args!("runlet: {why}"));
    }
    running.stop();
    for left in cleaning.ok().and_then(|cleaning| cleaning.join().ok()).unwrap_or_default() {
        tell(format_args!("note: removed what a run that was killed had left, `{}`", left.display()));
    }
    outcome
}

/// The failure of a folder that no pipeline can run in, whatever else may be wrong.
fn refused(root: &Path) -> Option<Failure> {
    repository::is_bare(root).unwrap_or(false).then(|| Failure::usage(repository::bare(root)))
}

/// Folders and files of the person.
struct ConfigPlace {
    /// The folder that is run.
    root: PathBuf,
    /// Config to run, by its path.
    file: PathBuf,
}

impl ConfigPlace {
    /// The folder that was named, or the first above it with a config, inside of the repository. Outside of one nothing
    /// above is looked at: that may be the home, or a folder that others write to.
    fn find(options: &Options) -> Result<Self, Failure> {
        let named = std::fs::canonicalize(&options.path).map_err(|e| {
            Failure::usage(format!("cannot open the folder `{}`: {e}", options.path.display()))
        })?;
        let named = match named.is_file() {
            true if named.ends_with(CONFIG) => named.ancestors().nth(2).unwrap_or(&named).to_owned(),
            true => {
                return Err(Failure::usage(format!(
                    "`{}` is a file: name the folder to run, and another config than `{CONFIG}` with `--config`",
                    options.path.display()
                )));
            }
            false => named,
        };
        if let Some(file) = &options.config {
            return Ok(Self { root: named, file: file.clone() });
        }
        let top = named.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(&named);
        let mut within = named.ancestors().take_while(|folder| folder.starts_with(top));
        let root = within.find(|folder| folder.join(CONFIG).exists()).unwrap_or(&named);
        Ok(Self { root: root.to_owned(), file: root.join(CONFIG) })
    }
}

fn trigger(snapshot: &Snapshot, slug: &str, file_name: &str) -> Trigger {
    let (branch, tag) = match snapshot.name.clone() {
        Named::Branch(name) => (Some(name), None),
        Named::Tag(name) => (None, Some(name)),
    };
    let own = snapshot.own_origin.as_ref().map(|own| own.display().to_string());
    let origin = snapshot.origin.clone().or(own);
    Trigger {
        revision: Some(Revision {
            repository_url: origin.unwrap_or_else(|| format!("file://{}", snapshot.repository.display())),
            revision: snapshot.revision.clone(),
            branch,
            tag,
            subject: snapshot.subject.clone(),
            body: String::new(),
            author: String::new(),
            made: Default::default(),
            is_default_branch: snapshot.is_default_branch,
            reference: None,
        }),
        config_origin: Some(ConfigOrigin {
            reference: snapshot.name.reference(),
            revision: snapshot.revision.clone(),
        }),
        actor: std::env::var("USER").unwrap_or_else(|_| "exec".to_owned()),
        ..Trigger::explicit(slug, file_name)
    }
}

fn list(
    server_options: &ServerOptions,
    trigger: &Trigger,
    options: &Options,
    continued: &[String],
) -> Outcome {
    let mut preview = server::preview(server_options, trigger).map_err(|errors| invalid(&errors))?;
    warn(&preview.compiled.warnings);
    // The jobs of a setup config choose those that are asked for.
    if !preview.compiled.setup {
        preview.narrow(&server_options.only).map_err(Failure::usage)?;
    }
    print(&plain(&list::text(&preview, options, continued)))
}

/// Tells the warnings of a compilation: what several jobs use once.
fn warn(warnings: &[crate::config::Diagnostic]) {
    let mut told = BTreeSet::new();
    for warning in warnings.iter().map(ToString::to_string) {
        if told.insert(warning.clone()) {
            tell(format_args!("warning: {warning}"));
        }
    }
}

fn invalid(errors: &crate::config::Diagnostics) -> Failure {
    Failure { code: exit::INVALID_CONFIG, message: format!("the config is not valid:\n{errors}") }
}

fn run(
    options: &Options,
    folder: &Folder,
    running: &Running,
    person: &Secret,
    trigger: Trigger,
    interrupts: &Interrupts,
) -> Outcome {
    if interrupts.count() > 0 {
        return Ok(interrupts.code());
    }
    let created = running.trigger(trigger).map_err(|error| match error {
        server::NotTriggered::NoSuch(_) => Failure::usage(error.to_string()),
        _ => Failure::new(error.to_string()),
    })?;
    warn(&created.warnings);
    if !created.made_contexts.is_empty() && options.env_files.is_empty() && options.variables.is_empty() {
        tell(format_args!(
            "note: contexts are empty here ({}): give what their variables hold with `--env-file FILE` or `-e NAME=VALUE`, where jobs need it",
            created.made_contexts.join(", ")
        ));
    }
    if let Some(errors) = &created.errors {
        return Err(invalid(errors));
    }
    let client = Client::new(&Endpoint { url: running.url.clone(), ..Endpoint::default() });
    let client = client.map_err(|e| Failure::new(e.to_string()))?;
    // The next look may be able to read it.
    let waits_for_people = || running.waits_for_people(&created.id).unwrap_or(false);
    let names = watch::JobNames::of(running);
    let watch::WatchedPipeline { screen, unwritten } = watch::watch(
        options,
        &client,
        person,
        running.watch(&created.id),
        &waits_for_people,
        &names,
        interrupts,
    )?;
    for given in &options.approve {
        if !screen.jobs().any(|job| names.is_approved(given, &screen, job)) {
            tell(format_args!(
                "note: `--approve {given}` is for no job of what ran (`--list` shows approvals)"
            ));
        }
    }
    if interrupts.count() > 1 {
        return Ok(interrupts.code());
    }
    if screen.jobs().next().is_none() {
        print("nothing ran: every workflow or job of the config is filtered out here (`--list` says why)\n")?;
        return Ok(exit::FAILED);
    }
    let summary = results::collect(running, &client, person, &screen, folder);
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    print(&summary.text)?;
    for lost in summary.notes.iter().chain(&summary.lost) {
        tell(format_args!("runlet: {lost}"));
    }
    if interrupts.count() > 0 {
        return Ok(interrupts.code());
    }
    let waiting: BTreeSet<String> = screen
        .jobs()
        .filter(|(_, job)| job.status == "on_hold")
        .map(|(_, job)| format!("`--approve {}`", style::word(&screen.name_of(job))))
        .collect();
    if !waiting.is_empty() {
        print(&format!(
            "not everything ran: jobs wait for an approval that was not given ({})\n",
            waiting.into_iter().collect::<Vec<_>>().join(", ")
        ))?;
    }
    let never_came = running.never_came();
    if let Some(NeverCame::Missing(why) | NeverCame::Refused(why)) = &never_came {
        print(&format!("{}\n", plain(why)))?;
    }
    let left_out = screen.jobs().any(|(_, job)| job.cannot_run);
    let good = summary.lost.is_empty() && screen.workflow_statuses().all(|(_, status)| status == "success");
    Ok(match (good, left_out) {
        // The job that sent the refused config has failed of just that.
        _ if matches!(never_came, Some(NeverCame::Refused(_))) => exit::USAGE,
        (false, _) => exit::FAILED,
        (true, true) => exit::INCOMPLETE,
        (true, false) if never_came.is_some() => exit::USAGE,
        (true, false) => exit::OK,
    })
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
    fn start(
        options: &Options,
        scratch: &Path,
        source: LocalSource,
        running: &Running,
        token: &Secret,
    ) -> Self {
        let stop = Stop::new();
        let failures = Arc::new(Mutex::new(()));
        let mut threads = Vec::new();
        for number in 0..options.concurrency {
            let endpoint = Endpoint { url: running.url.clone(), ..Endpoint::default() };
            let directory = scratch.join(format!("work-{number}"));
            let mut settings = Settings::new(token.clone(), endpoint, format!("exec-{number}"), directory);
            settings.cleanup_working_directory = true;
            settings.confine = true;
            settings.local_source = Some(source.clone());
            settings.output_directory = Some(running.output_folder());
            settings.task_agent_directory = Some(scratch.join("bin"));
            settings.logging.format = crate::logging::Format::None;
            let (stop, failures) = (stop.clone(), failures.clone());
            let work = move || {
                if let Err(error) = machine::run(settings, &stop) {
                    let _one_at_a_time = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    tell(format_args!("runlet: a runner stopped: {error}"));
                }
            };
            threads.extend(std::thread::Builder::new().name(format!("runner-{number}")).spawn(work));
        }
        Self { threads, stop }
    }

    /// Ends them; a second signal ends what jobs have started without the time that one gives it.
    fn stop(self, cancel: bool, scratch: &Scratch, interrupts: &Interrupts) {
        self.stop.request(if cancel { Level::Cancel } else { Level::Drain });
        let mut is_killed = false;
        while cancel && self.threads.iter().any(|thread| !thread.is_finished()) {
            if interrupts.count() > 1 && !is_killed {
                is_killed = true;
                scratch.end_processes();
            }
            std::thread::sleep(LOOK);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}
