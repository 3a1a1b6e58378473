//! `runlet exec --list`: workflows and jobs, and why some of them do not run.

use super::options::Options;
use crate::config::{Compiled, JobKind, WorkflowJob};
use crate::server::pipelines::types::Trigger;

/// The list, as text for people.
pub(super) fn text(compiled: &Compiled, options: &Options, trigger: &Trigger) -> String {
    let mut text = String::new();
    if compiled.setup {
        text += "a setup config: its jobs choose the config that the pipeline goes on with\n";
    }
    for workflow in &compiled.workflows {
        let never = match workflow.schedules.is_empty() {
            true => "",
            false => ": does not run, since it has schedules",
        };
        text += &format!("workflow {}{never}\n", workflow.name);
        for job in &workflow.jobs {
            text += &format!("  {} {}\n", job.name, about(job, options));
        }
        for name in left_out(compiled, &workflow.name).flatten() {
            text += &format!("  {name}: does not run, since its filters leave out {}\n", built(trigger));
        }
    }
    let mut shown: Vec<&str> = compiled.workflows.iter().map(|workflow| workflow.name.as_str()).collect();
    for part in &compiled.left_out {
        if !shown.contains(&part.workflow.as_str()) {
            shown.push(&part.workflow);
            let why = match part.job {
                None => "since its condition does not hold (`when` or `unless`)".to_owned(),
                Some(_) => format!("since the filters of all its jobs leave out {}", built(trigger)),
            };
            text += &format!("workflow {}: does not run, {why}\n", part.workflow);
        }
    }
    text
}

fn left_out<'a>(compiled: &'a Compiled, workflow: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    compiled.left_out.iter().filter(move |part| part.workflow == workflow).map(|part| part.job.as_deref())
}

fn about(job: &WorkflowJob, options: &Options) -> String {
    let waits: Vec<&str> = job.requires.iter().map(|requirement| requirement.job.as_str()).collect();
    let after = if waits.is_empty() { String::new() } else { format!(" (after {})", waits.join(", ")) };
    match &job.kind {
        JobKind::Approval if super::watch::is_approved(&options.approve, &job.name) => {
            format!("[approval, given]{after}")
        }
        JobKind::Approval => format!("[approval: `--approve {}` gives it]{after}", job.name),
        JobKind::Build { job, .. } if job.parallelism > 1 => format!("[{} nodes]{after}", job.parallelism),
        _ => after.trim_start().to_owned(),
    }
}

fn built(trigger: &Trigger) -> String {
    match trigger.revision.as_ref().map(|revision| (&revision.branch, &revision.tag)) {
        Some((_, Some(tag))) => format!("the tag `{tag}`"),
        Some((Some(branch), _)) => format!("the branch `{branch}`"),
        _ => "this revision".to_owned(),
    }
}
