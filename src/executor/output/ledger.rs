//! The account of a task: which events and how much output there are, and how far the control plane has them.
//! No IO: answers come in, the next thing to send comes out. Proven against a control plane that loses answers,
//! restarts and forgets what it had not synced.

use crate::protocol::event::cut;
use crate::protocol::limits::{EVENT_BATCH_BYTES, EVENT_TEXT_BYTES};
use crate::protocol::times::Times;
use crate::protocol::{EventKind, FinishRequest, StepSummary, TaskEvent, TaskStatus};
use std::collections::BTreeMap;

/// Events and output of one task.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Events as JSON, by their number.
    events: Vec<Vec<u8>>,
    stored_events: usize,
    steps: BTreeMap<u32, Output>,
}

#[derive(Debug, Default)]
struct Output {
    length: u64,
    stored: u64,
    durable: u64,
    /// Bytes below are not here any more.
    freed: u64,
    /// The control plane wants what it had for good, and what is not here any more: nothing more can be sent.
    broken: bool,
    times: Times,
}

/// A part of a step's output that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Number of the step record.
    pub(super) step: u32,
    /// Offset of its first byte.
    pub(super) offset: u64,
    /// Length of the piece in bytes; at least 1.
    pub(super) length: usize,
}

impl Ledger {
    /// Appends an event; returns it as JSON. Texts that are too long for one are cut, with a mark.
    pub(super) fn event(&mut self, at_ms: u64, mut kind: EventKind) -> &[u8] {
        kind.cut();
        let event = TaskEvent { number: self.events.len() as u64, at_ms, kind };
        self.event_left_behind(serde_json::to_vec(&event).unwrap_or_default())
    }

    /// Appends an event that is JSON already.
    pub(super) fn event_left_behind(&mut self, event: Vec<u8>) -> &[u8] {
        self.events.push(event);
        self.events.last().map_or(&[], Vec::as_slice)
    }

    /// All events as JSON, one a line.
    pub(super) fn journal(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for event in &self.events {
            lines.extend(event);
            lines.push(b'\n');
        }
        lines
    }

    /// Opens the output of a step record.
    pub(super) fn opened(&mut self, step: u32) {
        self.steps.insert(step, Output::default());
    }

    /// Notes that the output of a step became so long at this Unix time in milliseconds.
    pub(super) fn came(&mut self, step: u32, length: u64, at_ms: u64) {
        if let Some(output) = self.steps.get_mut(&step).filter(|output| output.length < length) {
            output.times.came(output.length, at_ms);
        }
    }

    /// When the output of a step came; see [`Times`].
    pub(super) fn output_times(&self, step: u32) -> Vec<(u64, u64)> {
        self.steps.get(&step).map(|output| output.times.marks().to_vec()).unwrap_or_default()
    }

    /// The output of a step has this many bytes. False when the record has none.
    pub(super) fn grew(&mut self, step: u32, length: u64) -> bool {
        let Some(output) = self.steps.get_mut(&step) else { return false };
        output.length = length;
        true
    }

    /// Bytes of output of a step so far.
    pub(super) fn output_bytes(&self, step: u32) -> u64 {
        self.steps.get(&step).map_or(0, |output| output.length)
    }

    /// Bytes of output that are not stored yet.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.steps.values().map(|output| output.length - output.stored).sum()
    }

    /// Whether there are events that are not stored yet.
    pub(super) fn has_events(&self) -> bool {
        self.stored_events < self.events.len()
    }

    /// Whether everything so far is stored.
    pub(super) fn is_even(&self) -> bool {
        !self.has_events() && self.pending_bytes() == 0
    }

    /// The next batch of events as a JSON list, at most [`EVENT_BATCH_BYTES`]; `[]` when all are stored. They come
    /// before any output: nobody should see output of a step that nobody was told of.
    pub(super) fn next_events(&self) -> Vec<u8> {
        let mut body = vec![b'['];
        for event in self.events.get(self.stored_events..).unwrap_or_default() {
            if body.len() > 1 {
                if body.len() + event.len() + 2 > EVENT_BATCH_BYTES {
                    break;
                }
                body.push(b',');
            }
            body.extend(event);
        }
        body.push(b']');
        body
    }

    /// The control plane has every event below `next`: from an answer, or from a refusal that names a gap.
    pub(super) fn events_stored(&mut self, next: u64) {
        self.stored_events = self.events.len().min(usize::try_from(next).unwrap_or(usize::MAX));
    }

    /// How many events the control plane has.
    pub(super) fn stored_events(&self) -> usize {
        self.stored_events
    }

    /// The next part of the output to send, at most `most` bytes.
    pub(super) fn next_piece(&self, most: usize) -> Option<Piece> {
        let (&step, output) = self.steps.iter().find(|(_, output)| output.stored < output.length)?;
        let left = usize::try_from(output.length - output.stored).unwrap_or(most);
        Some(Piece { step, offset: output.stored, length: left.min(most) })
    }

    /// An empty part behind stored output that the control plane does not have for good: it asks for that.
    pub(super) fn next_to_keep(&self) -> Option<Piece> {
        let (&step, output) =
            self.steps.iter().find(|(_, output)| !output.broken && output.durable < output.stored)?;
        Some(Piece { step, offset: output.stored, length: 0 })
    }

    /// The control plane has every byte of a step below `offset`: from an answer, or from a refusal that names a
    /// gap.
    pub(super) fn output_stored(&mut self, step: u32, offset: u64) {
        let Some(output) = self.steps.get_mut(&step) else { return };
        output.broken |= offset < output.freed;
        output.stored = if output.broken { output.length } else { offset.min(output.length) };
    }

    /// The control plane has every byte of a step below `offset` for good: it will not be wanted again. Returns
    /// that offset, or a lower one that is stored.
    pub(super) fn output_durable(&mut self, step: u32, offset: u64) -> u64 {
        let Some(output) = self.steps.get_mut(&step) else { return 0 };
        output.durable = output.durable.max(offset.min(output.stored));
        output.durable
    }

    /// The bytes of a step below `offset` are not here any more.
    pub(super) fn output_freed(&mut self, step: u32, offset: u64) {
        if let Some(output) = self.steps.get_mut(&step) {
            output.freed = offset;
        }
    }

    /// The request that ends the task, when everything is stored. `sum` is the checksum of a step's output.
    pub(super) fn finish(
        &self,
        status: TaskStatus,
        mut message: Option<String>,
        sum: impl Fn(u32) -> String,
    ) -> FinishRequest {
        if let Some(message) = &mut message {
            cut(message, EVENT_TEXT_BYTES);
        }
        let steps = self.steps.iter().map(|(&step, output)| StepSummary {
            step,
            length: output.length,
            sha256: if output.broken { String::new() } else { sum(step) },
        });
        FinishRequest { status, message, events: self.events.len() as u64, steps: steps.collect() }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::StepStatus;
    use crate::protocol::limits::{EVENT_BYTES, EVENT_COMMAND_BYTES};
    use crate::system::seeded;
    use proptest::prelude::*;

    fn started(step: u32, name: &str, command: Option<&str>) -> EventKind {
        EventKind::StepStarted {
            step,
            index: None,
            name: name.to_owned(),
            kind: "run".to_owned(),
            command: command.map(str::to_owned),
            attempt: 1,
            max_auto_reruns: 0,
            background: false,
        }
    }

    fn ended(step: u32, message: &str) -> EventKind {
        EventKind::StepFinished {
            step,
            status: StepStatus::Failed,
            exit_code: None,
            signal: None,
            message: Some(message.to_owned()),
            output_bytes: 0,
            output_times: Vec::new(),
        }
    }

    #[test]
    fn long_texts_are_cut_with_a_mark_and_every_event_fits() {
        // The worst bytes: six in JSON for one.
        let long = "\u{1}".repeat(3_000_000);
        let mut ledger = Ledger::default();
        ledger.event(0, started(0, &long, Some(&long)));
        ledger.event(0, ended(0, &"ä".repeat(EVENT_TEXT_BYTES)));
        let body = ledger.next_events();
        let events: Vec<TaskEvent> = serde_json::from_slice(&body).unwrap();
        let EventKind::StepStarted { name, command: Some(command), .. } = &events[0].kind else {
            unreachable!()
        };
        assert!(name.len() <= EVENT_TEXT_BYTES && name.ends_with(" [cut here: it has 3000000 bytes]"));
        assert!(command.len() <= EVENT_COMMAND_BYTES && command.ends_with("3000000 bytes]"));
        let EventKind::StepFinished { message: Some(message), .. } = &events[1].kind else { unreachable!() };
        assert!(message.starts_with("ää") && message.len() <= EVENT_TEXT_BYTES && message.ends_with(']'));
        assert!(body.len() < 2 * EVENT_BYTES);
    }

    #[test]
    fn batches_are_as_large_as_a_body_may_be() {
        let mut ledger = Ledger::default();
        for n in 0..200 {
            ledger.event(n, started(0, "\u{1}", Some(&"\u{1}".repeat(EVENT_COMMAND_BYTES))));
        }
        let (mut seen, mut batches) = (0, 0);
        while ledger.has_events() {
            let body = ledger.next_events();
            assert!(body.len() <= EVENT_BATCH_BYTES);
            let events: Vec<TaskEvent> = serde_json::from_slice(&body).unwrap();
            assert!(events.iter().map(|event| event.number).eq(seen..seen + events.len() as u64));
            seen += events.len() as u64;
            batches += 1;
            ledger.events_stored(seen);
        }
        assert_eq!(seen, 200);
        assert!((20..30).contains(&batches), "{batches}");
    }

    #[test]
    fn a_control_plane_that_lost_what_it_had_for_good_is_told_that_no_more_will_come() {
        let mut ledger = Ledger::default();
        ledger.opened(1);
        ledger.grew(1, 10);
        ledger.output_stored(1, 6);
        assert_eq!(ledger.output_durable(1, 8), 6);
        ledger.output_stored(1, 3);
        assert_eq!(ledger.next_piece(100), Some(Piece { step: 1, offset: 3, length: 7 }), "it is still here");
        ledger.output_stored(1, 6);
        ledger.output_freed(1, 6);
        ledger.output_stored(1, 3);
        assert!(ledger.is_even() && ledger.next_to_keep().is_none());
        let finish = ledger.finish(TaskStatus::Success, None, |_| "sum".to_owned());
        assert_eq!((finish.steps[0].length, finish.steps[0].sha256.as_str()), (10, ""));
    }

    /// The store of a control plane, which may lose what it has not synced.
    #[derive(Default)]
    struct Plane {
        events: Vec<TaskEvent>,
        synced_events: usize,
        output: BTreeMap<u32, Vec<u8>>,
        synced: BTreeMap<u32, usize>,
    }

    impl Plane {
        /// Answers the number that is expected next, in an answer or in the refusal of a gap.
        fn take_events(&mut self, body: &[u8]) -> u64 {
            for event in serde_json::from_slice::<Vec<TaskEvent>>(body).unwrap() {
                if event.number == self.events.len() as u64 {
                    self.events.push(event);
                }
            }
            self.events.len() as u64
        }

        fn take_output(&mut self, piece: Piece, bytes: &[u8]) -> u64 {
            let told = |event: &TaskEvent| matches!(event.kind, EventKind::StepStarted { step, .. } if step == piece.step);
            assert!(self.events.iter().any(told), "output of a step that nobody was told of");
            let stored = self.output.entry(piece.step).or_default();
            let offset = usize::try_from(piece.offset).unwrap();
            if offset <= stored.len() && offset + bytes.len() > stored.len() {
                let new = stored.len() - offset;
                stored.extend(&bytes[new..]);
            }
            stored.len() as u64
        }

        fn crash(&mut self) {
            self.events.truncate(self.synced_events);
            for (step, bytes) in &mut self.output {
                bytes.truncate(self.synced.get(step).copied().unwrap_or(0));
            }
        }

        fn sync(&mut self) {
            self.synced_events = self.events.len();
            self.synced = self.output.iter().map(|(step, bytes)| (*step, bytes.len())).collect();
        }
    }

    #[derive(Clone, Debug)]
    enum Happens {
        Step(u32),
        Print(u32, usize),
        End(u32),
        /// A call, and whether its answer arrives.
        Call(bool),
        /// A call with a piece of at most so many bytes, and whether its answer arrives.
        Small(usize, bool),
        Sync,
        Crash,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            (0..4u32).prop_map(Happens::Step),
            (0..4u32, 1..50usize).prop_map(|(step, n)| Happens::Print(step, n)),
            (0..4u32).prop_map(Happens::End),
            any::<bool>().prop_map(Happens::Call),
            (1..9usize, any::<bool>()).prop_map(|(most, heard)| Happens::Small(most, heard)),
            Just(Happens::Sync),
            Just(Happens::Crash),
        ]
    }

    /// Makes a call as the reporter does.
    fn call(
        ledger: &mut Ledger,
        plane: &mut Plane,
        printed: &BTreeMap<u32, Vec<u8>>,
        most: usize,
        heard: bool,
    ) {
        if ledger.has_events() {
            let next = plane.take_events(&ledger.next_events());
            if heard {
                ledger.events_stored(next);
            }
        } else if let Some(piece) = ledger.next_piece(most) {
            let from = usize::try_from(piece.offset).unwrap();
            let told = |event: &TaskEvent| matches!(event.kind, EventKind::StepStarted { step, .. } if step == piece.step);
            // A control plane that forgot the step refuses its output, naming the event that it misses.
            if !plane.events.iter().any(told) {
                return ledger.events_stored(plane.events.len() as u64);
            }
            assert!(piece.offset >= ledger.steps[&piece.step].freed, "what was given up is wanted again");
            let stored = plane.take_output(piece, &printed[&piece.step][from..from + piece.length]);
            if heard {
                ledger.output_stored(piece.step, stored);
                let synced = plane.synced.get(&piece.step).copied().unwrap_or(0);
                let durable = ledger.output_durable(piece.step, synced as u64);
                ledger.output_freed(piece.step, durable);
            }
        }
    }

    #[test]
    fn a_rewind_never_loses_or_repeats_bytes() {
        seeded::check(&prop::collection::vec(happens(), 0..60), |story| {
            let (mut ledger, mut plane) = (Ledger::default(), Plane::default());
            let mut printed: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            let (mut said, mut byte) = (0, 0u8);
            for event in story {
                match event {
                    Happens::Step(step) if !printed.contains_key(&step) => {
                        printed.insert(step, Vec::new());
                        ledger.opened(step);
                        ledger.event(said, started(step, "step", None));
                        said += 1;
                    }
                    Happens::Print(step, n) => {
                        if let Some(bytes) = printed.get_mut(&step) {
                            bytes.extend((0..n).map(|_| {
                                byte = byte.wrapping_add(1);
                                byte
                            }));
                            prop_assert!(ledger.grew(step, bytes.len() as u64));
                        }
                    }
                    Happens::End(step) if printed.contains_key(&step) => {
                        ledger.event(said, ended(step, "it ended"));
                        said += 1;
                    }
                    Happens::Step(_) | Happens::End(_) => {}
                    Happens::Call(heard) => call(&mut ledger, &mut plane, &printed, 1000, heard),
                    Happens::Small(most, heard) => call(&mut ledger, &mut plane, &printed, most, heard),
                    Happens::Sync => plane.sync(),
                    Happens::Crash => plane.crash(),
                }
            }
            // The end: everything is sent, the control plane compares, and what it misses is sent again.
            for _ in 0..3 {
                let mut calls = 0;
                while !ledger.is_even() {
                    call(&mut ledger, &mut plane, &printed, 1000, true);
                    calls += 1;
                    prop_assert!(calls < 1000, "no progress");
                }
                let finish = ledger.finish(TaskStatus::Success, None, |_| String::new());
                prop_assert_eq!(finish.events, said);
                ledger.events_stored(plane.events.len() as u64);
                for summary in finish.steps {
                    let has = plane.output.get(&summary.step).map_or(0, |bytes| bytes.len() as u64);
                    ledger.output_stored(summary.step, has);
                }
            }
            prop_assert_eq!(
                plane.events.iter().map(|event| event.at_ms).collect::<Vec<_>>(),
                (0..said).collect::<Vec<_>>()
            );
            plane.output.retain(|_, bytes| !bytes.is_empty());
            printed.retain(|_, bytes| !bytes.is_empty());
            prop_assert_eq!(plane.output, printed);
            Ok(())
        });
    }
}
