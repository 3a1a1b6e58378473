//! Pull requests as forges tell of them: in any order beside their pushes, more than once, open before anybody listened; and
//! deliveries that hold more than is shown of them.

use crate::forge::{Answer, Connected, JSON, NONE, pull, signed};
use crate::repositories::Work;
use crate::server::Server;
use serde_json::{Value, json};

const PROJECT: &str = "/api/v2/project/gh/acme/hello";

impl Server {
    /// Branch and commit of each pipeline, the oldest first.
    fn all_built(&self) -> Vec<String> {
        self.worked_off();
        let mut pipelines = self.pipelines();
        pipelines.reverse();
        let text = |pipeline: &Value, key: &str| pipeline["vcs"][key].as_str().unwrap_or_default().to_owned();
        pipelines.iter().map(|one| format!("{} {}", text(one, "branch"), text(one, "revision"))).collect()
    }
}

impl Connected<'_> {
    /// A change of pull request `number` from a branch of the repository itself.
    fn pull(&self, id: &str, action: &str, number: u64, branch: &str, head: &str) -> Answer {
        let mut body = pull(action, number, head, 7);
        body["pull_request"]["head"]["ref"] = json!(branch);
        self.github("pull_request", id, &body)
    }
}

/// Whether an answer says that something is built, and what it says otherwise.
fn is_taken(answer: &Answer) -> (bool, String) {
    (answer.status == 202, answer.body["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn each_commit_of_an_open_pull_request_is_built_once_whichever_event_comes_first() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "main");
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let [a1, a2, a3] = ["a1", "a2", "a3"].map(|name| work.commit(name, name));
    work.git(&["switch", "--quiet", "-c", "other"]);
    let [b1, b2, b3] = ["b1", "b2", "b3"].map(|name| work.commit(name, name));
    server.register(&work.url());
    server.set(json!({ "is_build_prs_only": true }));
    let hook = server.connect(json!({}));

    // Pull request 9 was opened before anybody listened.
    let (taken, why) = is_taken(&hook.push("a1", "refs/heads/topic", &a1, &a2));
    assert!(!taken && why.contains("none of `topic` is known"), "{why}");
    assert!(is_taken(&hook.pull("a2", "synchronize", 9, "topic", &a2)).0);
    server.worked_off();
    for (id, action) in [("a3", "labeled"), ("a4", "synchronize")] {
        assert!(!is_taken(&hook.pull(id, action, 9, "topic", &a2)).0, "{action}");
    }
    // Known by now: its push is what is built.
    assert!(!is_taken(&hook.pull("a5", "synchronize", 9, "topic", &a3)).0);
    assert!(is_taken(&hook.push("a6", "refs/heads/topic", &a2, &a3)).0);

    // Opened before its push was told of.
    assert!(is_taken(&hook.pull("b1", "opened", 10, "other", &b1)).0);
    server.worked_off();
    let (taken, why) = is_taken(&hook.push("b2", "refs/heads/other", NONE, &b1));
    assert!(!taken && why.contains("for its pull request"), "{why}");
    // Away and back by force: the ref moved each time.
    assert!(is_taken(&hook.push("b3", "refs/heads/other", &b1, &b2)).0);
    server.worked_off();
    assert!(is_taken(&hook.push("b4", "refs/heads/other", &b2, &b1)).0);
    server.worked_off();

    // Closed, opened again and closed, at one commit and within minutes.
    for (id, action) in [("b5", "closed"), ("b6", "reopened"), ("b7", "closed")] {
        assert!(!is_taken(&hook.pull(id, action, 10, "other", &b1)).0, "{action}");
    }
    let (taken, why) = is_taken(&hook.push("b8", "refs/heads/other", &b1, &b3));
    assert!(!taken && why.contains("none of `other` is known"), "{why}");
    // A push that was left out meanwhile is built when the pull request is opened again.
    assert!(is_taken(&hook.pull("b9", "reopened", 10, "other", &b3)).0);
    let of = |branch: &str, commits: &[&String]| -> Vec<String> {
        commits.iter().map(|commit| format!("{branch} {commit}")).collect()
    };
    let expected = [of("topic", &[&a2, &a3]), of("other", &[&b1, &b2, &b1, &b3])].concat();
    assert_eq!(server.all_built(), expected);
}

#[test]
fn a_pull_request_that_names_the_beginning_of_its_commit_is_built_once() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "main");
    work.git(&["switch", "--quiet", "-c", "topic"]);
    let [head, next] = ["one", "two"].map(|name| work.commit(name, name));
    work.git(&["branch", "keep", &next]);
    work.git(&["reset", "--quiet", "--hard", &head]);
    server.register(&work.url());
    server.set(json!({ "is_build_prs_only": true }));
    let hook = server.connect(json!({ "forge": "bitbucket_cloud" }));
    let repository = json!({ "uuid": "{r1}", "full_name": "acme/hello" });
    let created = |id: &str| {
        let place = |name: &str| json!({ "branch": { "name": name }, "commit": { "hash": &id[..12] }, "repository": repository });
        json!({ "pullrequest": { "id": 8, "title": "T", "state": "OPEN", "source": place("topic"), "destination": place("main") },
            "repository": repository, "actor": { "display_name": "Ada" } })
    };
    let pushed = |before: Option<&str>, after: &str| {
        let at = |id: &str| json!({ "type": "branch", "name": "topic", "target": { "hash": id } });
        json!({ "push": { "changes": [{ "old": before.map(at), "new": at(after) }] },
            "repository": repository, "actor": { "display_name": "Ada" } })
    };
    assert!(is_taken(&hook.bitbucket("pullrequest:created", "c1", &created(&head))).0);
    server.worked_off();
    assert!(!is_taken(&hook.bitbucket("repo:push", "c2", &pushed(None, &head))).0);
    work.git(&["reset", "--quiet", "--hard", &next]);
    assert!(!is_taken(&hook.bitbucket("pullrequest:updated", "c3", &created(&next))).0);
    assert!(is_taken(&hook.bitbucket("repo:push", "c4", &pushed(Some(&head), &next))).0);
    assert_eq!(server.all_built(), [format!("topic {head}"), format!("topic {next}")]);
    // The branch is elsewhere by force when a pull request is read: its push told of the whole commit.
    let other = work.commit("three", "three");
    work.git(&["branch", "keep-other", &other]);
    work.git(&["reset", "--quiet", "--hard", &head]);
    let late = work.commit("four", "four");
    let mut closed = created(&next);
    closed["pullrequest"]["state"] = json!("DECLINED");
    hook.bitbucket("pullrequest:rejected", "c5", &closed);
    assert!(!is_taken(&hook.bitbucket("repo:push", "c6", &pushed(Some(&next), &other))).0);
    let mut another = created(&other);
    another["pullrequest"]["id"] = json!(9);
    assert!(is_taken(&hook.bitbucket("pullrequest:created", "c7", &another)).0);
    assert!(is_taken(&hook.bitbucket("repo:push", "c8", &pushed(Some(&other), &late))).0);
    let built = server.all_built();
    assert_eq!(built[2..], [format!("topic {other}"), format!("topic {late}")]);
}

#[test]
fn a_pull_request_of_a_fork_that_goes_back_is_built_and_what_a_setting_kept_back_is_as_well() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    work.commit("main", "main");
    let [first, second] = ["one", "two"].map(|name| work.commit(name, name));
    server.register(&work.url());
    let hook = server.connect(json!({}));
    let head = |commit: &str| work.git(&["update-ref", "refs/pull/12/head", commit]);
    let told = |id: &str, action: &str, before: &str, head: &str| {
        let mut body = pull(action, 12, head, 99);
        if action == "synchronize" {
            (body["before"], body["after"]) = (json!(before), json!(head));
        }
        is_taken(&hook.github("pull_request", id, &body))
    };
    head(&first);
    let (taken, why) = told("f1", "opened", NONE, &first);
    assert!(!taken && why.contains("not built here"), "{why}");
    server.set(json!({ "enable_building_fork_prs": true }));
    assert!(told("f2", "opened", NONE, &first).0, "nothing was built of it yet");
    server.worked_off();
    let (taken, why) = told("f3", "opened", NONE, &first);
    assert!(!taken && why.contains("told of before") && why.contains("built at this commit"), "{why}");
    head(&second);
    assert!(told("f4", "synchronize", &first, &second).0);
    server.worked_off();
    head(&first);
    assert!(told("f5", "synchronize", &second, &first).0, "it went back");
    server.worked_off();
    assert!(!told("f6", "reopened", NONE, &first).0, "built at this commit");
    let expected = [&first, &second, &first].map(|commit| format!("pull/12 {commit}"));
    assert_eq!(server.all_built(), expected);
}

#[test]
fn of_a_delivery_that_holds_many_changes_those_that_started_nothing_are_shown_first() {
    let server = Server::start();
    server.project();
    let work = Work::new(server.folder.path());
    let commit = work.commit("main", "main");
    work.git(&["tag", "tree", "HEAD^{tree}"]);
    let tree = work.git(&["rev-parse", "tree"]);
    let hook = server.connect(json!({ "forge": "git" }));
    server.register(&work.url());
    let mut changes: Vec<Value> = (0..30)
        .map(|n| {
            let name = format!("b{n}");
            work.git(&["branch", &name]);
            json!({ "ref": format!("refs/heads/{name}"), "before": commit, "after": commit })
        })
        .collect();
    for change in &mut changes {
        change["before"] = json!("1".repeat(40));
    }
    changes.push(json!({ "ref": "refs/heads/gone", "before": "1".repeat(40), "after": commit }));
    changes.push(json!({ "ref": "refs/tags/tree", "before": NONE, "after": tree }));
    let body = json!({ "repository": "app.git", "pusher": "ada", "changes": changes }).to_string();
    let signature = signed(&hook.secret, &body);
    let headers = [JSON, ("X-Runlet-Event", "push"), ("X-Runlet-Signature-256", &*signature)];
    assert_eq!(hook.send(&headers, body.as_bytes()).status, 202);
    crate::support::poll("all of them to be worked off", || {
        let listed = server.call("GET", &format!("{PROJECT}/deliveries"), None);
        match listed["items"][0]["changes_by_state"]["waiting"].is_null() {
            true => Ok(()),
            false => Err(listed.to_string()),
        }
    });
    let listed = server.call("GET", &format!("{PROJECT}/deliveries"), None);
    let item = &listed["items"][0];
    let shown = item["changes"].as_array().unwrap();
    assert_eq!((&shown[0]["name"], &shown[0]["state"]), (&json!("refs/heads/gone"), &json!("skipped")));
    assert_eq!((&shown[1]["name"], &shown[1]["state"]), (&json!("refs/tags/tree"), &json!("skipped")));
    assert!(shown[1]["message"].as_str().unwrap().contains("leads to a tree"), "{}", shown[1]);
    assert_eq!(
        (shown.len(), &item["change_count"], &item["changes_by_state"]),
        (20, &json!(32), &json!({ "skipped": 2, "started": 30 }))
    );
    let said = server.admin(&["project", "deliveries", "gh/acme/hello"], "");
    let id = item["id"].to_string();
    let more = format!("and 12 more (in all 2 skipped, 30 started): `--changes {id}` lists them");
    assert!(said.contains(&more), "{said}");
    let all = server.admin(&["project", "deliveries", "gh/acme/hello", "--changes", &id], "");
    assert_eq!(all.lines().filter(|line| line.contains("refs/")).count(), 32, "{all}");
    let page = server.call("GET", &format!("{PROJECT}/deliveries/{id}/changes?limit=31"), None);
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next_page_token"]), (31, &json!("31")));
}
