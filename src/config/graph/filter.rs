//! `filters` of a workflow entry: an expression, or lists of branches and tags.

use crate::config::language::{ConditionOf, Language, Scope};
use crate::config::session::present;
use crate::config::syntax::Pattern;
use crate::config::values::{Map, Node};

/// Whether an entry stays in its workflow.
pub(crate) fn keeps(
    language: &Language<'_>,
    filters: Option<&Node>,
    scope: &Scope,
    what: &str,
) -> Option<bool> {
    let what = format!("`filters` of {what}");
    let Some(node) = filters.filter(|node| !node.is_null()) else {
        return Some(
            git(language, "pipeline.git.tag").is_none() || git(language, "pipeline.git.branch").is_some(),
        );
    };
    if node.as_scalar().is_some() {
        return language.condition(node, scope, ConditionOf::Workflow);
    }
    let node = language.substitute(node, scope)?;
    let map = language.read.expect_map(&node, &what)?;
    language.read.check_keys(map, &what, &["branches", "tags"], true);
    // Both are read, so that both are checked.
    let branches = git_filter(language, map, "branches", &what, git(language, "pipeline.git.branch"));
    let tags = git_filter(language, map, "tags", &what, git(language, "pipeline.git.tag"));
    let (branches, tags) = (branches?, tags?);
    Some(match (git(language, "pipeline.git.branch"), git(language, "pipeline.git.tag")) {
        (None, Some(_)) => tags.unwrap_or(false),
        (Some(_), None) => branches.unwrap_or(true),
        // Branches come first; filters without them go by tags.
        (Some(_), Some(_)) => branches.or(tags).unwrap_or(true),
        // A config that is compiled without a revision is shown whole.
        (None, None) => true,
    })
}

fn git(language: &Language<'_>, name: &str) -> Option<String> {
    language
        .input
        .values
        .get(name)
        .and_then(|value| value.as_str())
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// The verdict of `only` and `ignore` on a name; `None` inside when neither is there.
fn git_filter(
    language: &Language<'_>,
    map: &Map,
    key: &str,
    what: &str,
    name: Option<String>,
) -> Option<Option<bool>> {
    let Some(node) = present(map, key) else { return Some(None) };
    let what = format!("`{key}` of {what}");
    let map = language.read.expect_map(node, &what)?;
    language.read.check_keys(map, &what, &["only", "ignore"], true);
    let only = git_list(language, map, "only", &what)?;
    let ignore = git_list(language, map, "ignore", &what)?;
    let name = name.unwrap_or_default();
    let any = |list: &[NamePattern]| list.iter().any(|pattern| pattern.is_match(&name));
    Some(match (only, ignore) {
        (Some(only), _) => Some(any(&only)),
        (None, Some(ignore)) => Some(!any(&ignore)),
        (None, None) => None,
    })
}

fn git_list(language: &Language<'_>, map: &Map, key: &str, what: &str) -> Option<Option<Vec<NamePattern>>> {
    let Some(node) = present(map, key) else { return Some(None) };
    let mut patterns = Vec::new();
    for text in language.read.text_list(node, format_args!("`{key}` of {what}"))? {
        match NamePattern::new(&text) {
            Ok(pattern) => patterns.push(pattern),
            Err(message) => {
                language.report.error(node.pos, message);
                return None;
            }
        }
    }
    Some(Some(patterns))
}

/// A name, or a regular expression between slashes that matches the whole name.
pub(crate) enum NamePattern {
    Exact(String),
    Regex(Pattern),
}

impl NamePattern {
    /// Reads an item of a filter. The error is a sentence for people.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(pattern) => Pattern::new(pattern).map(Self::Regex),
            None => Ok(Self::Exact(text.to_owned())),
        }
    }

    /// Whether a name is the one that is meant, or one of them.
    pub(crate) fn is_match(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => text == name,
            Self::Regex(pattern) => pattern.is_match(name),
        }
    }
}
