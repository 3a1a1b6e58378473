//! Room for tasks: each has a slot from before its claim until nothing is left of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// All slots of this runner.
#[derive(Clone)]
pub(super) struct Slots(Arc<(Mutex<Room>, Condvar)>);

struct Room {
    free: usize,
    /// Tasks that were found and had no slot of their own.
    owed: usize,
    /// Time until which no slot is given out.
    paused_until: Option<Instant>,
    closed: bool,
}

/// A slot. It is free again with the value.
pub(super) struct Slot(Slots);

impl Slots {
    /// Makes room for this many tasks at once.
    pub(super) fn new(count: usize) -> Self {
        let room = Room { free: count, owed: 0, paused_until: None, closed: false };
        Self(Arc::new((Mutex::new(room), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot; nothing when there will be none any more.
    pub(super) fn take(&self) -> Option<Slot> {
        let mut room = self.lock();
        loop {
            if room.closed {
                return None;
            }
            let now = Instant::now();
            let pause = room.paused_until.and_then(|until| until.checked_duration_since(now));
            if room.free > 0 && pause.is_none() {
                room.free -= 1;
                return Some(Slot(self.clone()));
            }
            let waited = match pause {
                Some(pause) => {
                    self.0.1.wait_timeout(room, pause).map(|(room, _)| room).map_err(|e| e.into_inner().0)
                }
                None => self.0.1.wait(room).map_err(PoisonError::into_inner),
            };
            room = waited.unwrap_or_else(|room| room);
        }
    }

    /// The slot of a task that was found, whether there is one or not.
    pub(super) fn force(&self) -> Slot {
        let mut room = self.lock();
        match room.free.checked_sub(1) {
            Some(left) => room.free = left,
            None => room.owed += 1,
        }
        Slot(self.clone())
    }

    /// Gives out no slot before this time.
    pub(super) fn pause(&self, until: Instant) {
        let mut room = self.lock();
        room.paused_until = room.paused_until.max(Some(until));
    }

    /// Gives out no slot any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.1.notify_all();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut room = self.0.lock();
        match room.owed.checked_sub(1) {
            Some(left) => room.owed = left,
            None => room.free += 1,
        }
        drop(room);
        self.0.0.1.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slots_come_back_and_those_that_were_owed_first() {
        let slots = Slots::new(1);
        let first = slots.take().expect("a slot");
        let found = slots.force();
        drop(first);
        assert_eq!(slots.lock().free, 0);
        drop(found);
        assert_eq!(slots.lock().free, 1);
        slots.pause(Instant::now() + Duration::from_millis(1));
        assert!(slots.take().is_some());
        slots.close();
        assert!(slots.take().is_none());
    }
}
