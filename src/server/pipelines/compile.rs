//! Compiling a config as this control plane is set up, and the values that it is compiled with.

use crate::config::{self, Compiled, Diagnostics, Workflow, WorkflowJob};
use crate::server::ids::PipelineId;
use crate::server::pipelines::types::Trigger;
use crate::server::state::{Only, ServerSettings};
use crate::server::time::Millis;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A config that is to be compiled.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    /// Text of the config.
    pub config: String,
    /// Name of the config in errors.
    pub file_name: String,
    /// Values of pipeline parameters that whoever triggers gives, by name; the rest have their defaults.
    pub parameters: BTreeMap<String, Value>,
    /// `pipeline.*` values, by full name.
    pub values: BTreeMap<String, Value>,
    /// Stand-ins for values that are not known, for configs that no pipeline is made of.
    pub stand_ins: BTreeMap<String, Value>,
}

/// Compiles a config as this control plane is set up. It may take milliseconds: call it where blocking is
/// allowed.
pub(in crate::server) fn compile(
    settings: &ServerSettings,
    source: &ConfigSource,
) -> Result<Compiled, Diagnostics> {
    config::compile(&config::Input {
        source: &source.config,
        file_name: &source.file_name,
        parameters: &source.parameters,
        values: &source.values,
        stand_ins: &source.stand_ins,
        orbs: &settings.orbs,
        default_resource_class: settings.default_resource_class.as_deref(),
    })
}

/// Gathers the `pipeline.*` values of a new pipeline, by full name.
pub(in crate::server) fn pipeline_values(
    id: &PipelineId,
    number: i64,
    trigger: &Trigger,
    now: Millis,
) -> BTreeMap<String, Value> {
    let mut parts = trigger.slug.splitn(3, '/');
    let vcs = match parts.next().unwrap_or_default() {
        "gh" => "github",
        "bb" => "bitbucket",
        other => other,
    };
    let (org, repo) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    let mut set = |name: &str, value: Value| {
        values.insert(format!("pipeline.{name}"), value);
    };
    set("id", json!(id));
    set("number", json!(number));
    set("project.type", json!(vcs));
    set("project.slug", json!(format!("{vcs}/{org}/{repo}")));
    set("trigger.received_at", json!(now.to_string()));
    match &trigger.happened {
        None => {
            for name in ["trigger.type", "trigger_source", "event.name", "event.action"] {
                set(name, json!("api"));
            }
        }
        Some(happened) => {
            set("trigger.type", json!(happened.trigger));
            set("trigger_source", json!(trigger.trigger_type));
            set("event.name", json!(happened.event));
            set("event.action", json!(happened.action));
            happened.values.iter().for_each(|(name, value)| set(name, value.clone()));
        }
    }
    if trigger.is_sent_along {
        // Rules of contexts are written against it: such a config was reviewed by nobody.
        set("config_source", json!("api"));
    }
    if let Some(origin) = &trigger.config_origin {
        set("config.file_path", json!(trigger.file_name));
        set("config.ref", json!(origin.reference));
        set("config.sha", json!(origin.revision));
        set("config.repository.name", json!(format!("{org}/{repo}")));
        set(
            "config.repository.url",
            json!(trigger.revision.as_ref().map(|revision| &revision.repository_url)),
        );
    }
    if let Some(revision) = &trigger.revision {
        set("project.git_url", json!(revision.repository_url));
        set("git.repo_url", json!(revision.repository_url));
        set("git.repo_owner", json!(org));
        set("git.repo_name", json!(repo));
        set("git.revision", json!(revision.revision));
        set("git.commit.subject", json!(revision.subject));
        set("git.commit.body", json!(revision.body));
        if let Some(branch) = &revision.branch {
            set("git.branch", json!(branch));
            set("git.branch.is_default", json!(revision.is_default_branch));
        }
        if let Some(tag) = &revision.tag {
            set("git.tag", json!(tag));
        }
    }
    values
}

/// The ref that a pipeline with these `pipeline.*` values builds, for people.
pub(in crate::server) fn built(values: &BTreeMap<String, Value>) -> String {
    let text = |name: &str| values.get(name).and_then(Value::as_str);
    match (text("pipeline.git.tag"), text("pipeline.git.branch")) {
        (Some(tag), _) => format!("the tag `{tag}`"),
        (None, Some(branch)) => format!("the branch `{branch}`"),
        (None, None) => "this revision".to_owned(),
    }
}

/// Keeps what is wanted, of the workflows that a pipeline of now runs; the error is a sentence for people. `built` is
/// what the pipeline builds.
pub(in crate::server) fn narrow_to_run(
    compiled: &mut Compiled,
    only: &Only,
    built: &str,
) -> Result<(), String> {
    if only.is_empty() {
        return Ok(());
    }
    let mut whole = compiled.clone();
    compiled.workflows.retain(|workflow| workflow.schedules.is_empty());
    narrow(compiled, only, built).map_err(|why| match narrow(&mut whole, only, built) {
        Err(_) => why,
        Ok(()) => {
            let names = whole.workflows.iter().filter(|workflow| !workflow.schedules.is_empty());
            let names: Vec<String> = names.map(|workflow| format!("`{}`", workflow.name)).collect();
            format!("{why}; {} has schedules, and runs by them alone", names.join(", "))
        }
    })
}

/// The part of what is wanted that a config does not have, or does not run; why it does not run the first of it that it has.
pub(in crate::server) fn missing(compiled: &Compiled, only: &Only, built: &str) -> (Only, Option<String>) {
    let workflow = only.workflow.as_ref();
    let has_workflow = |wanted: &String| compiled.workflows.iter().any(|one| fits(wanted, &one.name));
    if workflow.is_some_and(|wanted| !has_workflow(wanted)) {
        // Jobs are looked for in that workflow alone.
        let why = compiled.left_out.iter().any(|part| workflow.is_some_and(|it| fits(it, &part.workflow)));
        let why = why.then(|| narrow(&mut compiled.clone(), only, built).err()).flatten();
        return (only.clone(), why);
    }
    let is_missing = |wanted: &&String| {
        let one = Only { workflow: only.workflow.clone(), jobs: vec![(*wanted).clone()] };
        narrow(&mut compiled.clone(), &one, built).is_err()
    };
    let jobs: Vec<String> = only.jobs.iter().filter(is_missing).cloned().collect();
    let why = jobs.iter().find_map(|job| left_out(compiled, workflow, job, built));
    (Only { workflow: None, jobs }, why)
}

/// Why a job that is wanted does not run, where filters leave it out.
fn left_out(compiled: &Compiled, workflow: Option<&String>, wanted: &str, built: &str) -> Option<String> {
    let of_workflow = |of: &str| workflow.is_none_or(|pattern| fits(pattern, of));
    let is_called = |of: &str, name: &str| is_named(wanted, of, name);
    let mut parts = compiled.left_out.iter().filter(|part| of_workflow(&part.workflow)).filter_map(|part| {
        let own = part.job.as_ref().filter(|job| is_called(&part.workflow, job));
        let name = own.or_else(|| part.other_names.iter().find(|name| is_called(&part.workflow, name)))?;
        Some((part, part.job.as_ref().unwrap_or(name)))
    });
    let (part, job) = parts.next()?;
    let why = match part.job {
        Some(_) => format!("its filters leave out what is built, {built}"),
        None => "the condition of its workflow does not hold (`when` or `unless`)".to_owned(),
    };
    Some(format!("the job `{job}` of the workflow `{}` does not run: {why}", part.workflow))
}

/// Keeps only the wanted workflows, and the wanted jobs with everything that they require; the error is a
/// sentence for people. `built` is what the pipeline builds.
pub fn narrow(compiled: &mut Compiled, only: &Only, built: &str) -> Result<(), String> {
    if let Some(wanted) = &only.workflow {
        let known: Vec<_> = applying(compiled).map(|workflow| workflow.name.clone()).collect();
        compiled.workflows.retain(|workflow| fits(wanted, &workflow.name));
        if compiled.workflows.is_empty() {
            if let Some(part) = compiled.left_out.iter().find(|part| fits(wanted, &part.workflow)) {
                let why = match part.job {
                    None => "its condition does not hold (`when` or `unless`)".to_owned(),
                    Some(_) => format!("the filters of all its jobs leave out what is built, {built}"),
                };
                return Err(format!(
                    "the workflow `{}` does not run: {why} (workflows that apply: {})",
                    part.workflow,
                    known.join(", ")
                ));
            }
            return Err(format!(
                "there is no workflow `{wanted}` to run (workflows that apply: {})",
                known.join(", ")
            ));
        }
    }
    if only.jobs.is_empty() {
        return Ok(());
    }
    let all = || compiled.workflows.iter().flat_map(jobs_of);
    let wanted: Vec<Selection<'_>> =
        only.jobs.iter().map(|pattern| Selection::of(pattern, compiled)).collect();
    let unknown = wanted.iter().find(|wanted| !all().any(|(of, job)| wanted.has(of, job)));
    if let Some(Selection { pattern: unknown, .. }) = unknown {
        let mut known: Vec<&str> = Vec::new();
        for (_, job) in all() {
            if !known.contains(&job.name.as_str()) {
                known.push(&job.name);
            }
        }
        let why = left_out(compiled, only.workflow.as_ref(), unknown, built)
            .unwrap_or_else(|| format!("there is no job `{unknown}` to run"));
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(format!("{why} (jobs that apply: {known})"));
    }
    for workflow in &mut compiled.workflows {
        let of = workflow.name.clone();
        let is_wanted = |job: &&WorkflowJob| wanted.iter().any(|wanted| wanted.has(&of, job));
        let mut kept: Vec<String> =
            workflow.jobs.iter().filter(is_wanted).map(|job| job.name.clone()).collect();
        let mut at = 0;
        while let Some(name) = kept.get(at).cloned() {
            let job = workflow.jobs.iter().find(|job| job.name == name);
            for requirement in job.iter().flat_map(|job| &job.requires) {
                if !kept.contains(&requirement.job) {
                    kept.push(requirement.job.clone());
                }
            }
            at += 1;
        }
        workflow.jobs.retain(|job| kept.contains(&job.name));
    }
    compiled.workflows.retain(|workflow| !workflow.jobs.is_empty());
    Ok(())
}

/// Workflows that a pipeline of now runs.
fn applying(compiled: &Compiled) -> impl Iterator<Item = &crate::config::Workflow> {
    compiled.workflows.iter().filter(|workflow| workflow.schedules.is_empty())
}

/// The jobs of a workflow, with its name.
fn jobs_of(workflow: &Workflow) -> impl Iterator<Item = (&str, &WorkflowJob)> {
    workflow.jobs.iter().map(|job| (workflow.name.as_str(), job))
}

/// Jobs that a pattern stands for. Those that have other names are found by what they are only where no job is called so.
pub struct Selection<'a> {
    pattern: &'a str,
    by_name: bool,
}

impl<'a> Selection<'a> {
    /// Jobs of a pattern in a config.
    pub fn of(pattern: &'a str, compiled: &Compiled) -> Self {
        let mut all = compiled.workflows.iter().flat_map(jobs_of);
        Self { pattern, by_name: all.any(|(of, job)| is_called(pattern, of, job)) }
    }

    /// Whether a job is one of them.
    pub fn has(&self, workflow: &str, job: &WorkflowJob) -> bool {
        is_called(self.pattern, workflow, job)
            || (!self.by_name && !job.job.is_empty() && is_named(self.pattern, workflow, &job.job))
    }
}

/// Whether a job is called so, alone or as `WORKFLOW/JOB`, by its name or by one of those before numbers or a matrix.
fn is_called(pattern: &str, workflow: &str, job: &WorkflowJob) -> bool {
    let is_name = |name: &String| is_named(pattern, workflow, name);
    is_name(&job.name) || job.written.iter().any(is_name)
}

/// Whether a pattern says the name of a job: alone, or as `WORKFLOW/NAME`.
pub fn is_named(pattern: &str, workflow: &str, name: &str) -> bool {
    fits(pattern, name) || fits(pattern, &format!("{workflow}/{name}"))
}

/// Whether a name is what a pattern says: `*` is any text, `?` any character.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(&c) if c == '?' || c == name[of] => (at, of) = (at + 1, of + 1),
            // The star before takes one more.
            _ => match star {
                Some((before, taken)) => {
                    star = Some((before, taken + 1));
                    (at, of) = (before + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn stars_and_question_marks_stand_for_others() {
        for (pattern, name) in [("a", "a"), ("*", ""), ("t*-?", "test--O0-1"), ("*st*", "test"), ("?", "ä")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("?", ""), ("a*b", "abc"), ("", "a"), ("[a]", "a")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
