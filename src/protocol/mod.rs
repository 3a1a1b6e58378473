//! What the control plane and the runners say to each other: plain data, no IO.
//!
//! Every other module may use this one; it uses none of them. The calls themselves, with their paths
//! and answers, are described in `docs/protocol.md`. All bodies are JSON unless they are raw bytes.

pub mod archive;
pub mod claim;
pub mod duration;
pub mod event;
pub mod finish;
pub mod id;
pub mod job;
pub mod resource_class;
pub mod secret;
pub mod task;
pub mod task_input;
pub mod timings;
pub mod transfer;
pub mod watch;

#[cfg(test)]
mod fixed_bytes;

pub use archive::{
    Archive, Cache, CacheAnswer, CacheRecord, FindCache, FoundCache, LONGEST_CACHE_KEY, Layer, LayerJob,
    LayerRecord, Workspace,
};
pub use claim::{ClaimRequest, Heartbeat, HeartbeatAnswer, LostTask};
pub use event::{Event, EventKind, EventsAnswer, StepStatus};
pub use finish::{FinishAnswer, FinishRequest, StepSummary, TaskStatus};
pub use id::TaskId;
pub use job::{Action, CheckoutMethod, Job, Run, Step, When};
pub use resource_class::ResourceClass;
pub use secret::Secret;
pub use task::{Source, Task, Variable};
pub use task_input::{TaskEndpoint, TaskInput, task_exit};
pub use timings::TestTimings;
pub use transfer::{ArtifactRecord, OutputAnswer, Refusal, RefusalCode, TestResultsRecord, UploadAnswer};
pub use watch::WatchEvent;

/// Version of the runner protocol. Sent by runners in `Runlet-Protocol`; a control plane that does not
/// speak it answers 400 with [`RefusalCode::ProtocolMismatch`] and says which side to upgrade.
pub const PROTOCOL_VERSION: u32 = 1;

/// Request header that carries [`PROTOCOL_VERSION`].
pub const PROTOCOL_HEADER: &str = "Runlet-Protocol";

/// Largest body, in bytes, of one output or upload request. Larger data goes in several requests.
pub const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;
