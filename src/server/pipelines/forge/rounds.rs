//! The loops of this room: what is due is looked for again and again, and what is being worked on is left out.

use crate::server::state::Shared;
use crate::server::store::Error as StoreError;
use crate::server::time::Millis;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// When a loop looks again.
pub(super) struct Rounds<'a> {
    /// Purpose of a round, for the log: `look for changes that wait`.
    pub what: &'static str,
    /// Wakes it before its time.
    pub woken: Option<&'a Notify>,
    /// Longest time between two rounds.
    pub idle: Duration,
    /// Shortest time until something that is known to be due.
    pub least: Duration,
    /// Pause before every round: what is asked for meanwhile is done in one.
    pub pause: Duration,
}

impl Rounds<'_> {
    /// Does rounds until the control plane stops. A round is given the time, and says when something is due next.
    pub(super) async fn run<F>(self, state: &Shared, mut round: impl FnMut(Millis) -> F)
    where
        F: Future<Output = Result<Option<Millis>, StoreError>>,
    {
        let mut stopping = state.stopping.subscribe();
        loop {
            let now = Millis::now();
            let wait = match round(now).await {
                Ok(next) => next.map_or(self.idle, |next| next.since(now).clamp(self.least, self.idle)),
                Err(StoreError::Closed) => return,
                Err(error) => {
                    log::error!("failed to {}: {error}", self.what);
                    self.idle
                }
            };
            let woken = async {
                match self.woken {
                    Some(notify) => notify.notified().await,
                    None => std::future::pending().await,
                }
            };
            let rest = async {
                tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep(wait) => {}
                }
                tokio::time::sleep(self.pause).await;
            };
            tokio::select! {
                () = rest => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }
}

/// Keys that are being worked on.
pub(super) struct Busy<K>(Arc<Mutex<HashSet<K>>>);

impl<K: Clone + Eq + Hash> Busy<K> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn list(&self) -> Vec<K> {
        self.lock().iter().cloned().collect()
    }

    /// Counts one among them until what is returned is dropped, however its work ends.
    pub(super) fn enter(&self, key: K) -> AtWork<K> {
        self.lock().insert(key.clone());
        AtWork { busy: Self(Arc::clone(&self.0)), key }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is being worked on, as long as this lives.
pub(super) struct AtWork<K: Clone + Eq + Hash> {
    busy: Busy<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Drop for AtWork<K> {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.key);
    }
}
