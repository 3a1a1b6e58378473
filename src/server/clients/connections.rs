//! Connections: which of them are unknown, and which one goes when there are too many.

use crate::logging::record;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A connection is not closed for another one before it has had so long to show a token, unless one was refused: those
/// that are new wait in the queue of the socket meanwhile.
const TIME_TO_SHOW: Duration = Duration::from_millis(500);

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All of them.
    pub all: usize,
    /// Those that have shown no token.
    pub unknown: usize,
}

impl ConnectionLimits {
    /// Limits for a process that may have so many files open: some are for the database, output and uploads.
    pub fn of_files(files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let all = files.saturating_sub((files / 4).clamp(64, 1024)).max(16);
        Self { all, unknown: (all / 2).min(1024) }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct AcceptedConnection {
    number: u64,
    peer: IpAddr,
    accepted: Instant,
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

impl AcceptedConnection {
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

    fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    fn may_go(&self, now: Instant) -> bool {
        self.is_refused() || now.saturating_duration_since(self.accepted) >= TIME_TO_SHOW
    }

    /// Notes a call, until the value is dropped.
    pub fn call(self: &Arc<Self>) -> BusyConnection {
        self.calls.fetch_add(1, Ordering::Relaxed);
        BusyConnection(Arc::clone(self))
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

impl Drop for AcceptedConnection {
    fn drop(&mut self) {
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        self.all.unknown().remove(&self.number);
    }
}

/// A call that is being answered.
#[derive(Debug)]
pub struct BusyConnection(Arc<AcceptedConnection>);

impl Drop for BusyConnection {
    fn drop(&mut self) {
        *self.0.quiet_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All connections of a control plane.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    count: AtomicUsize,
    next: AtomicUsize,
    /// Connections by their number: the oldest is the first.
    unknown: Mutex<BTreeMap<u64, std::sync::Weak<AcceptedConnection>>>,
    /// Connections that were closed to make room, ever.
    evicted: AtomicUsize,
}

impl Connections {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            count: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            unknown: Mutex::default(),
            evicted: AtomicUsize::new(0),
        })
    }

    fn unknown(&self) -> MutexGuard<'_, BTreeMap<u64, std::sync::Weak<AcceptedConnection>>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in. When there are too many, the oldest of those whose token was refused goes, else the oldest of
    /// the unknown ones of the address that has most of them, if it has had the time to show a token.
    pub fn accept(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Admission {
        let (count, unknown) = (self.count.load(Ordering::Relaxed), self.unknown().len());
        if count >= self.limits.all || unknown >= self.limits.unknown {
            match self.oldest() {
                None => return Admission::Full,
                Some(oldest) if oldest.may_go(now) => self.close(&oldest),
                Some(_) => return Admission::NotYet,
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(AcceptedConnection {
            number: self.next.fetch_add(1, Ordering::Relaxed) as u64,
            peer,
            accepted: now,
            all: Arc::clone(self),
            is_known: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            quiet_since: Mutex::new(now),
            goes: Notify::new(),
        });
        self.unknown().insert(connection.number, Arc::downgrade(&connection));
        Admission::In(connection)
    }

    /// The unknown connection that is the first to go.
    fn oldest(&self) -> Option<Arc<AcceptedConnection>> {
        // Dropped after the lock: the last reference to a connection takes the lock itself.
        let alive: Vec<Arc<AcceptedConnection>> =
            self.unknown().values().filter_map(std::sync::Weak::upgrade).collect();
        if let Some(refused) = alive.iter().find(|connection| connection.is_refused()) {
            return Some(Arc::clone(refused));
        }
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for connection in &alive {
            *of_address.entry(connection.peer).or_default() += 1;
        }
        let most = of_address.values().max().copied().unwrap_or(0);
        alive.into_iter().find(|connection| of_address[&connection.peer] == most)
    }

    fn close(&self, oldest: &AcceptedConnection) {
        self.unknown().remove(&oldest.number);
        oldest.evict();
        let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
        // The first one, and then ever fewer: a flood must not fill the log as well.
        if evicted.is_power_of_two() {
            record!(Warn, peer = oldest.peer, limit = self.limits.unknown, closed = evicted;
                "too many connections have not shown a token: the oldest ones are closed"
            );
        }
    }
}

/// Whether a connection is taken in.
#[derive(Debug)]
pub enum Admission {
    /// It is, and this is what is known of it.
    In(Arc<AcceptedConnection>),
    /// All others are known: there is no room.
    Full,
    /// There is no room before another one has shown a token, or has had the time to.
    NotYet,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn is_evicted(connection: &AcceptedConnection) -> bool {
        use futures_util::FutureExt;
        connection.evicted().now_or_never().is_some()
    }

    /// Takes one in at a time when everybody has had the time to show a token.
    fn accept(all: &Arc<Connections>, n: u8, later: &mut Instant) -> Arc<AcceptedConnection> {
        *later += TIME_TO_SHOW;
        match all.accept(address(n), *later) {
            Admission::In(connection) => connection,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_unknown_one_of_the_busiest_address_goes() {
        let all = Connections::new(ConnectionLimits { all: 100, unknown: 4 });
        let mut now = Instant::now();
        let known = accept(&all, 1, &mut now);
        known.set_known();
        let lone = accept(&all, 2, &mut now);
        let flood: Vec<_> = (0..3).map(|_| accept(&all, 3, &mut now)).collect();
        assert!(!is_evicted(&flood[0]));
        let newcomer = accept(&all, 1, &mut now);
        assert_eq!(flood.iter().map(|one| is_evicted(one)).collect::<Vec<_>>(), [true, false, false]);
        assert!(!is_evicted(&known) && !is_evicted(&lone) && !is_evicted(&newcomer));
    }

    #[test]
    fn whoever_guesses_goes_first() {
        let all = Connections::new(ConnectionLimits { all: 100, unknown: 3 });
        let mut now = Instant::now();
        let many: Vec<_> = (0..2).map(|_| accept(&all, 1, &mut now)).collect();
        let guesser = accept(&all, 2, &mut now);
        guesser.set_refused();
        let _newcomer = accept(&all, 1, &mut now);
        assert!(is_evicted(&guesser) && !many.iter().any(|one| is_evicted(one)));
    }

    #[test]
    fn guessers_that_come_again_at_once_take_no_fresh_connection_of_their_neighbours() {
        let all = Connections::new(ConnectionLimits { all: 100, unknown: 8 });
        let mut now = Instant::now();
        let mut guessers = Vec::<(Arc<AcceptedConnection>, Instant)>::new();
        let (mut good, mut waited) = (0, 0);
        // A millisecond each: a guess is refused after thirty, a token that is known is seen after forty.
        let mut fresh: Vec<(Arc<AcceptedConnection>, Instant)> = Vec::new();
        for turn in 0..5_000 {
            now += Duration::from_millis(1);
            for (connection, since) in &guessers {
                if now.duration_since(*since) >= Duration::from_millis(30) {
                    connection.set_refused();
                }
            }
            fresh.retain(|(connection, since)| {
                let is_seen = now.duration_since(*since) >= Duration::from_millis(40);
                assert!(!is_evicted(connection), "a fresh connection was closed in turn {turn}");
                if is_seen {
                    connection.set_known();
                    good += 1;
                }
                !is_seen
            });
            match all.accept(address(1), now) {
                Admission::In(connection) if turn % 20 == 0 => fresh.push((connection, now)),
                Admission::In(connection) => guessers.push((connection, now)),
                Admission::NotYet => waited += 1,
                Admission::Full => unreachable!("there is room for a hundred"),
            }
            guessers.retain(|(connection, _)| !is_evicted(connection));
        }
        assert!(good >= 30 && waited > 0, "{good} good ones, waited {waited} times");
    }

    #[test]
    fn known_ones_stay_and_fill_the_room() {
        let all = Connections::new(ConnectionLimits { all: 3, unknown: 2 });
        let mut now = Instant::now();
        let mut known: Vec<_> = (0..2).map(|_| accept(&all, 1, &mut now)).collect();
        known.iter().for_each(|one| one.set_known());
        let stranger = accept(&all, 1, &mut now);
        assert!(matches!(all.accept(address(1), now), Admission::NotYet), "it has just come");
        let newcomer = accept(&all, 1, &mut now);
        assert!(is_evicted(&stranger));
        newcomer.set_known();
        drop(stranger);
        assert!(matches!(all.accept(address(1), now), Admission::Full), "three that are known");
        known.pop();
        accept(&all, 1, &mut now);
    }

    #[test]
    fn a_connection_with_a_call_is_not_quiet() {
        let all = Connections::new(ConnectionLimits::of_files(256));
        let connection = accept(&all, 1, &mut Instant::now());
        let later = Instant::now() + Duration::from_secs(60);
        assert!(connection.quiet(later) >= Duration::from_secs(59));
        let busy = connection.call();
        assert_eq!(connection.quiet(later), Duration::ZERO);
        drop(busy);
        assert!(connection.quiet(Instant::now() + Duration::from_secs(5)) >= Duration::from_secs(4));
    }

    #[test]
    fn limits_leave_files_for_the_rest() {
        assert_eq!(ConnectionLimits::of_files(256), ConnectionLimits { all: 192, unknown: 96 });
        assert_eq!(ConnectionLimits::of_files(1024), ConnectionLimits { all: 768, unknown: 384 });
        assert_eq!(ConnectionLimits::of_files(u64::MAX).unknown, 1024);
        assert!(ConnectionLimits::of_files(20).all >= 16);
    }
}
