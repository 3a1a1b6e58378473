//! What is refused when it is entered, and not when it is needed; and deliveries that lack what they can do without.

use crate::forge::{Answer, Connected, signed};
use crate::forge_back::Fake;
use crate::repositories::Work;
use crate::server::Server;
use serde_json::{Value, json};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const SLUG: &str = "gh/acme/hello";

impl Server {
    /// The numbers of the pull requests that are known to be open.
    fn open_pulls(&self) -> Vec<i64> {
        let database = self.database();
        let mut query = database.prepare("SELECT number FROM forge_pulls ORDER BY number").unwrap();
        let numbers = query.query_map([], |row| row.get(0)).unwrap();
        numbers.collect::<Result<_, _>>().unwrap()
    }

    /// Runs a command that has to be refused as one that is wrong, and returns why.
    fn refused_command(&self, args: &[&str], stdin: &str) -> String {
        let output = self.admin_output(args, stdin);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        said
    }
}

impl Connected<'_> {
    fn of_cloud(&self, event: &str, id: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let signature = signed(&self.secret, &body);
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Event-Key", event),
            ("X-Hook-UUID", "{h}"),
            ("X-Request-UUID", id),
            ("X-Hub-Signature", &*signature),
        ];
        self.send(&headers, body.as_bytes())
    }

    fn merge_request(&self, id: &str, body: &Value) -> Answer {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Gitlab-Event", "Merge Request Hook"),
            ("X-Gitlab-Token", &*self.secret),
            ("Idempotency-Key", id),
        ];
        self.send(&headers, body.to_string().as_bytes())
    }
}

/// What is said about a delivery that was taken.
fn said(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["message"].as_str().unwrap()
}

#[test]
fn a_pull_request_is_closed_by_its_number_whatever_else_is_gone() {
    let server = Server::start();
    server.project();
    let head = "b".repeat(40);
    let hook = server.connect(json!({ "forge": "gitlab" }));
    let merge = |action: Option<&str>, commit: Value| {
        let mut about = json!({ "iid": 3, "title": "T", "source_branch": "topic", "target_branch": "main",
            "source_project_id": 15, "target_project_id": 15, "last_commit": commit });
        if let Some(action) = action {
            about["action"] = json!(action);
        }
        json!({ "object_kind": "merge_request", "user": { "username": "ada" },
            "project": { "id": 15, "path_with_namespace": "acme/hello" }, "object_attributes": about })
    };
    said(&hook.merge_request("g1", &merge(Some("open"), json!({ "id": head }))));
    assert_eq!(server.open_pulls(), [3]);
    let why = hook.merge_request("g2", &merge(Some("reopen"), Value::Null));
    assert!(said(&why).contains("has no head commit"), "{}", why.body);
    let why = hook.merge_request("g3", &merge(None, json!({ "id": head })));
    assert!(said(&why).contains("without an action"), "{}", why.body);
    assert_eq!(server.open_pulls(), [3]);
    let why = hook.merge_request("g4", &merge(Some("close"), Value::Null));
    assert!(said(&why).contains("was closed"), "{}", why.body);
    assert_eq!(server.open_pulls(), [0; 0]);

    let hook = server.connect(json!({ "forge": "bitbucket_cloud", "rotate_secret": true }));
    let pull = |number: u64, source: Value| {
        json!({ "pullrequest": { "id": number, "title": "T", "source": source,
                "destination": { "branch": { "name": "main" }, "commit": { "hash": "dddddddddddd" } } },
            "repository": { "uuid": "{r1}", "full_name": "acme/hello" }, "actor": { "display_name": "Ada" } })
    };
    let repository = json!({ "uuid": "{r1}", "full_name": "acme/hello" });
    let branch = json!({ "name": "topic" });
    for number in [8, 9] {
        let source =
            json!({ "branch": branch, "commit": { "hash": "bbbbbbbbbbbb" }, "repository": repository });
        said(&hook.of_cloud("pullrequest:created", &format!("c{number}"), &pull(number, source)));
    }
    assert_eq!(server.open_pulls(), [8, 9]);
    let source = json!({ "branch": branch, "commit": null, "repository": null });
    said(&hook.of_cloud("pullrequest:rejected", "e1", &pull(8, source)));
    assert_eq!(server.open_pulls(), [9]);
    said(&hook.of_cloud("pullrequest:updated", "e2", &pull(9, json!({ "branch": null, "commit": null }))));
    said(&hook.of_cloud("pullrequest:fulfilled", "e3", &pull(9, json!({ "branch": null, "commit": null }))));
    assert_eq!(server.open_pulls(), [0; 0]);
}

#[test]
fn gitea_tries_a_hook_with_zeros_as_well() {
    let server = Server::start();
    server.project();
    let hook = server.connect(json!({ "forge": "gitea" }));
    let zeros = "0".repeat(40);
    let mut body = crate::forge::push("refs/heads/main", &zeros, &zeros);
    (body["head_commit"], body["commits"]) = (Value::Null, Value::Null);
    let body = body.to_string();
    let signature = signed(&hook.secret, &body);
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Gitea-Event", "push"),
        ("X-Gitea-Delivery", "t"),
        ("X-Gitea-Signature", signature.trim_start_matches("sha256=")),
    ];
    let answer = hook.send(&headers, body.as_bytes());
    assert!(said(&answer).contains("the forge tries the hook"), "{}", answer.body);
}

#[test]
fn a_commit_that_changes_no_file_changes_none_that_counts() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let config = "version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval}]}}\n";
    let first = work.commit_config(config, "first");
    server.register(&work.url());
    let hook = server.connect(json!({}));
    hook.github_started("push", "p1", &crate::forge::push("refs/heads/main", &"a".repeat(40), &first));
    let second = work.commit_config(config, "nothing");
    server.set(json!({ "ignore_paths": ["docs/*"] }));
    hook.push("p2", "refs/heads/main", &first, &second);
    let items = server.worked_off();
    let change = &items[0]["changes"][0];
    assert!(
        change["state"] == "skipped" && change["message"].as_str().unwrap().contains("changed files"),
        "{change}"
    );
    assert_eq!(server.pipelines().len(), 1);
}

#[test]
fn no_secret_is_no_secret_and_a_token_goes_when_it_is_told_to() {
    let server = Server::start();
    server.project();
    let fake = Fake::start(|_| (200, "", json!({ "default_branch": "main" }).to_string()));
    let url = fake.url();
    server.admin(&["project", "connect", SLUG, "--api", &url, "--with-token"], "ghp_one\n");
    let has_token = || server.call("GET", &format!("{PROJECT}/connection"), None)["has_token"].clone();
    for args in [
        &["project", "connect", SLUG, "--with-token"][..],
        &["project", "connect", SLUG, "--with-secret"],
        &["project", "access", SLUG, "--with-token"],
        &["project", "access", SLUG, "--with-key"],
        &["project", "access", SLUG, "--with-known-hosts"],
        &["forge-token", "set", "gh/acme", "--api", &url],
        &["github-app", "set", "gh/acme", "7"],
    ] {
        for empty in ["", "\n", " \r\n\n"] {
            let why = server.refused_command(args, empty);
            assert!(why.contains("standard input is empty"), "{args:?} {empty:?}: {why}");
        }
    }
    assert_eq!(has_token(), json!(true));
    let why = server.refused_command(&["project", "connect", SLUG, "--with-token", "--delete-token"], "x");
    assert!(why.contains("--delete-token"), "{why}");
    server.admin(&["project", "connect", SLUG, "--delete-token"], "");
    assert_eq!(has_token(), json!(false));
    for wrong in ["gh p", "ghp_\u{e9}", "two\nlines"] {
        let why = server.refused_command(&["project", "connect", SLUG, "--with-token"], wrong);
        assert!(why.contains("`token` cannot be used"), "{wrong:?}: {why}");
    }
}

#[test]
fn what_cannot_be_used_later_is_not_taken_now() {
    let server = Server::start();
    server.project();
    let connect = |args: &[&str]| server.refused_command(&[&["project", "connect", SLUG], args].concat(), "");
    let why = connect(&["--api", "http://git.example/api/v3"]);
    assert!(why.contains("readable on the way") && why.contains("https://"), "{why}");
    for url in ["ftp://git.example", "https://user:pass@git.example", "https://git.example:99999"] {
        let why = connect(&["--api", url]);
        assert!(!why.contains("control plane") && why.contains("API of the forge"), "{url}: {why}");
    }
    let why =
        server.refused_command(&["forge-token", "set", "gh/acme", "--api", "http://git.example"], "ghp_x");
    assert!(why.contains("readable on the way"), "{why}");
    for (forge, id) in [
        ("github", "abc"),
        ("gitlab", "-1"),
        ("gitea", "1.5"),
        ("forgejo", "{x}"),
        ("bitbucket_dc", "7 "),
        ("bitbucket_cloud", "7"),
        ("bitbucket_cloud", "{not-one}"),
    ] {
        let why = connect(&["--forge", forge, "--repository-id", id]);
        assert!(why.contains(&format!("`{id}` is no id of a repository")), "{forge} {id}: {why}");
    }
    for (forge, id) in [("github", "7"), ("bitbucket_cloud", "{0f7a2c7e-1111-2222-3333-444455556666}")] {
        server.admin(&["project", "connect", SLUG, "--forge", forge, "--repository-id", id], "");
    }
    server.admin(&["project", "connect", SLUG, "--forge", "github"], "");
    let why = server.refused_command(&["project", "hook", SLUG], "");
    assert!(why.contains("--forge git") && why.contains("github"), "{why}");
}
