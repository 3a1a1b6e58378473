//! Children of Unix. A child leads a process group of its own; stdout and stderr are one pipe, so their order is kept. The task agent is a child sub-reaper: a process that outlives its parent becomes its child and is
//! found through /proc, whatever group or session it moved to.

use super::facts::{Descendant, Ended, PIPE_BYTES, named};
use crate::system::{os, proc};
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether orphans of this process's descendants become its children.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// The processes that a child leads.
pub type ProcessGroup = Pid;

/// A started child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
}

/// Starts `command` in a process group of its own, with no input. Returns the reading end of its output.
pub fn start(mut command: Command) -> io::Result<(Process, File)> {
    let (reader, writer) = os::pipe()?;
    // Fewer and larger reads from a step that prints much; a system that refuses keeps its default.
    os::widen_pipe(&writer, PIPE_BYTES);
    let second = writer.try_clone()?;
    command.stdin(nothing()?).stdout(writer).stderr(second).process_group(0);
    let child = command.spawn()?;
    // The command owns the writing ends: the pipe would never close while it lives.
    drop(command);
    let pid = Pid::from_child(&child);
    proc::remember_group(pid.as_raw_nonzero().get());
    Ok((Process { child, pid }, File::from(reader)))
}

/// An input that ends at once: `/dev/null`, or a pipe that nobody writes to in roots that have no `/dev`.
fn nothing() -> io::Result<Stdio> {
    match File::open("/dev/null") {
        Ok(file) => Ok(file.into()),
        Err(_) => Ok(os::pipe()?.0.into()),
    }
}

impl Process {
    /// Process group of the child, which has the child's number.
    pub fn group(&self) -> ProcessGroup {
        self.pid
    }

    /// Waits for the child itself, not for its descendants.
    pub fn wait(&mut self) -> io::Result<Ended> {
        self.child.wait().map(ended)
    }
}

fn ended(status: ExitStatus) -> Ended {
    match status.signal() {
        Some(signal) => Ended { code: 128 + signal, signal: Some(signal) },
        None => Ended { code: status.code().unwrap_or(1), signal: None },
    }
}

/// Makes this process the parent of orphaned descendants and the leader of a session, as far as the
/// system allows.
pub fn adopt_descendants() {
    match os::adopt_orphans() {
        Ok(()) => ADOPTS.store(true, Ordering::Relaxed),
        // Their groups are remembered instead.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(error) => log::warn!("cannot become the reaper of orphaned processes: {error}"),
    }
    // Fails when it leads a group already: then a signal to the runner's group may reach it as well.
    let _ = rustix::process::setsid();
}

/// Asks a process group to end.
pub fn terminate(group: &ProcessGroup) {
    signal_group(*group, Signal::TERM);
}

/// Ends a process group.
pub fn kill(group: &ProcessGroup) {
    signal_group(*group, Signal::KILL);
}

/// Signals a process group; that it is gone already is no matter.
fn signal_group(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
}

/// Whether nothing is left of a group whose leader was waited for. Its members that have died and were
/// adopted by this process are reaped: the dead count as members, and keep the number of the group.
pub fn group_is_gone(group: &ProcessGroup) -> bool {
    let group = *group;
    while let Ok(Some(_)) = rustix::process::waitpgid(group, WaitOptions::NOHANG) {}
    // Another answer than this one comes of members, if only of such as may not be signalled.
    rustix::process::test_kill_process_group(group) == Err(rustix::io::Errno::SRCH)
}

/// All descendants of this process that have not ended.
fn descendants() -> Vec<proc::Stat> {
    proc::descendants(rustix::process::getpid().as_raw_nonzero().get())
}

/// All descendants after the dead were reaped: no thread may wait for a child any more. This process adopts,
/// so that having no child proves that there is none, without a look at any file.
fn left_behind() -> Vec<proc::Stat> {
    if !os::has_children() && ADOPTS.load(Ordering::Relaxed) { Vec::new() } else { descendants() }
}

/// Whether a descendant of this process is alive. Call it when no thread waits for a child any more: it reaps.
pub fn has_descendants() -> bool {
    !left_behind().is_empty()
}

/// The descendants of this process that hold the writing end of the pipe that `reader` reads.
pub fn holders(reader: &File) -> Vec<Descendant> {
    proc::holders(reader).iter().map(named).collect()
}

/// Ends every descendant: TERM, `grace`, KILL, until none is left or `patience` has passed. Returns what
/// was signalled. Call it when no thread waits for a child any more: it reaps.
pub fn end_descendants(grace: Duration, patience: Duration) -> Vec<Descendant> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(10);
    let mut signalled: BTreeMap<i32, Descendant> = BTreeMap::new();
    let mut first = true;
    loop {
        let alive = left_behind();
        if alive.is_empty() || started.elapsed() > patience {
            return signalled.into_values().collect();
        }
        for process in alive {
            let Some(pid) = Pid::from_raw(process.pid) else { continue };
            // Processes that come up after TERM clean up, and are let do it.
            let signal = match started.elapsed() >= grace {
                true => Signal::KILL,
                false if first => Signal::TERM,
                false => continue,
            };
            // Arguments go with the process: they are read before the signal.
            signalled.entry(process.pid).or_insert_with(|| named(&process));
            let _ = rustix::process::kill_process(pid, signal);
        }
        first = false;
        std::thread::sleep(pause);
        // A look may go through all of /proc, and a grace is long.
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot start a shell should fail loudly")]
mod tests {
    use super::*;
    use std::io::Read;

    fn shell(script: &str) -> (Process, File) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        start(command).unwrap()
    }

    #[test]
    fn output_of_both_streams_keeps_its_order() {
        let (mut process, mut reader) = shell("echo one; echo two >&2; echo three; exit 3");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\nthree\n");
        assert_eq!(process.wait().unwrap(), Ended { code: 3, signal: None });
    }

    #[test]
    fn a_signal_reaches_the_whole_group_and_is_reported() {
        let (mut process, mut reader) = shell("sleep 600 & echo ready; wait");
        let mut ready = [0; 6];
        reader.read_exact(&mut ready).unwrap();
        kill(&process.group());
        assert_eq!(process.wait().unwrap(), Ended { code: 137, signal: Some(9) });
        // The pipe closes only when the grandchild is gone as well.
        let mut rest = Vec::new();
        assert_eq!(reader.read_to_end(&mut rest).unwrap(), 0);
    }

    #[test]
    fn a_group_is_gone_once_its_dead_are_reaped() {
        // Without it somebody else reaps what is left of the group, or nobody does.
        if os::adopt_orphans().is_err() {
            return;
        }
        let (mut process, mut reader) = shell("sleep 600 & exit 0");
        let group = process.group();
        process.wait().unwrap();
        assert!(!group_is_gone(&group));
        kill(&group);
        reader.read_to_end(&mut Vec::new()).unwrap();
        // The output closes a moment before the process counts as dead.
        let deadline = Instant::now() + Duration::from_secs(300);
        while !group_is_gone(&group) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
