//! A child of a step while it runs: its output goes to the step's log, its end to the task's messages,
//! and one ladder kills it.

use super::output::log::StepLog;
use super::process::{self, Ended, ProcessGroup};
use crate::system::os::HeardPipe;
use crate::system::threads;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Time between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long the output of a child that has ended may stay open.
pub const PIPE_GRACE: Duration = Duration::from_millis(500);
/// More than a pipe and a reader's buffer hold: whatever a child wrote is among this many bytes after its end.
const MOST_UNREAD: u64 = 4 * 1024 * 1024;
/// How often something is looked at that no message announces.
const LOOK: Duration = Duration::from_millis(20);

/// A message of the threads of a task to the one that runs the steps.
#[derive(Debug)]
pub enum TaskMessage {
    /// The control plane cancelled the task: for a person, or for a newer pipeline.
    Cancel,
    /// A signal: the runner on this host is being stopped, and the task with it.
    Terminate,
    /// The task has ended at the control plane.
    Ended,
    /// A child ended.
    Exited {
        /// Number of the step record.
        step: u32,
        /// Exit code or signal.
        ended: Ended,
    },
    /// The output of a child closed.
    Closed {
        /// Number of the step record.
        step: u32,
    },
    /// Work beside the thread of the steps is done.
    Done,
}

/// A running child.
pub struct StepChild {
    /// Number of the step record.
    pub step: u32,
    /// Log that takes its output.
    pub log: StepLog,
    /// How it ended, once it did.
    pub ended: Option<Ended>,
    /// When everything that the step waits for was seen to have ended: the child, and its whole group
    /// when it was told to end. From then on only its output is waited for.
    pub settled_at: Option<Instant>,
    /// True once nobody holds its output any more.
    pub closed: bool,
    group: ProcessGroup,
    turn: u64,
    reader: HeardPipe,
    started: Instant,
    taken: Arc<Taken>,
    /// Once this much was taken, nothing of what has ended is left: a bound for descendants that never
    /// pause.
    enough: u64,
    termed_at: Option<Instant>,
    killed: bool,
}

/// How far the thread that reads the output has come.
#[derive(Debug, Default)]
struct Taken {
    /// When it last read something, since the start.
    last_ms: AtomicU64,
    /// Bytes that are in the log.
    bytes: AtomicU64,
    /// True while it waits for the pipe: then it holds nothing that is not in the log.
    waits: AtomicBool,
}

impl StepChild {
    /// Starts `command`, whose output goes to `log`; what happens to it arrives on `messages`.
    pub fn start(command: Command, log: &StepLog, messages: &Sender<TaskMessage>) -> io::Result<Self> {
        let (mut child, reader) = process::start(command)?;
        let step = log.step();
        let turn = log.begin_child();
        let started = Instant::now();
        let taken = Arc::new(Taken::default());
        let running = Self {
            step,
            log: log.clone(),
            ended: None,
            settled_at: None,
            closed: false,
            group: child.group(),
            turn,
            reader: reader.try_clone()?,
            started,
            taken: taken.clone(),
            enough: u64::MAX,
            termed_at: None,
            killed: false,
        };
        let (log, sender) = (log.clone(), messages.clone());
        let drain = move || {
            let mut reader = reader;
            let mut buffer = vec![0; process::PIPE_BYTES];
            loop {
                // Waiting and reading are apart, so that `waits` never covers bytes in the buffer.
                taken.waits.store(true, Ordering::SeqCst);
                is_readable(&reader, None);
                taken.waits.store(false, Ordering::SeqCst);
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        taken.last_ms.store(started.elapsed().as_millis() as u64, Ordering::Relaxed);
                        log.write(turn, &buffer[..n]);
                        taken.bytes.fetch_add(n as u64, Ordering::SeqCst);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            let _ = sender.send(TaskMessage::Closed { step });
        };
        let sender = messages.clone();
        let wait = move || {
            // The child was started, so only a broken system fails to wait for it.
            let ended = child.wait().unwrap_or(Ended { code: 1, signal: None });
            let _ = sender.send(TaskMessage::Exited { step, ended });
        };
        let kill = |error: io::Error| {
            process::kill(&running.group);
            error
        };
        threads::start(&format!("output-{step}"), drain).map_err(kill)?;
        threads::start(&format!("wait-{step}"), wait).map_err(kill)?;
        Ok(running)
    }

    /// Takes a message in, if it is about this child.
    pub fn take(&mut self, message: &TaskMessage) {
        match message {
            TaskMessage::Exited { step, ended } if *step == self.step => {
                self.ended = Some(*ended);
                // Descendants may go on, unless the whole group was told to end.
                if self.termed_at.is_none() {
                    self.settle(Instant::now());
                }
            }
            TaskMessage::Closed { step } if *step == self.step => self.closed = true,
            _ => {}
        }
    }

    fn settle(&mut self, now: Instant) {
        self.settled_at = Some(now);
        self.enough = self.taken.bytes.load(Ordering::SeqCst).saturating_add(MOST_UNREAD);
    }

    /// True when the step is over: what it waits for has ended, all that this wrote is in the log, and its
    /// output closed or was left open too long.
    pub fn is_over(&self, now: Instant) -> bool {
        let late = |at| now.duration_since(at) >= PIPE_GRACE;
        self.settled_at.is_some_and(|at| self.closed || late(at) && self.has_taken_all())
    }

    /// Whether what had been written when it ended is in the log. On a slow or loaded host that can be
    /// much later than the end.
    fn has_taken_all(&self) -> bool {
        // In this order: what was in the pipe a moment ago is in the log once the reader waits again.
        let is_empty = !is_readable(&self.reader, Some(Duration::ZERO));
        is_empty && self.taken.waits.load(Ordering::SeqCst)
            || self.taken.bytes.load(Ordering::SeqCst) >= self.enough
    }

    /// True when nothing more will come of it by itself.
    pub fn is_complete(&self) -> bool {
        self.settled_at.is_some() && self.closed
    }

    /// True when it was told to end.
    pub fn was_stopped(&self) -> bool {
        self.termed_at.is_some()
    }

    /// When something is to be done about this child if no message comes.
    pub fn next_deadline(&self, silence: Option<Duration>, now: Instant) -> Option<Instant> {
        if let Some(at) = self.settled_at {
            return Some((at + PIPE_GRACE).max(now + LOOK));
        }
        match self.termed_at {
            // No message tells of the end of the rest of a group.
            Some(_) if self.ended.is_some() => Some(now + LOOK),
            Some(at) if !self.killed => Some(at + GRACE),
            Some(_) => None,
            None => silence.map(|silence| (self.last_output() + silence).max(now + LOOK)),
        }
    }

    /// True when it wrote nothing for `silence`.
    pub fn is_silent(&self, silence: Duration, now: Instant) -> bool {
        // Output that waits to be read was no silence, only a slow reader.
        self.ended.is_none()
            && now >= self.last_output() + silence
            && !is_readable(&self.reader, Some(Duration::ZERO))
    }

    fn last_output(&self) -> Instant {
        self.started + Duration::from_millis(self.taken.last_ms.load(Ordering::Relaxed))
    }

    /// First rung of the ladder.
    pub fn terminate(&mut self, now: Instant) {
        if self.termed_at.is_none() && self.ended.is_none() {
            self.termed_at = Some(now);
            process::terminate(&self.group);
        }
    }

    /// Second rung, when its time has come. A child that was told to end has its whole group waited for:
    /// a shell dies at once of a TERM whose real addressee still cleans up.
    pub fn escalate(&mut self, now: Instant) {
        let Some(at) = self.termed_at.filter(|_| self.settled_at.is_none()) else { return };
        // Checked after the child was reaped: a zombie still counts as a member of its group.
        let gone = self.ended.is_some() && process::group_is_gone(&self.group);
        // Past the grace, what was killed but does not go (it waits for a broken disk, or for a parent
        // elsewhere that never reaps it) holds the step no longer than an open pipe does.
        if gone || self.ended.is_some() && self.killed && now >= at + GRACE + PIPE_GRACE {
            self.settle(now);
        } else if !self.killed && now >= at + GRACE {
            self.killed = true;
            process::kill(&self.group);
        }
    }

    /// Takes no more of its output. When someone still holds it open, says who.
    pub fn let_go(&self) {
        self.log.end_child(self.turn);
        if !self.closed {
            let holders = process::holders(&self.reader);
            let named: Vec<_> = holders
                .iter()
                .map(|p| format!("pid {} `{}`", p.pid, self.log.shortened(&p.command)))
                .collect();
            let who = if named.is_empty() { "a process".to_owned() } else { named.join(", ") };
            self.log.note(&format!(
                "[this step has ended, but {who} still holds its output open; what it writes from here on is dropped]"
            ));
        }
    }
}

/// Waits for something to read, or for the end of the output, at most for `time`. True when there is
/// something to read.
fn is_readable(reader: &HeardPipe, time: Option<Duration>) -> bool {
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    // An interrupted wait is a short one, and reading waits as well.
    poll(&mut fds, time.as_ref()).is_ok() && fds[0].revents().contains(PollFlags::IN)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot start a shell should fail loudly")]
mod tests {
    use super::*;
    use crate::executor::output::redactor::Secrets;
    use crate::executor::output::report::Reporter;
    use crate::http::{Client, Endpoint};
    use std::sync::mpsc::{Receiver, channel};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A shell whose log is in a folder, with a reporter that nobody listens to.
    struct Bench {
        folder: tempfile::TempDir,
        log: StepLog,
        messages: Receiver<TaskMessage>,
        running: StepChild,
    }

    fn run(script: &str) -> Bench {
        run_with(script, &Secrets::default())
    }

    fn run_with(script: &str, secrets: &Secrets) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint { url: "http://127.0.0.1:9".to_owned(), ..Endpoint::default() };
        let client = Client::new(&endpoint).unwrap();
        let reporter = Reporter::new(client, &crate::executor::example::task("child-test"), |_| {});
        let log = StepLog::open(folder.path(), 0, 1 << 30, secrets, &reporter).unwrap();
        let (sender, messages) = channel();
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder.path());
        let running = StepChild::start(command, &log, &sender).unwrap();
        Bench { folder, log, messages, running }
    }

    impl Bench {
        fn until_exited(&mut self) {
            while self.running.ended.is_none() {
                self.running.take(&self.messages.recv().unwrap());
            }
        }

        fn output(&self) -> Vec<u8> {
            std::fs::read(self.folder.path().join("step-0")).unwrap()
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            process::kill(&self.running.group);
        }
    }

    #[test]
    fn what_a_child_wrote_is_kept_however_late_it_is_read() {
        // The child begins when the log is held, however busy the machine is.
        let wait = "while [ ! -e go ]; do sleep 0.01; done";
        let mut bench = run(&format!("sleep 600 & {wait}; head -c 200000 /dev/zero; exit 3"));
        let log = bench.log.clone();
        log.held(|| {
            std::fs::write(bench.folder.path().join("go"), "").unwrap();
            bench.until_exited();
            assert!(!bench.running.is_over(Instant::now() + DAY), "its output is not in the log yet");
        });
        while !bench.running.is_over(Instant::now() + DAY) {
            std::thread::sleep(LOOK);
        }
        assert!(!bench.running.closed, "the grandchild holds the output");
        assert!(!bench.running.is_over(bench.running.settled_at.unwrap()), "it may close in a moment");
        assert_eq!(bench.output().len(), 200_000);
    }

    #[test]
    fn a_descendant_that_never_pauses_does_not_hold_the_step() {
        let mut bench = run("yes & exit 0");
        bench.until_exited();
        while !bench.running.is_over(Instant::now() + DAY) {
            std::thread::sleep(LOOK);
        }
        assert!(!bench.running.closed);
    }

    /// Linux alone, since `/proc` names the holders of the output.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_secret_in_the_arguments_of_whoever_holds_the_output_is_masked_wherever_it_stands() {
        let value = "S3cr3t/Tok+en=Value#9xQ";
        let secrets = Secrets::new(&[], &[crate::protocol::Secret::new(value)]);
        // Long beginnings, so that some of them end where a text is cut.
        for before in (80..200).step_by(11) {
            let (begin, end) = ("p".repeat(before), "q".repeat(80));
            let bench =
                run_with(&format!("sh -c 'echo up; sleep 600; :' {begin} {value} {end} & wait $!"), &secrets);
            while bench.output().is_empty() {
                std::thread::sleep(LOOK);
            }
            bench.running.let_go();
            bench.log.close();
            let said = String::from_utf8(bench.output()).unwrap();
            assert!(said.contains("still holds its output open"), "{said}");
            assert!(!said.contains("S3cr"), "{said}");
        }
    }

    /// A shell that dies of TERM at once, and what it started, which does `cleanup` then. Both are ready.
    fn two_generations(cleanup: &str) -> Bench {
        let bench = run(&format!(
            "sh -c 'trap \"{cleanup}\" TERM; echo > ready; while :; do sleep 0.01; done' & wait"
        ));
        while !bench.folder.path().join("ready").exists() {
            std::thread::sleep(LOOK);
        }
        bench
    }

    #[test]
    fn the_rest_of_a_group_has_its_grace_too() {
        // The dead are reaped by somebody else where that is refused, or by nobody.
        let adopted = crate::system::os::adopt_orphans().is_ok();
        let mut bench = two_generations("until test -e go; do sleep 0.01; done; echo cleaned; exit");
        let told = Instant::now();
        bench.running.terminate(told);
        bench.until_exited();
        bench.running.escalate(told + GRACE - LOOK);
        assert_eq!((bench.running.settled_at, bench.running.killed), (None, false), "it still cleans up");
        assert_eq!(bench.running.next_deadline(None, told), Some(told + LOOK));
        std::fs::write(bench.folder.path().join("go"), "").unwrap();
        while !bench.running.closed {
            bench.running.take(&bench.messages.recv().unwrap());
        }
        assert!(bench.output().ends_with(b"cleaned\n"));
        while adopted && !bench.running.is_over(told) {
            bench.running.escalate(told + GRACE - LOOK);
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_group_that_does_not_go_is_killed_after_its_grace() {
        let mut bench = two_generations("");
        let told = Instant::now();
        bench.running.terminate(told);
        bench.until_exited();
        bench.running.escalate(told + GRACE - LOOK);
        assert!(!bench.running.killed);
        bench.running.escalate(told + GRACE);
        assert!(bench.running.killed);
        while !bench.running.closed {
            bench.running.take(&bench.messages.recv().unwrap());
        }
        bench.running.escalate(told + GRACE + PIPE_GRACE);
        assert!(bench.running.is_over(told + GRACE + PIPE_GRACE));
    }

    #[test]
    fn silence_begins_anew_with_every_output() {
        let bench = run("echo one; until test -e go; do sleep 0.01; done; echo two; sleep 600");
        let hour = Duration::from_secs(3600);
        let read = |bytes: usize| {
            while bench.output().len() < bytes || !bench.running.has_taken_all() {
                std::thread::sleep(LOOK);
            }
            bench.running.last_output()
        };
        let first = read(4);
        let moment = Duration::from_millis(1);
        assert!(!bench.running.is_silent(hour, first + hour - moment));
        assert!(bench.running.is_silent(hour, first + hour));
        // A later millisecond, by the clock that is counted in.
        std::thread::sleep(2 * moment);
        std::fs::write(bench.folder.path().join("go"), "").unwrap();
        let second = read(8);
        assert!(second > first && !bench.running.is_silent(hour, first + hour));
        assert!(bench.running.is_silent(hour, second + hour));
        assert_eq!(bench.running.next_deadline(Some(hour), second), Some(second + hour));
    }
}
