//! The loops of this room: what is due is looked for again and again, and what is being worked on is left out.

use crate::server::state::Shared;
use crate::server::store::Error as StoreError;
use crate::server::time::Millis;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

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

/// Turns at hosts: so many at once work with one host, so that one that hangs holds up its own projects only.
#[derive(Clone)]
pub(super) struct Hosts {
    at_once: usize,
    rooms: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl Hosts {
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once, rooms: Arc::default() }
    }

    /// The turns at the host of an address.
    pub(super) fn of(&self, url: &str) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // Clones are held by whoever waits or works: a permit holds one.
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        let room = rooms.entry(host_of(url).to_ascii_lowercase());
        Arc::clone(room.or_insert_with(|| Arc::new(Semaphore::new(self.at_once))))
    }
}

/// The host of an address; everything of this host is one.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', ':']).next().unwrap_or_default();
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
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

    /// [`Busy::enter`], unless it counts already.
    pub(super) fn try_enter(&self, key: K) -> Option<AtWork<K>> {
        let is_new = self.lock().insert(key.clone());
        is_new.then(|| AtWork { busy: Self(Arc::clone(&self.0)), key })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_by_host() {
        for (url, host) in [
            ("https://git.example.com:8443/acme/app", "git.example.com"),
            ("ssh://git@example.com/x", "example.com"),
            ("git@example.com:acme/app.git", "example.com"),
            ("file:///srv/app.git", ""),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
        let hosts = Hosts::new(2);
        let turns = ["https://a/x", "ssh://git@A:22/y"].map(|url| hosts.of(url).try_acquire_owned());
        assert!(turns.iter().all(Result::is_ok) && hosts.of("git@a:z").try_acquire_owned().is_err());
        assert!(hosts.of("https://b/x").try_acquire_owned().is_ok());
        drop(turns);
        assert!(hosts.of("https://a/x").try_acquire_owned().is_ok());
    }
}
