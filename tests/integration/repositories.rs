//! Pipelines whose config is read from a repository: local ones, and one behind `git daemon`.

use crate::server::Server;
use crate::support::control_plane::ControlPlane;
use crate::support::{poll, ports};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A repository with a work tree.
pub(crate) struct Work(PathBuf);

impl Work {
    pub(crate) fn new(folder: &Path) -> Self {
        Self::with(folder, &[])
    }

    /// Makes a repository, with these arguments for `git init`.
    pub(crate) fn with(folder: &Path, args: &[&str]) -> Self {
        let work = Self(folder.join("repositories/work"));
        std::fs::create_dir_all(&work.0).unwrap();
        work.git(&[&["init", "--quiet", "-b", "main"], args].concat());
        work
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.0.display())
    }

    /// Writes a file of the work tree.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(&self.0).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for (name, value) in [("NAME", "Ada"), ("EMAIL", "ada@example.com")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits a config whose only job prints `word`, and returns the id of the commit.
    pub(crate) fn commit(&self, word: &str, message: &str) -> String {
        let config = format!(
            "version: 2.1\nparameters:\n  fast: {{type: boolean, default: false}}\njobs:\n  {word}:\n    machine: true\n    resource_class: acme/linux\n    steps:\n      - checkout\n      - run: git log -1 --format=%s && echo {word} << pipeline.parameters.fast >> << pipeline.config.ref >> << pipeline.config.sha >>\nworkflows:\n  w: {{jobs: [{word}]}}\n"
        );
        self.commit_config(&config, message)
    }

    /// Commits a config, and returns the id of the commit.
    pub(crate) fn commit_config(&self, config: &str, message: &str) -> String {
        self.write(".circleci/config.yml", config);
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

const PIPELINE: &str = "/api/v2/project/gh%2Facme%2Fhello/pipeline";
const RUN: &str = "/api/v2/project/gh/acme/hello/pipeline/run";

impl Server {
    pub(crate) fn register(&self, url: &str) {
        let body = json!({ "repository_url": url });
        let answer = self.call("PATCH", "/api/v2/project/gh/acme/hello", Some(body));
        assert_eq!(answer["repository_url"], url);
    }

    /// Triggers and returns the pipeline as it reads.
    fn triggered(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.answer("POST", path, Some(body));
        assert_eq!(status, 201, "{answer}");
        assert!(answer["number"].is_i64() && answer["created_at"].is_string(), "{answer}");
        assert_eq!(answer["state"], "pending", "also for a config that has errors");
        self.call("GET", &format!("/api/v2/pipeline/{}", answer["id"].as_str().unwrap()), None)
    }

    fn wrong(&self, path: &str, body: Value, why: &str) {
        let (status, answer) = self.answer("POST", path, Some(body));
        assert!(
            status == 400 && answer["message"].as_str().unwrap_or_default().contains(why),
            "{status} {answer}"
        );
    }

    /// The names of the jobs of a pipeline.
    fn names(&self, pipeline: &Value) -> Vec<String> {
        let path = format!("/api/v2/pipeline/{}/workflow", pipeline["id"].as_str().unwrap());
        let workflow = self.call("GET", &path, None)["items"][0]["id"].as_str().unwrap().to_owned();
        let jobs = self.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
        jobs["items"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn branches_tags_and_the_default_are_built() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let tagged = work.commit("tagged", "the tagged one");
    work.git(&["tag", "v1"]);
    work.git(&["switch", "--quiet", "-c", "feature/x"]);
    let feature = work.commit("feature", "the feature\n\nwith a body");
    work.git(&["switch", "--quiet", "main"]);
    let main = work.commit("main", "the main one");
    server.register(&work.url());
    let token = server.class_token("acme/linux");
    let _runner = server.runner("r", &token);

    let pipeline = server.triggered(PIPELINE, Value::Null);
    assert_eq!((&pipeline["vcs"]["revision"], &pipeline["vcs"]["branch"]), (&json!(main), &json!("main")));
    assert_eq!(server.names(&pipeline), ["main"]);
    let pipeline = server.triggered(PIPELINE, json!({ "tag": "v1" }));
    assert_eq!((&pipeline["vcs"]["revision"], &pipeline["vcs"]["tag"]), (&json!(tagged), &json!("v1")));
    assert!(pipeline["vcs"]["branch"].is_null());
    let pipeline =
        server.triggered(PIPELINE, json!({ "branch": "feature/x", "parameters": { "fast": true } }));
    assert_eq!(pipeline["vcs"]["revision"], json!(feature));
    let jobs = server.ended(pipeline["id"].as_str().unwrap());
    assert_eq!((&jobs[0]["name"], &jobs[0]["status"]), (&json!("feature"), &json!("success")));
    let path = format!(
        "/api/v3/jobs/{}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D=2",
        jobs[0]["id"].as_str().unwrap()
    );
    assert_eq!(
        String::from_utf8(server.text(&path)).unwrap(),
        format!("the feature\nfeature true refs/heads/feature/x {feature}\n")
    );

    // The config from one place, the files from another.
    let body = json!({ "definition_id": "", "config": { "tag": "v1", "content": "" }, "checkout": { "branch": "feature/x", "tag": "" } });
    let pipeline = server.triggered(RUN, body);
    assert_eq!(
        (&pipeline["vcs"]["revision"], server.names(&pipeline)),
        (&json!(feature), vec!["tagged".to_owned()])
    );
    // The config sent along, the files of the default branch.
    let content =
        std::fs::read_to_string(work.0.join(".circleci/config.yml")).unwrap().replace("main", "sent");
    let pipeline = server.triggered(RUN, json!({ "config": { "content": content } }));
    assert_eq!(
        (&pipeline["vcs"]["revision"], server.names(&pipeline)),
        (&json!(main), vec!["sent".to_owned()])
    );
}

#[test]
fn wrong_triggers_are_refused_and_lost_repositories_seen() {
    let server = Server::start();
    server.project();
    server.wrong(PIPELINE, json!({}), "has no repository");
    let work = Work::new(server.folder.path());
    work.commit("main", "the main one");
    server.register(&work.url());
    server.wrong(PIPELINE, json!({ "branch": "main", "tag": "v1" }), "not both");
    server.wrong(PIPELINE, json!({ "branch": "nothing" }), "no branch `nothing`");
    server.wrong(PIPELINE, json!({ "tag": "v9" }), "no tag `v9`");
    server.wrong(PIPELINE, json!({ "branch": "--upload-pack=touch x" }), "cannot be the name");
    server.wrong(PIPELINE, json!({ "parameters": { "fast": "yes" } }), "expected a boolean");
    server.wrong(PIPELINE, json!({ "parameters": { "slow": 1 } }), "not declared");
    let declared = "version: 2.1\nparameters: {to: {type: enum, enum: [dev, live], default: dev}, n: {type: integer, default: 1}, s: {type: string, default: x}}\njobs: {a: {machine: true, resource_class: a/b, steps: [{run: echo}]}}\nworkflows: {w: {jobs: [a]}}\n";
    for (given, why) in [
        (json!({ "to": "prod" }), "expected one of dev, live, not the string `prod`"),
        (json!({ "to": null }), "expected one of dev, live"),
        (json!({ "n": "1" }), "expected an integer"),
        (json!({ "n": 1.5 }), "expected an integer"),
        (json!({ "s": true }), "expected a string"),
        (json!({ "s": ["x"] }), "expected a string, not a list"),
        (json!({ "two": "dev" }), "`two` is not declared (declared: n, s, to)"),
    ] {
        server.wrong(RUN, json!({ "config": { "content": declared }, "parameters": given }), why);
    }
    let given = json!({ "config": { "content": declared }, "parameters": { "to": "live", "n": 2 } });
    assert_eq!(server.triggered(RUN, given)["state"], "created");
    server.wrong(PIPELINE, json!({ "parameters": [] }), "must be an object");
    server.wrong(PIPELINE, json!([1]), "must be an object");
    server.wrong(RUN, json!({ "config": { "content": 3 } }), "must be a string");

    work.commit("main", "docs only [skip ci]");
    let (status, answer) = server.answer("POST", RUN, Some(json!({})));
    assert!(status == 200 && answer["message"].as_str().unwrap().contains("[skip ci]"), "{answer}");

    work.git(&["rm", "--quiet", ".circleci/config.yml"]);
    work.git(&["commit", "--quiet", "-m", "no config"]);
    let pipeline = server.triggered(PIPELINE, json!({}));
    assert_eq!(
        (&pipeline["state"], &pipeline["errors"][0]["type"]),
        (&json!("errored"), &json!("config-fetch"))
    );
    let message = pipeline["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("there is no `.circleci/config.yml` on the branch `main` of the repository `"),
        "{message}"
    );

    let nobody = ports::hold();
    server.register(&format!("git://{}/nothing", nobody.address()));
    let pipeline = server.triggered(PIPELINE, json!({}));
    assert_eq!(
        (&pipeline["state"], &pipeline["errors"][0]["type"]),
        (&json!("errored"), &json!("config-fetch"))
    );
    // A repository that wants a login: nobody is asked for it.
    let guarded = ControlPlane::start();
    guarded.answer("/", 401, "{}");
    server.register(&format!("{}/acme/app.git", guarded.url()));
    let pipeline = server.triggered(PIPELINE, json!({}));
    let why = pipeline["errors"][0]["message"].as_str().unwrap_or_default();
    assert!(why.starts_with("failed to fetch `refs/heads/main`") && pipeline["state"] == "errored", "{why}");
    for url in
        ["/etc", "ext::sh -c id", "https://hunter2@example.com/x", "file:///a/../b", "http://example.com/x"]
    {
        let (status, answer) =
            server.answer("PATCH", "/api/v2/project/gh/acme/hello", Some(json!({ "repository_url": url })));
        assert!(status == 400 && !answer["message"].as_str().unwrap().contains("hunter2"), "{url}: {answer}");
    }
}

impl Server {
    /// Triggers a job with these steps in `directory`.
    fn trigger_look(&self, branch: &str, directory: &str, steps: Value) -> Value {
        let config = json!({ "version": 2.1, "jobs": { "look": { "machine": true, "resource_class": "acme/linux",
            "working_directory": directory, "steps": steps } }, "workflows": { "w": { "jobs": ["look"] } } });
        let body = json!({ "config": { "content": config.to_string() }, "checkout": { "branch": branch } });
        self.triggered(RUN, body)
    }

    /// Runs `script` after a checkout of `branch` in `directory` and expects the job to end as `status`; returns what
    /// the steps said.
    fn checked_out(&self, branch: &str, directory: &str, path: &str, script: &str, status: &str) -> String {
        let steps = json!([{ "checkout": { "path": path } }, { "run": script }]);
        self.said_by_steps(branch, directory, steps, status).concat()
    }

    /// Runs steps in `directory` and expects the job to end as `status`; returns what each said, up to the first that
    /// fails there.
    pub(crate) fn said_by_steps(
        &self,
        branch: &str,
        directory: &str,
        steps: Value,
        status: &str,
    ) -> Vec<String> {
        let steps_before_failure = if status == "success" { steps.as_array().unwrap().len() } else { 1 };
        let pipeline = self.trigger_look(branch, directory, steps);
        let job = self.ended(pipeline["id"].as_str().unwrap())[0].clone();
        let id = job["id"].as_str().unwrap();
        let said = |step: usize| {
            let path =
                format!("/api/v3/jobs/{id}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D={step}");
            String::from_utf8_lossy(&self.text(&path)).into_owned()
        };
        let count = if job["status"] == status { steps_before_failure } else { 1 };
        let said: Vec<String> = (1..=count).map(said).collect();
        assert_eq!(job["status"], status, "{job} {said:?}");
        said
    }
}

#[test]
fn what_an_earlier_job_left_does_not_decide_a_checkout() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "first");
    work.git(&["tag", "-a", "v1", "-m", "v1"]);
    work.git(&["switch", "--quiet", "-c", "release"]);
    work.commit("release", "second");
    server.register(&work.url());
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("r", &token);
    let place = server.folder.path().join("place");
    let directory = place.display().to_string();
    let all = "git describe --tags; git merge-base origin/main HEAD; git diff --stat origin/main...";
    let said = server.checked_out("release", &directory, ".", all, "success");
    assert!(said.contains("v1-1-g") && said.contains(".circleci/config.yml"), "{said}");

    // A branch that cannot be there together with the one before, and a tag that has moved.
    work.git(&["branch", "-m", "release", "release/1.0"]);
    work.git(&["tag", "-f", "v1"]);
    let said =
        server.checked_out("release/1.0", &directory, ".", "git describe --tags; git branch", "success");
    assert!(said.contains("v1\n  main\n* release/1.0\n"), "{said}");
    // The default branch is there as in a clone, and where the origin has it.
    let as_cloned = "git diff --stat main...; git rev-parse --abbrev-ref main@{u}; git rev-parse -q --verify @{u} || true";
    let said = server.checked_out("release/1.0", &directory, ".", as_cloned, "success");
    assert!(said.contains(".circleci/config.yml") && said.contains("\norigin/main\n"), "{said}");
    let said = server.checked_out("main", &directory, ".", "git rev-parse --abbrev-ref @{u}", "success");
    assert!(said.contains("origin/main\n"), "{said}");
    let default = "git symbolic-ref refs/remotes/origin/HEAD; git rev-parse --abbrev-ref origin/HEAD";
    let said = server.checked_out("release/1.0", &directory, ".", default, "success");
    assert!(said.contains("refs/remotes/origin/main\norigin/main\n"), "{said}");

    for damage in [
        "echo damaged > .git/index",
        "printf '' > .git/HEAD",
        "rm -r .git/objects; mkdir .git/objects",
        "rm -r .git; echo gitdir: /nowhere > .git",
        "rm -r .git/refs; touch .git/refs",
        "echo '[' > .git/config",
    ] {
        let damaged = Command::new("sh").args(["-ec", damage]).current_dir(&place).status().unwrap();
        assert!(damaged.success());
        server.checked_out(
            "main",
            &directory,
            ".",
            "git status --short; git log -1 --format=%s | grep first",
            "success",
        );
    }

    // The folder that is checked out may be above the working directory, which was made for the job.
    let inner = place.join("above/inner").display().to_string();
    let above = place.join("above").display().to_string();
    server.checked_out("main", &inner, &above, "pwd; test -e ../.circleci/config.yml", "success");
    server.checked_out("main", &inner, &above, "test -e ../.git", "success");
    std::fs::remove_dir_all(place.join("above")).unwrap();
    std::fs::create_dir_all(place.join("above/other")).unwrap();
    let said = server.checked_out("main", &inner, &above, "true", "failed");
    assert!(said.contains("it has files and is not a git repository"), "{said}");

    // Only the superuser can make one.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(place.join(".git"), Some(4711), None).unwrap();
        std::os::unix::fs::chown(&place, Some(4711), None).unwrap();
        let said = server.checked_out("main", &directory, ".", "true", "failed");
        assert!(said.contains("is owned by another user (uid 4711"), "{said}");
    }
}

#[test]
fn a_checkout_that_hangs_on_what_its_job_has_made_hears_of_a_cancel() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "first");
    server.register(&work.url());
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("r", &token);
    let place = server.folder.path().join("place");
    let directory = place.display().to_string();
    let odd =
        "rm -f .git/packed-refs && mkfifo .git/packed-refs .git/refs/remotes/origin/odd && touch ../ready";
    let steps = json!(["checkout", { "run": odd }, "checkout"]);
    let pipeline = server.trigger_look("main", &directory, steps);
    let id = pipeline["id"].as_str().unwrap();
    poll("the fifo", || place.join("../ready").exists().then_some(()).ok_or_else(String::new));
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{id}/workflow"), None);
    let workflow = workflows["items"][0]["id"].as_str().unwrap();
    server.call("POST", &format!("/api/v2/workflow/{workflow}/cancel"), None);
    let job = server.ended(id)[0].clone();
    assert_eq!(job["status"], "canceled", "{job}");
    // The next job is not kept by it.
    let said = server.checked_out("main", &directory, ".", "git log -1 --format=%s", "success");
    assert!(said.contains("first"), "{said}");
}

#[test]
fn settings_and_branches_of_earlier_jobs_have_no_say() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.write("d.txt", "good\n");
    work.write("old.txt", "goes\n");
    work.commit("main", "first");
    work.git(&["switch", "--quiet", "-c", "release"]);
    work.git(&["rm", "--quiet", "old.txt"]);
    work.write("sub/c.txt", "third\n");
    work.commit("release", "second");
    work.git(&["config", "uploadpack.allowFilter", "true"]);
    work.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let port = ports::hold();
    let daemon = Daemon::serve(&work, &server, &port);
    server.register(&format!("git://{}/work", port.address()));
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("r", &token);
    let place = server.folder.path().join("place");
    let directory = place.display().to_string();
    let victim = server.folder.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("d.txt"), "precious").unwrap();
    let look = "cat d.txt; ls -A; git status --short; git branch --format='%(refname:short)'; git remote; \
        git log --format=%s";
    let main = ".circleci\n.git\nd.txt\nold.txt\nmain\norigin\nfirst\n";
    let release = ".circleci\n.git\nd.txt\nsub\nmain\nrelease\norigin\nsecond\nfirst\n";
    let mut wanted = [("release", release), ("main", main)].into_iter().cycle();
    server.checked_out("main", &directory, ".", "true", "success");
    let stays = std::fs::metadata(place.join("d.txt")).unwrap().modified().unwrap();
    for left in [
        "git checkout -q -b foo; git branch spare",
        &format!("git config core.worktree {}", victim.display()),
        "git sparse-checkout set sub",
        "git update-index --skip-worktree d.txt; echo bad > d.txt",
        "echo '*.txt filter=evil' > .git/info/attributes; git config filter.evil.smudge 'sed s/^/EVIL/'; rm d.txt",
        "git replace --graft HEAD",
        "git config url.git://127.0.0.1:1/.insteadOf git://",
        "git remote add other git://127.0.0.1:1/; git config remotes.default other",
        "printf '#!/bin/sh\\nexit 1\\n' > .git/hooks/reference-transaction; chmod +x .git/hooks/*",
        "git stash -q --include-untracked; git tag mine; git pack-refs --all",
    ] {
        let left_so = Command::new("sh").args(["-ec", left]).current_dir(&place).status().unwrap();
        assert!(left_so.success(), "{left}");
        let (branch, listed) = wanted.next().unwrap();
        let said = server.checked_out(branch, &directory, ".", look, "success");
        assert!(said.ends_with(&format!("good\n{listed}")), "{left}\n{said}");
    }
    assert_eq!(std::fs::read_to_string(victim.join("d.txt")).unwrap(), "precious");

    // Files that are as they should be are not written again, so that what was built from them stays newer.
    std::fs::remove_file(place.join("d.txt")).unwrap();
    server.checked_out("main", &directory, ".", "true", "success");
    let written = std::fs::metadata(place.join("d.txt")).unwrap().modified().unwrap();
    server.checked_out("release", &directory, ".", "true", "success");
    assert!(written > stays);
    assert_eq!(std::fs::metadata(place.join("d.txt")).unwrap().modified().unwrap(), written);

    // Commits that are here already are no reason to go on when the origin does not answer.
    let go = server.folder.path().join("go");
    let wait = format!("until [ -e '{}' ]; do sleep 0.1; done", go.display());
    let pipeline = server.trigger_look("release", &directory, json!([{ "run": wait }, "checkout"]));
    drop(daemon);
    std::fs::write(go, "").unwrap();
    let job = server.ended(pipeline["id"].as_str().unwrap())[0].clone();
    let path = format!(
        "/api/v3/jobs/{}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D=2",
        job["id"].as_str().unwrap()
    );
    let said = String::from_utf8_lossy(&server.text(&path)).into_owned();
    assert!(job["status"] == "failed" && said.contains("unable to connect"), "{job} {said}");
}

#[test]
fn what_a_step_sets_before_the_checkout_brings_nothing_of_an_earlier_job_back() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.write("a/x.txt", "one\n");
    work.write("b/x.txt", "two\n");
    work.commit("main", "first");
    work.commit("main", "second");
    server.register(&work.url());
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("r", &token);
    let place = server.folder.path().join("place");
    let directory = place.display().to_string();
    let left = |script: &str| {
        let left = Command::new("sh").args(["-ec", script]).current_dir(&place).status().unwrap();
        assert!(left.success(), "{script}");
    };
    let look = "cat a/x.txt b/x.txt; git config --local user.name || echo nobody; touch new; git status --short; \
        rm new; git log --format=%s";
    let all = |name: &str| format!("one\ntwo\n{name}\n?? new\nsecond\nfirst\n");
    // The tree of before can be looked at until the checkout.
    let own = json!([{ "run": "git log -1 --format=%s; git remote get-url origin; git config user.name CI" },
        "checkout", { "run": look }]);
    server.checked_out("main", &directory, ".", "true", "success");
    for script in [
        "git sparse-checkout set b",
        "git config extensions.worktreeConfig true; git config --worktree core.sparseCheckout true; echo /b/ > .git/info/sparse-checkout",
        "echo '*.txt filter=evil' > .git/info/attributes; git config filter.evil.smudge 'sed s/^/EVIL/'; rm a/x.txt",
        "echo '*' > .git/info/exclude",
        "git rev-parse HEAD > .git/info/grafts",
        "git config core.worktree /nowhere",
        "git config core.bare true",
        "git config status.showUntrackedFiles no",
        "echo garbage > .git/config",
    ] {
        left(script);
        let said = server.said_by_steps("main", &directory, own.clone(), "success");
        assert_eq!(said[0], format!("second\n{}\n", work.url()), "{script}");
        assert!(said[2].ends_with(&all("CI")), "{script}\n{said:?}");
        assert!(!said.concat().contains("garbage"), "{script}\n{said:?}");
    }

    // Settings of the job itself count, wherever it checks out.
    left("git sparse-checkout set a");
    let sparse = json!([{ "run": "git sparse-checkout set b" }, "checkout", { "run": "ls" }]);
    let said = server.said_by_steps("main", &directory, sparse, "success");
    assert!(said[2].ends_with("b\n") && !said[2].contains("a\nb"), "{said:?}");
    // But for settings that cannot be read, which are none.
    let damage = json!([{ "run": "echo garbage > .git/config" }, "checkout", { "run": look }]);
    let said = server.said_by_steps("main", &directory, damage, "success");
    assert!(said[2].ends_with(&all("nobody")) && !said.concat().contains("garbage"), "{said:?}");

    // A repository that comes out of an archive is as one that was left.
    left("git sparse-checkout set b");
    let fresh = server.folder.path().join("fresh").display().to_string();
    let unpack = format!("cp -a '{directory}/.git' .");
    let steps = json!([{ "run": unpack }, { "run": "git config user.name CI" }, "checkout", { "run": look }]);
    let said = server.said_by_steps("main", &fresh, steps, "success");
    assert!(said[3].ends_with(&all("CI")), "{said:?}");
}

#[test]
fn the_default_branch_is_known_after_a_partial_and_a_shallow_checkout() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    for text in ["one", "two"] {
        work.write("d.txt", text);
        work.commit("main", text);
    }
    work.git(&["switch", "--quiet", "-c", "release"]);
    work.commit("release", "three");
    work.git(&["config", "uploadpack.allowFilter", "true"]);
    work.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let port = ports::hold();
    let _daemon = Daemon::serve(&work, &server, &port);
    server.register(&format!("git://{}/work", port.address()));
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("r", &token);
    let look = "git rev-parse --abbrev-ref --verify origin/HEAD 2>&1 || true; git rev-list --count HEAD; \
        git rev-list --objects --all --missing=print | grep -q '^?' && echo partial || echo whole";
    let shallow = json!({ "method": "shallow", "depth": 1 });
    for (place, branch, checkout, expected) in [
        ("a", "release", json!({ "method": "blobless" }), "origin/main 3 partial"),
        ("b", "main", json!({ "method": "blobless" }), "origin/main 2 partial"),
        ("c", "main", shallow.clone(), "origin/main 1 whole"),
        ("d", "release", shallow.clone(), "fatal: Needed a single revision 1 whole"),
        // What was fetched before is known, by whatever method.
        ("a", "release", shallow, "origin/main 1 partial"),
        ("d", "release", json!({ "method": "full" }), "origin/main 3 whole"),
    ] {
        let directory = server.folder.path().join(place).display().to_string();
        let steps = json!([{ "checkout": checkout }, { "run": look }]);
        let said = server.said_by_steps(branch, &directory, steps, "success");
        let words: Vec<&str> = said[1].split_whitespace().collect();
        assert!(words.join(" ").ends_with(expected), "{place} {branch} {checkout}: {said:?}");
    }
}

/// A `git daemon`. Ends with the value, and what `git` started for it.
struct Daemon(Child);

impl Daemon {
    fn serve(work: &Work, server: &Server, port: &ports::Held) -> Self {
        let mut command = Command::new("git");
        command
            .args(["daemon", "--export-all", "--listen=127.0.0.1", "--reuseaddr"])
            .arg(format!("--port={}", port.address().port()))
            .arg(format!("--base-path={}", work.0.parent().unwrap().display()))
            .env("HOME", server.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let daemon = Self(command.process_group(0).spawn().unwrap());
        poll("the daemon", || std::net::TcpStream::connect(port.address()).map_err(|e| e.to_string()));
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id() as i32).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn triggers_at_once_through_a_daemon_all_count() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let revision = work.commit("main", "the main one");
    // The daemon cannot say which port it took.
    let port = ports::hold();
    let _daemon = Daemon::serve(&work, &server, &port);
    server.register(&format!("git://{}/work", port.address()));
    let numbers = std::thread::scope(|scope| {
        let trigger = || {
            let pipeline = server.triggered(PIPELINE, json!({ "branch": "main" }));
            assert_eq!(
                (&pipeline["state"], &pipeline["vcs"]["revision"]),
                (&json!("created"), &json!(revision))
            );
            pipeline["number"].as_i64().unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(trigger)).collect();
        let mut numbers: Vec<i64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    });
    assert_eq!(numbers, (1..=8).collect::<Vec<i64>>());
}
