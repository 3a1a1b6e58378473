//! `runlet exec --list`: workflows and jobs, and why some of them do not run.

use super::options::Options;
use super::style::word;
use crate::config::{Compiled, JobKind, RequiredStatus, WorkflowJob};
use crate::server::Preview;
use crate::server::pipelines::compile::Selection;
use std::collections::BTreeMap;
use std::path::Path;

/// Other configs beside the one that is listed, as paths below `root`: those that a setup config may go on with.
pub(super) fn beside(file: &Path, root: &Path) -> Vec<String> {
    let folder = file.parent().unwrap_or(root);
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let is_yaml = path.extension().is_some_and(|end| end == "yml" || end == "yaml");
        let text = std::fs::read_to_string(&path).ok().filter(|_| is_yaml && path != file);
        if text.is_some_and(|text| text.lines().any(|line| line.starts_with("workflows:"))) {
            found.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        }
    }
    found.sort();
    found
}

/// The list, as text for people. `continued` are configs that a setup config may go on with.
pub(super) fn text(preview: &Preview, options: &Options, continued: &[String]) -> String {
    let compiled = &preview.compiled;
    // A person who asks for a part of the config is told of that part.
    let is_part = options.workflow.is_some() || !options.jobs.is_empty();
    let mut text = String::new();
    if compiled.setup {
        text += "a setup config: which config the pipeline goes on with is known only when its jobs have run; the list ends with them\n";
    }
    for workflow in &compiled.workflows {
        let never = match workflow.schedules.is_empty() {
            true => "",
            false => ": does not run, since it has schedules",
        };
        text += &format!("workflow {}{never}\n", workflow.name);
        let kept_back = kept_back(&workflow.jobs, preview);
        for job in &workflow.jobs {
            let why = kept_back.get(job.name.as_str()).copied().flatten();
            let why = why.map_or_else(String::new, |first| format!(": does not run, since `{first}` cannot"));
            text += &format!("  {}{}{why}\n", job.name, about(job, &workflow.name, preview, options));
        }
        for name in left_out(compiled, &workflow.name).flatten().filter(|_| !is_part) {
            text += &format!("  {name}: does not run, since its filters leave out {}\n", preview.built);
        }
    }
    if compiled.setup {
        for file in continued {
            text += &format!("`{file}` may be what it goes on with: `--list --config {file}` lists that\n");
        }
    }
    if is_part {
        return text;
    }
    let mut shown: Vec<&str> = compiled.workflows.iter().map(|workflow| workflow.name.as_str()).collect();
    for part in &compiled.left_out {
        if !shown.contains(&part.workflow.as_str()) {
            shown.push(&part.workflow);
            let why = match part.job {
                None => "since its condition does not hold (`when` or `unless`)".to_owned(),
                Some(_) => format!("since the filters of all its jobs leave out {}", preview.built),
            };
            text += &format!("workflow {}: does not run, {why}\n", part.workflow);
        }
    }
    text
}

/// Jobs that do not run because of one that cannot run here, and that one's name; `None` for those that cannot
/// themselves.
fn kept_back<'a>(jobs: &'a [WorkflowJob], preview: &Preview) -> BTreeMap<&'a str, Option<&'a str>> {
    let cannot = jobs.iter().filter(|job| preview.cannot_run(&job.kind));
    let mut kept_back: BTreeMap<&str, Option<&str>> = cannot.map(|job| (job.name.as_str(), None)).collect();
    loop {
        let known = kept_back.len();
        for job in jobs.iter().filter(|job| !preview.cannot_run(&job.kind)) {
            let unmet = job.requires.iter().filter(|it| !it.statuses.contains(&RequiredStatus::NotRun));
            let first =
                unmet.filter_map(|it| Some((it.job.as_str(), *kept_back.get(it.job.as_str())?))).next();
            if let Some((direct, first)) = first {
                kept_back.insert(&job.name, Some(first.unwrap_or(direct)));
            }
        }
        if kept_back.len() == known {
            return kept_back;
        }
    }
}

fn left_out<'a>(compiled: &'a Compiled, workflow: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    compiled.left_out.iter().filter(move |part| part.workflow == workflow).map(|part| part.job.as_deref())
}

/// Whether `--approve` gives an approval.
fn is_given(workflow: &str, job: &WorkflowJob, compiled: &Compiled, options: &Options) -> bool {
    options.approve.iter().any(|given| Selection::of(given, compiled).has(workflow, job))
}

/// The rest of the line of a job.
fn about(job: &WorkflowJob, workflow: &str, preview: &Preview, options: &Options) -> String {
    let mut text = match &job.kind {
        JobKind::Approval if is_given(workflow, job, &preview.compiled, options) => {
            " [approval, given]".to_owned()
        }
        JobKind::Approval => {
            let others = preview.compiled.workflows.iter().filter(|other| other.name != workflow);
            let has_twin = others.flat_map(|other| &other.jobs).any(|other| other.name == job.name);
            let name = if has_twin { format!("{workflow}/{}", job.name) } else { job.name.clone() };
            format!(" [approval: `--approve {}` gives it]", word(&name))
        }
        JobKind::Build { job, .. } if job.parallelism > 1 => format!(" [{} nodes]", job.parallelism),
        _ => String::new(),
    };
    let waits: Vec<&str> = job.requires.iter().map(|requirement| requirement.job.as_str()).collect();
    if !waits.is_empty() {
        text += &format!(" (after {})", waits.join(", "));
    }
    match preview.remark(&job.kind) {
        Some(remark) => text + ": " + &remark,
        None => text,
    }
}
