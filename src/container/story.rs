//! The *Task lifecycle* record of a task: what became of its pod, line by line, as it comes.

use crate::protocol::{Beside, StepStatus};
use crate::system::clock::Rfc3339;
use std::collections::HashSet;
use std::time::SystemTime;

/// Longest text of a record, in bytes: a pod that hangs for hours says the same again and again.
const MOST_BYTES: usize = 256 * 1024;

/// The record of a task.
#[derive(Default)]
pub(super) struct Story {
    /// Text that is not stored yet.
    text: String,
    /// Bytes that are stored.
    offset: u64,
    opened: bool,
    /// How it ended, and whether that was said.
    ended: Option<(bool, bool)>,
    last: String,
    events: HashSet<String>,
    /// No more is sent: the control plane takes none, or another agent has begun the task.
    silent: bool,
}

impl Story {
    /// Makes the story of a task that another agent has claimed: its record is that agent's.
    pub(super) fn of_another() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// Adds a line.
    pub(super) fn tell(&mut self, line: &str) {
        if self.silent || self.ended.is_some() || self.offset as usize + self.text.len() > MOST_BYTES {
            return;
        }
        let now = Rfc3339 { time: SystemTime::now(), milliseconds: true };
        self.text.push_str(&format!("{now} {line}\n"));
    }

    /// Adds a line, unless it was the last one.
    pub(super) fn tell_news(&mut self, line: &str) {
        if self.last != line {
            line.clone_into(&mut self.last);
            self.tell(line);
        }
    }

    /// Adds an event of the cluster, unless it is known.
    pub(super) fn tell_event(&mut self, key: String, text: &str) {
        if self.events.insert(key) {
            self.tell(&format!("event: {text}"));
        }
    }

    /// Ends the record, once.
    pub(super) fn end(&mut self, failed: bool) {
        self.ended.get_or_insert((failed, false));
    }

    /// Whether there is something to say.
    pub(super) fn is_unsaid(&self) -> bool {
        !self.silent && (!self.text.is_empty() || matches!(self.ended, Some((_, false))))
    }

    /// Returns the next words for the control plane: text at its offset, and the record where that begins or ends.
    pub(super) fn unsaid(&self) -> (u64, String, Option<Beside>) {
        let ended = self
            .ended
            .map(|(failed, _)| if failed { StepStatus::InfrastructureFail } else { StepStatus::Success });
        let record = (!self.opened || ended.is_some()).then(|| Beside {
            name: "Task lifecycle".to_owned(),
            kind: "task_lifecycle".to_owned(),
            at_ms: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |time| time.as_millis() as u64),
            status: ended,
            message: None,
            output_bytes: self.offset + self.text.len() as u64,
        });
        (self.offset, self.text.clone(), record)
    }

    /// Notes how much is stored by now; nothing when no more is taken.
    pub(super) fn said(&mut self, stored: Option<u64>) {
        let Some(stored) = stored else {
            self.silent = true;
            return self.text.clear();
        };
        self.opened = true;
        // Text that came while it was on its way stays.
        let taken =
            usize::try_from(stored.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(self.text.len());
        if self.text.is_char_boundary(taken) {
            self.text.drain(..taken);
        } else {
            self.text.clear();
        }
        self.offset = stored;
        if let Some((_, said)) = &mut self.ended {
            *said = self.text.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_once_and_the_end_last() {
        let mut story = Story::default();
        story.tell_news("waits for a node");
        story.tell_news("waits for a node");
        story.tell_event("a/1".to_owned(), "Normal Pulled: image");
        story.tell_event("a/1".to_owned(), "Normal Pulled: image");
        let (offset, text, record) = story.unsaid();
        assert_eq!((offset, text.lines().count(), record.and_then(|record| record.status)), (0, 2, None));
        story.tell("more");
        story.said(Some(text.len() as u64));
        let (offset, rest, record) = story.unsaid();
        assert!(offset == text.len() as u64 && rest.ends_with(" more\n") && record.is_none());
        story.end(false);
        story.tell("after the end");
        let (_, last, record) = story.unsaid();
        assert_eq!(
            (last, record.and_then(|record| record.status)),
            (rest.clone(), Some(StepStatus::Success))
        );
        story.said(Some(offset + rest.len() as u64));
        assert!(!story.is_unsaid());
        story.said(None);
        story.tell("x");
        assert!(!story.is_unsaid() && !Story::of_another().is_unsaid());
    }
}
