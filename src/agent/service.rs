//! Messages to the service manager: that the runner is ready, what it is at, that it stops and how long that may
//! take, and that it makes progress. Without a service manager nothing happens here.
//!
//! Progress is that of the runner's own loop, which comes round by itself whatever the network does: a control plane
//! that is away for days is no reason to start a runner again.

use crate::system::{service, threads};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Pause between two rounds of the loop while somebody wants to hear of it.
const ROUND: Duration = Duration::from_secs(30);
/// Room for the next announcement of a stop that takes time.
const EXTENSION: &str = "EXTEND_TIMEOUT_USEC=120000000";
/// A loop that has not come round for so long is stuck. While the control plane is away each report about a lost task
/// takes ten minutes, and the removal of a large working directory has its time as well.
const STUCK: Duration = Duration::from_secs(60 * 60);

/// The service manager, as one runner speaks to it.
pub(super) struct Service {
    is_listening: bool,
    /// Last message to it.
    told: String,
    begun: Instant,
    /// Seconds from the beginning to the last round.
    round: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    is_watched: bool,
    is_stopping: bool,
}

impl Service {
    /// Finds the service manager of a runner that has the process for itself; another one has nothing to say to it.
    pub(super) fn new(owns_process: bool) -> Self {
        let (round, over, begun) = (Arc::default(), Arc::default(), Instant::now());
        let is_listening = owns_process && service::is_listening();
        let mut own = Self {
            is_listening,
            told: String::new(),
            begun,
            round,
            over,
            is_watched: false,
            is_stopping: false,
        };
        own.is_watched = is_listening && service::watchdog().is_some_and(|time| own.watch(time));
        own
    }

    /// Starts to report progress, at half of the time within which it is wanted.
    fn watch(&self, time: Duration) -> bool {
        let (round, over, begun) = (self.round.clone(), self.over.clone(), self.begun);
        let report = move || {
            while !over.load(Ordering::Relaxed) {
                let last = Duration::from_secs(round.load(Ordering::Relaxed));
                if begun.elapsed().saturating_sub(last) < STUCK {
                    service::tell("WATCHDOG=1");
                } else {
                    log::error!("the runner does nothing any more: the service manager is to start it again");
                }
                std::thread::sleep(time / 2);
            }
        };
        threads::start_small("watchdog", 64 * 1024, report)
            .inspect_err(|error| log::warn!("cannot report progress to the service manager: {error}"))
            .is_ok()
    }

    /// The runner's loop came round. `status` says in words what it is at; it is asked for when somebody wants to know.
    pub(super) fn round(&mut self, status: impl FnOnce() -> String) {
        self.round.store(self.begun.elapsed().as_secs(), Ordering::Relaxed);
        if !self.is_listening {
            return;
        }
        let mut lines = Vec::new();
        // The name of a job is anybody's: it must not become a line of its own.
        let status = status().replace(char::is_control, " ");
        if self.told.is_empty() {
            lines.push("READY=1".to_owned());
        }
        if self.is_stopping {
            lines.push(EXTENSION.to_owned());
        }
        if self.told != status {
            lines.push(format!("STATUS={status}"));
            self.told = status;
        }
        if !lines.is_empty() {
            service::tell(&lines.join("\n"));
        }
    }

    /// The runner takes nothing more, and ends when its task has.
    pub(super) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) && self.is_listening {
            service::tell(&format!("STOPPING=1\n{EXTENSION}"));
        }
    }

    /// The end of a wait that may last until then: earlier where somebody wants to hear that it goes on.
    pub(super) fn until(&self, until: Option<Instant>) -> Option<Instant> {
        if !(self.is_watched || self.is_stopping && self.is_listening) {
            return until;
        }
        let round = Instant::now() + ROUND;
        Some(until.map_or(round, |until| until.min(round)))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
