//! Asking a runner to stop: first drain, then cancel; or to leave its task agent to the next runner and go at once; or
//! to read its settings again. Signals are one source of such requests, `runlet exec` is another;
//! [`super::machine::run`] only sees the request.
//!
//! A request wakes whatever the runner waits for: a parked claim is cut by closing its client, a
//! wait for a task agent or for the next attempt ends because a socket becomes readable.

use crate::http::Client;
use crate::system::os::{Wake, wake_pair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How urgently a runner is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No stop is wanted.
    #[default]
    Run,
    /// Claim nothing more; the running task may finish.
    Drain,
    /// End the running task too.
    Cancel,
}

/// A request to stop, shared between whoever asks and any number of runners.
#[derive(Clone, Default)]
pub struct Stop {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    level: Level,
    leaves: bool,
    reloads: u32,
    listeners: Vec<Registered>,
    next_id: u64,
}

impl Inner {
    fn wake(&mut self) {
        for listener in &mut self.listeners {
            // A full socket has woken its reader already.
            let _ = listener.wake.write(&[1]);
            if let Some(claims) = listener.claims.take() {
                claims.close();
            }
        }
    }
}

struct Registered {
    id: u64,
    wake: Wake,
    claims: Option<Arc<Client>>,
}

impl Stop {
    /// Makes a stop that is not requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The level that is requested.
    pub fn level(&self) -> Level {
        self.lock().level
    }

    /// Requests at least `level`; a request is never taken back.
    pub fn request(&self, level: Level) {
        let mut inner = self.lock();
        if level <= inner.level {
            return;
        }
        inner.level = level;
        inner.wake();
    }

    /// Asks runners to end now, whatever they are at, and to leave a running task agent to whoever comes next.
    pub fn leave(&self) {
        let mut inner = self.lock();
        inner.leaves = true;
        inner.wake();
    }

    /// Asks runners to read their settings again.
    pub fn reload(&self) {
        let mut inner = self.lock();
        inner.reloads = inner.reloads.wrapping_add(1);
        inner.wake();
    }

    /// The next level: drain at first, cancel after that. What a signal means.
    pub fn escalate(&self) {
        let next = if self.level() == Level::Run { Level::Drain } else { Level::Cancel };
        self.request(next);
    }

    /// A listener for one runner.
    pub(super) fn listen(&self) -> std::io::Result<StopListener> {
        let (wake, readable) = wake_pair()?;
        wake.set_nonblocking(true)?;
        readable.set_nonblocking(true)?;
        let mut inner = self.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.listeners.push(Registered { id, wake, claims: None });
        Ok(StopListener { stop: self.clone(), id, readable })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests as one runner hears them. Readable when there was one since [`StopListener::level`] was last called.
pub(super) struct StopListener {
    stop: Stop,
    id: u64,
    readable: Wake,
}

impl StopListener {
    /// The level that is requested; forgets that there was a change.
    pub(super) fn level(&self) -> Level {
        let mut bytes = [0; 8];
        let mut readable = &self.readable;
        while readable.read(&mut bytes).is_ok_and(|n| n == bytes.len()) {}
        self.stop.level()
    }

    /// Whether the runner is to leave.
    pub(super) fn leaves(&self) -> bool {
        self.stop.lock().leaves
    }

    /// How often the settings were to be read again.
    pub(super) fn reloads(&self) -> u32 {
        self.stop.lock().reloads
    }

    /// Waits for the time, or until something is requested.
    pub(super) fn pause(&self, time: Duration) {
        self.wait(&[], Some(time));
    }

    /// Waits until something is requested, one of `also` is readable or the time is over.
    pub(super) fn wait(&self, also: &[BorrowedFd<'_>], time: Option<Duration>) {
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        let own = self.as_fd();
        let all = also.iter().chain([&own]);
        let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        // An interrupted wait is a short one: the caller looks and waits again.
        let _ = poll(&mut fds, time.as_ref());
    }

    /// The client to close when a stop is requested. Closed at once if that has happened.
    pub(super) fn guard(&self, client: Arc<Client>) {
        let mut inner = self.stop.lock();
        if inner.level > Level::Run || inner.leaves {
            client.close();
        } else if let Some(own) = inner.listeners.iter_mut().find(|listener| listener.id == self.id) {
            own.claims = Some(client);
        }
    }

    /// The guarded client, while it is open.
    pub(super) fn guarded(&self) -> Option<Arc<Client>> {
        let inner = self.stop.lock();
        inner.listeners.iter().find(|listener| listener.id == self.id)?.claims.clone()
    }

    /// Forgets the guarded client, so that its connections can be closed.
    pub(super) fn release(&self) {
        let mut inner = self.stop.lock();
        if let Some(own) = inner.listeners.iter_mut().find(|listener| listener.id == self.id) {
            own.claims = None;
        }
    }
}

impl AsFd for StopListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Drop for StopListener {
    fn drop(&mut self) {
        self.stop.lock().listeners.retain(|listener| listener.id != self.id);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn signals_escalate_and_levels_never_fall() {
        let stop = Stop::new();
        assert_eq!(stop.level(), Level::Run);
        stop.escalate();
        assert_eq!(stop.level(), Level::Drain);
        stop.escalate();
        stop.request(Level::Drain);
        assert_eq!(stop.level(), Level::Cancel);
    }

    #[test]
    fn every_listener_is_woken_once_a_change() {
        let stop = Stop::new();
        let (first, second) = (stop.listen().unwrap(), stop.listen().unwrap());
        let readable = |listener: &StopListener| {
            let mut fds = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap()
                == 1
        };
        assert!(!readable(&first));
        stop.escalate();
        assert!(readable(&first) && readable(&second));
        assert_eq!(first.level(), Level::Drain);
        assert!(!readable(&first) && readable(&second));
        drop(second);
        stop.escalate();
        assert_eq!(first.level(), Level::Cancel);
        assert_eq!(stop.lock().listeners.len(), 1);
    }
}
