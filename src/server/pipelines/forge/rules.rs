//! Which changes start a pipeline: the settings of a project, and what is known of its refs and pull requests. No IO.

use crate::config::Pattern;
use crate::server::pipelines::compile::fits;
use crate::server::pipelines::forge::event::{Action, Event, Pull, Push};
use crate::server::pipelines::repository::Commit;
use crate::server::store::tables::projects::ProjectSettings;

/// Most entries of a list in the settings.
const MOST_ENTRIES: usize = 100;

/// Facts that are known when a change comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The default branch of the project.
    pub(super) default_branch: String,
    /// Whether a pull request from this branch of the repository is open.
    pub(super) has_pull: bool,
    /// Whether this branch and commit are built already, or about to be.
    pub(super) is_built: bool,
    /// Whether a push to this commit was left out because its pull request was not known.
    pub(super) is_left_out: bool,
}

/// Decision about a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BuildDecision {
    /// The change gets a pipeline, unless its commit says otherwise.
    Start,
    /// The change gets no pipeline, for this reason.
    Skip(String),
    /// The change gets no pipeline as long as no pull request from its branch is known.
    LeaveOut(String),
}

fn skip(why: impl Into<String>) -> BuildDecision {
    BuildDecision::Skip(why.into())
}

/// Decides about a change.
pub(super) fn decide(settings: &ProjectSettings, facts: &Facts, event: &Event) -> BuildDecision {
    match event {
        Event::Push(push) => decide_push(settings, facts, push),
        Event::Pull(pull) => decide_pull(settings, facts, pull),
        Event::Scheduled(_) => BuildDecision::Start,
    }
}

fn decide_push(settings: &ProjectSettings, facts: &Facts, push: &Push) -> BuildDecision {
    // Before the deletion: some forges try it by zeros on both sides.
    if push.is_test {
        return skip("the forge tries the hook: it works");
    }
    if push.is_deletion() {
        return skip(format!("`{}` was deleted", push.reference));
    }
    if push.tag().is_some() {
        return check_message(push.message.as_deref());
    }
    let Some(branch) = push.branch() else { return skip("it is no branch and no tag") };
    if push.brings_nothing && branch != facts.default_branch {
        return skip(made_of_known(branch));
    }
    if let Some(why) = filtered(settings, branch) {
        return skip(why);
    }
    let is_wanted = !settings.is_build_prs_only
        || branch == facts.default_branch
        || facts.has_pull
        || settings.pr_only_branch_overrides.iter().any(|pattern| matches(pattern, branch));
    if !is_wanted {
        return BuildDecision::LeaveOut(format!(
            "only branches with an open pull request are built here, and none of `{branch}` is known"
        ));
    }
    if facts.is_built {
        return skip(built_by_pull(branch));
    }
    check_message(push.message.as_deref())
}

fn decide_pull(settings: &ProjectSettings, facts: &Facts, pull: &Pull) -> BuildDecision {
    let number = pull.number;
    let has_new_head = matches!(pull.action, Action::Opened | Action::Reopened | Action::Synchronize);
    if pull.is_fork {
        if !settings.enable_building_fork_prs {
            return skip(format!(
                "pull request {number} comes from a fork, and those are not built here (`enable_building_fork_prs`)"
            ));
        }
        if !has_new_head || pull.closes() {
            return skip(format!("`{}` of pull request {number} starts nothing", pull.action.as_str()));
        }
        return match &pull.reference {
            None => {
                skip(format!("pull request {number} comes from a fork, and this forge keeps no ref of it"))
            }
            Some(_) if facts.is_built => {
                skip(format!("pull request {number} is built at this commit already"))
            }
            Some(_) => BuildDecision::Start,
        };
    }
    if pull.closes() {
        return skip(format!("pull request {number} was closed, and is forgotten"));
    }
    let begins = matches!(pull.action, Action::Opened | Action::Reopened);
    if !settings.is_build_prs_only || !(begins || facts.is_left_out) {
        return skip(format!("pull request {number} is remembered: pushes to its branch are what is built"));
    }
    if let Some(why) = filtered(settings, &pull.head_branch) {
        return skip(why);
    }
    // A push that was left out is one that nothing was built for, whatever was built of its commit before.
    if facts.is_built && !facts.is_left_out {
        return skip(format!("the branch `{}` is built at this commit already", pull.head_branch));
    }
    BuildDecision::Start
}

/// The reason why the settings leave a branch out.
fn filtered(settings: &ProjectSettings, branch: &str) -> Option<String> {
    let only = &settings.only_branches;
    if !only.is_empty() && !only.iter().any(|pattern| fits(pattern, branch)) {
        return Some(format!("the branch `{branch}` is none of those that are built here (`only_branches`)"));
    }
    let ignored = settings.ignore_branches.iter().find(|pattern| fits(pattern, branch))?;
    Some(format!("the branch `{branch}` is not built here (`ignore_branches` has `{ignored}`)"))
}

/// The reason why the files that changed start nothing. Where it is not known which have, that starts; none that has is
/// none that counts.
pub(super) fn filtered_paths(settings: &ProjectSettings, changed: Option<&[String]>) -> Option<String> {
    let changed = changed.filter(|_| wants_paths(settings))?;
    let counts = |file: &&String| {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, file));
        (settings.only_paths.is_empty() || any(&settings.only_paths)) && !any(&settings.ignore_paths)
    };
    let has_one = changed.iter().any(|file| counts(&file));
    (!has_one)
        .then(|| format!("none of the {} changed files counts (`only_paths`, `ignore_paths`)", changed.len()))
}

/// Whether the files that changed matter.
pub(super) fn wants_paths(settings: &ProjectSettings) -> bool {
    !settings.only_paths.is_empty() || !settings.ignore_paths.is_empty()
}

fn check_message(message: Option<&str>) -> BuildDecision {
    let message = message.unwrap_or_default();
    let (subject, body) = message.split_once('\n').unwrap_or((message, ""));
    let (subject, body) = (subject.to_owned(), body.trim_start().to_owned());
    if (Commit { subject, body, ..Commit::default() }).skips_ci() {
        skip(SAYS_SKIP)
    } else {
        BuildDecision::Start
    }
}

/// The sentence about a push whose commit its pull request had built.
pub(super) fn built_by_pull(branch: &str) -> String {
    format!("the branch `{branch}` is built at this commit already, for its pull request")
}

/// The sentence about a branch that was made without a commit of its own.
pub(super) fn made_of_known(branch: &str) -> String {
    format!("the branch `{branch}` was made of a commit that was there before")
}

/// The sentence about a commit that is not to be built.
pub(super) const SAYS_SKIP: &str = "the message of the commit says `[skip ci]`";

/// Whether a branch is what a regular expression says, as a whole. One that is none matches nothing.
fn matches(pattern: &str, branch: &str) -> bool {
    Pattern::new(pattern).is_ok_and(|pattern| pattern.is_match(branch))
}

/// Checks settings that a person wants; the error is a sentence.
pub fn check_settings(settings: &ProjectSettings) -> Result<(), String> {
    let lists = [
        &settings.pr_only_branch_overrides,
        &settings.only_branches,
        &settings.ignore_branches,
        &settings.only_paths,
        &settings.ignore_paths,
    ];
    if lists.iter().any(|list| list.len() > MOST_ENTRIES || list.iter().any(|entry| entry.len() > 500)) {
        return Err(format!("a list of a setting has at most {MOST_ENTRIES} entries of at most 500 bytes"));
    }
    for pattern in &settings.pr_only_branch_overrides {
        Pattern::new(pattern)?;
    }
    let path = &settings.config_path;
    let is_plain = path.is_empty()
        || !path.starts_with(['/', '-', ':'])
            && !path.contains('\0')
            && path.len() <= 500
            && !path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if !is_plain {
        return Err(format!("`{path}` is not the path of a file in the repository"));
    }
    if settings.status_prefix.chars().count() > 60 || settings.status_prefix.chars().any(char::is_control) {
        return Err("`status_prefix` has at most 60 visible characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::pipelines::forge::event::Actor;

    fn push(reference: &str, message: &str) -> Push {
        Push {
            reference: reference.to_owned(),
            before: "a".repeat(40),
            after: "b".repeat(40),
            commit: "b".repeat(40),
            message: Some(message.to_owned()),
            ..Push::default()
        }
    }

    fn pull(action: Action, is_fork: bool) -> Event {
        Event::Pull(Pull {
            action,
            number: 12,
            title: String::new(),
            url: String::new(),
            head_branch: "topic".to_owned(),
            head: "b".repeat(40),
            base_branch: "main".to_owned(),
            base: String::new(),
            reference: Some("refs/pull/12/head".to_owned()),
            is_fork,
            fork_owner: None,
            fork_name: None,
            is_draft: false,
            is_merged: false,
            author: "eve".to_owned(),
            actor: Actor::default(),
            ..Pull::default()
        })
    }

    fn starts(settings: &ProjectSettings, has_pull: bool, is_built: bool, event: &Event) -> bool {
        let facts = Facts { default_branch: "main".to_owned(), has_pull, is_built, ..Facts::default() };
        decide(settings, &facts, event) == BuildDecision::Start
    }

    #[test]
    fn pushes_are_built_unless_something_speaks_against_it() {
        let usual = ProjectSettings::default();
        let plain = |push: Push| starts(&usual, false, false, &Event::Push(push));
        assert!(plain(push("refs/heads/topic", "Fix")) && plain(push("refs/tags/v1", "Fix")));
        assert!(!plain(push("refs/heads/topic", "Fix [skip ci]")));
        assert!(!plain(push("refs/tags/v1", "Fix\n\n[ci skip]")));
        assert!(plain(push("refs/heads/topic", &format!("Fix\n\n{}[skip ci]", "x".repeat(250)))));
        assert!(!plain(push("refs/heads/topic", &format!("Fix\n\n{}[skip ci]", "x".repeat(241)))));
        assert!(!plain(Push { after: "0".repeat(64), ..push("refs/heads/topic", "") }), "a deletion");
        assert!(!plain(Push { brings_nothing: true, ..push("refs/heads/topic", "") }));
        assert!(!plain(Push { is_test: true, ..push("refs/heads/main", "") }));
        let zeros = Push { is_test: true, after: "0".repeat(40), ..push("refs/heads/main", "") };
        let tried = decide(&usual, &Facts::default(), &Event::Push(zeros));
        assert_eq!(tried, skip("the forge tries the hook: it works"));
        let only = ProjectSettings {
            only_branches: vec!["release/*".to_owned()],
            ignore_branches: vec!["release/old-*".to_owned()],
            ..usual
        };
        let of = |name: &str| starts(&only, false, false, &Event::Push(push(name, "")));
        assert!(of("refs/heads/release/1") && !of("refs/heads/topic") && !of("refs/heads/release/old-1"));
        assert!(of("refs/tags/v1"));
    }

    #[test]
    fn only_pull_requests_are_built_where_that_is_wanted() {
        let usual = ProjectSettings::default();
        assert!(!starts(&usual, false, false, &pull(Action::Opened, false)));
        let prs = ProjectSettings {
            is_build_prs_only: true,
            pr_only_branch_overrides: vec!["^rel.*$".to_owned()],
            ..ProjectSettings::default()
        };
        let topic = Event::Push(push("refs/heads/topic", ""));
        assert!(!starts(&prs, false, false, &topic) && starts(&prs, true, false, &topic));
        assert!(starts(&prs, false, false, &Event::Push(push("refs/heads/main", ""))));
        assert!(starts(&prs, false, false, &Event::Push(push("refs/heads/release", ""))));
        assert!(starts(&prs, true, false, &pull(Action::Opened, false)));
        assert!(!starts(&prs, true, true, &pull(Action::Opened, false)), "built already");
        assert!(!starts(&prs, true, false, &pull(Action::Synchronize, false)), "the push does it");
        assert!(!starts(&prs, true, true, &topic), "its pull request did it");
        let left_out = Facts { is_left_out: true, is_built: true, ..Facts::default() };
        for (action, is_built) in
            [(Action::Synchronize, true), (Action::Labeled, true), (Action::Closed, false)]
        {
            let decision = decide(&prs, &left_out, &pull(action, false));
            assert_eq!(decision == BuildDecision::Start, is_built, "{action:?}");
        }
        assert_ne!(decide(&usual, &left_out, &pull(Action::Synchronize, false)), BuildDecision::Start);
    }

    #[test]
    fn forks_are_built_where_that_is_wanted_only() {
        let usual = ProjectSettings::default();
        assert!(!starts(&usual, false, false, &pull(Action::Opened, true)));
        let forks = ProjectSettings { enable_building_fork_prs: true, ..usual };
        for (action, is_built) in [
            (Action::Opened, true),
            (Action::Synchronize, true),
            (Action::Closed, false),
            (Action::Labeled, false),
        ] {
            assert_eq!(starts(&forks, false, false, &pull(action, true)), is_built, "{action:?}");
        }
        assert!(!starts(&forks, false, true, &pull(Action::Reopened, true)));
    }

    #[test]
    fn changed_files_decide_where_they_are_known() {
        let settings = ProjectSettings {
            only_paths: vec!["web/*".to_owned()],
            ignore_paths: vec!["*.md".to_owned()],
            ..ProjectSettings::default()
        };
        let of = |files: &[&str]| {
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            filtered_paths(&settings, Some(&files)).is_none()
        };
        assert!(of(&["web/a.js"]) && of(&["web/README.md", "web/b.js"]));
        assert!(!of(&["web/README.md"]) && !of(&["api/a.rs"]) && !of(&[]));
        assert!(filtered_paths(&ProjectSettings::default(), Some(&[])).is_none(), "no file is asked for");
        assert!(filtered_paths(&settings, None).is_none());
        for path in ["/etc/x", "../x", "a//b", "-x", "a/./b"] {
            let bad = ProjectSettings { config_path: path.to_owned(), ..ProjectSettings::default() };
            assert!(check_settings(&bad).is_err(), "{path}");
        }
        let good = ProjectSettings { config_path: "web/ci.yml".to_owned(), ..ProjectSettings::default() };
        assert!(check_settings(&good).is_ok());
        let bad = ProjectSettings { pr_only_branch_overrides: vec!["(".to_owned()], ..good };
        assert!(check_settings(&bad).is_err());
    }
}
