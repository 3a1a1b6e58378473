//! Connections: which of them are unknown, and which one goes when there are too many.

use crate::logging::record;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All of them.
    pub all: usize,
    /// Those that have shown no token.
    pub unknown: usize,
}

impl Limits {
    /// Limits for a process that may have so many files open: some are for the database, output and uploads.
    pub fn of_files(files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let all = files.saturating_sub((files / 4).clamp(64, 1024)).max(16);
        Self { all, unknown: (all / 2).min(1024) }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    peer: IpAddr,
    all: Arc<Connections>,
    is_known: AtomicBool,
    /// A token that it has shown was refused.
    is_refused: AtomicBool,
    /// Calls that are being answered.
    calls: AtomicUsize,
    /// When it was accepted, or its last answer went out.
    quiet_since: Mutex<Instant>,
    /// Told that it has to go.
    goes: Notify,
}

impl Connection {
    /// A token that it has shown was accepted.
    pub fn set_known(&self) {
        if !self.is_known.swap(true, Ordering::Relaxed) {
            self.all.unknown().remove(&self.number);
        }
    }

    /// Whether a token that it has shown was accepted.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// A token that it has shown was refused: it is the first to go when there are too many.
    pub fn set_refused(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// Notes a call, until the value is dropped.
    pub fn call(self: &Arc<Self>) -> Busy {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// How long no call was being answered.
    pub fn quiet(&self, now: Instant) -> Duration {
        if self.calls.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.quiet_since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when it has to go.
    pub async fn evicted(&self) {
        self.goes.notified().await;
    }

    /// Has it closed.
    pub fn evict(&self) {
        self.goes.notify_one();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        self.all.unknown().remove(&self.number);
    }
}

/// A call that is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.quiet_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All connections of a control plane.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    count: AtomicUsize,
    next: AtomicUsize,
    /// By their number: the oldest is the first.
    unknown: Mutex<BTreeMap<u64, std::sync::Weak<Connection>>>,
    /// Connections that were closed to make room, ever.
    evicted: AtomicUsize,
}

impl Connections {
    /// None yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            count: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            unknown: Mutex::default(),
            evicted: AtomicUsize::new(0),
        })
    }

    fn unknown(&self) -> MutexGuard<'_, BTreeMap<u64, std::sync::Weak<Connection>>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in. When there are too many, the oldest of those whose token was refused goes, else the oldest of
    /// the unknown ones of the address that has most of them, so that a newcomer has the time to show a token. `None` when all others are known: there is
    /// no room.
    pub fn accept(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Connection>> {
        let (count, unknown) = (self.count.load(Ordering::Relaxed), self.unknown().len());
        if (count >= self.limits.all || unknown >= self.limits.unknown) && !self.make_room() {
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            number: self.next.fetch_add(1, Ordering::Relaxed) as u64,
            peer,
            all: Arc::clone(self),
            is_known: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            quiet_since: Mutex::new(Instant::now()),
            goes: Notify::new(),
        });
        self.unknown().insert(connection.number, Arc::downgrade(&connection));
        Some(connection)
    }

    fn make_room(&self) -> bool {
        // Dropped after the lock: the last reference to a connection takes the lock itself.
        let alive: Vec<Arc<Connection>> =
            self.unknown().values().filter_map(std::sync::Weak::upgrade).collect();
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for connection in &alive {
            *of_address.entry(connection.peer).or_default() += 1;
        }
        let most = of_address.values().max().copied().unwrap_or(0);
        let refused = alive.iter().find(|connection| connection.is_refused.load(Ordering::Relaxed));
        let of_most = || alive.iter().find(|connection| of_address[&connection.peer] == most);
        let Some(oldest) = refused.or_else(of_most) else { return false };
        self.unknown().remove(&oldest.number);
        oldest.evict();
        let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
        // The first one, and then ever fewer: a flood must not fill the log as well.
        if evicted.is_power_of_two() {
            record!(Warn, peer = oldest.peer, limit = self.limits.unknown, closed = evicted;
                "too many connections have not shown a token: the oldest ones are closed"
            );
        }
        true
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its connections should fail loudly")]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn is_evicted(connection: &Connection) -> bool {
        use futures_util::FutureExt;
        connection.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_unknown_one_of_the_busiest_address_goes() {
        let all = Connections::new(Limits { all: 100, unknown: 4 });
        let known = all.accept(address(1)).unwrap();
        known.set_known();
        let lone = all.accept(address(2)).unwrap();
        let flood: Vec<_> = (0..3).map(|_| all.accept(address(3)).unwrap()).collect();
        assert!(!is_evicted(&flood[0]));
        let newcomer = all.accept(address(1)).unwrap();
        assert_eq!(flood.iter().map(|one| is_evicted(one)).collect::<Vec<_>>(), [true, false, false]);
        assert!(!is_evicted(&known) && !is_evicted(&lone) && !is_evicted(&newcomer));
    }

    #[test]
    fn whoever_guesses_goes_first() {
        let all = Connections::new(Limits { all: 100, unknown: 3 });
        let many: Vec<_> = (0..2).map(|_| all.accept(address(1)).unwrap()).collect();
        let guesser = all.accept(address(2)).unwrap();
        guesser.set_refused();
        let _newcomer = all.accept(address(1)).unwrap();
        assert!(is_evicted(&guesser) && !many.iter().any(|one| is_evicted(one)));
    }

    #[test]
    fn known_ones_stay_and_fill_the_room() {
        let all = Connections::new(Limits { all: 3, unknown: 2 });
        let mut known: Vec<_> = (0..2).map(|_| all.accept(address(1)).unwrap()).collect();
        known.iter().for_each(|one| one.set_known());
        let stranger = all.accept(address(1)).unwrap();
        let newcomer = all.accept(address(1)).unwrap();
        assert!(is_evicted(&stranger));
        newcomer.set_known();
        drop(stranger);
        assert!(all.accept(address(1)).is_none(), "three that are known");
        known.pop();
        assert!(all.accept(address(1)).is_some());
    }

    #[test]
    fn a_connection_with_a_call_is_not_quiet() {
        let all = Connections::new(Limits::of_files(256));
        let connection = all.accept(address(1)).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        assert!(connection.quiet(later) >= Duration::from_secs(59));
        let busy = connection.call();
        assert_eq!(connection.quiet(later), Duration::ZERO);
        drop(busy);
        assert!(connection.quiet(Instant::now() + Duration::from_secs(5)) >= Duration::from_secs(4));
    }

    #[test]
    fn limits_leave_files_for_the_rest() {
        assert_eq!(Limits::of_files(256), Limits { all: 192, unknown: 96 });
        assert_eq!(Limits::of_files(1024), Limits { all: 768, unknown: 384 });
        assert_eq!(Limits::of_files(u64::MAX).unknown, 1024);
        assert!(Limits::of_files(20).all >= 16);
    }
}
