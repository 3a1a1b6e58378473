//! Children of Windows. Each has a Job Object, which ends all that is in it when it is closed, and it is closed however
//! this process ends. This process is in one as well, so that nothing leaves it that is started before the object of its
//! step has the shell.
//!
//! There is no signal to ask with: what is told to end is ended.

use super::facts::{Descendant, Ended, named};
use crate::system::os::{self, Pid};
use crate::system::proc;
use std::io;
use std::os::windows::io::AsRawHandle;
use std::os::windows::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use win32job::{ExtendedLimitInfo, Job, JobError};

/// `CREATE_NEW_PROCESS_GROUP` and `CREATE_NO_WINDOW`: steps have a console of their own, which nobody sees.
const OWN_CONSOLE: u32 = 0x0000_0200 | 0x0800_0000;
/// The program of a console, which ends with the last program in it.
const CONSOLE: &str = "conhost.exe";
/// Pause between two looks at what was ended.
const LOOK: Duration = Duration::from_millis(20);

/// The object that this process and all of its descendants are in.
static OWN: OnceLock<Job> = OnceLock::new();

/// Objects of steps that may have members: what a step leaves running is there for the steps after it, as on other systems.
static KEPT: Mutex<Vec<ProcessGroup>> = Mutex::new(Vec::new());

/// A started child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: ProcessGroup,
}

/// All that a child has started, with itself. `None` in it: it was ended, or the system has no object for it.
#[derive(Clone, Debug)]
pub struct ProcessGroup(Arc<Mutex<Option<Job>>>);

fn job() -> Result<Job, JobError> {
    Job::create_with_limit_info(ExtendedLimitInfo::new().limit_kill_on_job_close())
}

/// Starts `command` in a Job Object of its own, with no input. Returns the reading end of its output.
pub fn start(mut command: Command) -> io::Result<(Process, os::HeardPipe)> {
    let (reader, writer) = io::pipe()?;
    let second = writer.try_clone()?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second).creation_flags(OWN_CONSOLE);
    let job = job().map_err(io::Error::other)?;
    let mut child = command.spawn()?;
    // The command owns the writing ends: the pipe would never close while it lives.
    drop(command);
    if let Err(error) = job.assign_process(child.as_raw_handle() as isize) {
        // A child that has ended already needs no job object.
        if child.try_wait()?.is_none() {
            let _ = child.kill();
            return Err(io::Error::other(error));
        }
    }
    let output = os::hear(reader.into())?;
    output.set_nonblocking(false)?;
    let group = ProcessGroup(Arc::new(Mutex::new(Some(job))));
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|group| !group_is_gone(group));
    kept.push(group.clone());
    Ok((Process { child, group }, output))
}

impl Process {
    /// All that it has started, with itself.
    pub fn group(&self) -> ProcessGroup {
        self.group.clone()
    }

    /// Waits for the child itself, not for its descendants.
    pub fn wait(&mut self) -> io::Result<Ended> {
        let status = self.child.wait()?;
        Ok(Ended { code: status.code().unwrap_or(1), signal: None })
    }
}

/// Puts this process into a Job Object, which ends with it.
pub fn adopt_descendants() {
    let made = job().and_then(|job| job.assign_current_process().map(|()| job));
    match made {
        Ok(job) => drop(OWN.set(job)),
        Err(error) => log::warn!(
            "cannot become a member of a job object: {error}; what steps leave behind may outlive the task"
        ),
    }
}

/// Ends a group, as [`kill`]: nobody there can be asked.
pub fn terminate(group: &ProcessGroup) {
    kill(group);
}

/// Ends a group.
pub fn kill(group: &ProcessGroup) {
    let mut job = group.0.lock().unwrap_or_else(PoisonError::into_inner);
    // The end of the object alone would have them end well, with the exit code 0.
    for pid in job.as_ref().and_then(|job| job.query_process_id_list().ok()).into_iter().flatten() {
        let _ = Pid::from_raw(pid as i32).map(os::kill);
    }
    *job = None;
}

/// Whether nothing is left of a group.
pub fn group_is_gone(group: &ProcessGroup) -> bool {
    let job = group.0.lock().unwrap_or_else(PoisonError::into_inner);
    job.as_ref().is_none_or(|job| job.query_process_id_list().is_ok_and(|members| members.is_empty()))
}

/// The members of the object of this process, without itself.
fn left_behind() -> Vec<proc::Stat> {
    let own = std::process::id() as usize;
    let members = OWN.get().and_then(|job| job.query_process_id_list().ok());
    let members = members.into_iter().flatten().filter(|pid| *pid != own);
    let found = members.filter_map(|pid| proc::stat(pid as i32));
    found.filter(|process| !process.zombie && process.name != CONSOLE).collect()
}

/// Whether something that this process has started is alive.
pub fn has_descendants() -> bool {
    !left_behind().is_empty()
}

/// Processes that may hold the output of a step: all that this process has started.
pub fn holders(_: &os::HeardPipe) -> Vec<Descendant> {
    left_behind().iter().map(named).collect()
}

/// Ends every descendant, until none is left or `patience` has passed. Returns what was ended.
pub fn end_descendants(_grace: Duration, patience: Duration) -> Vec<Descendant> {
    let started = Instant::now();
    let mut ended: Vec<Descendant> = Vec::new();
    loop {
        let alive = left_behind();
        if alive.is_empty() || started.elapsed() > patience {
            return ended;
        }
        for process in alive {
            if !ended.iter().any(|one| one.pid == process.pid) {
                ended.push(named(&process));
            }
            let _ = Pid::from_raw(process.pid).map(os::kill);
        }
        std::thread::sleep(LOOK);
    }
}
