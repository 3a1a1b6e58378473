//! State that all handlers share: the store, the blobs, who waits, and the settings.

use crate::orbs::OrbSites;
use crate::server::blobs::Blobs;
use crate::server::clients::Refusals;
use crate::server::figures::Figures;
use crate::server::ids::ProjectId;
use crate::server::live::hub::Hub;
use crate::server::pipelines::repository::Mirrors;
use crate::server::secrets::app::Installations;
use crate::server::secrets::pace::Paces;
use crate::server::secrets::sealer::Sealer;
use crate::server::store::Store;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Cheap to clone.
pub type Shared = Arc<State>;

/// The control plane in memory.
pub struct State {
    /// Database: one writer, and readers with a permit each.
    pub store: Store,
    /// Output of steps and uploaded files, which are too large for the database.
    pub blobs: Blobs,
    /// Parked calls and watchers.
    pub hub: Arc<Hub>,
    /// Tokens that were got by GitHub Apps.
    pub installations: Installations,
    /// How fast each token may be used at its forge.
    pub paces: Paces,
    /// Settings, which the start decided for good.
    pub settings: ServerSettings,
    /// The part of a config that is still looked for.
    pub sought: Mutex<Sought>,
    /// True once it stops: parked calls are answered.
    pub stopping: watch::Sender<bool>,
    /// Refused tokens, by the address of who showed them.
    pub refusals: Refusals,
    /// Deliveries of forges that were not believed and are not written down one by one, by project, for a second after one
    /// that is.
    pub not_believed: Mutex<HashMap<ProjectId, u32>>,
    /// Figures since the start, for the metrics.
    pub figures: Arc<Figures>,
}

impl State {
    /// Returns when the control plane stops: parked calls are answered, streams end.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Settings of the control plane that a start decides for good.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Base of the URLs that people see, without a trailing slash.
    pub public_url: String,
    /// The queues that tasks go to.
    pub routing: Routing,
    /// Class of `machine: true` jobs that name none; `None` makes them an error.
    pub default_resource_class: Option<String>,
    /// A claim lapses this long after the last heartbeat.
    pub lease_seconds: u32,
    /// How long a heartbeat is held.
    pub heartbeat_wait_seconds: u32,
    /// Output of one step beyond this is dropped by the runner.
    pub max_step_output_bytes: u64,
    /// Largest artifact that is taken, in bytes.
    pub max_artifact_bytes: u64,
    /// The part of every config that is run; by default all of it.
    pub only: Only,
    /// How long things are kept, and how much of them.
    pub keeping: Keeping,
    /// Sources of orbs.
    pub orbs: OrbSites,
    /// Repositories that configs are read from.
    pub mirrors: Arc<Mirrors>,
    /// Hosts that webhooks may call though their addresses are not public: `HOST` or `HOST:PORT`.
    pub webhook_hosts: Vec<String>,
    /// Seals and opens the values of variables.
    pub sealer: Arc<Sealer>,
}

impl ServerSettings {
    /// The address at which people look at a job, by its project's slug and its number there; one without a number is
    /// found by its id.
    pub fn job_url(&self, slug: &str, job: impl std::fmt::Display) -> String {
        format!("{}/{slug}/jobs/{job}", self.public_url)
    }

    /// The time of [`ServerSettings::lease_seconds`].
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }
}

/// How long things are kept after their end, and how much a project may have. `None` sets no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Artifacts, from the time at which they are stored.
    pub artifacts: Option<Duration>,
    /// Caches, from the time at which they are saved; a job may ask for less (`retention.caches`).
    pub caches: Option<Duration>,
    /// Workspace layers, from the time at which they are persisted.
    pub workspaces: Option<Duration>,
    /// Output of steps.
    pub output: Option<Duration>,
    /// Test results, from the end of their job.
    pub tests: Option<Duration>,
    /// Pipelines, with all that belongs to them.
    pub pipelines: Option<Duration>,
    /// The caches of a project.
    pub cache_quota: Quota,
    /// The artifacts of a project.
    pub artifact_quota: Quota,
}

/// How much each project may have of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of a project that has no quota of its own; `None` is no limit.
    pub usual_bytes: Option<u64>,
    /// Bytes of projects by their slugs, such as `gh/acme/app`.
    pub own_bytes: BTreeMap<String, u64>,
}

impl Quota {
    /// Bytes that the project with this slug may have; `None` is no limit.
    pub fn bytes_of(&self, slug: &str) -> Option<u64> {
        self.own_bytes.get(slug).copied().or(self.usual_bytes)
    }

    /// Whether there is any limit.
    pub fn is_set(&self) -> bool {
        self.usual_bytes.is_some() || !self.own_bytes.is_empty()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Keeping {
    fn default() -> Self {
        Self {
            artifacts: Some(30 * DAY),
            caches: Some(15 * DAY),
            workspaces: Some(15 * DAY),
            output: None,
            tests: None,
            pipelines: None,
            cache_quota: Quota::default(),
            artifact_quota: Quota::default(),
        }
    }
}

/// The queue that the tasks of a job go to.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Every task goes to this class, whatever its job names.
    pub route_all_to: Option<String>,
    /// The end of jobs that no runner of this control plane may take.
    pub elsewhere: Elsewhere,
}

/// Treatment of jobs that run elsewhere only: in containers, on Macs or machines of the hosted service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elsewhere {
    /// Jobs fail when their turn comes: a workflow that skipped its tests is no success.
    #[default]
    Fail,
    /// Jobs are not run, nor those that require them; a job in a container counts, whatever its class.
    Skip,
    /// Their steps run on the host of a machine runner.
    OnHost,
}

/// The part of a config that is run, by names in which `*` and `?` stand for others.
#[derive(Clone, Debug, Default)]
pub struct Only {
    /// Name of a workflow.
    pub workflow: Option<String>,
    /// Names of jobs, as expanded or as the config has them before a matrix; with these run what they require.
    pub jobs: Vec<String>,
}

impl Only {
    /// Whether it is no part but all of the config.
    pub fn is_empty(&self) -> bool {
        self.workflow.is_none() && self.jobs.is_empty()
    }
}

/// The end of the part that is to run ([`ServerSettings::only`]): that of the one pipeline of a control plane which
/// has such a part.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    /// The part that a setup config does not have, until a config that has it follows.
    pub missing: Only,
    /// The reason why it does not run in the setup config, which has it.
    pub left_out: Option<String>,
    /// The reason why a config that was to follow was refused: it has no such part that runs.
    pub refusal: Option<String>,
}
