//! The budget of one compilation: how many steps and how much text expansion may still produce.
//!
//! A few lines of config can ask for a great deal of work (commands in commands, matrices, rings of
//! aliases). Whatever expands pays first ([`cost`](super::cost)), and stops when nothing is left.

use super::report::Report;
use crate::config::limits;
use crate::config::values::Pos;
use std::cell::Cell;

/// Steps and text that are left.
pub(crate) struct Budget<'c> {
    report: &'c Report,
    steps_left: Cell<usize>,
    bytes_left: Cell<usize>,
    exhausted: Cell<bool>,
}

impl<'c> Budget<'c> {
    pub(crate) fn new(report: &'c Report) -> Self {
        Self {
            report,
            steps_left: Cell::new(limits::EXPANDED_STEPS),
            bytes_left: Cell::new(limits::EXPANDED_BYTES),
            exhausted: Cell::new(false),
        }
    }

    /// Takes steps and bytes of text; false when they are used up, which is reported, or when so many
    /// errors were found that expansion is given up.
    pub(crate) fn spend(&self, pos: Pos, steps: usize, bytes: usize) -> bool {
        if self.exhausted.get() || self.report.errors() >= limits::FOUND_ERRORS {
            self.exhausted.set(true);
            return false;
        }
        let (steps_left, bytes_left) = self.left();
        let (Some(steps), Some(bytes)) = (steps_left.checked_sub(steps), bytes_left.checked_sub(bytes))
        else {
            self.exhausted.set(true);
            if self.report.is_rehearsal() {
                return false;
            }
            let message = format!(
                "the config expands to more than the limit of {} steps or {} MiB of text",
                limits::EXPANDED_STEPS,
                limits::EXPANDED_BYTES >> 20
            );
            self.report.error(pos, message);
            return false;
        };
        self.steps_left.set(steps);
        self.bytes_left.set(bytes);
        true
    }

    /// Steps and bytes of text that are left.
    pub(crate) fn left(&self) -> (usize, usize) {
        (self.steps_left.get(), self.bytes_left.get())
    }

    /// Whether expansion was given up.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.get()
    }

    /// Fills the budget again, for the rehearsals of unused elements.
    pub(crate) fn renew(&self) {
        self.steps_left.set(limits::EXPANDED_STEPS);
        self.bytes_left.set(limits::EXPANDED_BYTES);
    }
}
