//! Prices of compiled things for the budget of expansion: their text, and a little for every text.
//!
//! Everything is taken apart by name, without `..`, so that a field that is added later does not
//! compile until its cost was thought of.

use crate::config::values::Data;
use crate::config::{Executor, Image, Schedule};
use crate::protocol::limits::JOB_BYTES;
use crate::protocol::{Job, Run, Step, StepAction, Words};
use std::collections::BTreeMap;

/// Overhead of a text in memory: many empty ones are not free.
const TEXT: usize = 32;
/// Indentation of a line in the compiled config, which is printed at the end.
const LINE: usize = 10;
/// A value that is copied, such as an item of a list with tags.
pub(crate) const VALUE: usize = 16;

pub(crate) fn text(text: &str) -> usize {
    TEXT + text.len() + LINE * text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Number of values in a tree, for work that visits all of them.
pub(crate) fn values(data: &Data) -> usize {
    1 + match data {
        Data::Seq(seq) => seq.items.iter().map(|item| values(&item.data)).sum(),
        Data::Map(map) => map.entries.iter().map(|entry| values(&entry.value.data)).sum(),
        Data::Scalar(_) | Data::Steps(_) | Data::Executor(_) => 0,
    }
}

pub(crate) fn optional(value: &Option<String>) -> usize {
    value.as_deref().map_or(0, text)
}

pub(crate) fn list(values: &[String]) -> usize {
    values.iter().map(|value| text(value)).sum()
}

fn variables(environment: &BTreeMap<String, String>) -> usize {
    environment.iter().map(|(name, value)| text(name) + text(value)).sum()
}

pub(crate) fn executor(executor: &Executor) -> usize {
    match executor {
        Executor::Machine => 0,
        Executor::Macos { xcode } => optional(xcode),
        Executor::HostedMachine { image, layer_caching: _ } => optional(image),
        Executor::Docker { images } => images.iter().map(container).sum(),
        Executor::MissingOrbs { references } => list(references),
    }
}

fn container(container: &Image) -> usize {
    let Image { image, name, entrypoint, command, user, environment, auth, aws_auth } = container;
    let words = |words: &Option<Words>| match words {
        Some(Words::Line(line)) => text(line),
        Some(Words::List(words)) => list(words),
        None => 0,
    };
    text(image)
        + optional(name)
        + optional(user)
        + words(entrypoint)
        + words(command)
        + variables(environment)
        + variables(auth)
        + variables(aws_auth)
}

pub(crate) fn step(step: &Step) -> usize {
    let Step { name, when: _, action } = step;
    text(name)
        + match action {
            StepAction::Run(Run {
                command,
                shell,
                environment,
                background: _,
                working_directory,
                no_output_timeout_ms: _,
                max_auto_reruns: _,
                auto_rerun_delay_ms: _,
                first_node_only: _,
            }) => text(command) + optional(shell) + variables(environment) + optional(working_directory),
            StepAction::Checkout { path, method: _ } => text(path),
            StepAction::StoreArtifacts { path, destination } => text(path) + optional(destination),
            StepAction::StoreTestResults { path } => text(path),
            StepAction::SaveCache { key, paths } => text(key) + list(paths),
            StepAction::RestoreCache { keys } => list(keys),
            StepAction::PersistToWorkspace { root, paths } => text(root) + list(paths),
            StepAction::AttachWorkspace { at } => text(at),
            StepAction::AddSshKeys { fingerprints } => list(fingerprints),
            StepAction::SetupRemoteDocker | StepAction::InstallSigningBundle => 0,
        }
}

/// A job without its steps, which were paid for one by one.
/// The bytes of a job as JSON, as runners get it; an estimate from above where that is small already, since most
/// jobs are.
pub(crate) fn json(job: &Job) -> usize {
    // A byte of a text may need six, and names and numbers stand beside the texts.
    let most: usize = 6 * (self::job(job) + job.steps.iter().map(|of| step(of) + 256).sum::<usize>()) + 1024;
    if most <= JOB_BYTES { most } else { serde_json::to_vec(job).map_or(usize::MAX, |text| text.len()) }
}

pub(crate) fn job(job: &Job) -> usize {
    let Job {
        resource_class,
        shell,
        working_directory,
        environment,
        parallelism: _,
        steps: _,
        cache_retention_days: _,
    } = job;
    text(resource_class) + optional(shell) + optional(working_directory) + variables(environment)
}

pub(crate) fn schedule(schedule: &Schedule) -> usize {
    let Schedule { cron, only, ignore } = schedule;
    text(cron) + list(only) + list(ignore)
}

/// Items of `requires`, before they are read.
pub(crate) fn wanted(items: usize) -> usize {
    2 * TEXT * items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cost_their_indentation() {
        assert_eq!(text(""), TEXT);
        assert_eq!(text("a\nb\n"), TEXT + 4 + 2 * LINE);
    }
}
