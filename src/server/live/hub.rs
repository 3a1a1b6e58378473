//! The waiting: parked claims, parked heartbeats, watchers. Told after each commit.

use crate::protocol::TaskId;
use crate::server::figures::Figures;
use crate::server::store::Effect;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// How often what watchers see has changed. Output is counted apart: it comes often, and the store knows
/// nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Changes in the store.
    pub state: u64,
    /// Output of steps.
    pub output: u64,
}

/// Shared by all handlers.
#[derive(Default)]
pub struct Hub {
    classes: Mutex<HashMap<String, Arc<Notify>>>,
    tasks: Mutex<HashMap<TaskId, Arc<Notify>>>,
    pipelines: Mutex<HashMap<String, watch::Sender<Version>>>,
    revoked: watch::Sender<()>,
    forge: Notify,
    polls: Notify,
    reports: Notify,
    webhooks: Notify,
    figures: Arc<Figures>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Makes one that counts what was announced.
    pub fn counting(figures: Arc<Figures>) -> Self {
        Self { figures, ..Self::default() }
    }

    /// Passes on what a transaction announced.
    pub fn committed(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Changed(pipeline) => {
                    self.changed(pipeline.as_str());
                    self.reports.notify_one();
                    self.webhooks.notify_one();
                }
                // A single waiting claim is woken for each task; a permit is kept when none waits.
                Effect::Queued(class) => self.class(&class).notify_one(),
                // The one claim that is woken might be the wrong one, so all are.
                Effect::QueuedForOthers(class) => self.class(&class).notify_waiters(),
                Effect::Cancel(task) => {
                    if let Some(notify) = lock(&self.tasks).get(&task) {
                        notify.notify_waiters();
                    }
                }
                Effect::Ended(task) => {
                    self.figures.ended(&task);
                    self.forget_task(&task.id);
                }
                Effect::Claimed(waited) => self.figures.waits.note(waited),
                Effect::ForgeWork => self.forge.notify_one(),
                Effect::Connected => {
                    self.polls.notify_one();
                    self.reports.notify_one();
                }
                Effect::Revoked => self.revoked.send_modify(|()| {}),
            }
        }
    }

    /// Announces a change that watchers of the pipeline see.
    pub fn changed(&self, pipeline: &str) {
        if let Some(sender) = lock(&self.pipelines).get(pipeline) {
            sender.send_modify(|version| version.state += 1);
        }
    }

    /// A running step of the pipeline has written more.
    pub fn wrote(&self, pipeline: &str) {
        if let Some(sender) = lock(&self.pipelines).get(pipeline) {
            sender.send_modify(|version| version.output += 1);
        }
    }

    /// Woken when a task enters the queue of the class.
    pub fn class(&self, class: &str) -> Arc<Notify> {
        Arc::clone(lock(&self.classes).entry(class.to_owned()).or_default())
    }

    /// Woken when a heartbeat of the task should be answered.
    pub fn task(&self, task: &TaskId) -> Arc<Notify> {
        Arc::clone(lock(&self.tasks).entry(task.clone()).or_default())
    }

    /// Wakes the parked calls of a task for the last time: it has ended.
    pub fn forget_task(&self, task: &TaskId) {
        if let Some(notify) = lock(&self.tasks).remove(task) {
            notify.notify_waiters();
        }
    }

    /// Woken when a change that a forge told of waits to be worked off, also when that was while nobody waited.
    pub fn forge(&self) -> &Notify {
        &self.forge
    }

    /// Woken when pipelines have changed: forges may have to be told.
    pub fn reports(&self) -> &Notify {
        &self.reports
    }

    /// Woken when pipelines have changed: others may have to be told.
    pub fn webhooks(&self) -> &Notify {
        &self.webhooks
    }

    /// Woken when projects may be due for a look at their refs.
    pub fn polls(&self) -> &Notify {
        &self.polls
    }

    /// Changes whenever personal tokens are ended. It has changed at first: whoever asks must look once.
    pub fn revoked(&self) -> watch::Receiver<()> {
        let mut revoked = self.revoked.subscribe();
        revoked.mark_changed();
        revoked
    }

    /// Sees every change of the pipeline from now on.
    pub fn watch(&self, pipeline: &str) -> watch::Receiver<Version> {
        let mut pipelines = lock(&self.pipelines);
        pipelines.retain(|_, sender| sender.receiver_count() > 0);
        pipelines
            .entry(pipeline.to_owned())
            .or_insert_with(|| watch::channel(Version::default()).0)
            .subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::store::EndedTask;
    use crate::server::store::status::TaskState;

    #[tokio::test]
    async fn the_parked_calls_of_a_task_are_woken_by_its_cancel_and_forgotten_with_its_end() {
        let hub = Hub::default();
        let task = TaskId::new("task".to_owned()).unwrap_or_else(|error| unreachable!("{error}"));
        let ended = Effect::Ended(EndedTask {
            id: task.clone(),
            resource_class: "acme/linux".to_owned(),
            status: TaskState::Success,
            ran: None,
        });
        for (effect, kept) in [(Effect::Cancel(task.clone()), 1), (ended.clone(), 0)] {
            let notify = hub.task(&task);
            let mut woken = std::pin::pin!(notify.notified());
            woken.as_mut().enable();
            hub.committed(vec![effect]);
            woken.await;
            assert_eq!(lock(&hub.tasks).len(), kept);
        }
        // Tasks that nobody waits for take no room.
        hub.committed(vec![Effect::Cancel(task), ended]);
        assert!(lock(&hub.tasks).is_empty());
    }
}
