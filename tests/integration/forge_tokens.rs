//! Tokens of organisations: which projects go by them, at which forge, and who gets them.

use crate::forge::pull;
use crate::forge_back::{Answer, Call, Fake};
use crate::private::HttpGit;
use crate::repositories::Work;
use crate::secrets::files_with;
use crate::server::Server;
use crate::support::poll;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const OTHER: &str = "/api/v2/project/gh/acme/other";
/// A project of another organisation.
const STRANGERS: &str = "/api/v2/project/gh/strangers/theirs";
/// The token of the organisation.
const TOKEN: &str = "ghp_of-the-organisation";

impl Server {
    /// Makes the projects of two organisations, of one repository whose pipelines wait for an approval.
    fn projects(&self) {
        self.project();
        self.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
        self.call("POST", "/api/v2/organization/gh/strangers/project", Some(json!({ "name": "theirs" })));
        let work = Work::new(self.folder.path());
        work.commit_config("version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval}]}}\n", "main");
        for project in [PROJECT, OTHER, STRANGERS] {
            self.call("PATCH", project, Some(json!({ "repository_url": work.url() })));
        }
    }

    /// Connects a project; what it goes by.
    fn token_of(&self, project: &str, wanted: Value) -> Value {
        self.call("PUT", &format!("{project}/connection"), Some(wanted))["token_of"].clone()
    }

    /// Waits until the newest status of a project is told; the state.
    fn told(&self, project: &str) -> String {
        poll("the status to be told", || {
            let listed = self.call("GET", &format!("{project}/statuses"), None);
            let status = &listed["items"][0];
            match (status["is_due"].as_bool(), status["told"].as_str()) {
                (Some(false), Some(told)) => Ok(told.to_owned()),
                _ => Err(listed.to_string()),
            }
        })
    }

    /// Starts a pipeline that waits for an approval, which is told as a status.
    fn holds(&self, project: &str) {
        self.call("POST", &format!("{project}/pipeline"), Some(json!({ "branch": "main" })));
    }
}

/// The tokens that a forge was shown.
fn shown(fake: &Fake) -> Vec<String> {
    let mut tokens: Vec<String> =
        fake.calls().iter().filter_map(|call| call.headers.get("authorization").cloned()).collect();
    tokens.dedup();
    tokens
}

/// GitHub, for whoever shows one of these tokens.
fn github(known: &'static [&'static str]) -> impl Fn(&Call) -> Answer {
    move |call| match call.headers.get("authorization") {
        Some(given) if known.iter().any(|token| *given == format!("Bearer {token}")) => match &*call.method {
            "GET" => (200, "", json!({ "default_branch": "main" }).to_string()),
            _ => (201, "", "{}".to_owned()),
        },
        _ => (401, "", json!({ "message": "Bad credentials" }).to_string()),
    }
}

/// A repository whose job checks out, and looks for what let it in; the folder around it.
fn repository(server: &Server) -> std::path::PathBuf {
    let folder = server.folder.path().join("bare");
    let work = Work::new(server.folder.path());
    let script = "cat \"$(dirname \"$GIT_CONFIG_VALUE_0\")\"/login; env | grep -c ghp_ || true";
    let config = json!({ "version": 2.1, "jobs": { "build": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": script }] } }, "workflows": { "w": { "jobs": ["build"] } } });
    work.commit_config(&config.to_string(), "main");
    work.git(&["switch", "--quiet", "-c", "theirs"]);
    work.commit_config(&config.to_string(), "theirs");
    work.git(&["switch", "--quiet", "main"]);
    let bare = folder.join("app.git");
    work.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    work.git(&["push", "--quiet", bare.to_str().unwrap(), "theirs:refs/pull/12/head"]);
    folder
}

#[test]
fn projects_without_a_token_go_by_the_one_of_their_organisation() {
    let server = Server::start();
    server.projects();
    let fake = Fake::start(github(&[TOKEN, "ghp_own"]));
    let elsewhere = Fake::start(github(&[]));
    let api = || json!({ "api_url": fake.url() });
    assert_eq!(server.token_of(PROJECT, api()), Value::Null);

    server.admin_fails(&["forge-token", "show", "gh/acme"], 5, "forge-token set gh/acme");
    for (args, stdin, why) in [
        (&["gh/acme", "--forge", "gitlab"][..], TOKEN, "say where the API"),
        (&["gh/acme", "--forge", "git"], TOKEN, "no API"),
        (&["gh/acme", "--forge", "svn"], TOKEN, "known: github"),
        (&["gh/acme"], "two words", "one word"),
        (&["gh/acme"], "", "standard input is empty"),
        (&["gh/nobody"], TOKEN, "no organisation"),
    ] {
        let output = server.admin_output(&[&["forge-token", "set"], args].concat(), stdin);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{args:?}: {said}");
    }
    let said = server.admin(&["forge-token", "set", "gh/acme", "--api", &fake.url()], TOKEN);
    assert!(said.contains("gh/acme/hello: goes by it") && said.contains("no job gets it"), "{said}");
    assert!(said.contains("gh/acme/other: does not go by it; it is connected to no forge"), "{said}");

    // At the address that it is for, and nowhere else; by projects of this organisation, and by no others.
    assert_eq!(server.token_of(PROJECT, api()), "organization");
    assert_eq!(server.token_of(OTHER, json!({ "api_url": elsewhere.url() })), Value::Null);
    assert_eq!(server.token_of(STRANGERS, api()), Value::Null);
    server.holds(PROJECT);
    server.holds(OTHER);
    server.holds(STRANGERS);
    assert_eq!(server.told(PROJECT), "pending");
    assert_eq!(shown(&fake), [format!("Bearer {TOKEN}")]);
    assert!(elsewhere.calls().is_empty());
    let other_of_forge = json!({ "forge": "gitea", "api_url": fake.url() });
    assert_eq!(server.token_of(OTHER, other_of_forge), Value::Null);

    // A token of the project's own comes first; without it the project goes back.
    let own = json!({ "api_url": fake.url(), "token": "ghp_own" });
    assert_eq!(server.token_of(PROJECT, own), "project");
    assert_eq!(shown(&fake).last().unwrap(), "Bearer ghp_own");
    assert_eq!(server.token_of(OTHER, json!({ "forge": "github", "api_url": fake.url() })), "organization");
    let said = server.admin(&["forge-token", "show", "gh/acme"], "");
    assert!(said.contains("hello: has one of its own") && said.contains("other: goes by it"), "{said}");
    assert_eq!(server.token_of(PROJECT, json!({ "token": "" })), "organization");

    let listed = server.admin(&["forge-token", "list"], "");
    assert!(
        listed.contains("gh/acme") && listed.contains(&fake.url()) && !listed.contains(TOKEN),
        "{listed}"
    );
    let answer = server.call("GET", "/api/v3/forge-tokens", None);
    assert_eq!(answer["items"][0]["project_count"], 2, "{answer}");
    assert_eq!(files_with(&server.data(), &[TOKEN]), [""; 0], "it is sealed");
    let audit = server.call("GET", "/api/v3/audit-events", None).to_string();
    assert!(audit.contains("/organization/gh/acme/forge-token") && !audit.contains(TOKEN), "{audit}");

    // Moved to another address by whoever can write the database, it is shown to nobody.
    let seen = elsewhere.calls().len();
    let moved = format!(
        "UPDATE forge_tokens SET api_url = '{url}'; UPDATE forge_connections SET api_url = '{url}'",
        url = elsewhere.url()
    );
    server.database().execute_batch(&moved).unwrap();
    let answer = server.call("PUT", &format!("{PROJECT}/connection"), Some(json!({})));
    let why = answer["found"]["forge_message"].as_str().unwrap();
    assert!(why.contains("the token of its organisation cannot be opened"), "{answer}");
    assert_eq!(elsewhere.calls().len(), seen);

    server.admin(&["forge-token", "delete", "gh/acme"], "");
    assert_eq!(server.token_of(PROJECT, api()), Value::Null);
    server.admin_fails(&["forge-token", "delete", "gh/acme"], 5, "no token");
}

#[test]
fn a_token_of_an_organisation_reaches_jobs_only_where_that_is_wanted_and_never_those_of_strangers() {
    let server = Server::start();
    server.project();
    let fake = Fake::start(github(&[TOKEN]));
    let root = repository(&server);
    let login = STANDARD.encode(format!("x-access-token:{TOKEN}"));
    let git = HttpGit::start(&root, &format!("Basic {login}"));
    server.register(&git.url("app.git"));
    let set = |more: &[&str]| {
        let url = fake.url();
        server.admin(&[&["forge-token", "set", "gh/acme", "--api", &url], more].concat(), TOKEN)
    };
    set(&[]);
    let hook = server.connect(json!({ "api_url": fake.url() }));
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    server.takes_untrusted();
    // The control plane reads the config by it, and the job cannot check out.
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    assert!(job["status"] == "failed" && said.contains("could not read Username"), "{said}");
    let said = set(&["--for-jobs"]);
    assert!(said.contains("but those of pull requests from forks"), "{said}");
    let (pipeline, _) = server.triggered_now();
    let (job, said) = server.looked(&pipeline);
    assert_eq!(job["status"], "success", "{said}");
    assert!(said.contains("username=x-access-token\npassword=****\n") && said.ends_with("\n0\n"), "{said}");

    // A fork that is given everything else is not given this.
    server.set(json!({ "enable_building_fork_prs": true, "can_pass_secrets_to_fork_pr_jobs": true }));
    let theirs = std::process::Command::new("git")
        .args(["--git-dir", root.join("app.git").to_str().unwrap(), "rev-parse", "refs/pull/12/head"])
        .output()
        .unwrap();
    let theirs = String::from_utf8(theirs.stdout).unwrap().trim().to_owned();
    let pipeline = hook.github_started("pull_request", "f1", &pull("opened", 12, &theirs, 99));
    let (job, said) = server.looked(&pipeline);
    assert!(job["status"] == "failed" && said.contains("could not read Username"), "{said}");
    assert!(!said.contains("password="), "{said}");
}

#[test]
fn what_one_project_of_a_token_is_refused_holds_up_no_other() {
    let server = Server::start();
    server.projects();
    let is_open = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&is_open);
    let fake = Fake::start(move |call| match &*call.path {
        _ if call.method == "GET" => (200, "", json!({ "default_branch": "main" }).to_string()),
        path if path.starts_with("/repos/acme/hello/") && !open.load(Ordering::SeqCst) => {
            (403, "", json!({ "message": "Resource not accessible" }).to_string())
        }
        _ => (201, "", "{}".to_owned()),
    });
    let set = || server.admin(&["forge-token", "set", "gh/acme", "--api", &fake.url()], TOKEN);
    set();
    for project in [PROJECT, OTHER] {
        assert_eq!(server.token_of(project, json!({ "api_url": fake.url() })), "organization");
        server.holds(project);
    }
    assert_eq!(server.told(OTHER), "pending");
    poll("the refusal to be shown", || {
        let said = server.admin(&["forge-token", "show", "gh/acme"], "");
        let is_said =
            said.contains("hello: goes by it; the forge answered 403") && said.contains("other: goes by it");
        if is_said { Ok(()) } else { Err(said) }
    });
    // Set anew it is tried again, as what waits for a token is.
    is_open.store(true, Ordering::SeqCst);
    set();
    assert_eq!(server.told(PROJECT), "pending");
}

#[test]
fn a_pause_that_a_forge_asks_for_is_for_all_projects_of_a_token() {
    let server = Server::start();
    server.projects();
    let (refused, times) = (AtomicBool::new(false), Arc::<Mutex<Vec<Instant>>>::default());
    let kept = Arc::clone(&times);
    let fake = Fake::start(move |call| {
        if call.method == "GET" {
            return (200, "", json!({ "default_branch": "main" }).to_string());
        }
        kept.lock().unwrap().push(Instant::now());
        match refused.swap(true, Ordering::SeqCst) {
            true => (201, "", "{}".to_owned()),
            false => (403, "Retry-After: 4\r\n", json!({ "message": "secondary rate limit" }).to_string()),
        }
    });
    server.admin(&["forge-token", "set", "gh/acme", "--api", &fake.url()], TOKEN);
    for project in [PROJECT, OTHER] {
        server.token_of(project, json!({ "api_url": fake.url() }));
    }
    server.holds(PROJECT);
    poll("the forge to ask for a pause", || {
        let listed = server.call("GET", &format!("{PROJECT}/statuses"), None);
        let why = listed["items"][0]["message"].as_str().unwrap_or_default();
        if why.contains("answered 403") { Ok(()) } else { Err(listed.to_string()) }
    });
    server.holds(OTHER);
    for project in [PROJECT, OTHER] {
        assert_eq!(server.told(project), "pending");
    }
    let times = times.lock().unwrap();
    // A little less, for the time that an answer takes on its way.
    assert!(times.len() >= 3 && times[1] - times[0] >= Duration::from_millis(3900), "{times:?}");
}
