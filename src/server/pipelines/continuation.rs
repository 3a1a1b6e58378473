//! The second half of a setup pipeline: a job of the setup workflow sends the config that the pipeline
//! goes on with, authorised by the key that its claim carried.

use crate::config::{self, Compiled};
use crate::server::auth::token_hash;
use crate::server::engine::commit;
use crate::server::pipelines::compile::{ConfigSource, built, compile, narrow_to_run};
use crate::server::state::{Routing, Shared, Sought};
use crate::server::store::tables::pipelines::{self, Pending, SecondConfig};
use crate::server::store::{Effect, Error as StoreError, Tx};
use crate::server::time::Millis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

/// A pipeline can be continued this long after its creation.
const WINDOW: Duration = Duration::from_secs(6 * 60 * 60);

/// The second config of a pipeline, as a setup job sends it.
#[derive(Debug)]
pub(in crate::server) struct Continuation {
    /// `CIRCLE_CONTINUATION_KEY` of the job.
    pub key: String,
    /// The config to go on with.
    pub configuration: String,
    /// Pipeline parameters for it.
    pub parameters: BTreeMap<String, Value>,
}

/// The reason why a pipeline does not go on.
#[derive(Debug)]
pub(in crate::server) enum NoContinuation {
    /// No pipeline was given this key.
    UnknownKey,
    /// The pipeline has gone on already.
    Already,
    /// The pipeline is too old.
    TooLate,
    /// The second config is a setup config as well.
    Setup,
    /// The part that is to run is not in it, as a sentence for people.
    NoSuch(String),
    /// Parameters are given twice, with the words that clients know.
    Conflict,
    /// The second config does not compile.
    Invalid(config::Diagnostics),
    /// Orbs of the second config cannot be fetched now.
    NoOrbs(config::Diagnostics),
    /// The store said no.
    Store(StoreError),
}

impl From<StoreError> for NoContinuation {
    fn from(error: StoreError) -> Self {
        NoContinuation::Store(error)
    }
}

impl fmt::Display for NoContinuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoContinuation::UnknownKey => f.write_str(
                "the continuation key is not known: use the value of CIRCLE_CONTINUATION_KEY in a job of the setup workflow",
            ),
            NoContinuation::Already => f.write_str("the pipeline has been continued already: that is possible once"),
            NoContinuation::TooLate => f.write_str("the pipeline is older than 6 hours: it can no longer be continued"),
            NoContinuation::Setup => {
                f.write_str("the config to continue with is itself a setup config: remove `setup: true` from it")
            }
            NoContinuation::NoSuch(why) => f.write_str(why),
            NoContinuation::Conflict => f.write_str("Conflicting pipeline parameters."),
            NoContinuation::NoOrbs(errors) => write!(f, "the config to continue with could not be compiled: {errors}"),
            NoContinuation::Invalid(errors) => write!(f, "the config to continue with is not valid: {errors}"),
            NoContinuation::Store(error) => error.fmt(f),
        }
    }
}

/// Goes on with a pipeline. A config that does not compile leaves the pipeline as it is, so that the job
/// can say what is wrong and try again.
pub(in crate::server) async fn continue_pipeline(
    state: &Shared,
    request: Continuation,
) -> Result<(), NoContinuation> {
    let hash = token_hash(&request.key);
    let pending = state.store.read(move |view| pipelines::pipeline_of_key(view, &hash)).await?;
    let pending = pending.ok_or(NoContinuation::UnknownKey)?;
    if pending.is_continued {
        return Err(NoContinuation::Already);
    }
    if Millis::now().since(pending.created_at) > WINDOW {
        return Err(NoContinuation::TooLate);
    }
    let source = ConfigSource {
        parameters: parameters(&pending, &request)?,
        config: request.configuration,
        file_name: "continuation".to_owned(),
        values: pending.values.clone(),
        stand_ins: BTreeMap::new(),
    };
    let settings = state.settings.clone();
    let compiling = tokio::task::spawn_blocking(move || (compile(&settings, &source), source.config));
    let (compiled, source) = compiling.await.map_err(|_| StoreError::Closed)?;
    let mut compiled = compiled.map_err(|errors| {
        if errors.may_pass() { NoContinuation::NoOrbs(errors) } else { NoContinuation::Invalid(errors) }
    })?;
    if compiled.setup {
        return Err(NoContinuation::Setup);
    }
    if !state.settings.only.is_empty() {
        let mut sought = state.sought.lock().unwrap_or_else(PoisonError::into_inner);
        if sought.missing.is_empty() {
            // The setup workflow had all of it.
            compiled.workflows.clear();
        } else if let Err(why) = narrow_to_run(&mut compiled, &sought.missing, &built(&pending.values)) {
            let of_setup = sought.left_out.as_ref().map(|why| format!("{why} (setup config); "));
            let why = of_setup.unwrap_or_default() + &why;
            sought.refusal = Some(why.clone());
            return Err(NoContinuation::NoSuch(why));
        }
        *sought = Sought::default();
    }
    let routing = state.settings.routing.clone();
    let commit = move |tx: &Tx<'_>| commit(tx, &pending, &source, &compiled, &routing, Millis::now());
    if state.store.write(commit).await? { Ok(()) } else { Err(NoContinuation::Already) }
}

/// Gathers the parameters of the second config: those that the trigger gave still hold where it declares
/// them; the job's own come on top.
fn parameters(pending: &Pending, request: &Continuation) -> Result<BTreeMap<String, Value>, NoContinuation> {
    let types = config::declared_types(&request.configuration).unwrap_or_default();
    let conflict = request.parameters.keys().any(|name| {
        types.contains_key(name)
            && pending.declared.get(name).is_some_and(|declared| declared.given_other_than_default)
    });
    if conflict {
        return Err(NoContinuation::Conflict);
    }
    let kept = pending.given.iter().filter(|(name, _)| types.contains_key(*name));
    let mut parameters: BTreeMap<String, Value> = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
    parameters.extend(request.parameters.clone());
    Ok(parameters)
}

/// Stores the second config and starts its workflows. False when somebody else was faster.
fn commit(
    tx: &Tx<'_>,
    pending: &Pending,
    source: &str,
    compiled: &Compiled,
    routing: &Routing,
    now: Millis,
) -> Result<bool, StoreError> {
    let warnings: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
    let second = SecondConfig {
        source,
        processed: &compiled.processed,
        parameters: &compiled.parameters,
        warnings: &warnings,
    };
    if !pipelines::continue_pipeline(tx, &pending.id, &second, now)? {
        return Ok(false);
    }
    for workflow in compiled.workflows.iter().filter(|workflow| workflow.schedules.is_empty()) {
        commit::create_workflow(tx, &pending.id, &pending.project, workflow, false, routing, now)?;
    }
    tx.effect(Effect::Changed(pending.id.clone()));
    Ok(true)
}
