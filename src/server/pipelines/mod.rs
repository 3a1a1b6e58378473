//! From a trigger to stored workflows: finds the config, compiles it, hands it to the engine.

pub mod continuation;
pub mod repository;
pub mod triggers;

use crate::config::{self, Compiled};
use crate::server::engine::commit;
use crate::server::secrets::contexts;
use crate::server::state::{Shared, now_ms, timestamp};
use crate::server::store::status::PipelineState;
use crate::server::store::{Effect, Error as StoreError, Tx, new_id};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What starts a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Trigger {
    /// `vcs/org/repo`.
    pub slug: String,
    /// The config.
    pub config: String,
    /// Shown in errors.
    pub file_name: String,
    /// Pipeline parameters.
    pub parameters: BTreeMap<String, Value>,
    /// What `checkout` fetches, when there is a repository.
    pub revision: Option<Revision>,
    /// Where in the repository the config was read, unless it was sent along.
    pub config_place: Option<ConfigPlace>,
    /// Login of who asked.
    pub actor: String,
    /// `api`, `explicit`, ...
    pub trigger_type: String,
    /// Keeps only this workflow, and only this job with what it requires.
    pub only: Option<Only>,
    /// The config came with the trigger, not from a repository.
    pub is_sent_along: bool,
    /// Why there is no config: the pipeline is made errored.
    pub fetch_error: Option<String>,
    /// Contexts that do not exist are made, without variables.
    pub make_contexts: bool,
}

/// Where a config comes from.
#[derive(Clone, Debug, Default)]
pub struct ConfigPlace {
    /// Full ref: `refs/heads/main`.
    pub reference: String,
    /// Full commit id.
    pub revision: String,
}

/// Narrows a pipeline down.
#[derive(Clone, Debug, Default)]
pub struct Only {
    /// Name of a workflow.
    pub workflow: Option<String>,
    /// Name of a job, as expanded.
    pub job: Option<String>,
}

/// A revision of a repository.
#[derive(Clone, Debug, Default)]
pub struct Revision {
    /// What git fetches from.
    pub repository_url: String,
    /// Full commit id.
    pub revision: String,
    /// Branch, unless a tag is built.
    pub branch: Option<String>,
    /// Tag.
    pub tag: Option<String>,
    /// First line of the commit message.
    pub subject: String,
    /// The rest of it.
    pub body: String,
    /// Name of the commit's author.
    pub author: String,
    /// Whether the branch is the default one.
    pub is_default_branch: bool,
}

/// A pipeline that was created.
#[derive(Clone, Debug)]
pub struct Created {
    /// UUID.
    pub id: String,
    /// Number in the project.
    pub number: i64,
    /// `created`, or `errored` when the config does not compile.
    pub state: PipelineState,
    /// When.
    pub created_at_ms: i64,
    /// What is wrong with the config.
    pub errors: Option<config::Diagnostics>,
    /// Warnings about it.
    pub warnings: Vec<config::Diagnostic>,
    /// Contexts that were made because of `make_contexts`.
    pub made_contexts: Vec<String>,
}

/// Why there is no pipeline.
#[derive(Debug)]
pub enum Error {
    /// There is no such project.
    NoProject(String),
    /// The trigger asks for what the config does not have.
    NoSuch(String),
    /// The store said no.
    Store(StoreError),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::NoProject(slug) => {
                write!(f, "there is no project `{slug}` here")
            }
            Error::NoSuch(why) => f.write_str(why),
            Error::Store(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Store(error)
    }
}

/// Makes sure that a project and its organisation exist. `slug` is `vcs/org/repo`. Returns both ids.
pub fn create_project(
    tx: &Tx<'_>,
    slug: &str,
    repository_url: Option<&str>,
    now: u64,
) -> Result<(String, String), StoreError> {
    let mut parts = slug.splitn(3, '/');
    let (vcs, org, repo) = (parts.next(), parts.next(), parts.next());
    let now = now as i64;
    tx.execute(
        "INSERT OR IGNORE INTO organisations VALUES (?1, ?2, ?3, ?4)",
        params![new_id(), vcs, org, now],
    )?;
    tx.execute(
        "INSERT OR IGNORE INTO projects SELECT ?1, id, ?2, ?3, ?4, ?5, 'main', '{}', 1, 1, ?6 FROM organisations WHERE vcs = ?2 AND name = ?3",
        params![new_id(), vcs, org, repo, repository_url, now],
    )?;
    let found = "SELECT id, organisation_id FROM projects WHERE vcs = ?1 AND org = ?2 AND repo = ?3";
    Ok(tx.query_row(found, params![vcs, org, repo], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Creates a pipeline. An invalid config makes an errored one, which is not an error here.
pub async fn create(state: &Shared, trigger: Trigger) -> Result<Created, Error> {
    let slug = trigger.slug.clone();
    let project: Option<(String, i64)> = state
        .store
        .write(move |tx| {
            let mut parts = slug.splitn(3, '/');
            let (vcs, org, repo) = (parts.next(), parts.next(), parts.next());
            Ok(tx
                .prepare_cached(
                    "UPDATE projects SET next_pipeline_number = next_pipeline_number + 1
                     WHERE vcs = ?1 AND org = ?2 AND repo = ?3 RETURNING id, next_pipeline_number - 1",
                )?
                .query_row(params![vcs, org, repo], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?)
        })
        .await?;
    let Some((project, number)) = project else { return Err(Error::NoProject(trigger.slug)) };
    let id = new_id();
    let values = pipeline_values(&id, number, &trigger, now_ms());
    // The compiler is pure and bounded, but may take milliseconds: not on a thread that serves others.
    let (settings, job) = (state.settings.clone(), trigger.clone());
    let compiled_with = values.clone();
    let compiled = match &trigger.fetch_error {
        Some(_) => None,
        None => Some(
            tokio::task::spawn_blocking(move || compile(&settings, &job, &compiled_with, &BTreeMap::new()))
                .await
                .map_err(|_| StoreError::Closed)?,
        ),
    };
    let (compiled, errors) = match compiled {
        None => (None, None),
        Some(Ok(mut compiled)) => {
            if let Some(only) = &trigger.only {
                narrow(&mut compiled, only).map_err(Error::NoSuch)?;
            }
            (Some(compiled), None)
        }
        Some(Err(errors)) => (None, Some(errors)),
    };
    let warnings = compiled.as_ref().map(|compiled| compiled.warnings.clone()).unwrap_or_default();
    let pipeline_state = match &compiled {
        None => PipelineState::Errored,
        Some(compiled) if compiled.setup => PipelineState::Setup,
        Some(_) => PipelineState::Created,
    };
    let now = now_ms();
    let created = Created {
        id: id.clone(),
        number,
        state: pipeline_state,
        created_at_ms: now as i64,
        errors,
        warnings,
        made_contexts: Vec::new(),
    };
    let (row, routing) = (created.clone(), state.settings.routing.clone());
    let made_contexts = state
        .store
        .write(move |tx| insert(tx, &row, &project, &trigger, &values, compiled.as_ref(), &routing, now))
        .await?;
    Ok(Created { made_contexts, ..created })
}

/// Compiles the config of a trigger as this control plane is set up. `stand_ins` are for configs that no
/// pipeline is made of.
pub(super) fn compile(
    settings: &crate::server::state::Settings,
    trigger: &Trigger,
    values: &BTreeMap<String, Value>,
    stand_ins: &BTreeMap<String, Value>,
) -> Result<Compiled, config::Diagnostics> {
    config::compile(&config::Input {
        source: &trigger.config,
        file_name: &trigger.file_name,
        parameters: &trigger.parameters,
        values,
        stand_ins,
        orbs: &settings.orbs,
        default_resource_class: settings.default_resource_class.as_deref(),
    })
}

#[expect(clippy::too_many_arguments, reason = "the columns of one row, gathered by the caller")]
fn insert(
    tx: &Tx<'_>,
    created: &Created,
    project: &str,
    trigger: &Trigger,
    values: &BTreeMap<String, Value>,
    compiled: Option<&Compiled>,
    routing: &commit::Routing,
    now: u64,
) -> Result<Vec<String>, StoreError> {
    let mut errors: Vec<Value> = created
        .errors
        .iter()
        .flat_map(|errors| &errors.0)
        .map(|error| json!({ "type": "config", "message": error.to_string() }))
        .collect();
    errors.extend(trigger.fetch_error.iter().map(|why| json!({ "type": "config-fetch", "message": why })));
    let warnings: Vec<String> = created.warnings.iter().map(ToString::to_string).collect();
    let revision = trigger.revision.as_ref();
    let parameters = compiled.map(|compiled| json!(compiled.parameters)).unwrap_or_else(|| json!({}));
    tx.prepare_cached(
        "INSERT INTO pipelines (id, project_id, number, state, created_at_ms, updated_at_ms, trigger_type, actor_login,
            repository_url, revision, branch, tag, commit_subject, trigger_parameters, parameters, pipeline_values, errors, warnings, declared,
            commit_body, commit_author, actor_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
            (SELECT id FROM users WHERE login = ?7))",
    )?
    .execute(params![
        created.id,
        project,
        created.number,
        created.state,
        now as i64,
        trigger.trigger_type,
        trigger.actor,
        revision.map(|r| &r.repository_url),
        revision.map(|r| &r.revision),
        revision.and_then(|r| r.branch.as_ref()),
        revision.and_then(|r| r.tag.as_ref()),
        revision.map(|r| &r.subject),
        serde_json::to_string(&trigger.parameters)?,
        parameters.to_string(),
        serde_json::to_string(values)?,
        Value::from(errors).to_string(),
        json!(warnings).to_string(),
        compiled.map(|compiled| json!(compiled.declared)).unwrap_or_else(|| json!({})).to_string(),
        revision.map(|r| &r.body),
        revision.map(|r| &r.author),
    ])?;
    let made_contexts =
        if trigger.make_contexts { make_contexts(tx, project, compiled, now)? } else { Vec::new() };
    let processed = compiled.map(|compiled| compiled.processed.as_str()).unwrap_or_default();
    tx.prepare_cached("INSERT INTO pipeline_configs (pipeline_id, source, processed) VALUES (?1, ?2, ?3)")?
        .execute(params![created.id, trigger.config, processed])?;
    let compiled_setup = compiled.is_some_and(|compiled| compiled.setup);
    for workflow in compiled.iter().flat_map(|compiled| &compiled.workflows) {
        // A scheduled workflow never runs on another trigger.
        if workflow.schedules.is_empty() {
            commit::create_workflow(tx, &created.id, project, workflow, compiled_setup, routing, now)?;
        }
    }
    commit::cancel_redundant(tx, &created.id, now)?;
    tx.effect(Effect::Changed(created.id.clone()));
    Ok(made_contexts)
}

/// Makes the contexts that a config uses and that do not exist. Returns their names.
fn make_contexts(
    tx: &Tx<'_>,
    project: &str,
    compiled: Option<&Compiled>,
    now: u64,
) -> Result<Vec<String>, StoreError> {
    let organisation: String =
        tx.query_row("SELECT organisation_id FROM projects WHERE id = ?1", [project], |row| row.get(0))?;
    let mut made = Vec::new();
    let jobs = compiled.into_iter().flat_map(|compiled| &compiled.workflows).flat_map(|w| &w.jobs);
    for name in jobs.flat_map(|job| &job.contexts) {
        if contexts::create(tx, &organisation, name, now)?.is_ok() {
            made.push(name.clone());
        }
    }
    Ok(made)
}

/// The `pipeline.*` values that apply.
fn pipeline_values(id: &str, number: i64, trigger: &Trigger, now: u64) -> BTreeMap<String, Value> {
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
    set("trigger.type", json!("api"));
    set("trigger.received_at", json!(timestamp(now as i64)));
    set("trigger_source", json!("api"));
    set("event.name", json!("api"));
    set("event.action", json!("api"));
    if trigger.is_sent_along {
        // What rules of contexts are written against: such a config was reviewed by nobody.
        set("config_source", json!("api"));
    }
    if let Some(place) = &trigger.config_place {
        set("config.file_path", json!(trigger.file_name));
        set("config.ref", json!(place.reference));
        set("config.sha", json!(place.revision));
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

/// Keeps only what was asked for: the workflow, and the job with everything that it requires.
fn narrow(compiled: &mut Compiled, only: &Only) -> Result<(), String> {
    if let Some(wanted) = &only.workflow {
        let known: Vec<_> = compiled.workflows.iter().map(|workflow| workflow.name.clone()).collect();
        compiled.workflows.retain(|workflow| workflow.name == *wanted);
        if compiled.workflows.is_empty() {
            return Err(format!(
                "there is no workflow `{wanted}` to run (workflows that apply: {})",
                known.join(", ")
            ));
        }
    }
    if let Some(wanted) = &only.job {
        let known: Vec<_> = compiled
            .workflows
            .iter()
            .flat_map(|workflow| workflow.jobs.iter().map(|job| job.name.clone()))
            .collect();
        for workflow in &mut compiled.workflows {
            let mut kept = vec![wanted.clone()];
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
            if workflow.jobs.iter().any(|job| job.name == *wanted) {
                workflow.jobs.retain(|job| kept.contains(&job.name));
            } else {
                workflow.jobs.clear();
            }
        }
        compiled.workflows.retain(|workflow| !workflow.jobs.is_empty());
        if compiled.workflows.is_empty() {
            return Err(format!("there is no job `{wanted}` to run (jobs that apply: {})", known.join(", ")));
        }
    }
    Ok(())
}
