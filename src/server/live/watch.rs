//! A pipeline as it happens, for whoever watches it: [`follow`] tells the present state and then every change.
//!
//! Events that were told are compared with stored rows whenever the pipeline changes: a watcher that is slow or
//! comes late sees the same in the end.

use crate::logging::record;
use crate::protocol::{TaskId, WatchEvent};
use crate::server::ids::PipelineId;
use crate::server::state::Shared;
use crate::server::store::read::{self, Extent, Present};
use crate::server::store::status::MessageKind;
use std::collections::{HashMap, HashSet};
use tokio::sync::mpsc;

/// Most pieces of a running step's output before other steps have their turn.
const TURN: usize = 8;

/// A piece of news for a watcher.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The event. The `data` of an output event is empty.
    pub event: WatchEvent,
    /// The bytes of an output event, as the step wrote them.
    pub output: Vec<u8>,
}

/// Tells everything about a pipeline from now on, until it has ended or nobody listens. Output comes in
/// pieces of at most `chunk_bytes`. Call it on the control plane's runtime.
pub fn follow(state: Shared, pipeline: PipelineId, chunk_bytes: usize) -> mpsc::Receiver<Notification> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut teller =
            Teller { state, sender, chunk_bytes, things: HashMap::new(), offsets: HashMap::new() };
        // `None` is a watcher that has gone away, or a store that is being closed.
        teller.tell(pipeline).await.unwrap_or_default();
    });
    receiver
}

/// A subject of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A workflow or a job, by its id.
    Thing(String),
    /// A step record of a task.
    Step(TaskId, u32),
}

/// Follows a pipeline for one watcher, and knows what that watcher was told.
struct Teller {
    state: Shared,
    sender: mpsc::Sender<Notification>,
    chunk_bytes: usize,
    things: HashMap<Key, WatchEvent>,
    /// Bytes of output told, of each step.
    offsets: HashMap<(TaskId, u32), u64>,
}

/// A step record and the extent of its output.
struct Output {
    task: TaskId,
    job: String,
    execution: u32,
    step: u32,
    /// Extent of the output, whose end is told after all of its bytes.
    extent: Extent,
}

impl Teller {
    async fn tell(&mut self, pipeline: PipelineId) -> Option<()> {
        let mut changes = self.state.hub.watch(pipeline.as_str());
        let mut seen = None;
        let mut running: Vec<Output> = Vec::new();
        loop {
            let version = *changes.borrow_and_update();
            let mut more = false;
            if seen != Some(version.state) {
                seen = Some(version.state);
                let id = pipeline.clone();
                let present = self.state.store.read(move |view| read::present(view, &id)).await.ok()?;
                let Events { all, mut outputs, ended } = events(present);
                running.clear();
                // Tasks whose output is still on its way: what comes after it in them is told after it.
                let mut waiting: HashSet<TaskId> = HashSet::new();
                // A job that has ended is told after its steps and the other jobs; who was never told of it learns of it
                // first.
                for (key, event) in all.iter().filter(|(_, event)| is_ended_job(event)) {
                    if !self.things.contains_key(key) {
                        self.event(key.clone(), started(event)).await?;
                    }
                }
                for (key, event) in all {
                    if outputs.get(&key).is_some_and(|output| waiting.contains(&output.task)) {
                        continue;
                    }
                    // Every step is told to run before its output, and to have ended after it, even one
                    // that did both since the last look.
                    if let Some(output) = outputs.remove(&key) {
                        if !self.things.contains_key(&key) {
                            self.event(key.clone(), started(&event)).await?;
                        }
                        let is_over = is_end(&event);
                        more |= self.output(&output, if is_over { usize::MAX } else { TURN }).await?;
                        if !self.is_told(&output) {
                            let task = output.task.clone();
                            running.push(output);
                            if is_over {
                                waiting.insert(task);
                                continue;
                            }
                        }
                    }
                    self.event(key, event).await?;
                }
                if ended {
                    return self.send(WatchEvent::End, Vec::new()).await;
                }
            } else {
                for output in &running {
                    more |= self.output(output, TURN).await?;
                    // The end of a step may have waited for just this.
                    if self.is_told(output) {
                        seen = None;
                    }
                }
            }
            if more {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                () = self.sender.closed() => return None,
                () = self.state.stopped() => return None,
            }
        }
    }

    /// Tells `event` unless that is what was told last of this thing.
    async fn event(&mut self, key: Key, event: WatchEvent) -> Option<()> {
        if self.things.get(&key) == Some(&event) {
            return Some(());
        }
        self.things.insert(key, event.clone());
        self.send(event, Vec::new()).await
    }

    /// Whether the step has ended and all of its output was told.
    fn is_told(&self, output: &Output) -> bool {
        let told = self.offsets.get(&(output.task.clone(), output.step));
        output.extent.is_complete(told.copied().unwrap_or(0))
    }

    /// Tells up to `most` pieces of what a step has written since; true when there may be more.
    async fn output(&mut self, output: &Output, most: usize) -> Option<bool> {
        let key = (output.task.clone(), output.step);
        for _ in 0..most {
            let offset = self.offsets.get(&key).copied().unwrap_or(0);
            let (blobs, chunk_bytes) = (self.state.blobs.clone(), self.chunk_bytes);
            let (task, step) = key.clone();
            let read =
                tokio::task::spawn_blocking(move || blobs.outputs.read(&task, step, offset, chunk_bytes));
            let bytes = match read.await.ok()? {
                Ok(bytes) => bytes,
                Err(error) => {
                    record!(Error, task_id = key.0, step = key.1; "failed to read output for a watcher: {error}");
                    return None;
                }
            };
            if bytes.is_empty() {
                return Some(false);
            }
            self.offsets.insert(key.clone(), offset + bytes.len() as u64);
            let event = WatchEvent::Output {
                job_id: output.job.clone(),
                execution: output.execution,
                step: output.step,
                offset,
                data: String::new(),
            };
            self.send(event, bytes).await?;
        }
        Some(true)
    }

    async fn send(&mut self, event: WatchEvent, output: Vec<u8>) -> Option<()> {
        self.sender.send(Notification { event, output }).await.ok()
    }
}

fn is_end(event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Step { ended_at_ms, .. } | WatchEvent::Job { ended_at_ms, .. } => ended_at_ms.is_some(),
        _ => false,
    }
}

fn is_ended_job(event: &WatchEvent) -> bool {
    matches!(event, WatchEvent::Job { ended_at_ms: Some(_), .. })
}

/// A step or a job as it was while it ran; one that never ran, as it was before.
fn started(event: &WatchEvent) -> WatchEvent {
    let mut event = event.clone();
    if let WatchEvent::Job { status, started_at_ms, ended_at_ms, message, cannot_run, is_remark, .. } =
        &mut event
    {
        let before = if started_at_ms.is_some() { "running" } else { "blocked" };
        before.clone_into(status);
        (*ended_at_ms, *message, *cannot_run, *is_remark) = (None, None, false, false);
    }
    if let WatchEvent::Step { status, exit_code, ended_at_ms, message, .. } = &mut event {
        if status != "not_run" {
            "running".clone_into(status);
        }
        (*exit_code, *ended_at_ms, *message) = (None, None, None);
    }
    event
}

/// The present as events.
struct Events {
    /// Events to tell, in order.
    all: Vec<(Key, WatchEvent)>,
    /// The output of the steps among them.
    outputs: HashMap<Key, Output>,
    /// Whether all workflows have ended.
    ended: bool,
}

fn events(present: Present) -> Events {
    let ended = present.workflows.iter().all(|workflow| workflow.stopped_at.is_some());
    let workflows = present.workflows.into_iter().map(|workflow| {
        let event = WatchEvent::Workflow {
            id: workflow.id.to_string(),
            name: workflow.name,
            status: workflow.status.to_string(),
            rerun_of: workflow.rerun_of.map(String::from),
        };
        (Key::Thing(workflow.id.into()), event)
    });
    let jobs = present.jobs.into_iter().map(|job| {
        let event = WatchEvent::Job {
            id: job.id.to_string(),
            workflow_id: job.workflow_id.into(),
            name: job.name,
            status: job.status.to_string(),
            parallelism: job.parallelism,
            started_at_ms: job.started_at.map(|at| at.0),
            ended_at_ms: job.stopped_at.map(|at| at.0),
            message: job.message,
            cannot_run: job.cannot_run,
            is_remark: job.message_kind == Some(MessageKind::Remark),
        };
        (Key::Thing(job.id.into()), event)
    });
    // Ends of steps are told before the ends of their jobs.
    let (job_ends, mut all): (Vec<_>, Vec<_>) = workflows.chain(jobs).partition(|(_, event)| is_end(event));
    let mut outputs = HashMap::new();
    for step in present.steps {
        let key = Key::Step(step.task.clone(), step.step);
        let job = String::from(step.job_id);
        let event = WatchEvent::Step {
            job_id: job.clone(),
            execution: step.node_index,
            step: step.step,
            name: step.name,
            kind: step.kind,
            status: step.status.to_string(),
            exit_code: step.exit_code,
            attempt: step.attempt,
            background: step.background,
            started_at_ms: Some(step.started_at.0),
            ended_at_ms: step.ended_at.map(|at| at.0),
            message: step.message,
        };
        all.push((key.clone(), event));
        let output =
            Output { task: step.task, job, execution: step.node_index, step: step.step, extent: step.extent };
        outputs.insert(key, output);
    }
    all.extend(job_ends);
    Events { all, outputs, ended }
}
