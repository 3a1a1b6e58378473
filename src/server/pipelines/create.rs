//! From a trigger to a stored pipeline: compiles the config and hands its workflows to the engine.

use crate::config::{Compiled, NamePattern};
use crate::server::engine::commit;
use crate::server::ids::{PipelineId, ProjectId};
use crate::server::pipelines::compile::{
    ConfigSource, built, compile, missing, narrow_to_run, pipeline_values,
};
use crate::server::pipelines::types::{CreatedPipeline, Error, Trigger};
use crate::server::secrets::contexts;
use crate::server::state::{Routing, Shared, Sought};
use crate::server::store::forge_states::EventState;
use crate::server::store::status::PipelineState;
use crate::server::store::tables::deliveries;
use crate::server::store::tables::pipelines::{NewPipeline, PipelineError, RevisionRow, add_pipeline};
use crate::server::store::tables::projects::{draw_pipeline_number, organisation_of};
use crate::server::store::tables::schedules;
use crate::server::store::{Effect, Error as StoreError, Tx};
use crate::server::time::Millis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// Creates a pipeline. An invalid config makes an errored one, which is not an error here.
pub async fn create(state: &Shared, trigger: Trigger) -> Result<CreatedPipeline, Error> {
    let slug = trigger.slug.clone();
    let drawn = state.store.write(move |tx| draw_pipeline_number(tx, &slug)).await?;
    let Some(drawn) = drawn else { return Err(Error::NoProject(trigger.slug)) };
    let id = match &trigger.happened {
        Some(happened) => happened.pipeline.clone(),
        None => PipelineId::fresh(),
    };
    let values = pipeline_values(&id, drawn.number, &trigger, Millis::now());
    let (compiled, errors) = match &trigger.fetch_error {
        Some(_) => (None, None),
        None => match compile_apart(state, &trigger, &values).await? {
            Ok(mut compiled) => {
                let only = &state.settings.only;
                let mut part = compiled.clone();
                let built = built(&values);
                match narrow_to_run(&mut part, only, &built) {
                    Ok(()) => compiled = part,
                    // The config that it goes on with may have it.
                    Err(_) if compiled.setup => {
                        let (missing, left_out) = missing(&compiled, only, &built);
                        let sought = Sought { missing, left_out, refusal: None };
                        *state.sought.lock().unwrap_or_else(PoisonError::into_inner) = sought;
                    }
                    Err(why) => return Err(Error::NoSuch(why)),
                }
                (Some(compiled), None)
            }
            Err(errors) if trigger.waits_for_orbs && errors.may_pass() => return Err(Error::NoOrbs(errors)),
            Err(errors) => (None, Some(errors)),
        },
    };
    let warnings = compiled.as_ref().map(|compiled| compiled.warnings.clone()).unwrap_or_default();
    let pipeline_state = match &compiled {
        None => PipelineState::Errored,
        Some(compiled) if compiled.setup => PipelineState::Setup,
        Some(_) => PipelineState::Created,
    };
    let created = CreatedPipeline {
        id,
        number: drawn.number,
        state: pipeline_state,
        created_at: Millis::now(),
        errors,
        warnings,
        made_contexts: Vec::new(),
    };
    let routing = state.settings.routing.clone();
    let new = New { created: created.clone(), project: drawn.project, trigger, values, compiled };
    let made_contexts = state.store.write(move |tx| insert(tx, &new, &routing)).await?;
    Ok(CreatedPipeline { made_contexts, ..created })
}

/// Compiles in a thread of its own: the compiler is pure and bounded, but others wait for this one.
async fn compile_apart(
    state: &Shared,
    trigger: &Trigger,
    values: &BTreeMap<String, Value>,
) -> Result<Result<Compiled, crate::config::Diagnostics>, StoreError> {
    let settings = state.settings.clone();
    let source = ConfigSource {
        config: trigger.config.clone(),
        file_name: trigger.file_name.clone(),
        parameters: trigger.parameters.clone(),
        values: values.clone(),
        stand_ins: BTreeMap::new(),
    };
    let compiling = tokio::task::spawn_blocking(move || compile(&settings, &source));
    compiling.await.map_err(|_| StoreError::Closed)
}

/// The word for a mistake among the errors of a pipeline: what may pass is no mistake in the config.
fn kind(mistake: &crate::config::Diagnostic) -> &'static str {
    if mistake.may_pass { "config-fetch" } else { "config" }
}

/// A pipeline that is about to be stored, with everything that it is made of.
struct New {
    created: CreatedPipeline,
    project: ProjectId,
    trigger: Trigger,
    values: BTreeMap<String, Value>,
    compiled: Option<Compiled>,
}

/// Stores the pipeline and starts its workflows. Returns the names of the contexts that were made.
fn insert(tx: &Tx<'_>, new: &New, routing: &Routing) -> Result<Vec<String>, StoreError> {
    let (created, trigger, compiled) = (&new.created, &new.trigger, new.compiled.as_ref());
    let now = created.created_at;
    let mistakes = created.errors.iter().flat_map(|errors| &errors.0);
    let mut errors: Vec<PipelineError> = mistakes
        .map(|mistake| PipelineError { kind: kind(mistake), message: mistake.among_errors() })
        .collect();
    errors.extend(
        trigger.fetch_error.iter().map(|why| PipelineError { kind: "config-fetch", message: why.clone() }),
    );
    let warnings: Vec<String> = created.warnings.iter().map(ToString::to_string).collect();
    let (no_parameters, none_declared) = (BTreeMap::new(), BTreeMap::new());
    let row = NewPipeline {
        id: &created.id,
        project: &new.project,
        number: created.number,
        state: created.state,
        trigger_type: trigger.trigger_type,
        actor: &trigger.actor,
        actor_id: trigger.happened.as_ref().and_then(|happened| happened.actor_id.as_ref()),
        revision: trigger.revision.as_ref().map(|revision| RevisionRow {
            repository_url: &revision.repository_url,
            revision: &revision.revision,
            branch: revision.branch.as_deref(),
            tag: revision.tag.as_deref(),
            subject: &revision.subject,
            body: &revision.body,
            author: &revision.author,
            made: &revision.made,
            reference: revision.reference.as_deref(),
        }),
        given: &trigger.parameters,
        parameters: compiled.map_or(&no_parameters, |compiled| &compiled.parameters),
        values: &new.values,
        errors: &errors,
        warnings: &warnings,
        declared: compiled.map_or(&none_declared, |compiled| &compiled.declared),
        source: &trigger.config,
        processed: compiled.map_or("", |compiled| &compiled.processed),
        pull: trigger.happened.as_ref().and_then(|happened| happened.pull.as_ref()),
        actor_avatar: trigger.happened.as_ref().and_then(|happened| happened.actor_avatar.as_deref()),
        is_untrusted: trigger.happened.as_ref().is_some_and(|happened| happened.is_untrusted),
    };
    if let Some(change) = trigger.happened.as_ref().and_then(|happened| happened.change) {
        // In one transaction with the pipeline: a change makes one pipeline, whenever this process dies.
        let sentence = format!("started the pipeline {}", created.number);
        deliveries::finish_event(tx, change, EventState::Started, &sentence)?;
    }
    add_pipeline(tx, &row, now)?;
    let made_contexts =
        if trigger.make_contexts { make_contexts(tx, &new.project, compiled, now)? } else { Vec::new() };
    let due = trigger.happened.as_ref().and_then(|happened| happened.workflows.as_ref());
    for workflow in compiled.iter().flat_map(|compiled| &compiled.workflows) {
        // A scheduled workflow never runs on another trigger, nor another workflow by its schedule.
        let runs = match due {
            None => workflow.schedules.is_empty(),
            Some(due) => !workflow.schedules.is_empty() && due.contains(&workflow.name),
        };
        if runs {
            let is_setup = compiled.is_some_and(|compiled| compiled.setup);
            commit::create_workflow(tx, &created.id, &new.project, workflow, is_setup, routing, now)?;
        }
    }
    // A commit that comes late is neither how the branch stands nor a reason to end what is.
    if !trigger.happened.as_ref().is_some_and(|happened| happened.is_late) {
        if let Some(compiled) = compiled {
            note_schedules(tx, new, compiled, now)?;
        }
        commit::cancel_redundant(tx, &created.id, now)?;
    }
    tx.effect(Effect::Changed(created.id.clone()));
    Ok(made_contexts)
}

/// Notes the schedules in the config of a branch, which hold until the next pipeline of the branch.
fn note_schedules(tx: &Tx<'_>, new: &New, compiled: &Compiled, now: Millis) -> Result<(), StoreError> {
    let trigger = &new.trigger;
    let is_untrusted = trigger.happened.as_ref().is_some_and(|happened| happened.is_untrusted);
    let branch = trigger.revision.as_ref().and_then(|revision| revision.branch.as_ref());
    let (Some(branch), false, true) = (branch, is_untrusted, trigger.config_origin.is_some()) else {
        return Ok(());
    };
    let mut wanted: Vec<(String, String)> = Vec::new();
    // A setup config only prepares: what it goes on with is not known by the clock.
    for workflow in compiled.workflows.iter().filter(|_| !compiled.setup) {
        for schedule in &workflow.schedules {
            let matches = |names: &[String]| {
                names.iter().any(|name| NamePattern::new(name).is_ok_and(|pattern| pattern.is_match(branch)))
            };
            let is_for_branch = if schedule.only.is_empty() {
                !matches(&schedule.ignore)
            } else {
                matches(&schedule.only) && !matches(&schedule.ignore)
            };
            if is_for_branch {
                wanted.push((workflow.name.clone(), schedule.cron.clone()));
            }
        }
    }
    schedules::set_of_branch(tx, &new.project, branch, &wanted, now)
}

/// Makes the contexts that a config uses and that do not exist. Returns their names.
fn make_contexts(
    tx: &Tx<'_>,
    project: &ProjectId,
    compiled: Option<&Compiled>,
    now: Millis,
) -> Result<Vec<String>, StoreError> {
    let Some(organisation) = organisation_of(tx, project)? else { return Ok(Vec::new()) };
    let mut made = Vec::new();
    let jobs = compiled.into_iter().flat_map(|compiled| &compiled.workflows).flat_map(|w| &w.jobs);
    for name in jobs.flat_map(|job| &job.contexts) {
        if contexts::create(tx, &organisation, name, now)?.is_ok() {
            made.push(name.clone());
        }
    }
    Ok(made)
}
