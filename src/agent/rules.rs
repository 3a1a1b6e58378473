//! The operator's say about which jobs this host runs: lists of projects and branches that are allowed or denied, looked
//! at before anything of a job is touched. Values in, values out.

use crate::protocol::Task;
use crate::system::fits;

/// Lists of patterns, in which `*` stands for anything. An empty list of what is allowed allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `runner.allow_projects`: `ORGANIZATION/REPOSITORY`.
    pub allow_projects: Vec<String>,
    /// Projects whose tasks are refused, `runner.deny_projects`.
    pub deny_projects: Vec<String>,
    /// `runner.allow_branches`: names of branches, and `refs/tags/NAME`. A branch whose own name begins with `refs/` is
    /// `refs/heads/NAME`, so that none passes for a tag.
    pub allow_branches: Vec<String>,
    /// Branches whose tasks are refused, `runner.deny_branches`.
    pub deny_branches: Vec<String>,
}

impl Rules {
    /// The rule that a task is refused by, for people; `None` when it may run.
    pub(super) fn refuse(&self, task: &Task) -> Option<String> {
        let known = |name: &str| task.built_in.get(name).map(String::as_str);
        let project = known("CIRCLE_PROJECT_USERNAME").zip(known("CIRCLE_PROJECT_REPONAME"));
        // Forges do not tell apart what differs in upper and lower case only.
        let project = project.map(|(org, repo)| format!("{org}/{repo}").to_ascii_lowercase());
        let tag = known("CIRCLE_TAG").map(|tag| format!("refs/tags/{tag}"));
        let of_branch = |branch: &str| match branch.starts_with("refs/") {
            true => format!("refs/heads/{branch}"),
            false => branch.to_owned(),
        };
        let branch = tag.or_else(|| known("CIRCLE_BRANCH").map(of_branch));
        let lists = [
            ("project", "projects", project, &self.deny_projects, &self.allow_projects),
            ("branch", "branches", branch, &self.deny_branches, &self.allow_branches),
        ];
        for (what, key, name, denied, allowed) in lists {
            let name = name.as_deref();
            let has = |pattern: &&String| name.is_some_and(|name| fits(pattern, "*", name));
            let shown =
                name.map_or_else(|| format!("it has no {what}"), |name| format!("its {what} is `{name}`"));
            // A branch is denied by its bare name, too.
            let bare = name.and_then(|name| name.strip_prefix("refs/heads/"));
            let denies =
                |pattern: &&String| has(pattern) || bare.is_some_and(|bare| fits(pattern, "*", bare));
            if let Some(pattern) = denied.iter().find(denies) {
                return Some(format!("`runner.deny_{key}` has `{pattern}`, and {shown}"));
            }
            if !allowed.is_empty() && !allowed.iter().any(|pattern| has(&pattern)) {
                return Some(format!("`runner.allow_{key}` does not allow it: {shown}"));
            }
        }
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(built_in: &[(&str, &str)]) -> Task {
        let job = json!({"resource_class": "a/b", "environment": {}, "parallelism": 1, "steps": []});
        let mut task: Task = serde_json::from_value(json!({
            "id": "1", "token": "t", "allocation": "", "job_name": "j", "job_url": "", "job": job, "node_index": 0,
            "node_total": 1, "lease_seconds": 60, "heartbeat_wait_seconds": 20, "max_step_output_bytes": 1,
            "max_artifact_bytes": 1,
        }))
        .unwrap();
        task.built_in.extend(built_in.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        task
    }

    fn of(project: (&str, &str), branch: (&str, &str)) -> Task {
        let (org, repo) = project;
        task(&[("CIRCLE_PROJECT_USERNAME", org), ("CIRCLE_PROJECT_REPONAME", repo), branch])
    }

    #[test]
    fn a_rule_is_named_that_a_task_is_refused_by() {
        let list =
            |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
        let rules = Rules {
            allow_projects: list(&["acme/*", "other/app"]),
            deny_projects: list(&["acme/secret*"]),
            allow_branches: list(&["main", "release/*", "refs/tags/v*"]),
            deny_branches: list(&["release/*-draft"]),
        };
        for (project, branch, rule) in [
            (("Acme", "App"), ("CIRCLE_BRANCH", "main"), None),
            (("other", "app"), ("CIRCLE_TAG", "v1"), None),
            (
                ("other", "lib"),
                ("CIRCLE_BRANCH", "main"),
                Some("`runner.allow_projects` does not allow it: its project is `other/lib`"),
            ),
            (
                ("acme", "Secrets"),
                ("CIRCLE_BRANCH", "main"),
                Some("`runner.deny_projects` has `acme/secret*`, and its project is `acme/secrets`"),
            ),
            (
                ("acme", "app"),
                ("CIRCLE_BRANCH", "Main"),
                Some("`runner.allow_branches` does not allow it: its branch is `Main`"),
            ),
            (
                ("acme", "app"),
                ("CIRCLE_BRANCH", "refs/tags"),
                Some("`runner.allow_branches` does not allow it: its branch is `refs/heads/refs/tags`"),
            ),
            (
                ("acme", "app"),
                ("CIRCLE_BRANCH", "release/1-draft"),
                Some("`runner.deny_branches` has `release/*-draft`, and its branch is `release/1-draft`"),
            ),
            (
                ("acme", "app"),
                ("CIRCLE_TAG", "main"),
                Some("`runner.allow_branches` does not allow it: its branch is `refs/tags/main`"),
            ),
            (
                ("acme", "app"),
                ("CIRCLE_BRANCH", "refs/tags/v1"),
                Some("`runner.allow_branches` does not allow it: its branch is `refs/heads/refs/tags/v1`"),
            ),
            (("acme", "app"), ("X", ""), Some("`runner.allow_branches` does not allow it: it has no branch")),
        ] {
            assert_eq!(rules.refuse(&of(project, branch)).as_deref(), rule);
        }
        assert!(rules.refuse(&task(&[])).unwrap().contains("it has no project"));
        assert_eq!(Rules::default().refuse(&task(&[])), None);
        let denies = Rules { deny_branches: list(&["*"]), ..Rules::default() };
        assert_eq!(denies.refuse(&task(&[])), None, "what has no branch is on no denied one");
        let denies = Rules { deny_branches: list(&["refs/tags/v*"]), ..Rules::default() };
        assert!(denies.refuse(&of(("acme", "app"), ("CIRCLE_BRANCH", "refs/tags/v1"))).is_some());
        assert!(denies.refuse(&of(("acme", "app"), ("CIRCLE_TAG", "v1"))).is_some());
        assert!(denies.refuse(&of(("acme", "app"), ("CIRCLE_BRANCH", "v1"))).is_none());
    }
}
