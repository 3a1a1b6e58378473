//! A child of a step while it runs: its output goes to the step's log, its end to the task's messages,
//! and one ladder kills it.

use super::log::StepLog;
use super::process::{self, Ended};
use rustix::process::{Pid, Signal};
use std::io::{self, Read};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Time between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long the output of a child that has ended may stay open.
pub const PIPE_GRACE: Duration = Duration::from_millis(500);

/// What the threads of a task tell the thread that runs the steps.
#[derive(Debug)]
pub enum Message {
    /// A person cancelled the task, or the runner told the agent to stop.
    Cancel,
    /// The control plane has given the task up.
    Lost,
    /// A child ended.
    Exited {
        /// Step record.
        step: u32,
        /// How.
        ended: Ended,
    },
    /// The output of a child closed.
    Closed {
        /// Step record.
        step: u32,
    },
}

/// A running child.
pub struct Running {
    /// Step record.
    pub step: u32,
    /// Where its output goes.
    pub log: StepLog,
    /// How it ended, once it did.
    pub ended: Option<Ended>,
    /// When it was seen to have ended.
    pub ended_at: Option<Instant>,
    /// True once nobody holds its output any more.
    pub closed: bool,
    group: Pid,
    turn: u64,
    reader: std::fs::File,
    started: Instant,
    last_output_ms: Arc<AtomicU64>,
    termed_at: Option<Instant>,
    killed: bool,
}

impl Running {
    /// Starts `command`; what happens to it arrives on `messages`.
    pub fn start(step: u32, command: Command, log: &StepLog, messages: &Sender<Message>) -> io::Result<Self> {
        let (mut child, reader) = process::start(command)?;
        let turn = log.begin_child();
        let started = Instant::now();
        let last_output_ms = Arc::new(AtomicU64::new(0));
        let running = Self {
            step,
            log: log.clone(),
            ended: None,
            ended_at: None,
            closed: false,
            group: child.pid(),
            turn,
            reader: reader.try_clone()?,
            started,
            last_output_ms: last_output_ms.clone(),
            termed_at: None,
            killed: false,
        };
        let (log, sender) = (log.clone(), messages.clone());
        let drain = move || {
            let mut reader = reader;
            let mut buffer = vec![0; process::PIPE_BYTES];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        last_output_ms.store(started.elapsed().as_millis() as u64, Ordering::Relaxed);
                        log.write(turn, &buffer[..n]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            let _ = sender.send(Message::Closed { step });
        };
        let sender = messages.clone();
        let wait = move || {
            // It was started, so only a broken system fails to wait for it.
            let ended = child.wait().unwrap_or(Ended { code: 1, signal: None });
            let _ = sender.send(Message::Exited { step, ended });
        };
        let kill = |error: io::Error| {
            process::signal_group(running.group, Signal::KILL);
            error
        };
        std::thread::Builder::new().name(format!("output-{step}")).spawn(drain).map_err(kill)?;
        std::thread::Builder::new().name(format!("wait-{step}")).spawn(wait).map_err(kill)?;
        Ok(running)
    }

    /// Takes a message in, if it is about this child.
    pub fn take(&mut self, message: &Message) {
        match message {
            Message::Exited { step, ended } if *step == self.step => {
                self.ended = Some(*ended);
                self.ended_at = Some(Instant::now());
            }
            Message::Closed { step } if *step == self.step => self.closed = true,
            _ => {}
        }
    }

    /// True when the step is over: the child has ended, and its output closed or was left open too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ended_at.is_some_and(|at| self.closed || now.duration_since(at) >= PIPE_GRACE)
    }

    /// True when nothing more will come of it by itself.
    pub fn is_complete(&self) -> bool {
        self.ended.is_some() && self.closed
    }

    /// True when it was told to end.
    pub fn was_stopped(&self) -> bool {
        self.termed_at.is_some()
    }

    /// When something is to be done about this child if no message comes.
    pub fn next_deadline(&self, silence: Option<Duration>) -> Option<Instant> {
        if let Some(at) = self.ended_at {
            return Some(at + PIPE_GRACE);
        }
        match self.termed_at {
            Some(at) if !self.killed => Some(at + GRACE),
            Some(_) => None,
            None => silence.map(|silence| self.last_output() + silence),
        }
    }

    /// True when it wrote nothing for `silence`.
    pub fn is_silent(&self, silence: Duration, now: Instant) -> bool {
        self.ended.is_none() && now >= self.last_output() + silence
    }

    fn last_output(&self) -> Instant {
        self.started + Duration::from_millis(self.last_output_ms.load(Ordering::Relaxed))
    }

    /// First rung of the ladder.
    pub fn terminate(&mut self, now: Instant) {
        if self.termed_at.is_none() && self.ended.is_none() {
            self.termed_at = Some(now);
            process::signal_group(self.group, Signal::TERM);
        }
    }

    /// Second rung, when its time has come.
    pub fn escalate(&mut self, now: Instant) {
        if self.ended.is_none() && !self.killed && self.termed_at.is_some_and(|at| now >= at + GRACE) {
            self.killed = true;
            process::signal_group(self.group, Signal::KILL);
        }
    }

    /// Takes no more of its output. When someone still holds it open, says who.
    pub fn let_go(&self) {
        self.log.end_child(self.turn);
        if !self.closed {
            let holders = process::holders(&self.reader);
            let named: Vec<_> = holders.iter().map(|p| format!("pid {} `{}`", p.pid, p.command)).collect();
            let who = if named.is_empty() { "a process".to_owned() } else { named.join(", ") };
            self.log.note(&format!(
                "[this step has ended, but {who} still holds its output open; what it writes from here on is dropped]"
            ));
        }
    }
}
