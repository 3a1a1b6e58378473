//! Pipelines and their configs: their making, and their continuation with a second config.
//!
//! Only SQLite: flags are integers. Maps and lists are JSON in text columns.

use crate::config::DeclaredParameter;
use crate::server::ids::{PipelineId, ProjectId, UserId, WorkflowId};
use crate::server::store::json::Json;
use crate::server::store::status::{PipelineState, TriggerType};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A sentence about why a pipeline has no workflows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PipelineError {
    /// A word that programs tell sentences of its kind by: `config` or `config-fetch`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Sentence for people.
    pub message: String,
}

/// Facts about a commit that nothing here is decided by; times as git writes them (ISO 8601).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitFacts {
    /// The address of its author.
    pub author_email: String,
    /// Time at which it was written.
    pub authored_at: String,
    /// Name of who made it a commit.
    pub committer: String,
    /// Their address.
    pub committer_email: String,
    /// Time at which it was made one.
    pub committed_at: String,
}

/// The revision of a repository that a pipeline is of.
#[derive(Clone, Copy, Debug)]
pub struct RevisionRow<'a> {
    /// URL that git fetches from.
    pub repository_url: &'a str,
    /// Full commit id.
    pub revision: &'a str,
    /// Branch, unless a tag is built.
    pub branch: Option<&'a str>,
    /// Tag, unless a branch is built.
    pub tag: Option<&'a str>,
    /// First line of the commit message.
    pub subject: &'a str,
    /// The rest of the commit message.
    pub body: &'a str,
    /// Name of the commit's author.
    pub author: &'a str,
    /// Further facts about who made it, and when.
    pub made: &'a CommitFacts,
    /// Full ref, where it is no branch and no tag.
    pub reference: Option<&'a str>,
}

/// Pull requests that the jobs of a pipeline are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullFacts {
    /// Addresses of the open pull requests of its branch.
    pub urls: Vec<String>,
    /// Number of the one that it is of, which comes from a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Owner of the fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_owner: Option<String>,
    /// Short name of the fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_name: Option<String>,
}

/// The logins at the forge of whoever wrote what the pipeline of a workflow builds; none unless it is of a pull request
/// from a fork.
pub fn strangers(view: &View, workflow: &WorkflowId) -> Result<Vec<String>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT p.actor_login, p.pull, p.pipeline_values FROM workflows w JOIN pipelines p ON p.id = w.pipeline_id
         WHERE w.id = ?1 AND p.is_untrusted = 1",
    )?;
    let row = query.query_row([workflow], |row| {
        Ok((row.get(0)?, row.get::<_, Option<Json<PullFacts>>>(1)?, row.get::<_, Json<_>>(2)?))
    });
    let Some((actor, pull, Json(values))) = row.optional()? else { return Ok(Vec::new()) };
    let values: BTreeMap<String, Value> = values;
    let author = values.get("pipeline.event.github.pull_request.user.login").and_then(Value::as_str);
    // The namespace of a person is written with `~` by one forge.
    let owner = pull.and_then(|Json(pull)| Some(pull.fork_owner?.trim_start_matches('~').to_owned()));
    let known: Vec<String> =
        author.map(str::to_owned).into_iter().chain(owner).filter(|login| !login.is_empty()).collect();
    Ok(if known.is_empty() { vec![actor] } else { known })
}

/// A pipeline that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewPipeline<'a> {
    /// Fresh id of the pipeline.
    pub id: &'a PipelineId,
    /// Project that draws its number.
    pub project: &'a ProjectId,
    /// Number of the pipeline in the project.
    pub number: i64,
    /// State that it begins with.
    pub state: PipelineState,
    /// The kind of its trigger.
    pub trigger_type: TriggerType,
    /// Login of the person who asked for it; their id is looked up, unless a forge or a schedule asked: whoever has
    /// the same login there need not be the same person.
    pub actor: &'a str,
    /// The person in whose name a schedule asked for it.
    pub actor_id: Option<&'a UserId>,
    /// Revision of the pipeline, where it has a repository.
    pub revision: Option<RevisionRow<'a>>,
    /// Parameters as the trigger gave them.
    pub given: &'a BTreeMap<String, Value>,
    /// Declared parameters with the values in force.
    pub parameters: &'a BTreeMap<String, Value>,
    /// `pipeline.*` values, by full name.
    pub values: &'a BTreeMap<String, Value>,
    /// Sentences about why it has no workflows.
    pub errors: &'a [PipelineError],
    /// Warnings about its config.
    pub warnings: &'a [String],
    /// Declarations of the parameters.
    pub declared: &'a BTreeMap<String, DeclaredParameter>,
    /// The config as it was written.
    pub source: &'a str,
    /// The config as it was compiled; empty when it does not compile.
    pub processed: &'a str,
    /// Pull requests that its jobs are told of.
    pub pull: Option<&'a PullFacts>,
    /// The address of the picture of who asked for it.
    pub actor_avatar: Option<&'a str>,
    /// Whether it comes from a fork of somebody else.
    pub is_untrusted: bool,
}

/// Adds a pipeline and its config.
pub fn add_pipeline(tx: &Tx<'_>, new: &NewPipeline<'_>, now: Millis) -> Result<(), Error> {
    let revision = new.revision;
    tx.sql()
        .prepare_cached(
            "INSERT INTO pipelines (id, project_id, number, state, created_at_ms, updated_at_ms, trigger_type, actor_login,
                repository_url, revision, branch, tag, commit_subject, commit_body, commit_author,
                trigger_parameters, parameters, pipeline_values, errors, warnings, declared, actor_id, reference, pull,
                actor_avatar, is_untrusted, commit_facts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                CASE WHEN ?26 THEN ?25 ELSE (SELECT id FROM users WHERE login = ?7) END,
                ?21, ?22, ?23, ?24, ?27)",
        )?
        .execute(params![
            new.id,
            new.project,
            new.number,
            new.state,
            now,
            new.trigger_type,
            new.actor,
            revision.map(|r| r.repository_url),
            revision.map(|r| r.revision),
            revision.and_then(|r| r.branch),
            revision.and_then(|r| r.tag),
            revision.map(|r| r.subject),
            revision.map(|r| r.body),
            revision.map(|r| r.author),
            serde_json::to_string(new.given)?,
            serde_json::to_string(new.parameters)?,
            serde_json::to_string(new.values)?,
            serde_json::to_string(new.errors)?,
            serde_json::to_string(new.warnings)?,
            serde_json::to_string(new.declared)?,
            revision.and_then(|r| r.reference),
            new.pull.map(serde_json::to_string).transpose()?,
            new.actor_avatar,
            new.is_untrusted,
            new.actor_id,
            new.trigger_type.is_automatic(),
            revision.map(|r| serde_json::to_string(r.made)).transpose()?,
        ])?;
    tx.sql()
        .prepare_cached("INSERT INTO pipeline_configs (pipeline_id, source, processed) VALUES (?1, ?2, ?3)")?
        .execute(params![new.id, new.source, new.processed])?;
    Ok(())
}

/// The pipeline that a continuation key belongs to, with what its continuation is compiled with.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Pipeline that waits for a continuation.
    pub id: PipelineId,
    /// Project of the pipeline.
    pub project: ProjectId,
    /// Whether it was continued already.
    pub is_continued: bool,
    /// Time of its making.
    pub created_at: Millis,
    /// `pipeline.*` values, by full name.
    pub values: BTreeMap<String, Value>,
    /// Parameters as the trigger gave them.
    pub given: BTreeMap<String, Value>,
    /// Declarations of the parameters in the setup config.
    pub declared: BTreeMap<String, DeclaredParameter>,
}

/// Finds the pipeline of the continuation key whose text has this SHA-256.
pub fn pipeline_of_key(view: &View, hash: &[u8]) -> Result<Option<Pending>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT p.id, p.project_id, p.continued_at_ms IS NOT NULL, p.created_at_ms, p.pipeline_values,
            p.trigger_parameters, p.declared
         FROM continuation_keys k JOIN pipelines p ON p.id = k.pipeline_id WHERE k.hash = ?1",
    )?;
    let mut rows = query.query([hash])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Pending {
        id: row.get(0)?,
        project: row.get(1)?,
        is_continued: row.get(2)?,
        created_at: row.get(3)?,
        values: row.get::<_, Json<_>>(4)?.0,
        given: row.get::<_, Json<_>>(5)?.0,
        declared: row.get::<_, Json<_>>(6)?.0,
    }))
}

/// The second config of a pipeline.
#[derive(Clone, Debug)]
pub struct SecondConfig<'a> {
    /// The config as it was written.
    pub source: &'a str,
    /// The config as it was compiled.
    pub processed: &'a str,
    /// Declared parameters with the values in force.
    pub parameters: &'a BTreeMap<String, Value>,
    /// Warnings about it.
    pub warnings: &'a [String],
}

/// Gives a pipeline its second config and keeps the first one as its setup config. False when it has one
/// already.
pub fn continue_pipeline(
    tx: &Tx<'_>,
    pipeline: &PipelineId,
    second: &SecondConfig<'_>,
    now: Millis,
) -> Result<bool, Error> {
    let changed = tx
        .sql()
        .prepare_cached(
            "UPDATE pipelines SET state = ?2, continued_at_ms = ?3, updated_at_ms = ?3, parameters = ?4,
                warnings = ?5 WHERE id = ?1 AND continued_at_ms IS NULL",
        )?
        .execute(params![
            pipeline,
            PipelineState::Created,
            now,
            serde_json::to_string(second.parameters)?,
            serde_json::to_string(second.warnings)?,
        ])?;
    if changed == 0 {
        return Ok(false);
    }
    tx.sql()
        .prepare_cached(
            "UPDATE pipeline_configs SET setup_source = source, setup_processed = processed, source = ?2, processed = ?3
             WHERE pipeline_id = ?1",
        )?
        .execute(params![pipeline, second.source, second.processed])?;
    Ok(true)
}
