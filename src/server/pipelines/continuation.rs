//! The second half of a setup pipeline: a job of the setup workflow sends the config that the pipeline
//! goes on with, authorised by the key that its claim carried.

use crate::config::{self, Compiled, DeclaredParameter};
use crate::server::engine::commit;
use crate::server::pipelines::{self, Trigger};
use crate::server::state::{Shared, new_token, now_ms, token_hash};
use crate::server::store::View;
use crate::server::store::status::PipelineState;
use crate::server::store::{Effect, Error as StoreError, Tx};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// A pipeline can be continued this long after its creation: 6 hours.
const WINDOW_MS: u64 = 6 * 60 * 60 * 1000;

/// What a setup job sends.
#[derive(Debug)]
pub(in crate::server) struct Continuation {
    /// `CIRCLE_CONTINUATION_KEY` of the job.
    pub key: String,
    /// The config to go on with.
    pub configuration: String,
    /// Pipeline parameters for it.
    pub parameters: BTreeMap<String, Value>,
}

/// Why a pipeline does not go on.
#[derive(Debug)]
pub(in crate::server) enum Refused {
    /// No pipeline was given this key.
    UnknownKey,
    /// It has gone on already.
    Already,
    /// It is too old.
    TooLate,
    /// The second config is a setup config as well.
    Setup,
    /// Parameters are given twice, with the words that clients know.
    Conflict,
    /// The second config does not compile.
    Invalid(config::Diagnostics),
    /// The store said no.
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Refused::Store(error)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::UnknownKey => f.write_str(
                "the continuation key is not known: use the value of CIRCLE_CONTINUATION_KEY in a job of the setup workflow",
            ),
            Refused::Already => f.write_str("the pipeline has been continued already: that is possible once"),
            Refused::TooLate => f.write_str("the pipeline is older than 6 hours: it can no longer be continued"),
            Refused::Setup => {
                f.write_str("the config to continue with is itself a setup config: remove `setup: true` from it")
            }
            Refused::Conflict => f.write_str("Conflicting pipeline parameters."),
            Refused::Invalid(errors) => write!(f, "the config to continue with is not valid: {errors}"),
            Refused::Store(error) => error.fmt(f),
        }
    }
}

/// A key for one claim of a job of a setup workflow; `None` for jobs of other workflows and once the
/// pipeline has gone on. Only its hash is kept.
pub(in crate::server) fn key_for_claim(tx: &Tx<'_>, task: &str) -> Result<Option<String>, StoreError> {
    let pipeline: Option<String> = tx
        .prepare_cached(
            "SELECT p.id FROM tasks t JOIN jobs j ON j.id = t.job_id JOIN workflows w ON w.id = j.workflow_id
             JOIN pipelines p ON p.id = t.pipeline_id
             WHERE t.id = ?1 AND w.is_setup AND p.continued_at_ms IS NULL",
        )?
        .query_row([task], |row| row.get(0))
        .optional()?;
    let Some(pipeline) = pipeline else { return Ok(None) };
    let key = new_token("rlk_")?;
    tx.prepare_cached("INSERT INTO continuation_keys VALUES (?1, ?2)")?
        .execute(params![token_hash(&key), pipeline])?;
    Ok(Some(key))
}

/// What is stored of the pipeline that a key belongs to.
struct Pending {
    id: String,
    project: String,
    continued: bool,
    created_at_ms: u64,
    values: BTreeMap<String, Value>,
    given: BTreeMap<String, Value>,
    declared: BTreeMap<String, DeclaredParameter>,
}

/// Goes on with a pipeline. A config that does not compile leaves the pipeline as it is, so that the job
/// can say what is wrong and try again.
pub(in crate::server) async fn continue_pipeline(
    state: &Shared,
    request: Continuation,
) -> Result<(), Refused> {
    let hash = token_hash(&request.key);
    let pending = state.store.read(move |c| find(c, &hash)).await?.ok_or(Refused::UnknownKey)?;
    if pending.continued {
        return Err(Refused::Already);
    }
    if now_ms().saturating_sub(pending.created_at_ms) > WINDOW_MS {
        return Err(Refused::TooLate);
    }
    let parameters = parameters(&pending, &request)?;
    let trigger = Trigger {
        config: request.configuration,
        file_name: "continuation".to_owned(),
        parameters,
        ..Trigger::default()
    };
    let (settings, values) = (state.settings.clone(), pending.values.clone());
    let compiling = tokio::task::spawn_blocking(move || {
        let compiled = pipelines::compile(&settings, &trigger, &values, &BTreeMap::new());
        (compiled, trigger.config)
    });
    let (compiled, source) = compiling.await.map_err(|_| StoreError::Closed)?;
    let compiled = compiled.map_err(Refused::Invalid)?;
    if compiled.setup {
        return Err(Refused::Setup);
    }
    let routing = state.settings.routing.clone();
    let went_on =
        state.store.write(move |tx| commit(tx, &pending, &source, &compiled, &routing, now_ms())).await?;
    if went_on { Ok(()) } else { Err(Refused::Already) }
}

/// What the trigger gave still holds where the second config declares it; the job's own come on top.
fn parameters(pending: &Pending, request: &Continuation) -> Result<BTreeMap<String, Value>, Refused> {
    let types = config::declared_types(&request.configuration).unwrap_or_default();
    let conflict = request.parameters.keys().any(|name| {
        types.contains_key(name)
            && pending.declared.get(name).is_some_and(|declared| declared.given_other_than_default)
    });
    if conflict {
        return Err(Refused::Conflict);
    }
    let kept = pending.given.iter().filter(|(name, _)| types.contains_key(*name));
    let mut parameters: BTreeMap<String, Value> = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
    parameters.extend(request.parameters.clone());
    Ok(parameters)
}

fn find(c: &View, hash: &[u8]) -> Result<Option<Pending>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT p.id, p.project_id, p.continued_at_ms IS NOT NULL, p.created_at_ms, p.pipeline_values,
            p.trigger_parameters, p.declared
         FROM continuation_keys k JOIN pipelines p ON p.id = k.pipeline_id WHERE k.hash = ?1",
    )?;
    let mut rows = query.query([hash])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Pending {
        id: row.get(0)?,
        project: row.get(1)?,
        continued: row.get(2)?,
        created_at_ms: row.get(3)?,
        values: serde_json::from_str(&row.get::<_, String>(4)?)?,
        given: serde_json::from_str(&row.get::<_, String>(5)?)?,
        declared: serde_json::from_str(&row.get::<_, String>(6)?)?,
    }))
}

/// False when somebody else was faster.
fn commit(
    tx: &Tx<'_>,
    pending: &Pending,
    source: &str,
    compiled: &Compiled,
    routing: &commit::Routing,
    now: u64,
) -> Result<bool, StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE pipelines SET state = ?2, continued_at_ms = ?3, updated_at_ms = ?3, parameters = ?4,
                warnings = ?5 WHERE id = ?1 AND continued_at_ms IS NULL",
        )?
        .execute(params![
            pending.id,
            PipelineState::Created,
            now as i64,
            json!(compiled.parameters).to_string(),
            json!(compiled.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string(),
        ])?;
    if changed == 0 {
        return Ok(false);
    }
    tx.prepare_cached(
        "UPDATE pipeline_configs SET setup_source = source, setup_processed = processed, source = ?2, processed = ?3
         WHERE pipeline_id = ?1",
    )?
    .execute(params![pending.id, source, compiled.processed])?;
    for workflow in compiled.workflows.iter().filter(|workflow| workflow.schedules.is_empty()) {
        commit::create_workflow(tx, &pending.id, &pending.project, workflow, false, routing, now)?;
    }
    tx.effect(Effect::Changed(pending.id.clone()));
    Ok(true)
}
