//! A compiled unit of work: what `config` makes of a job and the executor runs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A job with everything substituted: no parameters, expressions, commands or executors are left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// `namespace/name` of the runners that may claim its tasks.
    pub resource_class: String,
    /// Interpreter of all `run` steps, as one command line; `None` is the default of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Working directory as written in the config (`~` kept); `None` is the runner's own setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// `environment` of the job over that of its executor, as literal values.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Number of tasks, at least 1.
    pub parallelism: u32,
    /// Steps in order, pre- and post-steps included.
    pub steps: Vec<Step>,
    /// `retention.caches`, in days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_retention_days: Option<u32>,
}

impl Job {
    /// A job of one task with nothing in it, for a resource class.
    pub fn without_steps(resource_class: String) -> Self {
        Self {
            resource_class,
            shell: None,
            working_directory: None,
            environment: BTreeMap::new(),
            parallelism: 1,
            steps: Vec::new(),
            cache_retention_days: None,
        }
    }
}

/// A step as compiled. `step_form` reads it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Title for people; never empty.
    pub name: String,
    /// When to run it, given what happened before. Never absent: defaults are the compiler's.
    pub when: When,
    /// Kind of the step, with its fields.
    #[serde(flatten)]
    pub action: StepAction,
}

/// The `when` attribute of a step, decided at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Unless an earlier step failed.
    OnSuccess,
    /// Only if an earlier step failed.
    OnFail,
    /// Runs in both cases.
    Always,
}

/// Action of a step. Paths are as written: relative to the working directory, `~` for the home.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepAction {
    /// A shell command.
    Run(Run),
    /// Fetches the repository at the revision of the pipeline.
    Checkout {
        /// Target, `.` by default.
        path: String,
        /// How much history to fetch.
        method: CheckoutMethod,
    },
    /// Keeps a file or a folder for people.
    StoreArtifacts {
        /// File or folder.
        path: String,
        /// Name or prefix in the store; `None` derives it from `path`.
        #[serde(skip_serializing_if = "Option::is_none")]
        destination: Option<String>,
    },
    /// Uploads JUnit XML.
    StoreTestResults {
        /// File or folder.
        path: String,
    },
    /// Stores files under a key.
    SaveCache {
        /// Template of the key, such as `v1-{{ checksum "lock" }}`; evaluated when the step runs.
        key: String,
        /// Files and folders.
        paths: Vec<String>,
    },
    /// Restores the newest cache whose key starts with one of `keys`.
    RestoreCache {
        /// Key templates in order of preference.
        keys: Vec<String>,
    },
    /// Adds a layer to the workflow's workspace.
    PersistToWorkspace {
        /// Folder that `paths` are relative to.
        root: String,
        /// Paths and globs.
        paths: Vec<String>,
    },
    /// Unpacks the layers of upstream jobs.
    AttachWorkspace {
        /// Folder to unpack in; a relative one is below the working directory.
        at: String,
    },
    /// Adds SSH keys of the project; all of them if no fingerprint is given.
    AddSshKeys {
        /// MD5 or SHA-256 fingerprints.
        fingerprints: Vec<String>,
    },
    /// Accepted and explained: there is no remote Docker on a machine runner.
    SetupRemoteDocker,
    /// Accepted by the compiler; fails when run.
    InstallSigningBundle,
}

/// How much of the repository `checkout` fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CheckoutForm", into = "CheckoutForm")]
pub enum CheckoutMethod {
    /// All commits, file contents on demand; full where git cannot.
    Blobless,
    /// All commits with all their files.
    Full,
    /// The newest commits.
    Shallow {
        /// At least 1.
        depth: u32,
    },
}

/// Form of a [`CheckoutMethod`] in JSON, `{"kind": "shallow", "depth": 5}`: an enum that is told by one of its fields
/// costs the small file 3 KB more.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct CheckoutForm {
    kind: CheckoutKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    depth: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CheckoutKind {
    Blobless,
    Full,
    Shallow,
}

impl From<CheckoutForm> for CheckoutMethod {
    fn from(form: CheckoutForm) -> Self {
        match form.kind {
            CheckoutKind::Blobless => Self::Blobless,
            CheckoutKind::Full => Self::Full,
            CheckoutKind::Shallow => Self::Shallow { depth: form.depth.unwrap_or(1) },
        }
    }
}

impl From<CheckoutMethod> for CheckoutForm {
    fn from(method: CheckoutMethod) -> Self {
        match method {
            CheckoutMethod::Blobless => Self { kind: CheckoutKind::Blobless, depth: None },
            CheckoutMethod::Full => Self { kind: CheckoutKind::Full, depth: None },
            CheckoutMethod::Shallow { depth } => Self { kind: CheckoutKind::Shallow, depth: Some(depth) },
        }
    }
}

/// A `run` step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Text given to one invocation of the shell; never empty.
    pub command: String,
    /// Overrides the shell of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Literal values, this step only.
    pub environment: BTreeMap<String, String>,
    /// Start it and go on.
    pub background: bool,
    /// Relative to the directory of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Kill the step after this long without a byte of output.
    pub no_output_timeout_ms: u64,
    /// Further attempts after a failure, 0 to 5.
    pub max_auto_reruns: u32,
    /// Pause before each further attempt.
    pub auto_rerun_delay_ms: u64,
    /// True for the deprecated `deploy` step: only node 0 runs it.
    pub first_node_only: bool,
}

impl StepAction {
    /// The word of the config for it, which records of steps carry as well.
    pub fn kind(&self) -> &'static str {
        match self {
            StepAction::Run(_) => "run",
            StepAction::Checkout { .. } => "checkout",
            StepAction::StoreArtifacts { .. } => "store_artifacts",
            StepAction::StoreTestResults { .. } => "store_test_results",
            StepAction::SaveCache { .. } => "save_cache",
            StepAction::RestoreCache { .. } => "restore_cache",
            StepAction::PersistToWorkspace { .. } => "persist_to_workspace",
            StepAction::AttachWorkspace { .. } => "attach_workspace",
            StepAction::AddSshKeys { .. } => "add_ssh_keys",
            StepAction::SetupRemoteDocker => "setup_remote_docker",
            StepAction::InstallSigningBundle => "install_signing_bundle",
        }
    }
}
