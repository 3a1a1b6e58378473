//! Output of a service, followed while it comes: redacted, and sent into a record of its own in the job log.
//!
//! A followed log ends early for many reasons, so it is asked for again from the time of its last line on, and lines that
//! were sent already are left out. What is known of secrets comes with the claim: pods of another agent are not followed.

use super::api::ClusterFault;
use super::plane::{self, Heard};
use super::work::{Subject, Tools};
use crate::executor::output::redactor::{Redactor, Secrets};
use crate::protocol::Beside;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// The longest that one connection follows a log.
const FOLLOW: Duration = Duration::from_secs(240);
/// Pause between two calls with output: what comes meanwhile goes together.
const BETWEEN: Duration = Duration::from_millis(200);
/// Pause between two tries to read a log.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries in a row without a line, after which there is no more to come: a node without a certificate takes a minute.
const MOST_TRIES: u32 = 90;
/// Most output of a service that is kept, in bytes.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Longest line, in bytes.
const MOST_LINE: u64 = 1024 * 1024;

/// A service of a task.
pub(super) struct ServiceContainer {
    /// Number of the service and of its record, from 1.
    pub(super) n: u32,
    /// Image of the service, for people.
    pub(super) image: String,
    /// Values to mask.
    pub(super) secrets: Secrets,
}

/// Follows a service until the task is over, or `stop` is set.
pub(super) fn follow(tools: &Tools, subject: &Subject, service: &ServiceContainer, stop: &AtomicBool) {
    let Some(token) = subject.token.as_ref() else { return };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let record = Beside {
        name: service.image.clone(),
        kind: "service".to_owned(),
        at_ms: now.map_or(0, |time| time.as_millis() as u64),
        status: None,
        message: None,
        output_bytes: 0,
    };
    let mut sink = Sink { tools, subject, service, offset: 0, waiting: Vec::new() };
    while !matches!(
        plane::beside(&tools.plane, &subject.id, token, service.n, &record),
        Ok(Heard::Yes | Heard::Over)
    ) {
        if pause(AGAIN, stop) {
            return;
        }
    }
    let mut redactor = Redactor::new(service.secrets.clone());
    let mut place = Place::default();
    let mut tries = 0;
    while tries < MOST_TRIES && !stop.load(Ordering::Relaxed) {
        let container = format!("secondary-{}", service.n);
        match tools.kube.follow(&subject.name, &container, place.since(), FOLLOW) {
            Ok(body) => {
                let mut lines = BufReader::new(body);
                let mut line = Vec::new();
                place.begin();
                loop {
                    line.clear();
                    // The end of a connection may be the end of the log, or not.
                    let read = std::io::Read::take(&mut lines, MOST_LINE).read_until(b'\n', &mut line);
                    let taken = if matches!(read, Ok(1..)) { place.takes(&line) } else { Line::Cut };
                    match taken {
                        Line::Cut => break,
                        Line::Known => continue,
                        Line::New => redactor.push(text_of(&line), &mut sink.waiting),
                    }
                    tries = 0;
                    if lines.buffer().is_empty() && !sink.send(stop) {
                        return;
                    }
                }
            }
            // The pod is gone.
            Err(fault) if fault.is_missing() => break,
            Err(ClusterFault::Setup(_)) => break,
            Err(_) => {}
        }
        tries += 1;
        if pause(AGAIN, stop) {
            break;
        }
    }
    redactor.finish(&mut sink.waiting);
    sink.send(stop);
}

/// Waits; true when nothing further is wanted.
fn pause(time: Duration, stop: &AtomicBool) -> bool {
    std::thread::sleep(time);
    stop.load(Ordering::Relaxed)
}

/// The text of a line, without its time.
fn text_of(line: &[u8]) -> &[u8] {
    let after = line.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
    line.get(after..).unwrap_or_default()
}

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// The line has no end: the connection broke, or there is no more.
    Cut,
    /// The line was taken before.
    Known,
    /// The line follows those that were taken.
    New,
}

/// How far a log was read: the time of its last line, and how many lines have that time.
#[derive(Debug, Default)]
struct Place {
    /// Time as the log writes it.
    time: String,
    key: String,
    count: usize,
    /// Lines of that time that were seen again.
    again: usize,
    /// Lines from before may come again.
    resumes: bool,
}

impl Place {
    fn since(&self) -> Option<&str> {
        (!self.time.is_empty()).then_some(self.time.as_str())
    }

    /// A connection begins, at the second of the last line.
    fn begin(&mut self) {
        self.again = 0;
        self.resumes = !self.time.is_empty();
    }

    fn takes(&mut self, line: &[u8]) -> Line {
        if line.last() != Some(&b'\n') {
            return Line::Cut;
        }
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let time = String::from_utf8_lossy(line.get(..end).unwrap_or_default()).into_owned();
        let key = key_of(&time);
        if self.resumes && key < self.key {
            return Line::Known;
        }
        if key == self.key {
            self.again += 1;
            if self.resumes && self.again <= self.count {
                return Line::Known;
            }
            self.count += 1;
        } else if key > self.key {
            (self.time, self.key, self.count, self.again) = (time, key, 1, 1);
        }
        self.resumes = false;
        Line::New
    }
}

/// A time in a form that can be compared: zeros at the end of its fraction may be left out.
fn key_of(time: &str) -> String {
    let time = time.trim_end_matches('Z');
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<9}")
}

struct Sink<'a> {
    tools: &'a Tools,
    subject: &'a Subject,
    service: &'a ServiceContainer,
    offset: u64,
    waiting: Vec<u8>,
}

impl Sink<'_> {
    /// Sends what waits; false when no more is taken.
    fn send(&mut self, stop: &AtomicBool) -> bool {
        while !self.waiting.is_empty() {
            let Some(token) = &self.subject.token else { return false };
            let sent = plane::output(
                &self.tools.plane,
                &self.subject.id,
                token,
                self.service.n,
                self.offset,
                &self.waiting,
            );
            match sent {
                Ok(Some(stored)) => {
                    let taken = usize::try_from(stored.saturating_sub(self.offset)).unwrap_or(usize::MAX);
                    self.waiting.drain(..taken.min(self.waiting.len()));
                    self.offset = stored;
                }
                Ok(None) => return false,
                Err(_) => {
                    if pause(AGAIN, stop) {
                        return false;
                    }
                }
            }
        }
        std::thread::sleep(BETWEEN);
        self.offset < MOST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_come_again_are_left_out() {
        let mut place = Place::default();
        let mut read = |lines: &[&str]| -> Vec<String> {
            place.begin();
            let mut taken = Vec::new();
            for line in lines {
                match place.takes(line.as_bytes()) {
                    Line::New => taken.push(String::from_utf8_lossy(text_of(line.as_bytes())).into_owned()),
                    Line::Known => {}
                    Line::Cut => break,
                }
            }
            taken
        };
        assert_eq!(
            read(&["2026-01-01T00:00:01.5Z a\n", "2026-01-01T00:00:01.50Z b\n", "2026-01-01T00:00:01.6Z c"]),
            ["a\n", "b\n"]
        );
        let again = [
            "2026-01-01T00:00:01Z before\n",
            "2026-01-01T00:00:01.5Z a\n",
            "2026-01-01T00:00:01.5Z b\n",
            "2026-01-01T00:00:01.5Z b2\n",
            "2026-01-01T00:00:01.6Z c\n",
        ];
        assert_eq!(read(&again), ["b2\n", "c\n"]);
        // A line that comes out of order in one connection is no repetition.
        assert_eq!(
            read(&["2026-01-01T00:00:01.6Z c\n", "2026-01-01T00:00:02Z d\n", "2026-01-01T00:00:01.9Z e\n"]),
            ["d\n", "e\n"]
        );
    }
}
