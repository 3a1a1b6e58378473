//! The log of one step record: redactor, spool and reporter as one thing to write to.

use super::redactor::Redactor;
use super::report::Reporter;
use super::secrets::Secrets;
use super::spool::Spool;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the threads that read children's output and the one that ends the step. A step may have
/// several children one after the other; what a child's descendants write when its turn is over is
/// discarded, as is everything after [`StepLog::close`].
#[derive(Clone)]
pub struct StepLog(Arc<Mutex<Option<Open>>>, u32);

struct Open {
    redactor: Redactor,
    spool: Spool,
    reporter: Reporter,
    clean: Vec<u8>,
    at_line_start: bool,
    /// The child whose output is taken; counted from 1.
    child: u64,
    children: u64,
}

impl StepLog {
    /// Opens the log of record `step` in `folder`.
    pub fn open(
        folder: &Path,
        step: u32,
        limit: u64,
        secrets: &Secrets,
        reporter: &Reporter,
    ) -> io::Result<Self> {
        let spool = Spool::create(&folder.join(format!("step-{step}")), limit)?;
        reporter.output_opened(step, spool.reader()?);
        let open = Open {
            redactor: Redactor::new(secrets.clone()),
            spool,
            reporter: reporter.clone(),
            clean: Vec::new(),
            at_line_start: true,
            child: 0,
            children: 0,
        };
        Ok(Self(Arc::new(Mutex::new(Some(open))), step))
    }

    /// The turn of the next child. Its output is written by the number that is returned.
    pub fn begin_child(&self) -> u64 {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = guard.as_mut() else { return 0 };
        open.children += 1;
        open.child = open.children;
        open.child
    }

    /// Ends the turn of a child.
    pub fn end_child(&self, child: u64) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = guard.as_mut().filter(|open| open.child == child) {
            open.child = 0;
        }
    }

    /// Appends output of a child, if it is its turn.
    pub fn write(&self, child: u64, bytes: &[u8]) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = guard.as_mut().filter(|open| open.child == child) else { return };
        open.clean.clear();
        open.redactor.push(bytes, &mut open.clean);
        open.flush(self.1);
    }

    /// Appends a line of the agent's own; it begins on a line of its own.
    pub fn note(&self, text: &str) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = guard.as_mut() else { return };
        open.clean.clear();
        open.redactor.finish(&mut open.clean);
        if !open.at_line_start || open.clean.last().is_some_and(|&b| b != b'\n') {
            open.clean.push(b'\n');
        }
        open.redactor.push(text.as_bytes(), &mut open.clean);
        open.redactor.finish(&mut open.clean);
        open.clean.push(b'\n');
        open.flush(self.1);
    }

    /// Does something while the log takes nothing, as on a disk that is slow.
    #[cfg(test)]
    pub(in crate::executor) fn held<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Ends the log.
    pub fn close(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut open) = taken else { return };
        open.clean.clear();
        open.redactor.finish(&mut open.clean);
        open.flush(self.1);
        if let Some(why) = open.spool.lost() {
            open.reporter.output_lost(why);
        }
        let (length, sha256) = open.spool.finish();
        open.reporter.output_finished(self.1, length, sha256);
    }
}

impl Open {
    fn flush(&mut self, step: u32) {
        let Some(&last) = self.clean.last() else { return };
        self.at_line_start = last == b'\n';
        let length = self.spool.write(&self.clean);
        self.reporter.output_grew(step, length);
    }
}

/// `1 file`, `2 files`.
pub(in crate::executor) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
