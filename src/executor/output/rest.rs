//! The folder of a task's spool, and what a task agent that died has left in it.

use super::report::Reporter;
use super::spool::Spool;
use crate::system::clock::since_boot;
use crate::system::opening;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The file of the events, one a line.
pub(super) const EVENTS: &str = "events";

impl Reporter {
    /// Sends what is in the folder of another task agent, until the control plane has it or it is too late. The
    /// control plane knows what it has already.
    pub fn deliver_rest(&self, folder: &Path) -> io::Result<()> {
        self.take_over(folder)?;
        {
            let mut state = self.lock();
            state.life.ready();
            state.life.begun();
            state.life.steps_ended(since_boot());
        }
        // The runner has ended whatever the steps had started.
        self.settle();
        Ok(())
    }

    fn take_over(&self, folder: &Path) -> io::Result<()> {
        let mut events = Vec::new();
        opening::open(&folder.join(EVENTS), File::options().read(true))?.read_to_end(&mut events)?;
        // The last line of one that died may lack its end.
        let whole = events.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        for event in events[..whole].split(|byte| *byte == b'\n') {
            self.lock().ledger.event_left_behind(event.to_vec());
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(Ok(step)) = name.strip_prefix("step-").map(str::parse) else { continue };
            let spool = Spool::left_behind(&path)?;
            self.output_opened(step, spool.reader()?);
            self.output_grew(step, spool.length());
        }
        Ok(())
    }
}
