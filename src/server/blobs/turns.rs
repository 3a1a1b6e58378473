//! Turns at a file: calls that write one file come one after the other, those of other files beside them.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The files that are being written, by a key of each. Cheap to clone.
pub(super) struct Turns<K>(Arc<Shared<K>>);

struct Shared<K> {
    taken: Mutex<HashSet<K>>,
    freed: Condvar,
}

/// A turn; it lasts until this is dropped.
pub(super) struct Turn<'t, K: Eq + Hash> {
    turns: &'t Turns<K>,
    key: K,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Waits for the turn of a key.
    pub(super) fn take(&self, key: K) -> Turn<'_, K> {
        let mut taken = self.lock();
        while !taken.insert(key.clone()) {
            taken = self.0.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, key }
    }
}

impl<K> Turns<K> {
    fn lock(&self) -> MutexGuard<'_, HashSet<K>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.key);
        self.turns.0.freed.notify_all();
    }
}

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::new(Shared { taken: Mutex::default(), freed: Condvar::new() }))
    }
}

impl<K> fmt::Debug for Turns<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_turn_is_waited_for_by_its_own_key_only() {
        let turns = Turns::default();
        let held = turns.take(1);
        drop(turns.take(2));
        let (sender, order) = mpsc::channel();
        std::thread::scope(|scope| {
            let (turns, later) = (turns.clone(), sender.clone());
            scope.spawn(move || {
                let _turn = turns.take(1);
                let _ = later.send("second");
            });
            let _ = sender.send("first");
            drop(held);
        });
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["first", "second"]);
        assert!(turns.lock().is_empty());
    }
}
