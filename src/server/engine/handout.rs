//! What a task is told when it is handed out: its job, its built-in variables, and the key that continues a
//! setup pipeline. The variables that people set are opened by `secrets::handout`.

use crate::config::JobKind;
use crate::protocol::{Secret, Source, Task, TaskId, Variable};
use crate::server::state::{Settings, new_token, token_hash};
use crate::server::store::tables::handout::{self, Described, Revision};
use crate::server::store::tables::keys;
use crate::server::store::{Effect, Error, Tx};
use std::collections::BTreeMap;

/// What a claim decided about a task.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The task.
    pub id: TaskId,
    /// The text of its token, of which only the hash is stored.
    pub token: String,
    /// The id of this handing out.
    pub allocation: String,
    /// Its variables.
    pub variables: Vec<Variable>,
}

/// Describes a task that is handed out, for its agent.
pub fn describe(tx: &Tx<'_>, handed: Handed, settings: &Settings) -> Result<Task, Error> {
    let found = handout::described(tx, &handed.id)?;
    let job_url =
        format!("{}/{}/{}/{}/{}", settings.public_url, found.vcs, found.org, found.repo, found.job_number);
    let mut built_in = built_in(&found, &job_url);
    let mut mask = Vec::new();
    if let Some(key) = continuation_key(tx, &handed.id)? {
        mask.push(Secret::new(key.clone()));
        built_in.insert("CIRCLE_CONTINUATION_KEY".to_owned(), key);
    }
    let JobKind::Build { job } = found.definition.kind else {
        return Err(Error::Corrupt(format!("the task `{}` is of a job without steps", handed.id)));
    };
    tx.effect(Effect::Changed(found.pipeline.into()));
    Ok(Task {
        id: handed.id,
        token: Secret::new(handed.token),
        allocation: handed.allocation,
        job_name: found.job_name,
        job_url,
        job: *job,
        node_index: found.node_index,
        node_total: found.node_total,
        built_in,
        variables: handed.variables,
        mask,
        source: source(found.revision),
        has_test_timings: found.has_test_timings,
        lease_seconds: settings.lease_seconds,
        begin_seconds: 600,
        budget_seconds: 900,
        heartbeat_wait_seconds: settings.heartbeat_wait_seconds,
        max_step_output_bytes: settings.max_step_output_bytes,
        max_artifact_bytes: settings.max_artifact_bytes,
    })
}

/// Makes a key for one claim of a job of a setup workflow, to continue its pipeline with; `None` for jobs of other
/// workflows and once the pipeline has gone on. Only its hash is kept.
fn continuation_key(tx: &Tx<'_>, task: &TaskId) -> Result<Option<String>, Error> {
    let Some(pipeline) = keys::pipeline_to_continue(tx, task)? else { return Ok(None) };
    let key = new_token("rlk_")?;
    keys::add_key(tx, &token_hash(&key), &pipeline)?;
    Ok(Some(key))
}

/// The variables that every job has.
fn built_in(found: &Described, job_url: &str) -> BTreeMap<String, String> {
    let number = found.job_number.to_string();
    let always = [
        ("CI", "true"),
        ("CIRCLECI", "true"),
        ("CIRCLE_BUILD_NUM", number.as_str()),
        ("CIRCLE_BUILD_URL", job_url),
        ("CIRCLE_JOB", found.job_name.as_str()),
        ("CIRCLE_PIPELINE_ID", found.pipeline.as_str()),
        ("CIRCLE_WORKFLOW_ID", found.workflow.as_str()),
        ("CIRCLE_WORKFLOW_JOB_ID", found.job.as_str()),
        ("CIRCLE_WORKFLOW_WORKSPACE_ID", found.workspace.as_str()),
        ("CIRCLE_PROJECT_ID", found.project.as_str()),
        ("CIRCLE_ORGANIZATION_ID", found.organisation.as_str()),
        ("CIRCLE_PROJECT_USERNAME", found.org.as_str()),
        ("CIRCLE_PROJECT_REPONAME", found.repo.as_str()),
        ("CIRCLE_USERNAME", found.actor.as_str()),
    ];
    let revision = &found.revision;
    let known = [
        ("CIRCLE_REPOSITORY_URL", &revision.repository_url),
        ("CIRCLE_SHA1", &revision.revision),
        ("CIRCLE_BRANCH", &revision.branch),
        ("CIRCLE_TAG", &revision.tag),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    always.into_iter().chain(known).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What `checkout` fetches, when there is a repository.
fn source(found: Revision) -> Option<Source> {
    Some(Source {
        repository_url: found.repository_url?,
        revision: found.revision?,
        branch: found.branch,
        tag: found.tag,
        reference: found.reference,
    })
}
