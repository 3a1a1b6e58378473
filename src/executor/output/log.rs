//! The log of one step record: redactor, spool and reporter as one thing to write to.

use super::redactor::Redactor;
use super::report::Reporter;
use super::secrets::Secrets;
use super::spool::Spool;
use crate::protocol::event::cut;
use crate::system::fault::{self, is_full};
use crate::system::os::DirBuilderExt;
use std::fs::DirBuilder;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longest text of others that a note has, in bytes.
const LONGEST_QUOTE: usize = 200;

/// Shared by the threads that read children's output and the one that ends the step. A step may have
/// several children one after the other; what a child's descendants write when its turn is over is
/// discarded, as is everything after [`StepLog::close`].
#[derive(Clone)]
pub struct StepLog(Arc<Mutex<Option<Open>>>, u32);

struct Open {
    redactor: Redactor,
    spool: Spool,
    reporter: Reporter,
    /// Output that may be shown and is not in the spool yet.
    clean: Vec<u8>,
    at_line_start: bool,
    /// The child whose output is taken; counted from 1.
    child: u64,
    children: u64,
    /// Whether children are heard that tell of errors of the host's disk, and what the last one said.
    hears: bool,
    heard: Option<io::Error>,
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
        let shared = reporter.shared().map(|(folder, _)| folder);
        let path = match &shared {
            Some(shared) => shared.join(step.to_string()),
            None => folder.join(format!("step-{step}")),
        };
        let mut spool = Spool::create(&path, limit);
        // A step has removed it, as one that empties a temporary folder does; or the control plane has nothing in it yet.
        if spool.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let made = DirBuilder::new().mode(0o700).create(shared.as_deref().unwrap_or(folder));
            spool = made.and_then(|()| Spool::create(&path, limit));
        }
        let spool = spool.or_else(|error| Spool::in_memory(error, &path, limit))?;
        reporter.mend_journal(folder);
        reporter.output_opened(step, spool.reader()?);
        let open = Open {
            redactor: Redactor::new(secrets.clone()),
            spool,
            reporter: reporter.clone(),
            clean: Vec::new(),
            at_line_start: true,
            child: 0,
            children: 0,
            hears: false,
            heard: None,
        };
        Ok(Self(Arc::new(Mutex::new(Some(open))), step))
    }

    /// Number of the step record.
    pub fn step(&self) -> u32 {
        self.1
    }

    /// The turn of the next child. Its output is written by the number that is returned.
    pub fn begin_child(&self) -> u64 {
        let mut guard = self.lock();
        let Some(open) = guard.as_mut() else { return 0 };
        open.children += 1;
        open.child = open.children;
        open.child
    }

    /// The error of the host's disk that a child has told of since this was last asked. Only output after the first time is
    /// looked at.
    pub fn heard(&self) -> Option<io::Error> {
        let mut guard = self.lock();
        let open = guard.as_mut()?;
        open.hears = true;
        open.heard.take()
    }

    /// Ends the turn of a child.
    pub fn end_child(&self, child: u64) {
        let mut guard = self.lock();
        if let Some(open) = guard.as_mut().filter(|open| open.child == child) {
            open.child = 0;
        }
    }

    /// Appends output of a child, if it is its turn. Waits while the disk is full.
    pub fn write(&self, child: u64, bytes: &[u8]) {
        {
            let mut guard = self.lock();
            let Some(open) = guard.as_mut().filter(|open| open.child == child) else { return };
            if open.hears {
                open.heard = fault::of_disk(bytes).or(open.heard.take());
            }
            open.redactor.push(bytes, &mut open.clean);
            if open.flush(self.1) {
                return;
            }
        }
        self.wait_until(|open| open.child != child || open.flush(self.1));
    }

    /// Appends a line of the agent's own; it begins on a line of its own.
    pub fn note(&self, text: &str) {
        let mut guard = self.lock();
        let Some(open) = guard.as_mut() else { return };
        open.redactor.finish(&mut open.clean);
        if open.clean.last().map_or(!open.at_line_start, |&last| last != b'\n') {
            open.clean.push(b'\n');
        }
        open.redactor.push(text.as_bytes(), &mut open.clean);
        open.redactor.finish(&mut open.clean);
        open.clean.push(b'\n');
        // On a full disk it waits for what comes next.
        open.flush(self.1);
    }

    /// A long text for a note: masked as a whole and cut then, since nobody would know a part of a secret for one.
    pub fn shortened(&self, text: &str) -> String {
        let mut text = self.lock().as_ref().map_or_else(String::new, |open| open.redactor.secrets.mask(text));
        cut(&mut text, LONGEST_QUOTE);
        text
    }

    /// Whether the disk has taken all of it so far; else some is in memory only.
    pub fn is_on_disk(&self) -> bool {
        self.lock().as_ref().is_none_or(|open| open.spool.is_on_disk())
    }

    /// Does something while the log takes nothing, as on a disk that is slow.
    #[cfg(test)]
    pub(in crate::executor) fn held<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.lock();
        work()
    }

    /// Ends the log. Waits while the disk is full.
    pub fn close(&self) {
        if let Some(open) = self.lock().as_mut() {
            open.child = 0;
            open.redactor.finish(&mut open.clean);
        }
        self.wait_until(|open| open.end(self.1));
        let Some(open) = self.lock().take() else { return };
        open.reporter.output_finished(self.1, open.spool.length());
    }

    /// Tries until it is done, whenever there may be room again.
    fn wait_until(&self, done: impl Fn(&mut Open) -> bool) {
        loop {
            let reporter = {
                let mut guard = self.lock();
                let Some(open) = guard.as_mut() else { return };
                if done(open) {
                    return;
                }
                open.reporter.clone()
            };
            reporter.wait_for_room();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Moves what is clean to the spool. False when the disk is full and will be waited for.
    fn flush(&mut self, step: u32) -> bool {
        let Some(&last) = self.clean.last() else { return true };
        self.at_line_start = last == b'\n';
        let mut done = 0;
        let mut failure = None;
        while done < self.clean.len() && failure.is_none() {
            match self.spool.write(&self.clean[done..]) {
                Ok(taken) => done += taken,
                Err(error) => failure = Some(error),
            }
        }
        self.clean.drain(..done);
        self.reporter.output_grew(step, self.spool.length());
        let Some(error) = failure else { return true };
        if is_full(&error) && !self.reporter.drops_output() && self.reporter.waits_for_room() {
            return false;
        }
        self.spool.lose(self.clean.len(), &error);
        self.reporter.output_lost(self.clean.len(), &error);
        self.clean.clear();
        true
    }

    /// Flushes everything that is left and ends the spool.
    fn end(&mut self, step: u32) -> bool {
        if !self.flush(step) {
            return false;
        }
        let ended = self.spool.end();
        let waits = ended.as_ref().is_err_and(|error| is_full(error) && self.reporter.waits_for_room());
        if let Some(error) = ended.err().filter(|_| !waits) {
            self.reporter.output_lost(0, &error);
            self.spool.end_without_room();
        }
        self.reporter.output_grew(step, self.spool.length());
        !waits
    }
}

/// `1 file`, `2 files`.
pub(in crate::executor) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
