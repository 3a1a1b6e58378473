//! Processes by their numbers: stopped by an event, ended, waited for.

use crate::system::proc;
use rustix::fd::OwnedFd;
use std::io;
use std::num::NonZeroI32;
use std::os::windows::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use winsafe::{HEVENT, HPROCESS, co, prelude::*};

/// `CREATE_NEW_PROCESS_GROUP` and `CREATE_NO_WINDOW`: neither Ctrl-C nor the end of this process's console reaches it.
const OWN_CONSOLE: u32 = 0x0000_0200 | 0x0800_0000;

/// The number of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// Takes a number; `None` for 0, which is no process.
    pub fn from_raw(pid: i32) -> Option<Self> {
        NonZeroI32::new(pid).map(Self)
    }

    /// The number of a child.
    pub fn from_child(child: &Child) -> Option<Self> {
        Self::from_raw(child.id() as i32)
    }

    /// Number of the process; never 0.
    pub fn as_raw_nonzero(self) -> NonZeroI32 {
        self.0
    }

    fn number(self) -> u32 {
        self.0.get() as u32
    }
}

/// An error of a call.
pub fn error_of(error: co::ERROR) -> io::Error {
    io::Error::from_raw_os_error(error.raw() as i32)
}

/// Name of the event that asks a process to stop. In the session of both, which a service and what it starts share.
pub fn stop_event(pid: u32) -> String {
    format!(r"Local\runlet-stop-{pid}")
}

fn ask_to_stop(pid: u32) -> io::Result<()> {
    let event = HEVENT::NULL.OpenEvent(co::EVENT_RIGHTS::MODIFY_STATE, false, &stop_event(pid));
    event.and_then(|event| event.SetEvent()).map_err(error_of)
}

/// Asks a process to end, or what it has started, where it is a wrapper that listens to no event.
pub fn stop(pid: Pid) -> io::Result<()> {
    let asked = ask_to_stop(pid.number());
    if asked.is_ok() {
        return asked;
    }
    let below = proc::descendants(pid.as_raw_nonzero().get());
    let told = below.iter().filter(|process| ask_to_stop(process.pid as u32).is_ok()).count();
    if told > 0 { Ok(()) } else { asked }
}

/// No process is stopped for a while by another one.
pub fn go_on(_: Pid) {}

/// Ends a process.
pub fn kill(pid: Pid) -> io::Result<()> {
    HPROCESS::OpenProcess(co::PROCESS::TERMINATE, false, pid.number())
        .and_then(|process| process.TerminateProcess(1))
        .map_err(error_of)
}

/// Ends a process with all that it has started, as far as its parents tell.
pub fn kill_group(leader: Pid) {
    for process in proc::descendants(leader.as_raw_nonzero().get()) {
        let _ = Pid::from_raw(process.pid).map(kill);
    }
    let _ = kill(leader);
}

/// Whether there is a process of this number that has not ended.
pub fn is_alive(pid: Pid) -> bool {
    match HPROCESS::OpenProcess(co::PROCESS::SYNCHRONIZE, false, pid.number()) {
        Ok(process) => process.WaitForSingleObject(Some(0)) == Ok(co::WAIT::TIMEOUT),
        Err(error) => error == co::ERROR::ACCESS_DENIED,
    }
}

/// A socket that becomes readable when the process ends; `None`: it has to be looked at again and again.
pub fn end_of(pid: Pid) -> Option<OwnedFd> {
    let process = HPROCESS::OpenProcess(co::PROCESS::SYNCHRONIZE, false, pid.number()).ok()?;
    let (told, teller) = super::wake_pair().ok()?;
    let wait = move || {
        let _ = process.WaitForSingleObject(None);
        let _ = teller.shutdown(std::net::Shutdown::Both);
    };
    crate::system::threads::start_small("end of process", 64 * 1024, wait).ok()?;
    Some(told.into())
}

/// No signal ends a process.
pub fn signal_of(_: ExitStatus) -> Option<i32> {
    None
}

/// Starts a command in a group and a console of its own, so that Ctrl-C does not reach it.
pub fn lead_group(command: &mut Command) {
    command.creation_flags(OWN_CONSOLE);
}

/// Keeps the console of this process from a command, in the same way.
pub fn without_console(command: &mut Command) {
    lead_group(command);
}

/// Always true: nothing is reaped there, so that it is not known when no child is left.
pub fn has_children() -> bool {
    true
}
