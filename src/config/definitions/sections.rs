//! The sections `commands`, `executors` and `jobs` of a config or an orb, and `job-groups` of a config.

use super::package::{Definition, DefinitionBody, Definitions, Element};
use super::parameters;
use crate::config::language::Language;
use crate::config::session::present;
use crate::config::values::{Entry, Map, Node, Pos};
use std::collections::HashMap;
use std::rc::Rc;

/// Keys of an executor.
pub(crate) const EXECUTOR_KEYS: &[&str] = &[
    "docker",
    "machine",
    "macos",
    "resource_class",
    "shell",
    "working_directory",
    "environment",
    "parameters",
    "description",
];

/// Reads one of the sections `commands`, `executors` and `jobs`.
pub(crate) fn section(language: &Language<'_>, root: &Map, element: Element, package: usize) -> Definitions {
    let section = format!("{}s", element.word());
    let mut table = Definitions::new();
    let Some(node) = present(root, &section) else { return table };
    let Some(map) = language.read.expect_map(node, format_args!("`{section}`")) else { return table };
    let mut folded: HashMap<String, Rc<str>> = HashMap::new();
    for entry in &map.entries {
        check_name(language, &entry.key, entry.key_pos, element);
        if element == Element::Job {
            if let Some(other) = folded.insert(entry.key.to_lowercase(), entry.key.clone()) {
                let message = format!("the jobs `{other}` and `{}` differ only in case", entry.key);
                language.report.error(entry.key_pos, message);
            }
        }
        if let Some(body) = body(language, entry, element) {
            let definition =
                Definition { name: entry.key.clone(), pos: entry.key_pos, element, package, body };
            table.insert(entry.key.clone(), Rc::new(definition));
        }
    }
    table
}

fn body(language: &Language<'_>, entry: &Entry, element: Element) -> Option<DefinitionBody> {
    let what = format!("{} `{}`", element.word(), entry.key);
    if let Some(target) = entry.value.as_str() {
        return Some(DefinitionBody::Alias(target.clone()));
    }
    let map = language.read.expect_map(&entry.value, &what)?;
    match element {
        Element::Command => {
            language.read.check_keys(map, &what, &["steps", "parameters", "description"], false);
            check_steps_list(language, map, &what, entry.key_pos);
        }
        Element::Executor => language.read.check_keys(map, &what, EXECUTOR_KEYS, false),
        // Keys depend on the type of the job, which may need a parameter.
        Element::Job => {}
    }
    let parameters = parameters::declarations(language.read, map.get("parameters"), element.owner(), &what);
    Some(DefinitionBody::Own { map: map.clone(), parameters })
}

/// Checks that `steps` is there, a list, and not empty.
pub(crate) fn check_steps_list(language: &Language<'_>, map: &Map, what: &str, pos: Pos) -> Option<Node> {
    let Some(steps) = present(map, "steps") else {
        language.report.error(pos, format!("{what} has no `steps`"));
        return None;
    };
    match steps.as_seq() {
        // A compiled config, of version 2, may have lost all steps of a job to conditions.
        Some(seq) if !seq.items.is_empty() || !language.tags => Some(steps.clone()),
        Some(_) => {
            language.report.error(steps.pos, format!("`steps` of {what} is empty"));
            None
        }
        None => {
            language
                .report
                .error(steps.pos, format!("`steps` of {what} must be a list, not {}", steps.describe()));
            None
        }
    }
}

fn check_name(language: &Language<'_>, name: &str, pos: Pos, element: Element) {
    let rest = name.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if element == Element::Job {
        // Version 2 has no rules for names; compiled configs have names with a `/`.
        if language.tags {
            check_job_name(language, name, pos, "job");
        }
    } else if !(name.starts_with(|c: char| c.is_ascii_lowercase())
        && rest
        && !name.contains(|c: char| c.is_ascii_uppercase()))
    {
        let word = element.word();
        let rule = "starts with a lower-case letter and has only those, digits, `_` and `-`";
        let article = if element == Element::Executor { "an" } else { "a" };
        language.report.error(pos, format!("`{name}` is not the name of {article} {word}: it {rule}"));
    }
}

/// Checks the name of a job or a job group.
pub(crate) fn check_job_name(language: &Language<'_>, name: &str, pos: Pos, word: &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_- \t\n".contains(c);
    if !(name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(fits)) {
        let rule = "starts with a letter and has only letters, digits, spaces, `_` and `-`";
        language.report.error(pos, format!("`{name}` is not the name of a {word}: it {rule}"));
    }
}

/// Reads `job-groups`; names that clash with those of jobs are reported.
pub(crate) fn groups(language: &Language<'_>, root: &Map) -> HashMap<Rc<str>, Entry> {
    let mut groups = HashMap::new();
    let Some(node) = present(root, "job-groups") else { return groups };
    let Some(map) = language.read.expect_map(node, "`job-groups`") else { return groups };
    let jobs = present(root, "jobs").and_then(Node::as_map).cloned().unwrap_or_default();
    for entry in &map.entries {
        let what = format!("job group `{}`", entry.key);
        check_job_name(language, &entry.key, entry.key_pos, "job group");
        if jobs.get(&entry.key).is_some() {
            language.report.error(entry.key_pos, format!("`{}` is both a job and a job group", entry.key));
        }
        for section in ["commands", "workflows"] {
            if present(root, section).and_then(Node::as_map).is_some_and(|map| map.get(&entry.key).is_some())
            {
                language.report.warn(entry.key_pos, format!("{what} has the name of one of the `{section}`"));
            }
        }
        let Some(body) = language.read.expect_map(&entry.value, &what) else { continue };
        language.read.check_keys(body, &what, &["jobs"], true);
        match present(body, "jobs").and_then(Node::as_seq) {
            Some(list) if !list.items.is_empty() => {
                groups.insert(entry.key.clone(), entry.clone());
            }
            _ => language.report.error(entry.key_pos, format!("{what} needs `jobs`, a list of at least one")),
        }
    }
    groups
}
