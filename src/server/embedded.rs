//! A control plane inside another program, for one repository: what `runlet exec` gives it and takes out of it.

use crate::config::{Compiled, Diagnostics, JobKind, OtherNames};
use crate::protocol::{Cache, CacheRecord, Secret, TaskId};
use crate::server::api::shared::lookup::artifact_url;
use crate::server::api::shared::vocabulary;
use crate::server::blobs::Error as BlobError;
use crate::server::engine::placement;
use crate::server::ids::PipelineId;
use crate::server::pipelines::compile::{built, narrow, pipeline_values};
use crate::server::pipelines::types::Trigger;
use crate::server::run::{Running, ServerOptions};
use crate::server::secrets::variables;
use crate::server::state::{Only, Routing};
use crate::server::store::read::{self, Artifact};
use crate::server::store::status::JobStatus;
use crate::server::store::tables::{archives, jobs, projects};
use crate::server::store::{Error as StoreError, View};
use crate::server::time::Millis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// A config as a control plane would run it.
pub struct Preview {
    /// Jobs that would run, or would have, and those that are left out.
    pub compiled: Compiled,
    /// Branch or tag that the pipeline is of, for people.
    pub built: String,
    routing: Routing,
}

impl Preview {
    /// The reason why no runner may take a job, or what it goes without on this host; a sentence for people.
    pub fn remark(&self, kind: &JobKind) -> Option<String> {
        let placement = placement::of(kind, &self.routing);
        placement.cannot_run.map(|cannot| cannot.message).or(placement.remark)
    }

    /// Whether no runner may take a job.
    pub fn cannot_run(&self, kind: &JobKind) -> bool {
        placement::of(kind, &self.routing).cannot_run.is_some()
    }

    /// Keeps what was asked for; the error is a sentence for people.
    pub fn narrow(&mut self, only: &Only) -> Result<(), String> {
        narrow(&mut self.compiled, only, &self.built)
    }
}

/// Compiles the config of a trigger as a control plane with these options would. Nothing is stored.
pub fn preview(options: &ServerOptions, trigger: &Trigger) -> Result<Preview, Diagnostics> {
    let values = pipeline_values(&PipelineId::fresh(), 1, trigger, Millis::now());
    let compiled = compile(options, trigger, &values)?;
    let routing = Routing { route_all_to: options.route_all_to.clone(), elsewhere: options.elsewhere };
    Ok(Preview { compiled, built: built(&values), routing })
}

fn compile(
    options: &ServerOptions,
    trigger: &Trigger,
    values: &BTreeMap<String, Value>,
) -> Result<Compiled, Diagnostics> {
    crate::config::compile(&crate::config::Input {
        source: &trigger.config,
        file_name: &trigger.file_name,
        parameters: &trigger.parameters,
        values,
        stand_ins: &Default::default(),
        orbs: &options.orbs,
        default_resource_class: options.default_resource_class.as_deref(),
    })
}

/// Most variables of a project.
pub const MOST_VARIABLES: usize = variables::MOST_PER_PROJECT;

/// Checks a variable of a project; the error is a sentence for people that shows nothing of it.
pub fn check_variable(name: &str, value: &str) -> Result<(), String> {
    variables::check_name(name).map_err(|_| {
        format!(
            "what stands before `=` is not the name of a variable: that has letters, digits and `_`, does not start with a digit, and has at most {} characters",
            variables::MOST_NAME_BYTES
        )
    })?;
    variables::check_value(value)
}

/// The reason why a variable is not set.
#[derive(Debug)]
pub enum SetError {
    /// The name or value cannot be one, or there are too many; a sentence for people.
    Refused(String),
    /// The store said no.
    Store(StoreError),
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Refused(why) => f.write_str(why),
            SetError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SetError {}

/// Why a part of the config that was asked for never came to be; sentences for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeverCame {
    /// The setup config does not have it, and no other config followed.
    Missing(String),
    /// A config that was to follow was refused, since it has no such part that runs.
    Refused(String),
}

/// An artifact of a job.
#[derive(Clone, Debug)]
pub struct StoredArtifact {
    /// Name of the artifact: relative, with `/` between parts.
    pub path: String,
    /// Address that it is fetched from.
    pub url: String,
    /// The node that stored it.
    pub execution: u32,
}

impl Running {
    /// The reason why something that was asked for never came to be; `None` when all of it did.
    pub fn never_came(&self) -> Option<NeverCame> {
        let sought = self.state.sought.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &sought.refusal {
            return Some(NeverCame::Refused(why.clone()));
        }
        if let Some(why) = &sought.left_out {
            return Some(NeverCame::Missing(why.clone()));
        }
        let workflow = sought.missing.workflow.as_ref().map(|name| format!("workflow `{name}`"));
        let missing = workflow.or_else(|| Some(format!("job `{}`", sought.missing.jobs.first()?)))?;
        let why = format!("there is no {missing}: the setup workflow did not continue the pipeline");
        Some(NeverCame::Missing(why))
    }

    /// Whether nothing of a pipeline goes on before a person approves something: no job runs or waits for a runner, and those
    /// that wait for the key of a serial group wait for one that is held behind an approval.
    pub fn waits_for_people(&self, pipeline: &PipelineId) -> Result<bool, StoreError> {
        self.state.store.read_blocking(|view| {
            let mut waits = false;
            for workflow in read::workflows_of(view, pipeline)? {
                for job in jobs::nodes(view, &workflow.id)? {
                    let goes_on = job.status == JobStatus::Running
                        || (job.status == JobStatus::Queued && !job.waits_for_key);
                    if goes_on {
                        return Ok(false);
                    }
                    waits |= job.status == JobStatus::OnHold;
                }
            }
            Ok(waits)
        })
    }

    /// Names that the config has for a job beside its own.
    pub fn other_names(&self, job: &str) -> Result<OtherNames, StoreError> {
        self.state.store.read_blocking(|view| jobs::other_names(view, &job.into()))
    }

    /// The folder of output: a runner of this host may write it there, as files with the numbers of steps in a folder with
    /// the id of the task.
    pub fn output_folder(&self) -> PathBuf {
        self.state.blobs.outputs.folder().to_owned()
    }

    /// The artifacts of a job. Jobs may have more of them than one answer of the API can hold.
    pub fn artifacts(&self, job: &str) -> Result<Vec<StoredArtifact>, StoreError> {
        let read = |view: &View| {
            let Some(job) = read::job(view, &job.into())? else { return Ok(Vec::new()) };
            read::artifacts(view, &job.ran_as)
        };
        let show = |artifact: Artifact| StoredArtifact {
            url: artifact_url(&self.state, &artifact),
            path: artifact.path,
            execution: artifact.node_index,
        };
        Ok(self.state.store.read_blocking(read)?.into_iter().map(show).collect())
    }

    /// Gives each test result of a job on, in the order in which the API lists them: what the API says of it, and the place of
    /// a failure, `file:line`, where a line is known. Jobs may have more of them than one answer of the API can hold.
    pub fn each_test(
        &self,
        job: &str,
        each: &mut dyn FnMut(&Value, Option<String>),
    ) -> Result<(), StoreError> {
        self.state.store.read_blocking(|view| {
            let Some(job) = read::job(view, &job.into())? else { return Ok(()) };
            read::each_test(view, &job.ran_as, |test| each(&vocabulary::test(&test), test.place))
        })
    }

    /// Sets a variable of the project `slug`: jobs have it in their environment, and its value is masked.
    pub fn set_variable(&self, slug: &str, name: &str, value: Secret) -> Result<(), SetError> {
        check_variable(name, value.expose()).map_err(SetError::Refused)?;
        let (slug, name, sealer) = (slug.to_owned(), name.to_owned(), self.state.settings.sealer.clone());
        let set = self.state.store.write_blocking(move |tx| {
            let now = Millis::now();
            let project = projects::ensure_project(tx, &slug, None, now)?.project;
            variables::set_of_project(tx, &sealer, &project, &name, &value, now)
        });
        match set.map_err(SetError::Store)? {
            Some(_) => Ok(()),
            None => Err(SetError::Refused("there are too many variables".to_owned())),
        }
    }

    /// Gives the project `slug` a cache whose archive is in `file`; both must last as long as this runs.
    pub fn add_cache(
        &self,
        slug: &str,
        cache: &Cache,
        file: &Path,
        keep: std::time::Duration,
    ) -> Result<(), CacheError> {
        self.state.blobs.objects.link(&cache.archive.sha256, file).map_err(CacheError::Blob)?;
        let (slug, cache) = (slug.to_owned(), cache.clone());
        let added = self.state.store.write_blocking(move |tx| {
            let project = projects::ensure_project(tx, &slug, None, Millis::now())?.project;
            let record = CacheRecord { key: cache.key, archive: cache.archive };
            let saved = Millis(cache.created_at_ms);
            let Ok(task) = TaskId::new("kept") else { return Ok(()) };
            archives::insert_cache(tx, &project, &task, &record, saved.plus(keep), saved).map(drop)
        });
        added.map_err(CacheError::Store)
    }

    /// The caches of the project `slug` that have not expired, and the files of their archives.
    pub fn caches(&self, slug: &str) -> Result<Vec<(Cache, PathBuf)>, CacheError> {
        let slug = slug.to_owned();
        let found = self.state.store.write_blocking(move |tx| {
            let project = projects::ensure_project(tx, &slug, None, Millis::now())?.project;
            archives::caches_of(tx, &project, Millis::now())
        });
        let file = |cache: Cache| {
            let file = self.state.blobs.objects.path(&cache.archive.sha256).map_err(CacheError::Blob)?;
            Ok((cache, file))
        };
        found.map_err(CacheError::Store)?.into_iter().map(file).collect()
    }
}

/// The reason why a cache is not taken in or given out.
#[derive(Debug)]
pub enum CacheError {
    /// The store said no.
    Store(StoreError),
    /// The files said no.
    Blob(BlobError),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::Store(error) => error.fmt(f),
            CacheError::Blob(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CacheError {}
