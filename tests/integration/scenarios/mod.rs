//! The scenarios of `tests/scenarios/run`: a folder each, with a config (and perhaps files, or a script
//! that makes the repository) and the expected outcome. Every one is a repository that a real control
//! plane compiles and a real machine runner runs; some go through `runlet exec` as well.
//!
//! ```text
//! tests/scenarios/run/NAME/
//!   config.yml     becomes .circleci/config.yml; `acme/scenario` in it stands for the runner's class,
//!                  `PLACE` for a folder of this run
//!   files/         copied into the repository, if there
//!   setup.sh       run in the repository after the first commit, if there
//!   expect         what is set up beside it, and what comes of it (see `expect`)
//! ```
//!
//! `RUNLET_SCENARIO=TEXT` runs only those whose name holds the text.

mod check;
mod expect;

use crate::server::Server;
use crate::support::runner::{Machine, Running};
use crate::support::seen::Seen;
use expect::Line;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Scenarios at the same time. Most of a scenario is waiting.
const AT_ONCE: usize = 4;

#[test]
fn every_scenario_ends_as_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/run");
    let wanted = std::env::var("RUNLET_SCENARIO").unwrap_or_default();
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.file_name().unwrap().to_string_lossy().contains(&wanted));
    folders.sort();
    assert!(!folders.is_empty(), "no scenario is called like `{wanted}`");
    let server = Server::start();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
                    let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        run(&server, folder, &name)
                    }));
                    if let Err(why) = failure {
                        let text = why.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        failures.lock().unwrap().push(format!("== {name}: {}", text.unwrap_or_default()));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} scenarios failed\n{}", failures.len(), failures.join("\n\n"));
}

/// Means of a scenario.
struct Stage<'a> {
    server: &'a Server,
    name: &'a str,
    repository: PathBuf,
    lines: Vec<Line>,
    directory: tempfile::TempDir,
}

fn run(server: &Server, folder: &Path, name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    make_repository(folder, &repository, name, directory.path());
    let machine = Machine::new(server.client.url());
    let places = BTreeMap::from([
        ("work", machine.path("work").display().to_string()),
        ("home", machine.path("").display().to_string().trim_end_matches('/').to_owned()),
        ("repo", repository.display().to_string()),
        ("place", directory.path().display().to_string()),
        ("place-below", directory.path().display().to_string().trim_start_matches('/').to_owned()),
        ("class", format!("acme/{name}")),
        ("url", server.client.url().to_owned()),
        ("revision", git(&repository, &["rev-parse", "HEAD"])),
    ]);
    let text = fs::read_to_string(folder.join("expect")).unwrap();
    let lines = expect::parse(&text, &places).unwrap_or_else(|why| panic!("{why}"));
    let stage = Stage { server, name, repository, lines, directory };
    if stage.lines.iter().any(|line| line.words[0] == "terminal" || line.words[0] == "exit") {
        check::terminal(&stage, &stage.exec());
    }
    if stage.lines.iter().all(|line| matches!(line.words[0].as_str(), "terminal" | "exit" | "exec")) {
        return;
    }
    let (created, seen, mut runner) = stage.pipeline(machine);
    // The control plane knows the end before the runner has cleaned up.
    runner.term();
    runner.wait();
    check::pipeline(&stage, &created, &seen, &runner.log());
}

impl Stage<'_> {
    /// The values of the lines that begin so.
    fn values<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter(move |line| line.words == [word]).map(|line| line.value.as_str())
    }

    /// Runs it on the control plane: the created pipeline, what was seen of it, the runner.
    fn pipeline(&self, machine: Machine) -> (Value, Seen, Running) {
        let (server, name) = (self.server, self.name);
        let slug = format!("/api/v2/project/gh/acme/{name}");
        server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": name })));
        let url = format!("file://{}", self.repository.display());
        server.call("PATCH", &slug, Some(json!({ "repository_url": url })));
        for pair in self.values("variable") {
            let (name, value) = pair.split_once('=').unwrap();
            server.call("POST", &format!("{slug}/envvar"), Some(json!({ "name": name, "value": value })));
        }
        let token = server.class_token(&format!("acme/{name}"));
        let mut machine = machine.variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", &token);
        for pair in self.values("setting") {
            let (name, value) = pair.split_once('=').unwrap();
            machine = machine.setting(name, value);
        }
        for pair in self.values("runner-variable") {
            let (name, value) = pair.split_once('=').unwrap();
            machine = machine.variable(name, value);
        }
        for pair in self.values("runner-file") {
            let (path, text) = pair.split_once('=').unwrap();
            fs::create_dir_all(machine.path(path).parent().unwrap()).unwrap();
            machine.file(path, text);
        }
        let runner: Running = machine.start();
        let trigger = self.values("trigger").next().unwrap_or(r#"{"branch":"main"}"#);
        let trigger: Value = serde_json::from_str(trigger).unwrap();
        let created = server.call("POST", &format!("{slug}/pipeline"), Some(trigger));
        let id = created["id"].as_str().unwrap();
        let pipeline = server.call("GET", &format!("/api/v2/pipeline/{id}"), None);
        if pipeline["state"] == "errored" {
            return (pipeline, Seen::default(), runner);
        }
        let cancel_at = self.values("cancel-at").next();
        if let Some(text) = cancel_at {
            // Cancelled once this stands in the output of some step.
            Seen::watch_until(server, id, |seen| {
                let mut steps = seen.jobs.iter().flat_map(|job| &job.steps);
                steps.any(|step| String::from_utf8_lossy(&step.output).contains(text))
            });
            server.call("POST", &format!("/api/v2/pipeline/{id}/cancel"), None);
        }
        let seen = Seen::watch(server, id);
        (pipeline, seen, runner)
    }

    /// Runs it with `runlet exec`: exit code and terminal.
    fn exec(&self) -> (i32, String) {
        let mut command = Command::new(crate::support::runner::RUNLET);
        let args = self.values("exec").next().unwrap_or_default();
        command.arg("exec").arg(&self.repository).args(args.split_whitespace());
        command.args(["--artifacts", &self.directory.path().join("results").display().to_string()]);
        // Steps write there, too.
        command.env("HOME", self.directory.path());
        command.env_remove("BASH_ENV").stdin(std::process::Stdio::null());
        for pair in self.values("runner-variable") {
            let (name, value) = pair.split_once('=').unwrap();
            command.env(name, value);
        }
        let output = command.output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]);
    let output = command.args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn make_repository(folder: &Path, repository: &Path, name: &str, place: &Path) {
    fs::create_dir_all(repository.join(".circleci")).unwrap();
    if let Ok(config) = fs::read(folder.join("config.yml")) {
        // Not every config is text.
        let config = match String::from_utf8(config) {
            Ok(text) => text
                .replace("acme/scenario", &format!("acme/{name}"))
                .replace("PLACE", &place.display().to_string())
                .into_bytes(),
            Err(other) => other.into_bytes(),
        };
        fs::write(repository.join(".circleci/config.yml"), config).unwrap();
    }
    if folder.join("files").exists() {
        let from = format!("{}/.", folder.join("files").display());
        assert!(Command::new("cp").args(["-R", &from]).arg(repository).status().unwrap().success());
    }
    git(repository, &["init", "--quiet"]);
    git(repository, &["add", "--all", "--force"]);
    git(repository, &["commit", "--quiet", "--allow-empty", "-m", "the scenario"]);
    let script = folder.join("setup.sh");
    if script.exists() {
        let mut command = Command::new("sh");
        command.arg("-eu").arg(script).current_dir(repository);
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@localhost");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "setup.sh: {}", String::from_utf8_lossy(&output.stderr));
    }
}
