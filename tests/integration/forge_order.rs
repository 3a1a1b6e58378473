//! The order of pushes: of what forges tell late nothing is built, and nothing that is newer ends for it; and what they tell
//! before it can be read is waited for.

use crate::forge::{Connected, JSON, NONE, pull, signed};
use crate::repositories::Work;
use crate::server::Server;
use crate::support::poll;
use serde_json::{Value, json};
use std::path::Path;

const PROJECT: &str = "/api/v2/project/gh/acme/hello";
/// A workflow that neither runs nor ends.
const HELD: &str = "version: 2.1\nworkflows: {w: {jobs: [hold: {type: approval}]}}\n";
const TOPIC: &str = "refs/heads/topic";

impl Server {
    /// Commit and state of the workflow of each pipeline of a branch, the oldest first.
    fn workflows(&self, branch: &str) -> Vec<(String, String)> {
        let mut pipelines = self.pipelines();
        pipelines.reverse();
        let of_branch = pipelines.iter().filter(|pipeline| pipeline["vcs"]["branch"] == branch);
        let state = |pipeline: &Value| {
            let path = format!("/api/v2/pipeline/{}/workflow", pipeline["id"].as_str().unwrap());
            self.call("GET", &path, None)["items"][0]["status"].as_str().unwrap_or_default().to_owned()
        };
        of_branch.map(|one| (one["vcs"]["revision"].as_str().unwrap().to_owned(), state(one))).collect()
    }

    /// State and sentence of the change that came in a delivery.
    fn change(&self, delivery: &str) -> (String, String) {
        let listed = self.call("GET", &format!("{PROJECT}/deliveries"), None);
        let items = listed["items"].as_array().unwrap();
        let item =
            items.iter().find(|item| item["delivery"] == delivery).unwrap_or_else(|| panic!("{listed}"));
        let word = |name: &str| item["changes"][0][name].as_str().unwrap_or_default().to_owned();
        (word("state"), word("message"))
    }

    /// Waits until the change of a delivery is in a state. Returns its sentence.
    fn until(&self, delivery: &str, state: &str) -> String {
        poll(&format!("`{delivery}` to be {state}"), || match self.change(delivery) {
            (is, why) if is == state && !(is == "waiting" && why.is_empty()) => Ok(why),
            other => Err(format!("{other:?}")),
        })
    }

    /// Tells of something that wakes whoever works changes off.
    fn wake(&self, hook: &Connected<'_>, id: &str) {
        let body = json!({ "ref": "refs/heads/woken", "before": "1".repeat(40), "after": "2".repeat(40),
            "repository": { "id": 7, "full_name": "acme/hello" }, "sender": { "login": "ada" } });
        assert_eq!(hook.github("push", id, &body).status, 202);
    }
}

impl Connected<'_> {
    /// A delivery of a plain git server that holds several moves of the branch.
    fn moves(&self, moves: &[(&str, &str)]) -> u16 {
        let changes: Vec<Value> = moves
            .iter()
            .map(|(before, after)| json!({ "ref": TOPIC, "before": before, "after": after }))
            .collect();
        let body = json!({ "repository": "app.git", "pusher": "ada", "changes": changes }).to_string();
        let signature = signed(&self.secret, &body);
        let headers = [JSON, ("X-Runlet-Event", "push"), ("X-Runlet-Signature-256", &*signature)];
        self.send(&headers, body.as_bytes()).status
    }
}

/// A branch of four commits, which is at the last of them.
fn four_commits(server: &Server) -> (Work, [String; 4]) {
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "main");
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let commits = ["c0", "c1", "c2", "c3"].map(|name| work.commit_config(HELD, name));
    server.register(&work.url());
    (work, commits)
}

fn states(all: &[(&String, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(commit, state)| ((*commit).clone(), (*state).to_owned())).collect()
}

#[test]
fn an_older_commit_that_is_told_behind_a_newer_one_is_not_built_and_ends_nothing() {
    let server = Server::start();
    let (work, [c0, c1, c2, c3]) = four_commits(&server);
    work.git(&["reset", "--quiet", "--hard", &c2]);
    server.set(json!({ "enable_auto_cancel_redundant_workflows": true }));
    let hook = server.connect(json!({ "forge": "git" }));
    assert_eq!(hook.moves(&[(NONE, &c0)]), 202);
    // Both wait when the first of them is worked off.
    assert_eq!(hook.moves(&[(&c1, &c2), (&c0, &c1)]), 202);
    let items = server.worked_off();
    let why = items[0]["changes"].to_string();
    assert!(why.contains(&format!("it came late: `{TOPIC}` has gone on from it to {c2}")), "{why}");
    assert_eq!(server.workflows("topic"), states(&[(&c0, "canceled"), (&c2, "on_hold")]));
    // In order all of them are built, however quickly they come; so is the way back by force.
    work.git(&["reset", "--quiet", "--hard", &c3]);
    assert_eq!(hook.moves(&[(&c2, &c1), (&c1, &c2), (&c2, &c3)]), 202);
    server.worked_off();
    let built = states(&[
        (&c0, "canceled"),
        (&c2, "canceled"),
        (&c1, "canceled"),
        (&c2, "canceled"),
        (&c3, "on_hold"),
    ]);
    assert_eq!(server.workflows("topic"), built);
    // A push between is not told of: history is compared.
    work.git(&["reset", "--quiet", "--hard", &c0]);
    assert_eq!(hook.moves(&[(&c3, &c0)]), 202);
    server.worked_off();
    work.git(&["reset", "--quiet", "--hard", &c3]);
    assert_eq!(hook.moves(&[(&"1".repeat(40), &c3), (&c0, &c1)]), 202);
    let items = server.worked_off();
    let why = items[0]["changes"].to_string();
    assert!(why.contains(&format!("has gone on to {c3}, which holds it")), "{why}");
    assert_eq!(server.workflows("topic").last(), Some(&(c3.clone(), "on_hold".to_owned())));
}

#[test]
fn where_each_commit_is_wanted_a_late_one_is_built_beside_what_is_newer() {
    let server = Server::start();
    let (work, [c0, c1, c2, _]) = four_commits(&server);
    work.git(&["reset", "--quiet", "--hard", &c2]);
    server.set(json!({ "enable_auto_cancel_redundant_workflows": true, "is_each_commit_built": true }));
    let hook = server.connect(json!({ "forge": "git" }));
    assert_eq!(hook.moves(&[(NONE, &c0), (&c1, &c2), (&c0, &c1)]), 202);
    server.worked_off();
    let built = states(&[(&c0, "canceled"), (&c2, "on_hold"), (&c1, "on_hold")]);
    assert_eq!(server.workflows("topic"), built);
}

#[test]
fn what_waits_for_its_repository_is_not_overtaken_by_the_next_push() {
    let server = Server::start();
    let (work, [c0, c1, c2, _]) = four_commits(&server);
    work.git(&["reset", "--quiet", "--hard", &c2]);
    server.set(json!({ "enable_auto_cancel_redundant_workflows": true }));
    let hook = server.connect(json!({}));
    assert_eq!(hook.push("d0", TOPIC, NONE, &c0).status, 202);
    server.until("d0", "started");
    let (here, away) = (server.folder.path().join("repositories"), server.folder.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    assert_eq!(hook.push("d1", TOPIC, &c0, &c1).status, 202);
    server.until("d1", "waiting");
    // Its next try is far away.
    let later = "UPDATE forge_events SET not_before_ms = not_before_ms + 3600000 WHERE state = 'waiting'";
    server.database().execute(later, []).unwrap();
    std::fs::rename(&away, &here).unwrap();
    assert_eq!(hook.push("d2", TOPIC, &c1, &c2).status, 202);
    server.until("d2", "started");
    server.until("d1", "started");
    let built = states(&[(&c0, "canceled"), (&c1, "canceled"), (&c2, "on_hold")]);
    assert_eq!(server.workflows("topic"), built);
}

#[test]
fn the_earlier_head_of_a_pull_request_of_a_fork_that_is_told_late_ends_nothing() {
    let server = Server::start();
    let (work, [c0, c1, c2, _]) = four_commits(&server);
    server.set(json!({ "enable_auto_cancel_redundant_workflows": true, "enable_building_fork_prs": true }));
    let hook = server.connect(json!({}));
    let told = |id: &str, action: &str, before: &str, head: &str| {
        let mut body = pull(action, 12, head, 99);
        if action == "synchronize" {
            (body["before"], body["after"]) = (json!(before), json!(head));
        }
        assert_eq!(hook.github("pull_request", id, &body).status, 202, "{id}");
    };
    work.git(&["update-ref", "refs/pull/12/head", &c0]);
    told("f0", "opened", NONE, &c0);
    server.until("f0", "started");
    work.git(&["update-ref", "refs/pull/12/head", &c2]);
    told("f2", "synchronize", &c1, &c2);
    told("f1", "synchronize", &c0, &c1);
    assert!(server.until("f1", "skipped").contains("came late"));
    let built: Vec<_> = server.workflows("pull/12").into_iter().map(|(commit, _)| commit).collect();
    assert_eq!(built, [c0, c2]);
}

/// Makes a commit that the repository does not have yet. Returns its id, and what brings it there.
fn elsewhere<'w>(work: &'w Work, folder: &Path, word: &str) -> (String, impl Fn(&str) + 'w) {
    let copy = folder.join("repositories").join(word);
    work.git(&["clone", "--quiet", ".", copy.to_str().unwrap()]);
    let path = copy.to_str().unwrap().to_owned();
    work.git(&["-C", &path, "commit", "--quiet", "--allow-empty", "-m", word]);
    let commit = work.git(&["-C", &path, "rev-parse", "HEAD"]);
    let at = commit.clone();
    (commit, move |reference: &str| {
        work.git(&["fetch", "--quiet", &path, &at]);
        work.git(&["update-ref", reference, &at]);
    })
}

#[test]
fn what_is_told_before_it_can_be_read_is_waited_for() {
    let server = Server::start();
    let (work, [c0, ..]) = four_commits(&server);
    work.git(&["switch", "--quiet", "main"]);
    work.git(&["branch", "--quiet", "--force", "topic", &c0]);
    server.set(json!({ "enable_building_fork_prs": true }));
    let hook = server.connect(json!({}));
    let folder = server.folder.path();

    // A commit that a branch is not at yet.
    let (a, arrive) = elsewhere(&work, folder, "a");
    assert_eq!(hook.push("a", TOPIC, &c0, &a).status, 202);
    let why = server.until("a", "waiting");
    assert!(why.contains(&format!("has no commit {a}: its branch `topic` is at {c0}")), "{why}");
    arrive(TOPIC);
    server.until("a", "started");

    // Nobody waits longer than two hours; then the same delivery is taken anew.
    let (b, arrive) = elsewhere(&work, folder, "b");
    assert_eq!(hook.push("b", "refs/heads/new", NONE, &b).status, 202);
    assert!(server.until("b", "waiting").contains("has no branch `new`"));
    let late = "UPDATE forge_events SET attempts = 14, not_before_ms = 0 WHERE state = 'waiting'";
    server.database().execute(late, []).unwrap();
    server.wake(&hook, "w1");
    let why = server.until("b", "failed");
    assert!(why.contains("has no branch `new`, and has not got it within two hours"), "{why}");
    arrive("refs/heads/new");
    assert_eq!(hook.push("b", "refs/heads/new", NONE, &b).status, 202);
    server.until("b", "started");

    // A pull request of a fork; the same delivery does not wait for the next try.
    let (f, arrive) = elsewhere(&work, folder, "f");
    let body = pull("opened", 12, &f, 99);
    assert_eq!(hook.github("pull_request", "f", &body).status, 202);
    assert!(server.until("f", "waiting").contains("has no pull request `pull/12`"));
    let later = "UPDATE forge_events SET not_before_ms = not_before_ms + 3600000 WHERE state = 'waiting'";
    server.database().execute(later, []).unwrap();
    arrive("refs/pull/12/head");
    assert_eq!(hook.github("pull_request", "f", &body).status, 200);
    server.until("f", "started");
}

#[test]
fn what_cannot_be_read_because_its_ref_has_moved_on_is_not_waited_for() {
    let server = Server::start();
    let (_work, [c0, _, _, c3]) = four_commits(&server);
    let hook = server.connect(json!({}));
    // It was replaced by force, as the next push says.
    let gone = "e".repeat(40);
    assert_eq!(hook.push("a", TOPIC, &c0, &gone).status, 202);
    server.until("a", "waiting");
    assert_eq!(hook.push("b", TOPIC, &gone, &c3).status, 202);
    // What waits is looked at before what comes behind it.
    server.until("b", "started");
    assert!(server.until("a", "skipped").contains(&format!("has gone on from it to {c3}")));
    // Its branch was deleted; the forge may bring both back, and send it again.
    assert_eq!(hook.push("c", "refs/heads/old", &c0, &gone).status, 202);
    server.until("c", "waiting");
    assert_eq!(hook.push("d", "refs/heads/old", &gone, NONE).status, 200);
    assert_eq!(hook.push("c", "refs/heads/old", &c0, &gone).status, 200);
    assert!(server.until("c", "skipped").contains("has no branch `old`"));
    assert_eq!(hook.push("c", "refs/heads/old", &c0, &gone).status, 202);
    server.until("c", "skipped");
}
