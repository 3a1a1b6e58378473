//! Pushes of the same commits, again and again: each one that a forge tells of is built once, however it is told of.

use crate::forge::{Connected, JSON, NONE, push, signed};
use crate::repositories::Work;
use crate::server::Server;
use crate::support::poll;
use serde_json::{Value, json};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
const TOPIC: &str = "refs/heads/topic";

impl Server {
    /// Branch and commit of each pipeline, the oldest first.
    fn built(&self, branch: &str) -> Vec<String> {
        self.worked_off();
        let mut pipelines = self.pipelines();
        pipelines.reverse();
        let of_branch = pipelines.iter().filter(|pipeline| pipeline["vcs"]["branch"] == branch);
        of_branch.map(|pipeline| pipeline["vcs"]["revision"].as_str().unwrap().to_owned()).collect()
    }
}

impl Connected<'_> {
    /// The status of the answer to a push that one webhook of a repository at GitHub tells of.
    fn of_hook(&self, hook: &str, id: &str, before: &str, after: &str) -> u16 {
        let body = push(TOPIC, before, after).to_string();
        let signature = signed(&self.secret, &body);
        let headers = [
            JSON,
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", id),
            ("X-GitHub-Hook-ID", hook),
            ("X-Hub-Signature-256", &*signature),
        ];
        self.send(&headers, body.as_bytes()).status
    }

    /// Sends a push of a server that gives its deliveries no ids.
    fn plain(&self, before: &str, after: &str) -> u16 {
        let body = json!({ "repository": "app.git", "pusher": "ada",
            "changes": [{ "ref": TOPIC, "before": before, "after": after }] })
        .to_string();
        let signature = signed(&self.secret, &body);
        let headers = [JSON, ("X-Runlet-Event", "push"), ("X-Runlet-Signature-256", &*signature)];
        self.send(&headers, body.as_bytes()).status
    }
}

/// A repository with two commits that a branch goes to and fro between.
fn two_commits(server: &Server) -> (Work, String, String) {
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "main");
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let a = work.commit("a", "a");
    work.git(&["reset", "--quiet", "--hard", "main"]);
    let b = work.commit("b", "b");
    // Both can be fetched, wherever the branch is.
    work.git(&["branch", "keep-a", &a]);
    work.git(&["branch", "keep-b", &b]);
    server.register(&work.url());
    (work, a, b)
}

#[test]
fn a_branch_that_goes_to_and_fro_is_built_each_time() {
    let server = Server::start();
    let (_work, a, b) = two_commits(&server);
    let hook = server.connect(json!({}));
    let ways = [(NONE, &*a), (&*a, &*b), (&*b, &*a), (&*a, &*b)];
    for (n, (before, after)) in ways.into_iter().enumerate() {
        assert_eq!(hook.push(&format!("d{n}"), TOPIC, before, after).status, 202, "push {n}");
        // A delivery comes again, and its push comes again under another id.
        assert_eq!(hook.push(&format!("d{n}"), TOPIC, before, after).status, 200, "delivery {n} again");
        assert_eq!(hook.push(&format!("e{n}"), TOPIC, before, after).status, 200, "push {n} again");
    }
    assert_eq!(server.built("topic"), [&*a, &*b, &*a, &*b]);
}

#[test]
fn two_webhooks_that_tell_of_the_same_pushes_are_told_apart() {
    let server = Server::start();
    let (_work, a, b) = two_commits(&server);
    let hook = server.connect(json!({}));
    let ways = [(NONE, &*a), (&*a, &*b), (&*b, &*a), (&*a, &*b)];
    // Webhook 2 is up to two pushes behind webhook 1.
    let told = |of: &str, n: usize| hook.of_hook(of, &format!("{of}-{n}"), ways[n].0, ways[n].1);
    for (of, n, status) in [
        ("1", 0, 202),
        ("1", 1, 202),
        ("2", 0, 200),
        ("1", 2, 202),
        ("2", 1, 200),
        ("2", 2, 200),
        ("2", 3, 202),
        ("1", 3, 200),
    ] {
        assert_eq!(told(of, n), status, "webhook {of}, push {n}");
    }
    assert_eq!(server.built("topic"), [&*a, &*b, &*a, &*b]);
}

#[test]
fn a_plain_server_whose_deliveries_have_no_ids_is_heard_each_time() {
    let server = Server::start();
    let (_work, a, b) = two_commits(&server);
    let hook = server.connect(json!({ "forge": "git" }));
    for (n, (before, after)) in [(NONE, &*a), (&*a, &*b), (&*b, &*a), (&*a, &*b)].into_iter().enumerate() {
        assert_eq!(hook.plain(before, after), 202, "push {n}");
        assert_eq!(hook.plain(before, after), 200, "push {n} again");
    }
    assert_eq!(server.built("topic"), [&*a, &*b, &*a, &*b]);
    // A delivery that somebody has kept and sends again is no push, however long ago it was.
    let day = "UPDATE forge_deliveries SET received_at_ms = received_at_ms - 86400000;
        UPDATE forge_events SET at_ms = at_ms - 86400000;";
    server.database().execute_batch(day).unwrap();
    assert_eq!(hook.plain(&a, &b), 200);
}

#[test]
fn a_look_and_a_webhook_that_find_one_push_build_it_once() {
    let server = Server::start();
    let (work, a, b) = two_commits(&server);
    let look = || server.connect(json!({ "poll_seconds": 604_800 }));
    let hook = look();
    let listed =
        || server.call("GET", &format!("{PROJECT}/deliveries"), None)["items"].as_array().unwrap().clone();
    // The first look notes where the refs are.
    poll("the first look", || {
        let sql = "SELECT count(*) FROM forge_connections WHERE is_listed = 1";
        let looked: u32 = server.database().query_row(sql, [], |row| row.get(0)).unwrap();
        if looked == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let looks = || listed().iter().filter(|item: &&Value| item["source"] == "poll").count();
    let seen = |count: usize| {
        look();
        poll("the look", || if looks() == count { Ok(()) } else { Err(format!("{:?}", listed())) });
    };
    // Looked at first, and told of afterwards as two pushes.
    let c = {
        work.git(&["switch", "--quiet", "topic"]);
        work.commit("c", "c")
    };
    let d = work.commit("d", "d");
    seen(1);
    server.worked_off();
    assert_eq!(hook.of_hook("1", "d1", &b, &c), 202, "whether it is late is for git to say");
    assert_eq!(hook.of_hook("1", "d2", &c, &d), 200, "the look has found where this one leads");
    assert_eq!(server.built("topic"), [&*d]);
    // Back by force, told of before it is looked at; and forth, looked at before it is told of.
    work.git(&["reset", "--quiet", "--hard", &a]);
    assert_eq!(hook.of_hook("1", "d3", &d, &a), 202);
    server.worked_off();
    work.git(&["reset", "--quiet", "--hard", &d]);
    seen(2);
    assert_eq!(hook.of_hook("1", "d4", &a, &d), 200);
    assert_eq!(server.built("topic"), [&*d, &*a, &*d]);
    work.git(&["reset", "--quiet", "--hard", &a]);
    assert_eq!(hook.of_hook("1", "d5", &d, &a), 202, "a push like an earlier one");
    assert_eq!(server.built("topic"), [&*d, &*a, &*d, &*a]);
}
