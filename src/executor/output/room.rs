//! Room for the output of a task on its host: what a full disk means, what is lost, and what is left unsent.

use super::report::Reporter;
use super::rest::EVENTS;
use crate::system::fault::is_full;
use crate::system::opening;
use crate::system::os::MetadataExt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How soon a step that waits for room looks again by itself.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in vain after which a cancelled task waits no more.
const MOST_VAIN_LOOKS: u32 = 5;

impl Reporter {
    /// Keeps the events in `folder`, too. `drops`: output that does not fit there is dropped instead of waited for.
    pub fn keep_in(&self, folder: &Path, drops: bool) {
        let mut state = self.lock();
        let mut options = File::options();
        options.create(true).append(true);
        state.journal = opening::open(&folder.join(EVENTS), &mut options).ok();
        state.drops = drops;
    }

    /// Output of steps is written into `folder`, where the control plane keeps it.
    #[cfg(feature = "server")]
    pub fn share(&self, folder: Option<PathBuf>) {
        self.lock().shared = folder.map(|folder| (folder, true));
    }

    /// The control plane does not find there what is written: it is sent as well.
    #[cfg(feature = "server")]
    pub(super) fn send_shared(&self) {
        if let Some((_, looks)) = &mut self.lock().shared {
            *looks = false;
        }
    }

    /// The folder in which the control plane keeps the output that is written there, and whether it looks for it.
    #[cfg(feature = "server")]
    pub(super) fn shared(&self) -> Option<(PathBuf, bool)> {
        self.lock().shared.clone()
    }

    /// There is none in the runner-only build, whose file is smaller for it.
    #[cfg(not(feature = "server"))]
    pub(super) fn shared(&self) -> Option<(PathBuf, bool)> {
        None
    }

    /// Begins the events in `folder` anew where a step has removed their file: whoever comes after a task agent that dies
    /// needs all of them.
    pub fn mend_journal(&self, folder: &Path) {
        let mut state = self.lock();
        let is_there = |journal: &File| journal.metadata().is_ok_and(|about| about.nlink() > 0);
        if state.journal.as_ref().is_some_and(is_there) {
            return;
        }
        // A disk that takes nothing leaves less behind, as before.
        state.journal = opening::write(&folder.join(EVENTS), &state.ledger.journal()).ok();
    }

    /// Output of a step is gone for good: the task cannot end as a success any more, unless that was chosen.
    pub fn output_lost(&self, bytes: usize, error: &io::Error) {
        if self.drops_output() && is_full(error) {
            // Output that is sent makes room.
            self.lock().starved = true;
            return self.0.changed.notify_all();
        }
        self.lost(format!(
            "{bytes} bytes of output were lost: the runner could not keep them on its disk: {error} (free some space, or set TMPDIR to a larger place)"
        ));
    }

    pub(super) fn lost(&self, why: String) {
        self.lock().lost_output.get_or_insert(why);
    }

    /// Whether output that does not fit into the spool is dropped.
    pub fn drops_output(&self) -> bool {
        self.lock().drops
    }

    /// Whether a full spool is waited for: there will be room when the control plane has taken what is there.
    pub fn waits_for_room(&self) -> bool {
        let mut state = self.lock();
        state.frees && state.vain_looks < MOST_VAIN_LOOKS && state.steps_go_on()
    }

    /// Waits for room in the spool until some was given back, or a moment is over: others make room as well.
    pub fn wait_for_room(&self) {
        let mut state = self.lock();
        state.starved = true;
        self.0.changed.notify_all();
        let (before, until) = (state.room_given, Instant::now() + LOOK);
        while state.room_given == before && state.frees && state.steps_go_on() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.vain_looks += u32::from(state.told.is_some());
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Why output of a step is gone, if it is.
    pub fn lost_output(&self) -> Option<String> {
        self.lock().lost_output.clone()
    }

    /// Whether nothing is left to send, or nobody takes it.
    pub fn is_sent(&self) -> bool {
        let state = self.lock();
        state.refused || state.ledger.is_even()
    }
}
