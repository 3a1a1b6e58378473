//! The payloads of every forge, as they are documented.
#![expect(clippy::unwrap_used, reason = "a test without its payload should fail loudly")]

use super::*;
use crate::server::pipelines::forge::event::{Action, Pull};

/// A payload in which `<a>` is forty times `a`.
fn filled(text: &str) -> String {
    ["a", "b", "c", "d", "0"]
        .iter()
        .fold(text.to_owned(), |text, c| text.replace(&format!("<{c}>"), &c.repeat(40)))
}

fn of(forge: Forge, event: &str, text: &str) -> Delivery {
    read(forge, event, filled(text).as_bytes()).unwrap()
}

fn push_of(forge: Forge, event: &str, text: &str) -> Push {
    match of(forge, event, text).changes.remove(0) {
        Event::Push(push) => push,
        other => unreachable!("{other:?}"),
    }
}

fn pull_of(forge: Forge, event: &str, text: &str) -> Pull {
    match of(forge, event, text).changes.remove(0) {
        Event::Pull(pull) => pull,
        other => unreachable!("{other:?}"),
    }
}

const GH_PUSH: &str = r#"{"ref":"refs/heads/main","before":"<a>","after":"<b>","created":false,"deleted":false,"commits":[{"id":"<b>","message":"Fix\n\nlonger"}],"head_commit":{"id":"<b>","message":"Fix\n\nlonger"},"repository":{"id":7,"full_name":"acme/app","default_branch":"main"},"pusher":{"name":"ada"},"sender":{"login":"ada","id":1,"type":"User"}}"#;
const GH_TAG: &str = r#"{"ref":"refs/tags/v1","before":"<0>","after":"<c>","created":true,"deleted":false,"head_commit":{"id":"<b>","message":"Fix"},"repository":{"id":7,"full_name":"acme/app"},"sender":{"login":"ada"}}"#;
const GH_DELETION: &str = r#"{"ref":"refs/heads/old","before":"<a>","after":"<0>","deleted":true,"commits":[],"head_commit":null,"repository":{"id":7,"full_name":"acme/app"},"sender":{"login":"ada"}}"#;
const GH_BRANCH: &str = r#"{"ref":"refs/heads/topic","before":"<0>","after":"<b>","created":true,"deleted":false,"commits":[],"head_commit":{"id":"<b>","message":"Fix"},"repository":{"id":7,"full_name":"acme/app"},"sender":{"login":"ada"}}"#;
const GH_FORK: &str = r#"{"action":"synchronize","number":12,"before":"<a>","after":"<b>","pull_request":{"number":12,"title":"Add x","html_url":"https://github.example/acme/app/pull/12","draft":false,"merged":false,"user":{"login":"eve"},"head":{"ref":"patch-1","sha":"<b>","repo":{"id":99,"full_name":"eve/app","name":"app","fork":true,"owner":{"login":"eve"}}},"base":{"ref":"main","sha":"<d>","repo":{"id":7,"full_name":"acme/app"}}},"repository":{"id":7,"full_name":"acme/app"},"sender":{"login":"eve"}}"#;
const GT_TEST: &str = r#"{"ref":"refs/heads/main","before":"<b>","after":"<b>","commits":[{"id":"<b>","message":"Fix"}],"head_commit":{"id":"<b>","message":"Fix"},"repository":{"id":3,"full_name":"acme/app"},"sender":{"login":"ada"}}"#;
const GT_PULL: &str = r#"{"action":"synchronized","number":4,"pull_request":{"number":4,"title":"T","html_url":"https://gitea.example/acme/app/pulls/4","draft":false,"head":{"ref":"topic","sha":"<b>","repo_id":3,"repo":{"id":3,"full_name":"acme/app"}},"base":{"ref":"main","sha":"<d>","repo_id":3,"repo":{"id":3,"full_name":"acme/app"}}},"repository":{"id":3,"full_name":"acme/app"},"sender":{"login":"ada"}}"#;
const GL_PUSH: &str = r#"{"object_kind":"push","before":"<a>","after":"<b>","ref":"refs/heads/main","checkout_sha":"<b>","user_username":"ada","project_id":15,"project":{"id":15,"path_with_namespace":"grp/sub/app"},"commits":[{"id":"<b>","message":"Fix"}],"total_commits_count":1}"#;
const GL_TAG: &str = r#"{"object_kind":"tag_push","before":"<0>","after":"<c>","ref":"refs/tags/v1","checkout_sha":"<b>","user_username":"ada","project_id":15,"project":{"id":15,"path_with_namespace":"grp/sub/app"},"commits":[],"total_commits_count":0}"#;
const GL_NEW: &str = r#"{"object_kind":"merge_request","user":{"username":"ada"},"project":{"id":15,"path_with_namespace":"grp/sub/app"},"object_attributes":{"iid":3,"action":"update","oldrev":"<a>","title":"T","url":"u","source_branch":"topic","target_branch":"main","source_project_id":15,"target_project_id":15,"last_commit":{"id":"<b>"}}}"#;
const GL_EDIT: &str = r#"{"object_kind":"merge_request","user":{"username":"ada"},"project":{"id":15},"object_attributes":{"iid":3,"action":"update","title":"New","source_branch":"topic","target_branch":"main","source_project_id":15,"target_project_id":15,"last_commit":{"id":"<b>"}}}"#;
const BC_PUSH: &str = r#"{"push":{"changes":[{"closed":false,"old":{"type":"branch","name":"main","target":{"hash":"<a>"}},"new":{"type":"branch","name":"main","target":{"hash":"<b>","message":"Fix\n"}}},{"closed":true,"old":{"type":"branch","name":"old","target":{"hash":"<a>"}},"new":null}]},"repository":{"uuid":"{r1}","full_name":"acme/app"},"actor":{"display_name":"Ada"}}"#;
const BC_PULL: &str = r#"{"pullrequest":{"id":8,"title":"T","links":{"html":{"href":"https://bitbucket.org/acme/app/pull-requests/8"}},"source":{"branch":{"name":"topic"},"commit":{"hash":"bbbbbbbbbbbb"},"repository":{"uuid":"{r1}","full_name":"acme/app"}},"destination":{"branch":{"name":"main"},"commit":{"hash":"dddddddddddd"}}},"repository":{"uuid":"{r1}","full_name":"acme/app"},"actor":{"display_name":"Ada"}}"#;
const BDC_PUSH: &str = r#"{"eventKey":"repo:refs_changed","actor":{"name":"ada"},"repository":{"id":1,"slug":"app","project":{"key":"ACME"}},"changes":[{"ref":{"id":"refs/heads/main","type":"BRANCH"},"fromHash":"<a>","toHash":"<b>","type":"UPDATE"},{"ref":{"id":"refs/heads/old"},"fromHash":"<a>","toHash":"<0>","type":"DELETE"}]}"#;

#[test]
fn pushes_of_every_forge_say_the_same() {
    for (forge, event, text, id, name) in [
        (Forge::GitHub, "push", GH_PUSH, "7", "acme/app"),
        (Forge::Gitea, "push", GH_PUSH, "7", "acme/app"),
        (Forge::GitLab, "Push Hook", GL_PUSH, "15", "grp/sub/app"),
        (Forge::BitbucketCloud, "repo:push", BC_PUSH, "{r1}", "acme/app"),
        (Forge::BitbucketDc, "repo:refs_changed", BDC_PUSH, "1", "ACME/app"),
    ] {
        let repository = of(forge, event, text).repository.unwrap();
        assert_eq!((repository.id.as_str(), repository.full_name.as_str()), (id, name), "{forge}");
        let push = push_of(forge, event, text);
        assert_eq!(
            (&*push.reference, &*push.before, &*push.commit),
            ("refs/heads/main", &*"a".repeat(40), &*"b".repeat(40)),
            "{forge}"
        );
        assert!(!push.is_deletion() && !push.brings_nothing && !push.is_test);
        let login = if forge == Forge::BitbucketCloud { "Ada" } else { "ada" };
        assert_eq!(push.actor.login, login);
        assert!(push.message.is_none_or(|message| message.starts_with("Fix")));
    }
}

#[test]
fn tags_deletions_and_empty_branches_are_seen_for_what_they_are() {
    for (forge, text) in [(Forge::GitHub, GH_TAG), (Forge::GitLab, GL_TAG)] {
        let push = push_of(forge, "push", text);
        assert_eq!((push.tag(), push.branch()), (Some("v1"), None));
        assert_eq!((push.after, push.commit), ("c".repeat(40), "b".repeat(40)), "{forge}");
        assert!(!push.brings_nothing);
    }
    assert!(push_of(Forge::GitHub, "push", GH_DELETION).is_deletion());
    let sha256 = GH_PUSH.replace("<a>", &"0".repeat(64)).replace("<b>", &"0".repeat(64));
    assert!(push_of(Forge::GitHub, "push", &sha256).is_deletion());
    let gone = GL_PUSH
        .replace(r#""checkout_sha":"<b>""#, r#""checkout_sha":null"#)
        .replace(r#""after":"<b>""#, r#""after":"<0>""#);
    assert!(push_of(Forge::GitLab, "Push Hook", &gone).is_deletion());
    assert!(push_of(Forge::GitHub, "push", GH_BRANCH).brings_nothing);
    assert!(push_of(Forge::Gitea, "push", GT_TEST).is_test);
    for (forge, event, text) in
        [(Forge::BitbucketCloud, "repo:push", BC_PUSH), (Forge::BitbucketDc, "repo:refs_changed", BDC_PUSH)]
    {
        let changes = of(forge, event, text).changes;
        assert!(
            changes.len() == 2 && matches!(&changes[1], Event::Push(push) if push.is_deletion()),
            "{forge}"
        );
    }
}

#[test]
fn the_message_is_that_of_the_newest_commit() {
    let older = r#""commits":[{"id":"<a>","message":"Docs [skip ci]"},"#;
    for (forge, event, text) in [(Forge::GitHub, "push", GH_PUSH), (Forge::GitLab, "Push Hook", GL_PUSH)] {
        let message = push_of(forge, event, &text.replace(r#""commits":["#, older)).message.unwrap();
        assert!(message.starts_with("Fix"), "{forge}: {message}");
    }
}

#[test]
fn pull_requests_of_every_forge_say_the_same() {
    let fork = pull_of(Forge::GitHub, "pull_request", GH_FORK);
    assert!(fork.is_fork && fork.action == Action::Synchronize && fork.branch() == "pull/12");
    assert_eq!((fork.fork_owner.as_deref(), fork.fork_name.as_deref()), (Some("eve"), Some("app")));
    assert_eq!(fork.reference.as_deref(), Some("refs/pull/12/head"));
    let gone = filled(GH_FORK).replace(
        r#""repo":{"id":99,"full_name":"eve/app","name":"app","fork":true,"owner":{"login":"eve"}}"#,
        r#""repo":null"#,
    );
    assert!(pull_of(Forge::GitHub, "pull_request", &gone).is_fork, "its fork was deleted");
    let own = pull_of(Forge::Gitea, "pull_request", GT_PULL);
    assert!(!own.is_fork && own.action == Action::Synchronize && own.branch() == "topic");
    let own = pull_of(Forge::GitLab, "Merge Request Hook", GL_NEW);
    assert!(!own.is_fork && own.number == 3 && own.action == Action::Synchronize);
    assert_eq!(own.reference.as_deref(), Some("refs/merge-requests/3/head"));
    assert_eq!(pull_of(Forge::GitLab, "Merge Request Hook", GL_EDIT).action, Action::Edited);
    let own = pull_of(Forge::BitbucketCloud, "pullrequest:created", BC_PULL);
    assert!(!own.is_fork && own.head == "b".repeat(12) && own.action == Action::Opened);
}

#[test]
fn pull_requests_whose_head_is_gone_are_closed_and_otherwise_nothing() {
    const DC: &str = r#"{"actor":{"name":"ada"},"pullRequest":{"id":5,"fromRef":{"displayId":"topic","latestCommit":"<b>","repository":{"id":1}},"toRef":{"displayId":"main","repository":{"id":1,"slug":"app","project":{"key":"ACME"}}}}}"#;
    let without = |text: &str, parts: &[(&str, &str)]| {
        parts.iter().fold(filled(text), |text, (from, to)| {
            let from = filled(from);
            assert!(text.contains(&from), "{from}");
            text.replace(&from, to)
        })
    };
    for (forge, closed, other, text, number) in [
        (
            Forge::GitHub,
            ("pull_request", r#""action":"closed""#),
            ("pull_request", r#""action":"opened""#),
            without(
                GH_FORK,
                &[
                    (r#""ref":"patch-1","sha":"<b>""#, r#""ref":null,"sha":null"#),
                    (r#""action":"synchronize""#, "ACTION"),
                ],
            ),
            12,
        ),
        (
            Forge::GitLab,
            ("Merge Request Hook", r#""action":"merge""#),
            ("Merge Request Hook", r#""action":"update","oldrev":"x""#),
            without(
                GL_EDIT,
                &[
                    (r#""last_commit":{"id":"<b>"}"#, r#""last_commit":null"#),
                    (r#""action":"update""#, "ACTION"),
                ],
            ),
            3,
        ),
        (
            Forge::BitbucketCloud,
            ("pullrequest:fulfilled", ""),
            ("pullrequest:updated", ""),
            without(
                BC_PULL,
                &[(
                    r#""branch":{"name":"topic"},"commit":{"hash":"bbbbbbbbbbbb"}"#,
                    r#""branch":null,"commit":null"#,
                )],
            ),
            8,
        ),
        (
            Forge::BitbucketDc,
            ("pr:declined", ""),
            ("pr:opened", ""),
            without(DC, &[(r#""latestCommit":"<b>","#, "")]),
            5,
        ),
    ] {
        let pull = pull_of(forge, closed.0, &text.replace("ACTION", closed.1));
        assert_eq!((pull.action, pull.number), (Action::Closed, number), "{forge}");
        let nothing = of(forge, other.0, &text.replace("ACTION", other.1));
        assert!(
            nothing.changes.is_empty() && nothing.remark.contains("no head commit"),
            "{forge}: {}",
            nothing.remark
        );
    }
}

#[test]
fn what_asks_for_nothing_is_said_and_what_is_broken_is_refused() {
    let ping = r#"{"zen":"Calm.","hook_id":5,"repository":{"id":7,"full_name":"acme/app"}}"#;
    for (forge, event, text) in [
        (Forge::GitHub, "ping", ping),
        (Forge::GitHub, "star", ping),
        (Forge::Gitea, "create", ping),
        (Forge::GitLab, "Note Hook", r#"{"object_kind":"note","project_id":15}"#),
        (Forge::BitbucketDc, "diagnostics:ping", r#"{"test":true}"#),
        (Forge::BitbucketCloud, "repo:fork", r#"{"repository":{"uuid":"{r1}","full_name":"a/b"}}"#),
        (Forge::GitHub, "push", &filled(GH_PUSH).replace("refs/heads/main", "refs/notes/x")),
    ] {
        let read = of(forge, event, text);
        assert!(read.changes.is_empty() && !read.remark.is_empty(), "{forge} {event}");
    }
    for (forge, event, text) in [
        (Forge::GitHub, "push", "{"),
        (Forge::GitHub, "push", "[]"),
        (Forge::GitHub, "push", r#"{"ref":"refs/heads/main"}"#),
        (Forge::GitLab, "Push Hook", r#"{"object_kind":"push"}"#),
        (Forge::Git, "push", r#"{"repository":"r"}"#),
        (Forge::GitHub, "push", &filled(GH_PUSH).replace("refs/heads/main", "refs/heads/--upload-pack=x y")),
        (Forge::GitHub, "push", &filled(GH_PUSH).replace(&"b".repeat(40), "HEAD")),
        (Forge::GitHub, "push", &"[".repeat(10_000)),
    ] {
        assert!(read(forge, event, text.as_bytes()).is_err(), "{forge} {text:.60}");
    }
}

#[test]
fn the_hook_of_a_plain_server_tells_of_every_ref() {
    let text = r#"{"repository":"app.git","changes":[{"ref":"refs/heads/a;$(x)-é\"q","before":"<a>","after":"<b>"},{"ref":"refs/tags/v1","before":"<0>","after":"<c>"},{"ref":"refs/notes/x","before":"<a>","after":"<b>"}],"pusher":"ada"}"#;
    let read = of(Forge::Git, "push", text);
    let names: Vec<_> = read
        .changes
        .iter()
        .map(|change| match change {
            Event::Push(push) => push.reference.as_str(),
            Event::Pull(_) | Event::Scheduled(_) => "",
        })
        .collect();
    assert_eq!(names, ["refs/heads/a;$(x)-é\"q", "refs/tags/v1"]);
}
