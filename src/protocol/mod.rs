//! Messages between the control plane and the runners: plain data, no IO.
//!
//! Every other module may use this one; it uses none of them. The calls themselves, with their paths
//! and answers, are described in `docs/protocol.md`. All bodies are JSON unless they are raw bytes.

pub mod about;
pub mod archive;
pub mod claim;
#[cfg(any(feature = "server", feature = "kubernetes"))]
pub mod container;
pub mod duration;
pub mod event;
pub mod finding;
pub mod finish;
pub mod id;
pub mod job;
pub mod json;
pub mod limits;
pub mod pod_task;
pub mod resource_class;
pub mod secret;
mod step_form;
pub mod task;
pub mod task_input;
pub mod times;
pub mod timings;
pub mod transfer;
pub mod watch;

#[cfg(test)]
mod fixed_bytes;

pub use about::{AboutAnswer, AboutRequest, SeenRunner};
pub use archive::{
    Archive, Cache, CacheAnswer, CacheRecord, FindCache, FoundCache, Layer, LayerJob, LayerRecord, Workspace,
};
pub use claim::{
    BeginAnswer, BeginRequest, ClaimRequest, GiveBack, GiveBackAnswer, GiveBackReason, GivenBack, Heartbeat,
    HeartbeatAnswer, LostTask, RestAnswer, TaskKind,
};
#[cfg(any(feature = "server", feature = "kubernetes"))]
pub use container::{Beside, Container, FIRST_BESIDE, RegistryLogin, Words};
pub use event::{EventKind, EventsAnswer, StepStatus, TaskEvent};
pub use finish::{FinishAnswer, FinishRequest, StepSummary, TaskStatus};
pub use id::TaskId;
pub use job::{CheckoutMethod, Job, Run, Step, StepAction, When};
pub use resource_class::ResourceClass;
pub use secret::Secret;
pub use task::{Source, Task, Variable};
pub use task_input::{TaskEndpoint, TaskInput, task_exit};
pub use timings::TestTimings;
pub use transfer::{
    ArtifactRecord, HeldTask, OutputAnswer, Refusal, RefusalCode, TestResultsRecord, UploadAnswer,
};
pub use watch::WatchEvent;

/// Version of the runner protocol. Sent by runners in `Runlet-Protocol`; a control plane that does not
/// speak it answers 400 with [`RefusalCode::ProtocolMismatch`] and says which side to upgrade.
pub const PROTOCOL_VERSION: u32 = 2;

/// The version before: a control plane serves its runners, too.
pub const PREVIOUS_PROTOCOL_VERSION: u32 = 1;

/// Header that carries [`PROTOCOL_VERSION`], in requests of runners and in every answer of a control plane. An answer
/// without it comes from something in between, whatever its status says.
pub const PROTOCOL_HEADER: &str = "Runlet-Protocol";

/// Header of answers to calls with a task token, set where there is news of the task: [`TASK_CANCEL`] or [`TASK_ENDED`].
pub const TASK_HEADER: &str = "Runlet-Task";
/// [`TASK_HEADER`]: somebody cancelled the task.
pub const TASK_CANCEL: &str = "cancel";
/// [`TASK_HEADER`]: the task has ended here, and this call was taken all the same: output and events that come late.
pub const TASK_ENDED: &str = "ended";

/// Header of the answer that hands out a task: its id and its allocation, with a space between. By them a runner gives
/// back what it cannot read the answer of.
pub const CLAIMED_HEADER: &str = "Runlet-Claimed";

pub use limits::MAX_CHUNK_BYTES;
