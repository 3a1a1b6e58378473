//! What every forge is promised: its deliveries are read as its own, answered before anything is fetched and never lost; tags,
//! long ids, several projects on one repository; and statuses in the way that a project wants them.

use crate::forge::{Answer, Connected, NONE, hex, push, signed};
use crate::forge_back::Fake;
use crate::repositories::Work;
use crate::server::Server;
use crate::support::{DEADLINE, poll};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::mpsc::channel;

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const OTHER: &str = "/api/v2/project/gh/acme/other";
const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Server {
    /// The names of the jobs of a pipeline.
    fn called(&self, pipeline: &str) -> Vec<String> {
        let workflows = self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
        let workflow = workflows["items"][0]["id"].as_str().unwrap();
        let jobs = self.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
        let name = |job: &Value| job["name"].as_str().unwrap().to_owned();
        jobs["items"].as_array().unwrap().iter().map(name).collect()
    }

    /// Branch, tag and revision of each pipeline of a project, the oldest first.
    fn revisions(&self, project: &str) -> Vec<[String; 3]> {
        let listed = self.call("GET", &format!("{project}/pipeline"), None);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |one: &Value| ["branch", "tag", "revision"].map(|name| text(&one["vcs"][name]));
        listed["items"].as_array().unwrap().iter().rev().map(of).collect()
    }

    /// Changes settings of a project.
    fn settle(&self, project: &str, settings: Value) {
        let id = self.call("GET", project, None)["id"].as_str().unwrap().to_owned();
        self.call("POST", &format!("/api/v3/projects/{id}/update-settings"), Some(settings));
    }

    /// Looks at the refs, and waits until that is over.
    fn look(&self) {
        self.connect(json!({ "poll_seconds": 604_800 }));
        poll("the look", || {
            let sql = "SELECT next_poll_ms > (unixepoch() + 86400) * 1000 FROM forge_connections";
            let is_over: bool = self.database().query_row(sql, [], |row| row.get(0)).unwrap();
            if is_over { Ok(()) } else { Err("it goes on".to_owned()) }
        });
        self.worked_off();
    }
}

/// A config whose only job, an approval, is called by what the pipeline says of its trigger.
fn named() -> String {
    "version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval, name: << pipeline.trigger.type >>/<< pipeline.trigger_source >>/<< pipeline.event.name >>, filters: {tags: {only: /.*/}}}]}}\n".to_owned()
}

impl Connected<'_> {
    /// A delivery of Gitea, which sends GitHub's headers as well, or of Forgejo, which sends both of theirs; as a form where
    /// that is wanted.
    fn gitea(&self, forge: &str, event: &str, id: &str, body: &Value, as_form: bool) -> Answer {
        let text = body.to_string();
        let of_github = signed(&self.secret, &text);
        // The JSON is signed, and not the form.
        let own = of_github.trim_start_matches("sha256=").to_owned();
        let form = format!(
            "payload={}",
            hex(text.as_bytes())
                .as_bytes()
                .chunks(2)
                .fold(String::new(), |all, two| { format!("{all}%{}", String::from_utf8_lossy(two)) })
        );
        let (kind, sent) = match as_form {
            true => ("application/x-www-form-urlencoded", form),
            false => ("application/json", text),
        };
        let mut headers = vec![
            ("Content-Type", kind),
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", id),
            ("X-Hub-Signature-256", &of_github),
            ("X-Gitea-Event", event),
            ("X-Gitea-Delivery", id),
            ("X-Gitea-Signature", &own),
        ];
        if forge == "forgejo" {
            headers.extend([
                ("X-Forgejo-Event", event),
                ("X-Forgejo-Delivery", id),
                ("X-Forgejo-Signature", &own),
            ]);
        }
        self.send(&headers, sent.as_bytes())
    }

    fn gitlab(&self, token: &str, event: &str, id: &str, body: &Value) -> Answer {
        let headers = [JSON, ("X-Gitlab-Event", event), ("X-Gitlab-Token", token), ("Idempotency-Key", id)];
        self.send(&headers, body.to_string().as_bytes())
    }

    fn data_center(&self, event: &str, id: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = signed(&self.secret, &body);
        let headers = [JSON, ("X-Event-Key", event), ("X-Request-Id", id), ("X-Hub-Signature", &*signature)];
        self.send(&headers, body.as_bytes())
    }
}

fn started(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.body["pipelines"].as_array().unwrap().len(), 1, "{}", answer.body);
    answer.body["pipelines"][0].as_str().unwrap().to_owned()
}

#[test]
fn a_push_is_answered_while_nothing_can_be_fetched() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit("one", "one");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    // Fetches from this address wait until the test is over.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    server.register(&format!("http://{}/app.git", listener.local_addr().unwrap()));
    let (fetch, fetched) = channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
            let _ = fetch.send(());
        }
    });
    started(&hook.push("d1", "refs/heads/main", NONE, &commit));
    fetched.recv_timeout(DEADLINE).unwrap();
    // The next one as well, while the first is being fetched.
    started(&hook.push("d2", "refs/heads/next", NONE, &commit));
    let listed = server.call("GET", &format!("{PROJECT}/deliveries"), None);
    for item in listed["items"].as_array().unwrap() {
        assert_eq!(item["changes"][0]["state"], "waiting", "{listed}");
    }
}

#[test]
fn a_delivery_that_could_not_be_stored_is_taken_when_it_comes_again() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit("one", "one");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    let full = "CREATE TRIGGER full BEFORE INSERT ON forge_events BEGIN SELECT raise(FAIL, 'disk full'); END";
    server.database().execute_batch(full).unwrap();
    let answer = hook.push("d1", "refs/heads/main", NONE, &commit);
    assert!(
        answer.status == 503 && answer.body["message"].as_str().unwrap().contains("again"),
        "{}",
        answer.body
    );
    server.database().execute_batch("DROP TRIGGER full").unwrap();
    started(&hook.push("d1", "refs/heads/main", NONE, &commit));
    server.worked_off();
    assert_eq!(server.revisions(PROJECT), [["main", "", &commit]]);
}

#[test]
fn gitea_and_forgejo_are_read_as_what_they_are_and_a_tag_that_is_told_twice_is_built_once() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit_config(&named(), "main");
    work.git(&["tag", "-a", "v1", "-m", "v1"]);
    let tag = work.git(&["rev-parse", "v1"]);
    server.register(&work.url());
    let repository = json!({ "id": 3, "full_name": "acme/hello", "default_branch": "main" });
    let create = json!({ "ref": "v1", "ref_type": "tag", "sha": commit, "repository": repository, "sender": { "login": "ada" } });
    let mut pushed = push("refs/tags/v1", NONE, &tag);
    (pushed["repository"], pushed["head_commit"]) =
        (repository.clone(), json!({ "id": commit, "message": "main" }));
    let mut test = push("refs/heads/main", &commit, &commit);
    test["repository"] = repository.clone();
    for (forge, as_form) in [("gitea", false), ("forgejo", true)] {
        // The secret of the connection before is not told again.
        let hook = server.connect(json!({ "forge": forge, "rotate_secret": true }));
        let before = server.pipelines().len();
        assert_eq!(hook.gitea(forge, "create", &format!("{forge}-c"), &create, as_form).status, 200);
        assert_eq!(
            hook.gitea(forge, "push", &format!("{forge}-t"), &test, as_form).status,
            200,
            "it tries the hook"
        );
        let id = started(&hook.gitea(forge, "push", &format!("{forge}-p"), &pushed, as_form));
        server.worked_off();
        assert_eq!(server.called(&id), [format!("{forge}/webhook/push")]);
        assert_eq!(server.revisions(PROJECT).last().unwrap(), &["", "v1", &commit], "the commit of the tag");
        assert_eq!(server.pipelines().len(), before + 1);
        // Yesterday's tag: the other forge tells of it anew.
        let day = "UPDATE forge_events SET at_ms = at_ms - 86400000";
        server.database().execute_batch(day).unwrap();
    }
    // A project at GitHub takes none of it, though GitHub's own headers are right.
    let hook = server.connect(json!({ "forge": "github", "rotate_secret": true }));
    assert_eq!(hook.gitea("gitea", "push", "g", &pushed, false).status, 401);
}

#[test]
fn gitlab_shows_its_token_whole_and_tells_of_edits_that_move_nothing() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit_config(&named(), "main");
    work.git(&["tag", "-a", "v1", "-m", "v1"]);
    let tag = work.git(&["rev-parse", "v1"]);
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "gitlab" }));
    let project = json!({ "id": 15, "path_with_namespace": "acme/hello", "default_branch": "main" });
    let body = |kind: &str, reference: &str, after: &str| {
        json!({ "object_kind": kind, "before": NONE, "after": after, "ref": reference, "checkout_sha": commit,
            "user_username": "ada", "project_id": 15, "project": project,
            "commits": [{ "id": commit, "message": "main" }] })
    };
    let main = body("push", "refs/heads/main", &commit);
    let token = hook.secret.clone();
    assert_eq!(hook.gitlab(&token[..token.len() - 1], "Push Hook", "l0", &main).status, 401);
    assert_eq!(hook.gitlab(&format!("{token}x"), "Push Hook", "l0", &main).status, 401);
    let id = started(&hook.gitlab(&token, "Push Hook", "l0", &main));
    server.worked_off();
    assert_eq!(server.called(&id), ["gitlab/webhook/push"]);
    started(&hook.gitlab(&token, "Tag Push Hook", "l1", &body("tag_push", "refs/tags/v1", &tag)));
    server.worked_off();
    assert_eq!(server.revisions(PROJECT), [["main", "", &*commit], ["", "v1", &*commit]]);
    let mut gone = body("push", "refs/heads/old", NONE);
    (gone["before"], gone["checkout_sha"]) = (json!(commit), Value::Null);
    assert_eq!(hook.gitlab(&token, "Push Hook", "l2", &gone).status, 200);

    // A merge request of the repository itself is remembered by its head; a new title has none.
    let merge = |old: Option<&str>| {
        let mut about = json!({ "iid": 3, "action": "update", "title": "T", "url": "https://gitlab.example/3",
            "source_branch": "topic", "target_branch": "main", "source_project_id": 15, "target_project_id": 15,
            "last_commit": { "id": commit } });
        if let Some(old) = old {
            about["oldrev"] = json!(old);
        }
        json!({ "object_kind": "merge_request", "user": { "username": "ada" }, "project": project,
            "object_attributes": about })
    };
    for (id, old) in [("l3", Some(NONE)), ("l4", None)] {
        assert_eq!(hook.gitlab(&token, "Merge Request Hook", id, &merge(old)).status, 200);
    }
    let items = server.worked_off();
    let states: Vec<_> = items.iter().map(|item| item["changes"][0]["state"].clone()).collect();
    assert_eq!(states[..2], [json!("skipped"), json!("skipped")]);
    assert_eq!(server.pipelines().len(), 2);
}

#[test]
fn a_data_center_tells_of_many_refs_and_of_pings() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit_config(&named(), "main");
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "bitbucket_dc", "repository_name": "ACME/hello" }));
    assert_eq!(hook.data_center("diagnostics:ping", "p", &json!({ "test": true })).status, 200);
    let reference =
        |name: &str| json!({ "id": format!("refs/heads/{name}"), "displayId": name, "type": "BRANCH" });
    let change = |name: &str, from: &str, to: &str, kind: &str| json!({ "ref": reference(name), "fromHash": from, "toHash": to, "type": kind });
    let body = json!({ "eventKey": "repo:refs_changed", "actor": { "name": "ada" },
        "repository": { "id": 1, "slug": "hello", "project": { "key": "ACME" } },
        "changes": [change("main", NONE, &commit, "ADD"), change("old", &commit, NONE, "DELETE")] });
    let id = started(&hook.data_center("repo:refs_changed", "d1", &body));
    server.worked_off();
    assert_eq!(server.called(&id), ["bitbucket_dc/webhook/push"]);
    assert_eq!(server.revisions(PROJECT), [["main", "", &commit]]);
}

#[test]
fn an_annotated_tag_is_built_and_told_at_its_commit_whoever_finds_it() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit_config(&named(), "main");
    for n in 0..40 {
        work.git(&["branch", &format!("b{n}")]);
    }
    server.register(&work.url());
    let fake = Fake::start(|_| (201, "", "{}".to_owned()));
    let hook = server.connect(json!({ "api_url": fake.url(), "token": "t" }));
    server.look();
    assert!(server.pipelines().is_empty(), "the first look finds forty branches, and no news");

    work.git(&["tag", "-a", "v1", "-m", "v1"]);
    let tag = work.git(&["rev-parse", "v1"]);
    let mut body = push("refs/tags/v1", NONE, &tag);
    (body["head_commit"], body["commits"]) = (json!({ "id": commit, "message": "main" }), json!([]));
    let id = started(&hook.github("push", "t1", &body));
    server.worked_off();
    let pipeline = server.call("GET", &format!("/api/v2/pipeline/{id}"), None);
    assert!(pipeline["vcs"]["branch"].is_null(), "{pipeline}");
    work.git(&["tag", "-a", "v2", "-m", "v2"]);
    server.look();
    assert_eq!(server.revisions(PROJECT), [["", "v1", &*commit], ["", "v2", &*commit]]);
    server.look();
    assert_eq!(server.pipelines().len(), 2, "and no tag twice");
    poll("the commit to be told", || {
        let path = format!("/repos/acme/hello/statuses/{commit}");
        let told = fake
            .calls()
            .iter()
            .filter(|call| call.method == "POST")
            .map(|call| call.path.clone())
            .collect::<Vec<_>>();
        if !told.is_empty() && told.iter().all(|told| *told == path) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
}

#[test]
fn ids_of_64_digits_are_as_good_as_others() {
    let server = Server::start();
    server.project();
    let work = Work::with(server.folder.path(), &["--object-format=sha256"]);
    let first = work.commit("first", "first");
    let second = work.commit("second", "second");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let none = "0".repeat(64);
    assert_eq!((first.len(), second.len()), (64, 64));
    let id = started(&hook.push("d1", "refs/heads/main", &none, &first));
    server.worked_off();
    assert_eq!(hook.push("d2", "refs/heads/old", &first, &none).status, 200, "a deletion");
    assert_eq!(server.revisions(PROJECT), [["main", "", &first]]);
    let (job, said) = server.looked(&id);
    assert!(job["status"] == "success" && said.contains(&first), "{said}");
    started(&hook.push("d3", "refs/heads/main", &first, &second));
    server.worked_off();
    // Late news of what the branch holds: their history is compared.
    assert_eq!(hook.push("d4", "refs/heads/main", &"1".repeat(64), &first).status, 202);
    let items = server.worked_off();
    assert!(items[0]["changes"][0]["message"].as_str().unwrap().contains("came late"), "{items:?}");
}

#[test]
fn several_projects_on_one_repository_each_build_their_part_of_it() {
    let server = Server::start();
    server.project();
    server.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": "other" })));
    let work = Work::new(server.folder.path());
    let part = |name: &str| {
        format!(
            "version: 2.1
workflows: {{w: {{jobs: [hold: {{type: approval, name: {name}}}]}}}}
"
        )
    };
    work.write("web/ci.yml", &part("of-web"));
    work.write("api/ci.yml", &part("of-api"));
    work.git(&["add", "."]);
    work.git(&["commit", "--quiet", "-m", "first"]);
    let mut before = work.git(&["rev-parse", "HEAD"]);
    let parts = [(PROJECT, "web", "of-web"), (OTHER, "api", "of-api")];
    for (project, folder, _) in parts {
        server.call("PATCH", project, Some(json!({ "repository_url": work.url() })));
        let ignored = if folder == "web" { vec!["*.md"] } else { Vec::new() };
        server.settle(
            project,
            json!({ "config_path": format!("{folder}/ci.yml"), "only_paths": [format!("{folder}/*")],
            "ignore_paths": ignored, "ignore_branches": ["wip/*"] }),
        );
    }
    let hooks = [
        server.connect(json!({})),
        server.connect_project(OTHER, json!({ "repository_name": "acme/hello" })),
    ];
    // Statuses of one project would stand in the place of those of the other.
    let warnings =
        || server.call("PUT", &format!("{OTHER}/connection"), Some(json!({})))["warnings"].to_string();
    assert!(warnings().contains("status_prefix") && warnings().contains("gh/acme/hello"), "{}", warnings());
    server.settle(OTHER, json!({ "status_prefix": "ci/api: " }));
    assert_eq!(warnings(), "[]");
    let mut round = 0;
    let mut pushed = |files: &[&str], branch: &str| -> [String; 2] {
        round += 1;
        for file in files {
            work.write(
                file,
                &format!(
                    "{round}
"
                ),
            );
        }
        work.git(&["add", "."]);
        work.git(&["commit", "--quiet", "-m", "next"]);
        let after = work.git(&["rev-parse", "HEAD"]);
        work.git(&["update-ref", &format!("refs/heads/{branch}"), &after]);
        let states = [0, 1].map(|at| {
            hooks[at].push(&format!("d{round}"), &format!("refs/heads/{branch}"), &before, &after);
            poll("the delivery to be worked off", || {
                let listed = server.call("GET", &format!("{}/deliveries", parts[at].0), None);
                let state = listed["items"][0]["changes"][0]["state"].as_str().unwrap_or_default().to_owned();
                if state == "waiting" { Err(listed.to_string()) } else { Ok(state) }
            })
        });
        before = after;
        states
    };
    assert_eq!(pushed(&["web/a"], "main"), ["started", "skipped"]);
    assert_eq!(pushed(&["api/a"], "main"), ["skipped", "started"]);
    assert_eq!(pushed(&["web/b", "api/b"], "main"), ["started", "started"]);
    assert_eq!(pushed(&["web/README.md", "x"], "main"), ["skipped", "skipped"]);
    assert_eq!(pushed(&["web/c", "api/c"], "wip/x"), ["skipped", "skipped"]);
    for (project, _, name) in parts {
        let listed = server.call("GET", &format!("{project}/pipeline"), None);
        let pipelines = listed["items"].as_array().unwrap();
        assert_eq!(pipelines.len(), 2, "{listed}");
        assert!(pipelines.iter().all(|one| server.called(one["id"].as_str().unwrap()) == [name]), "{listed}");
    }
}

#[test]
fn each_commit_of_a_push_that_is_found_by_looking_is_built_where_that_is_wanted() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "main");
    server.register(&work.url());
    server.connect(json!({}));
    server.look();
    server.settle(PROJECT, json!({ "is_each_commit_built": true }));
    // A merge counts once: by first parents.
    work.git(&["switch", "--quiet", "-c", "side"]);
    work.commit("main", "aside");
    work.git(&["switch", "--quiet", "main"]);
    let first = work.commit("main", "first");
    work.git(&["merge", "--quiet", "--no-ff", "-m", "merge", "side"]);
    let merge = work.git(&["rev-parse", "HEAD"]);
    work.git(&["branch", "--quiet", "-D", "side"]);
    let last = work.commit("main", "last");
    server.look();
    let built = [&first, &merge, &last].map(|commit| ["main".to_owned(), String::new(), commit.clone()]);
    assert_eq!(server.revisions(PROJECT), built);
}

#[test]
fn statuses_are_told_as_the_project_wants_them() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit_config(
        "version: 2.1
workflows: {w: {jobs: [hold: {type: approval}]}}
",
        "main",
    );
    server.register(&work.url());
    let fake = Fake::start(|_| (201, "", "{}".to_owned()));
    server.connect(json!({ "api_url": fake.url(), "token": "t" }));
    let start = || server.call("POST", &format!("{PROJECT}/pipeline"), Some(json!({ "branch": "main" })));
    let until = |context: &str| {
        poll("the status to be told", || {
            let told = fake
                .calls()
                .iter()
                .filter(|call| call.method == "POST")
                .map(|call| call.json()["context"].clone())
                .collect::<Vec<_>>();
            if told.last() == Some(&json!(context)) { Ok(told.len()) } else { Err(format!("{told:?}")) }
        })
    };
    // No status at first, then one for each workflow with another prefix.
    server.settle(PROJECT, json!({ "can_set_github_status": false }));
    start();
    let wanted =
        json!({ "can_set_github_status": true, "is_status_per_workflow": true, "status_prefix": "runlet/" });
    server.settle(PROJECT, wanted);
    start();
    assert_eq!(until("runlet/w"), 1);
    server.settle(PROJECT, json!({ "is_status_per_workflow": false, "status_prefix": "" }));
    start();
    assert_eq!(until("ci/circleci: w/hold"), 2);
}

#[test]
fn three_hundred_branches_at_once_are_one_delivery() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit_config(&named(), "main");
    for n in 0..3 {
        work.git(&["branch", &format!("b{n}")]);
    }
    server.register(&work.url());
    let hook = server.connect(json!({ "forge": "git" }));
    let before = "1".repeat(40);
    let changes: Vec<Value> = (0..300)
        .map(|n| json!({ "ref": format!("refs/heads/b{n}"), "before": before, "after": commit }))
        .collect();
    let body = json!({ "repository": "app.git", "pusher": "ada", "changes": changes }).to_string();
    let signature = signed(&hook.secret, &body);
    let headers = [JSON, ("X-Runlet-Event", "push"), ("X-Runlet-Signature-256", &*signature)];
    let answer = hook.send(&headers, body.as_bytes());
    assert_eq!((answer.status, answer.body["pipelines"].as_array().unwrap().len()), (202, 300));
    poll("all of them to be worked off", || {
        let sql = "SELECT count(*) FROM forge_events WHERE state = 'waiting'";
        let left: i64 = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    });
    assert_eq!(server.pipelines().len(), 3, "the others are gone, each with a sentence");
    let sql = "SELECT count(*) FROM forge_events WHERE state = 'skipped' AND sentence LIKE '%has no branch%'";
    let gone: i64 = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(gone, 297);
    let id = server.pipelines()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.called(&id), ["git/webhook/push"]);
}
