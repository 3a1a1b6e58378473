//! Connections: which of them are unknown, and which one goes when there are too many.
//!
//! One that is known is closed for a newcomer only when there is room for no other. Then those go on which no call waits
//! for an answer: whoever had one connects again. A claim that is parked is a call, so that runners that wait stay. Where
//! all have a call, the holder of a token who has more than half of them gives way with the call that has lasted longest:
//! such a call is made again, and nobody holds the room alone.

use crate::logging::record;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A connection is not closed for another one before it has had so long to show a token, unless one was refused: those
/// that are new wait in the queue of the socket meanwhile.
const TIME_TO_SHOW: Duration = Duration::from_millis(500);

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All connections.
    pub all: usize,
    /// Connections that have shown no token.
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
    /// The holder of a token that it has shown and that was accepted, as a number; 0 while nobody has.
    holder: AtomicU64,
    /// A token that it has shown was refused.
    is_refused: AtomicBool,
    /// Calls that are being answered.
    calls: AtomicUsize,
    /// When it was accepted, its call came, or its last answer went out.
    since: Mutex<Instant>,
    /// Told that it has to go.
    goes: Notify,
}

impl AcceptedConnection {
    /// A token that it has shown was accepted, of this holder: a person, a class, a task.
    pub fn set_known(self: &Arc<Self>, holder: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        holder.hash(&mut hasher);
        if self.holder.swap(hasher.finish().max(1), Ordering::Relaxed) == 0 {
            self.all.unknown().remove(&self.number);
            lock(&self.all.known).insert(self.number, Arc::downgrade(self));
        }
    }

    /// Whether a token that it has shown was accepted.
    pub fn is_known(&self) -> bool {
        self.holder.load(Ordering::Relaxed) != 0
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
        *lock(&self.since) = Instant::now();
        self.calls.fetch_add(1, Ordering::Relaxed);
        BusyConnection(Arc::clone(self))
    }

    fn is_busy(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// How long no call was being answered.
    pub fn quiet(&self, now: Instant) -> Duration {
        if self.is_busy() {
            return Duration::ZERO;
        }
        now.saturating_duration_since(*lock(&self.since))
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
        lock(&self.all.known).remove(&self.number);
    }
}

/// A call that is being answered.
#[derive(Debug)]
pub struct BusyConnection(Arc<AcceptedConnection>);

impl Drop for BusyConnection {
    fn drop(&mut self) {
        *lock(&self.0.since) = Instant::now();
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
    unknown: Mutex<BTreeMap<u64, Weak<AcceptedConnection>>>,
    /// Connections that have shown a token, by their number.
    known: Mutex<BTreeMap<u64, Weak<AcceptedConnection>>>,
    /// Connections that were closed to make room, ever: unknown ones, and others.
    evicted: AtomicUsize,
    evicted_known: AtomicUsize,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            count: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            unknown: Mutex::default(),
            known: Mutex::default(),
            evicted: AtomicUsize::new(0),
            evicted_known: AtomicUsize::new(0),
        })
    }

    fn unknown(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<AcceptedConnection>>> {
        lock(&self.unknown)
    }

    /// Takes a connection in. When there are too many, the oldest of those whose token was refused goes, else the oldest of
    /// the unknown ones of the address that has most of them, if it has had the time to show a token. Where that is not
    /// enough, known ones go.
    pub fn accept(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Admission {
        let (count, unknown) = (self.count.load(Ordering::Relaxed), self.unknown().len());
        let is_full = count >= self.limits.all;
        if is_full || unknown >= self.limits.unknown {
            let oldest = self.oldest();
            match oldest {
                Some(oldest) if oldest.may_go(now) => self.close(&oldest),
                // Newcomers have some room whoever has the rest, and strangers take no more than that from others.
                _ if is_full && unknown < self.limits.unknown.div_ceil(4) && self.close_known() => {}
                Some(_) => return Admission::NotYet,
                None => return Admission::Full,
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(AcceptedConnection {
            number: self.next.fetch_add(1, Ordering::Relaxed) as u64,
            peer,
            accepted: now,
            all: Arc::clone(self),
            holder: AtomicU64::new(0),
            is_refused: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            since: Mutex::new(now),
            goes: Notify::new(),
        });
        self.unknown().insert(connection.number, Arc::downgrade(&connection));
        Admission::In(connection)
    }

    /// The unknown connection that is the first to go.
    fn oldest(&self) -> Option<Arc<AcceptedConnection>> {
        // Dropped after the lock: the last reference to a connection takes the lock itself.
        let alive: Vec<Arc<AcceptedConnection>> = self.unknown().values().filter_map(Weak::upgrade).collect();
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

    /// Closes known connections, if any may go: of the holder who has most of those that are idle those which are so for
    /// longest, else one of the holder who has more than half of all. False when they are all others'.
    fn close_known(&self) -> bool {
        let alive: Vec<Arc<AcceptedConnection>> =
            lock(&self.known).values().filter_map(Weak::upgrade).collect();
        let (busy, idle): (Vec<_>, Vec<_>) = alive.iter().partition(|connection| connection.is_busy());
        let is_idle = !idle.is_empty();
        let mut of_most = of_greatest(if is_idle { &idle } else { &busy });
        if !is_idle && of_most.len() * 2 <= self.limits.all {
            return false;
        }
        of_most.sort_by_key(|connection| *lock(&connection.since));
        // A few at once, since each look goes over all of them.
        let few = if is_idle { self.limits.all / 256 + 1 } else { 1 };
        for connection in of_most.iter().take(few) {
            lock(&self.known).remove(&connection.number);
            connection.evict();
            let evicted = self.evicted_known.fetch_add(1, Ordering::Relaxed) + 1;
            if evicted.is_power_of_two() {
                record!(Warn, client = connection.peer, limit = self.limits.all, closed = evicted, idle = is_idle;
                    "there is no room for further connections: some of the holder of a token who has most of them are closed (raise the limit of open files)"
                );
            }
        }
        true
    }

    fn close(&self, oldest: &AcceptedConnection) {
        self.unknown().remove(&oldest.number);
        oldest.evict();
        let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
        // The first one, and then ever fewer: a flood must not fill the log as well.
        if evicted.is_power_of_two() {
            record!(Warn, client = oldest.peer, limit = self.limits.unknown, closed = evicted;
                "too many connections have not shown a token: the oldest ones are closed"
            );
        }
    }
}

/// The connections of the holder who has most of these.
fn of_greatest(all: &[&Arc<AcceptedConnection>]) -> Vec<Arc<AcceptedConnection>> {
    let holder = |connection: &AcceptedConnection| connection.holder.load(Ordering::Relaxed);
    let mut of_holder: HashMap<u64, usize> = HashMap::new();
    for connection in all {
        *of_holder.entry(holder(connection)).or_default() += 1;
    }
    let Some((greatest, _)) = of_holder.into_iter().max_by_key(|(_, count)| *count) else {
        return Vec::new();
    };
    all.iter().filter(|connection| holder(connection) == greatest).map(|one| Arc::clone(one)).collect()
}

/// Whether a connection is taken in.
#[derive(Debug)]
pub enum Admission {
    /// The connection is taken in.
    In(Arc<AcceptedConnection>),
    /// All others are known, have calls, and are of several holders: there is no room.
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
        known.set_known(&1);
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
                    connection.set_known(&1);
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
    fn known_ones_with_calls_stay_and_fill_the_room() {
        let all = Connections::new(ConnectionLimits { all: 4, unknown: 2 });
        let mut now = Instant::now();
        let mut known = Vec::new();
        for holder in [0, 1, 1] {
            known.push(accept(&all, 1, &mut now));
            known[known.len() - 1].set_known(&holder);
        }
        let mut calls: Vec<_> = known.iter().map(AcceptedConnection::call).collect();
        let stranger = accept(&all, 1, &mut now);
        assert!(matches!(all.accept(address(1), now), Admission::NotYet), "it has just come");
        let newcomer = accept(&all, 1, &mut now);
        assert!(is_evicted(&stranger));
        newcomer.set_known(&2);
        calls.push(newcomer.call());
        drop(stranger);
        assert!(matches!(all.accept(address(1), now), Admission::Full), "nobody has more than two of four");
        assert!(!known.iter().any(|one| is_evicted(one)));
        calls.remove(0);
        known.remove(0);
        accept(&all, 1, &mut now);
    }

    #[test]
    fn idle_ones_of_whoever_has_most_of_them_make_room() {
        let all = Connections::new(ConnectionLimits { all: 10, unknown: 5 });
        let mut now = Instant::now();
        let mut of = |holder: u32, count: usize| -> Vec<_> {
            let taken = (0..count).map(|_| accept(&all, 1, &mut now)).inspect(|one| one.set_known(&holder));
            taken.collect()
        };
        let (quiet, parked) = (of(1, 1), of(2, 4));
        let _claims: Vec<_> = parked.iter().map(AcceptedConnection::call).collect();
        let greedy = of(3, 5);
        // A greedy connection has just made a call.
        *lock(&greedy[0].since) += Duration::from_secs(600);
        let newcomer = of(4, 1);
        assert_eq!(
            greedy.iter().map(|one| is_evicted(one)).collect::<Vec<_>>(),
            [false, true, false, false, false]
        );
        assert!(![quiet, parked, newcomer].iter().flatten().any(|one| is_evicted(one)));
    }

    #[test]
    fn whoever_has_more_than_half_of_the_room_gives_way_with_the_longest_call() {
        let all = Connections::new(ConnectionLimits { all: 4, unknown: 2 });
        let mut now = Instant::now();
        let known: Vec<_> =
            (0..4).map(|_| accept(&all, 1, &mut now)).inspect(|one| one.set_known(&1)).collect();
        let _calls: Vec<_> = known.iter().map(AcceptedConnection::call).collect();
        *lock(&known[2].since) -= Duration::from_secs(50);
        let newcomer = accept(&all, 2, &mut now);
        assert_eq!(known.iter().map(|one| is_evicted(one)).collect::<Vec<_>>(), [false, false, true, false]);
        assert!(!is_evicted(&newcomer));
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
