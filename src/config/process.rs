//! The compiled config as text: version 2, only jobs that are used, nothing left to expand. It is
//! written from the compiled workflows, so that it shows what runs, and compiling it again
//! gives the same.

use super::jobs::{default_title, default_when};
use crate::config::yaml::Emitter;
use crate::config::{Executor, Image, JobKind, RequiredStatus, Requirement, Schedule, Workflow, WorkflowJob};
use crate::protocol::{CheckoutMethod, Job, Run, Step, StepAction, When, Words, duration};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Writes the config. `orbs` are references as written and as resolved. For a `tag`, jobs get a filter
/// without which they would not run for tags; else what was filtered out is gone and no filter is left.
pub(crate) fn render(
    setup: bool,
    tag: bool,
    workflows: &[Workflow],
    orbs: &BTreeMap<String, String>,
) -> String {
    let mut out = Emitter::default();
    for (reference, exact) in orbs {
        out.comment(&format!("Orb '{reference}' resolved to '{exact}'"));
    }
    out.plain("version", 2);
    if setup {
        out.plain("setup", true);
    }
    let keys = Keys::new(workflows);
    if !keys.jobs.is_empty() {
        out.map("jobs");
        for (key, kind) in &keys.jobs {
            out.map(key);
            write_job(&mut out, kind);
            out.end();
        }
        out.end();
    }
    out.map("workflows");
    out.plain("version", 2);
    for (workflow, keys) in workflows.iter().zip(&keys.of) {
        write_workflow(&mut out, workflow, keys, tag);
    }
    out.end();
    out.finish()
}

/// The orbs that the head of a compiled config names, as references and what they resolved to.
pub(crate) fn orbs_of_head(source: &str) -> BTreeMap<String, String> {
    let head = source.lines().take_while(|line| line.starts_with('#'));
    let orbs = head.filter_map(|line| {
        let (reference, exact) =
            line.strip_prefix("# Orb '")?.strip_suffix('\'')?.split_once("' resolved to '")?;
        Some((reference.to_owned(), exact.to_owned()))
    });
    orbs.collect()
}

/// Keys of jobs: the name of the workflow entry, unless another job has it already.
struct Keys<'w> {
    jobs: Vec<(String, &'w JobKind)>,
    /// Key of each job, by workflow.
    of: Vec<Vec<String>>,
}

impl<'w> Keys<'w> {
    fn new(workflows: &'w [Workflow]) -> Self {
        let mut jobs: Vec<(String, &JobKind)> = Vec::new();
        // Keys by folded name: two jobs whose names differ only in case cannot stand in one config.
        let mut taken: HashMap<String, Vec<usize>> = HashMap::new();
        // The last number given to a name, so that many of one name do not try all before theirs.
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut of = Vec::new();
        for workflow in workflows {
            let mut keys = Vec::new();
            for job in &workflow.jobs {
                if job.kind == JobKind::Approval {
                    keys.push(job.name.clone());
                    continue;
                }
                let candidates = taken.entry(job.name.to_lowercase()).or_default();
                let same = candidates.iter().copied().find(|index| *jobs[*index].1 == job.kind);
                if let Some(index) = same {
                    keys.push(jobs[index].0.clone());
                    continue;
                }
                let mut key = job.name.clone();
                let number = numbers.entry(&job.name).or_insert(1);
                while jobs_has(&taken, &jobs, &key) {
                    *number += 1;
                    key = format!("{}-{number}", job.name);
                }
                let index = jobs.len();
                taken.entry(job.name.to_lowercase()).or_default().push(index);
                if key != job.name {
                    taken.entry(key.to_lowercase()).or_default().push(index);
                }
                jobs.push((key.clone(), &job.kind));
                keys.push(key);
            }
            of.push(keys);
        }
        Self { jobs, of }
    }
}

fn jobs_has(taken: &HashMap<String, Vec<usize>>, jobs: &[(String, &JobKind)], key: &str) -> bool {
    let folded = key.to_lowercase();
    taken.get(&folded).is_some_and(|found| found.iter().any(|index| jobs[*index].0.to_lowercase() == folded))
}

fn write_workflow(out: &mut Emitter, workflow: &Workflow, keys: &[String], tag: bool) {
    out.map(&workflow.name);
    if workflow.max_auto_reruns > 0 {
        out.plain("max_auto_reruns", workflow.max_auto_reruns);
    }
    if !workflow.schedules.is_empty() {
        out.list("triggers");
        for schedule in &workflow.schedules {
            write_schedule(out, schedule);
        }
        out.end();
    }
    out.list("jobs");
    for (job, key) in workflow.jobs.iter().zip(keys) {
        write_entry(out, job, key, tag);
    }
    out.end();
    out.end();
}

fn write_schedule(out: &mut Emitter, schedule: &Schedule) {
    out.item();
    out.map("schedule");
    out.string("cron", &schedule.cron);
    out.map("filters");
    out.map("branches");
    for (key, names) in [("only", &schedule.only), ("ignore", &schedule.ignore)] {
        if !names.is_empty() {
            strings(out, key, names);
        }
    }
    for _ in 0..4 {
        out.end();
    }
}

fn write_entry(out: &mut Emitter, job: &WorkflowJob, key: &str, tag: bool) {
    let bare = key == job.name
        && job.kind != JobKind::Approval
        && job.requires.is_empty()
        && job.contexts.is_empty()
        && job.serial_group.is_none();
    if bare && !tag {
        out.string_item(key);
        return;
    }
    out.item();
    out.map(key);
    if job.kind == JobKind::Approval {
        out.plain("type", "approval");
    }
    if key != job.name {
        out.string("name", &job.name);
    }
    if !job.requires.is_empty() {
        out.list("requires");
        for requirement in &job.requires {
            write_requirement(out, requirement);
        }
        out.end();
    }
    if !job.contexts.is_empty() {
        strings(out, "context", &job.contexts);
    }
    if let Some(key) = &job.serial_group {
        out.string("serial-group", key);
    }
    if tag {
        out.map("filters");
        out.map("tags");
        out.string("only", "/.*/");
        out.end();
        out.end();
    }
    out.end();
    out.end();
}

fn write_requirement(out: &mut Emitter, requirement: &Requirement) {
    if requirement.statuses == [RequiredStatus::Success] {
        out.string_item(&requirement.job);
        return;
    }
    out.item();
    let words: Vec<_> = requirement.statuses.iter().map(|status| status_word(*status)).collect();
    match words.as_slice() {
        [word] => out.string(&requirement.job, word),
        _ => {
            out.list(&requirement.job);
            for word in words {
                out.string_item(word);
            }
            out.end();
        }
    }
    out.end();
}

fn status_word(status: RequiredStatus) -> &'static str {
    match status {
        RequiredStatus::Success => "success",
        RequiredStatus::Failed => "failed",
        RequiredStatus::Canceled => "canceled",
        RequiredStatus::Unauthorized => "unauthorized",
        RequiredStatus::NotRun => "not_run",
    }
}

fn strings(out: &mut Emitter, key: &str, texts: &[String]) {
    out.list(key);
    for text in texts {
        out.string_item(text);
    }
    out.end();
}

fn write_job(out: &mut Emitter, kind: &JobKind) {
    match kind {
        JobKind::Build { job, executor } => write_build(out, job, executor),
        JobKind::Approval => out.plain("type", "approval"),
        JobKind::NoOp => out.plain("type", "no-op"),
        JobKind::Lock { key } => {
            out.plain("type", "lock");
            out.string("key", key);
        }
        JobKind::Unlock { key } => {
            out.plain("type", "unlock");
            out.string("key", key);
        }
    }
}

fn write_build(out: &mut Emitter, job: &Job, executor: &Executor) {
    write_executor(out, executor);
    if !job.resource_class.is_empty() {
        out.string("resource_class", &job.resource_class);
    }
    if let Some(shell) = &job.shell {
        out.string("shell", shell);
    }
    if let Some(directory) = &job.working_directory {
        out.string("working_directory", directory);
    }
    environment(out, &job.environment);
    if job.parallelism != 1 {
        out.plain("parallelism", job.parallelism);
    }
    if let Some(days) = job.cache_retention_days {
        out.map("retention");
        out.string("caches", &format!("{days}d"));
        out.end();
    }
    if job.steps.is_empty() {
        out.plain("steps", "[]");
        return;
    }
    out.list("steps");
    for step in &job.steps {
        write_step(out, step);
    }
    out.end();
}

fn write_executor(out: &mut Emitter, executor: &Executor) {
    match executor {
        Executor::Machine
        | Executor::HostedMachine { image: None, layer_caching: false }
        | Executor::MissingOrbs { .. } => {
            out.plain("machine", true);
        }
        Executor::HostedMachine { image, layer_caching } => {
            out.map("machine");
            if let Some(image) = image {
                out.string("image", image);
            }
            if *layer_caching {
                out.plain("docker_layer_caching", true);
            }
            out.end();
        }
        Executor::Macos { xcode: None } => out.plain("macos", "{}"),
        Executor::Macos { xcode: Some(xcode) } => {
            out.map("macos");
            out.string("xcode", xcode);
            out.end();
        }
        Executor::Docker { images } => {
            out.list("docker");
            for image in images {
                write_image(out, image);
            }
            out.end();
        }
    }
}

fn write_image(out: &mut Emitter, image: &Image) {
    out.item();
    out.string("image", &image.image);
    for (key, text) in [("name", &image.name), ("user", &image.user)] {
        if let Some(text) = text {
            out.string(key, text);
        }
    }
    for (key, words) in [("entrypoint", &image.entrypoint), ("command", &image.command)] {
        match words {
            Some(Words::Line(line)) => out.string(key, line),
            Some(Words::List(list)) if list.is_empty() => out.plain(key, "[]"),
            Some(Words::List(list)) => strings(out, key, list),
            None => {}
        }
    }
    for (key, texts) in
        [("environment", &image.environment), ("auth", &image.auth), ("aws_auth", &image.aws_auth)]
    {
        if !texts.is_empty() {
            out.map(key);
            for (name, text) in texts {
                out.string(name, text);
            }
            out.end();
        }
    }
    out.end();
}

fn environment(out: &mut Emitter, variables: &BTreeMap<String, String>) {
    if variables.is_empty() {
        return;
    }
    out.map("environment");
    for (name, value) in variables {
        out.string(name, value);
    }
    out.end();
}

fn write_step(out: &mut Emitter, step: &Step) {
    out.item();
    let word = step_word(&step.action);
    let body = step.name != default_title(&step.action)
        || step.when != default_when(&step.action)
        || has_body(&step.action);
    if !body {
        out.plain(word, "{}");
        out.end();
        return;
    }
    out.map(word);
    if step.name != default_title(&step.action) {
        out.string("name", &step.name);
    }
    write_action(out, &step.action);
    if step.when != default_when(&step.action) {
        out.plain(
            "when",
            match step.when {
                When::OnSuccess => "on_success",
                When::OnFail => "on_fail",
                When::Always => "always",
            },
        );
    }
    out.end();
    out.end();
}

fn step_word(action: &StepAction) -> &'static str {
    match action {
        StepAction::Run(run) if run.first_node_only => "deploy",
        action => action.kind(),
    }
}

/// Whether `write_action` writes anything.
fn has_body(action: &StepAction) -> bool {
    match action {
        StepAction::Checkout { path, method } => path != "." || *method != CheckoutMethod::Blobless,
        StepAction::AddSshKeys { fingerprints } => !fingerprints.is_empty(),
        StepAction::SetupRemoteDocker | StepAction::InstallSigningBundle => false,
        _ => true,
    }
}

fn write_action(out: &mut Emitter, action: &StepAction) {
    match action {
        StepAction::Run(run) => write_run(out, run),
        StepAction::Checkout { path, method } => {
            if path != "." {
                out.string("path", path);
            }
            match method {
                CheckoutMethod::Blobless => {}
                CheckoutMethod::Full => out.plain("method", "full"),
                CheckoutMethod::Shallow { depth } => {
                    out.plain("method", "shallow");
                    out.plain("depth", depth);
                }
            }
        }
        StepAction::StoreArtifacts { path, destination } => {
            out.string("path", path);
            if let Some(destination) = destination {
                out.string("destination", destination);
            }
        }
        StepAction::StoreTestResults { path } => out.string("path", path),
        StepAction::SaveCache { key, paths } => {
            out.string("key", key);
            strings(out, "paths", paths);
        }
        StepAction::RestoreCache { keys } => strings(out, "keys", keys),
        StepAction::PersistToWorkspace { root, paths } => {
            out.string("root", root);
            strings(out, "paths", paths);
        }
        StepAction::AttachWorkspace { at } => out.string("at", at),
        StepAction::AddSshKeys { fingerprints } if !fingerprints.is_empty() => {
            strings(out, "fingerprints", fingerprints);
        }
        StepAction::AddSshKeys { .. } | StepAction::SetupRemoteDocker | StepAction::InstallSigningBundle => {}
    }
}

fn write_run(out: &mut Emitter, run: &Run) {
    out.string("command", &run.command);
    if let Some(shell) = &run.shell {
        out.string("shell", shell);
    }
    environment(out, &run.environment);
    if run.background {
        out.plain("background", true);
    }
    if let Some(directory) = &run.working_directory {
        out.string("working_directory", directory);
    }
    if run.no_output_timeout_ms != 600_000 {
        out.string("no_output_timeout", &time(run.no_output_timeout_ms));
    }
    if run.max_auto_reruns > 0 {
        out.plain("max_auto_reruns", run.max_auto_reruns);
    }
    if run.auto_rerun_delay_ms > 0 {
        out.string("auto_rerun_delay", &format!("{}s", run.auto_rerun_delay_ms / 1000));
    }
}

/// A duration that is read back exactly.
fn time(milliseconds: u64) -> String {
    if milliseconds % 1000 == 0 {
        duration::format(Duration::from_millis(milliseconds))
    } else {
        format!("{milliseconds}ms")
    }
}
