//! What is said where git or the API of a forge lets nobody in: which token was to do it, what the forge answered, what to
//! do. In the log of deliveries, of pipelines, and where a project is connected.

use crate::forge::{Connected, pull, push};
use crate::forge_back::{Answer, Fake};
use crate::github_app;
use crate::private::HttpGit;
use crate::repositories::Work;
use crate::server::Server;
use crate::support::{poll, poll_within};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runlet::system::clock::Rfc3339;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
/// A config whose pipelines wait for an approval, and need no runner.
const HOLDS: &str = "version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval}]}}\n";

/// A bare repository with a job that checks out; the folder around it, and its newest commit.
fn repository(server: &Server) -> (PathBuf, String) {
    let folder = server.folder.path().join("bare");
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "build": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": "cat \"$(dirname \"$GIT_CONFIG_VALUE_0\")\"/login" }] } },
        "workflows": { "w": { "jobs": ["build"] } } });
    work.commit_config(&config.to_string(), "main");
    let head = work.git(&["rev-parse", "HEAD"]);
    work.git(&["clone", "--quiet", "--bare", ".", folder.join("app.git").to_str().unwrap()]);
    (folder, head)
}

/// A `Date` header of a forge whose clock is this far behind.
fn date(behind: Duration) -> &'static str {
    let at = Rfc3339 { time: SystemTime::now() - behind, milliseconds: false }.to_string();
    let (day, clock) = at.trim_end_matches('Z').split_once('T').unwrap();
    let mut parts = day.split('-');
    let (year, month, day) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = names[month.parse::<usize>().unwrap() - 1];
    Box::leak(format!("Date: Sat, {day} {month} {year} {clock} GMT\r\n").into_boxed_str())
}

impl Server {
    /// Waits until a change of a delivery waits for another try; why.
    fn waits_for(&self, delivery: &str) -> String {
        poll("the change to wait", || {
            let listed = self.call("GET", &format!("{PROJECT}/deliveries"), None);
            let items = listed["items"].as_array().unwrap();
            let of = items.iter().find(|item| item["delivery"] == delivery);
            match of.and_then(|item| item["changes"][0]["message"].as_str()) {
                Some(why) if !why.is_empty() => Ok(why.to_owned()),
                _ => Err(listed.to_string()),
            }
        })
    }

    /// What is found out of the repository when the project is connected as it is.
    fn found(&self) -> String {
        let answer = self.call("PUT", &format!("{PROJECT}/connection"), Some(json!({})));
        answer["found"]["message"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn where_nothing_lets_git_in_it_is_said_what_was_to_do_it_and_what_to_do() {
    let server = Server::start();
    server.project();
    let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new((403, "", String::new())));
    let of_fake = Arc::clone(&answer);
    let fake = Fake::start(move |_| of_fake.lock().unwrap().clone());
    let says = |status, headers, why: &str| {
        *answer.lock().unwrap() = (status, headers, json!({ "message": why }).to_string());
    };
    let (root, head) = repository(&server);
    let git = HttpGit::start(&root, "Basic of nobody");
    server.register(&git.url("app.git"));
    let hook = server.connect(json!({ "api_url": fake.url() }));

    // Nothing is set.
    let advice = "asks for a login, and the project has none: `runlet admin project access gh/acme/hello --with-token`";
    let (_, why) = server.triggered_now();
    assert!(why.contains(advice) && !why.contains("password from user"), "{why}");
    hook.push("d1", "refs/heads/main", &"0".repeat(40), &head);
    let why = server.waits_for("d1");
    assert!(why.contains(advice), "{why}");

    // A token that opens nothing.
    server.call("PUT", &format!("{PROJECT}/access"), Some(json!({ "token": "old", "username": "bot" })));
    let why = server.found();
    assert!(why.contains("the token of the project (with the name `bot`) opens nothing there"), "{why}");
    assert!(why.contains("`runlet admin project access gh/acme/hello --with-token`"), "{why}");
    server.call("PUT", &format!("{PROJECT}/access"), Some(json!({ "token": "" })));

    // That of the organisation.
    server.admin(&["forge-token", "set", "gh/acme", "--api", &fake.url()], "ghp_old");
    let (_, why) = server.triggered_now();
    assert!(why.contains("the token of its organisation opens nothing there"), "{why}");
    assert!(why.contains("`runlet admin forge-token set gh/acme`"), "{why}");
    server.admin(&["forge-token", "delete", "gh/acme"], "");

    // An App of the organisation that gets no token, for various reasons.
    let suspended = "This installation has been suspended";
    says(403, "", suspended);
    let (private, _) = github_app::key();
    server.admin(&["github-app", "set", "gh/acme", "4711"], &private);
    let no_token = "the GitHub App 4711 gets no token for `acme/hello`: the forge answered 403";
    let is_said = |why: &str| {
        assert!(why.contains(no_token) && why.contains(suspended), "{why}");
        assert!(why.contains("look at the settings of the organisation there"), "{why}");
        assert!(!why.contains("password from user") && !why.contains("has none"), "{why}");
    };
    is_said(&server.triggered_now().1);
    is_said(&server.found());
    hook.push("d2", "refs/heads/other", &"0".repeat(40), &head);
    is_said(&server.waits_for("d2"));
    let said = server.admin(&["project", "connect", "gh/acme/hello"], "");
    is_said(&said);

    // It is shown for the project that goes by it.
    let said = server.admin(&["github-app", "show", "gh/acme/hello"], "");
    assert!(said.contains("gh/acme/hello goes by the GitHub App 4711 of its organization"), "{said}");
    is_said(&said);
    let shown = server.call("GET", &format!("{PROJECT}/github-app"), None);
    assert!(shown["of"] == "organization" && shown["app_id"] == "4711", "{shown}");
    let refused = server.answer("DELETE", &format!("{PROJECT}/github-app"), None);
    assert!(refused.0 == 404 && refused.1["message"].as_str().unwrap().contains("of its own"), "{refused:?}");

    // Clocks that are apart are told from keys that are not the App's.
    let of_app = |status, headers, why: &str| {
        says(status, headers, why);
        server.call("GET", &format!("{PROJECT}/github-app"), None)["contents"].as_str().unwrap().to_owned()
    };
    let iat =
        "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued";
    let why = of_app(401, date(Duration::from_secs(9 * 60)), iat);
    assert!(why.contains("are 9 minutes apart") && why.contains("set the clock"), "{why}");
    assert!(!why.contains("private key"), "{why}");
    let why = of_app(401, date(Duration::ZERO), "A JSON web token could not be decoded");
    assert!(why.contains("its id and its private key do not belong together"), "{why}");
    let why = of_app(401, "", iat);
    assert!(why.contains("clock") && !why.contains("private key"), "{why}");
    let why = of_app(404, "", "Not Found");
    assert!(why.contains("it is not installed on `acme/hello`"), "{why}");
    assert!(server.triggered_now().1.contains("it is not installed on `acme/hello`"));
}

#[test]
fn a_password_may_have_spaces_and_letters_of_any_language() {
    let password = "pass wörd=%20";
    let server = Server::start();
    server.project();
    let (root, _) = repository(&server);
    let git = HttpGit::start(&root, &format!("Basic {}", STANDARD.encode(format!("bot:{password}"))));
    server.register(&git.url("app.git"));
    server.admin(
        &["project", "access", "gh/acme/hello", "--with-token", "--username", "bot"],
        &format!("{password}\n"),
    );
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    assert!(job["status"] == "success" && said.contains("username=bot\npassword=****\n"), "{said}");
    // A header takes no such thing, and neither does a file of lines.
    for (wanted, why) in [
        (json!({ "token": password, "is_bearer": true }), "one word"),
        (json!({ "token": "a\nb" }), "one line"),
    ] {
        let (status, refused) = server.answer("PUT", &format!("{PROJECT}/access"), Some(wanted));
        assert!(status == 400 && refused["message"].as_str().unwrap().contains(why), "{refused}");
    }
}

#[test]
fn an_api_that_never_answers_is_not_waited_for_for_long() {
    let server = Server::start();
    server.project();
    let (root, _) = repository(&server);
    server.register(&format!("file://{}", root.join("app.git").display()));
    // Calls are taken by the system, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let wanted = json!({ "api_url": url, "token": "ghp_x", "set_hook": true });
    let answer = server.call("PUT", &format!("{PROJECT}/connection"), Some(wanted));
    let found: &Value = &answer["found"];
    let why = found["forge_message"].as_str().unwrap();
    assert!(why.contains("has not answered within 10 s") && why.contains("`--api`"), "{answer}");
    assert!(found["has_config"] == true, "git is asked all the same: {answer}");
    let said = answer["hook"].as_str().unwrap();
    assert!(answer["is_hook_set"] == false && said.contains("has not answered"), "{answer}");
}

#[test]
fn caches_of_forks_are_their_own_unless_forks_are_given_secrets() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "build": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "restore_cache": { "keys": ["k-"] } }, { "run": "cat dep || echo none; git rev-parse HEAD > dep" },
            { "save_cache": { "key": "k-{{ .Revision }}", "paths": ["dep"] } }] } },
        "workflows": { "w": { "jobs": ["build"] } } });
    work.commit_config(&config.to_string(), "main");
    let base = work.git(&["rev-parse", "HEAD"]);
    server.register(&work.url());
    let class = server.class_token("acme/linux");
    server.takes_untrusted();
    let _runner = server.runner("r", &class);
    let hook = server.connect(json!({}));
    let is_restored = |pipeline: &str, from: &str| {
        let job = server.ended(pipeline).remove(0);
        assert_eq!(job["status"], "success", "{job}");
        let said = server.output(&job, 3);
        assert!(said.trim_end().ends_with(from), "{said} and not {from}");
    };
    is_restored(&server.triggered_now().0, "none");
    let fork = |number: u64, passes: bool| {
        work.git(&["commit", "--quiet", "--allow-empty", "-m", &format!("of fork {number}")]);
        let head = work.git(&["rev-parse", "HEAD"]);
        work.git(&["update-ref", &format!("refs/pull/{number}/head"), &head]);
        work.git(&["reset", "--quiet", "--hard", &base]);
        server.set(json!({ "enable_building_fork_prs": true, "can_pass_secrets_to_fork_pr_jobs": passes }));
        let id = format!("f{number}");
        (hook.github_started("pull_request", &id, &pull("opened", number, &head, 99)), head)
    };
    // Neither read nor written, by default.
    let (pipeline, _) = fork(12, false);
    is_restored(&pipeline, "none");
    let (pipeline, _) = fork(13, false);
    is_restored(&pipeline, "none");
    is_restored(&server.triggered_now().0, &base);
    // Both, where forks are given secrets: that is what trust in them means.
    let (pipeline, head) = fork(14, true);
    is_restored(&pipeline, &base);
    is_restored(&server.triggered_now().0, &head);
    // The setting says so when it is made.
    let said =
        server.admin(&["project", "settings", "gh/acme/hello", "can_pass_secrets_to_fork_pr_jobs=true"], "");
    assert!(said.contains("caches"), "{said}");
}

#[test]
fn a_token_that_ends_within_a_job_is_told_by_git_and_the_next_job_has_the_one_of_then() {
    let server = Server::start();
    server.project();
    let root = server.folder.path().join("bare");
    let (ready, go) = (root.with_file_name("ready"), root.with_file_name("go"));
    let script = format!(
        "git fetch origin main && echo first; touch {}; while [ ! -e {} ]; do sleep 0.05; done; git fetch origin main",
        ready.display(),
        go.display()
    );
    let work = Work::new(server.folder.path());
    let config = json!({ "version": 2.1, "jobs": { "build": { "machine": true, "resource_class": "acme/linux",
        "steps": ["checkout", { "run": script }] } }, "workflows": { "w": { "jobs": ["build"] } } });
    work.commit_config(&config.to_string(), "main");
    work.git(&["clone", "--quiet", "--bare", ".", root.join("app.git").to_str().unwrap()]);
    let of = |token: &str| format!("Basic {}", STANDARD.encode(format!("bot:{token}")));
    let git = HttpGit::start(&root, &of("first-token"));
    server.register(&git.url("app.git"));
    let set = |token: &str| {
        let wanted = json!({ "token": token, "username": "bot" });
        server.call("PUT", &format!("{PROJECT}/access"), Some(wanted));
    };
    set("first-token");
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    poll("the job to have fetched", || if ready.exists() { Ok(()) } else { Err(String::new()) });
    *git.authorization.lock().unwrap() = of("second-token");
    set("second-token");
    std::fs::write(&go, "").unwrap();
    let (job, said) = server.looked(&pipeline);
    assert!(job["status"] == "failed" && said.contains("\nfirst\n"), "{said}");
    assert!(said.contains("Authentication failed for") && !said.contains("first-token"), "{said}");
    let (pipeline, why) = server.triggered_now();
    assert_eq!(why, "");
    let (job, said) = server.looked(&pipeline);
    assert_eq!(job["status"], "success", "{said}");
}

/// A host that takes connections and never answers; how many are open, and how many were at once.
fn silent() -> (String, Arc<Mutex<(usize, usize)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::<Mutex<(usize, usize)>>::default();
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                {
                    let mut count = counted.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                }
                // Its end, whenever the client gives up.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                counted.lock().unwrap().0 -= 1;
            });
        }
    });
    (url, count)
}

/// Makes a project whose repository is at a host that hangs, once it was connected like this; its name.
fn hung<'s>(server: &'s Server, silent: &str, number: usize, wanted: Value) -> (String, Connected<'s>) {
    let name = format!("hung{number}");
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": name })));
    let project = format!("/api/v2/project/gh/acme/{name}");
    let hook = server.connect_project(&project, wanted);
    server.call("PATCH", &project, Some(json!({ "repository_url": format!("{silent}/{name}.git") })));
    (name, hook)
}

#[test]
fn looks_at_a_host_that_hangs_hold_up_those_of_no_other() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit_config(HOLDS, "main");
    let (silent, count) = silent();
    for number in 0..34 {
        hung(&server, &silent, number, json!({ "forge": "git", "poll_seconds": 3600 }));
    }
    server.database().execute_batch("UPDATE forge_connections SET next_poll_ms = 0").unwrap();
    server.register(&work.url());
    server.connect(json!({ "forge": "git", "poll_seconds": 5 }));
    // Less than the time that a look may take.
    poll_within(Duration::from_secs(50), "the look at another host", || {
        let sql = "SELECT count(*) FROM forge_connections WHERE is_listed = 1";
        let listed: u32 = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
        if listed == 1 { Ok(()) } else { Err(listed.to_string()) }
    });
    // One that has ended may still be counted when the next one begins.
    let most = count.lock().unwrap().1;
    assert!((1..=4).contains(&most), "two at once, and not {most}");
}

#[test]
fn pushes_to_a_host_that_hangs_hold_up_those_of_no_other() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit_config(HOLDS, "main");
    let head = work.git(&["rev-parse", "HEAD"]);
    server.register(&work.url());
    let (silent, count) = silent();
    let none = "0".repeat(40);
    for number in 0..6 {
        let (name, hook) = hung(&server, &silent, number, json!({}));
        let mut body = push("refs/heads/main", &none, &head);
        (body["repository"]["id"], body["repository"]["full_name"]) =
            (json!(100 + number), json!(format!("acme/{name}")));
        let answer = hook.github("push", &name, &body);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    poll("work at the host that hangs", || {
        let open = count.lock().unwrap().0;
        if open >= 4 { Ok(()) } else { Err(open.to_string()) }
    });
    server.connect(json!({})).push("d", "refs/heads/main", &none, &head);
    // Less than the time after which git gives up there.
    poll_within(Duration::from_secs(50), "the pipeline of another host", || match server.pipelines().len() {
        1 => Ok(()),
        count => Err(count.to_string()),
    });
}
