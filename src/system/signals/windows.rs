//! The console of a runner, and the event of a task agent.

use super::OutsideRequest;
use crate::system::os::{Wake, error_of, stop_event, wake_pair};
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{self, Read, Write};
use winsafe::guard::CloseHandleGuard;
use winsafe::{HEVENT, co};

/// Requests to a runner, which waits for others as well: Ctrl-C, Ctrl-Break, and the end of its console, session or system
/// stop it. There is no request to leave, nor to read the settings again.
pub struct Asks(Wake);

impl Asks {
    /// Listens from now on. Once in a process.
    pub fn listen() -> io::Result<Self> {
        let (read, mut write) = wake_pair()?;
        read.set_nonblocking(true)?;
        let tell = move || {
            let _ = write.write(&[1]);
        };
        ctrlc::set_handler(tell).map_err(io::Error::other)?;
        Ok(Self(read))
    }

    /// Requests since the last call.
    pub fn pending(&mut self) -> impl Iterator<Item = OutsideRequest> {
        let mut bytes = [0; 8];
        let came = self.0.read(&mut bytes).unwrap_or(0);
        std::iter::repeat_n(OutsideRequest::Stop, came)
    }
}

/// Readable when there is a request.
impl AsFd for Asks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Requests to a task agent: an event with its number, which its runner sets.
pub struct Stops(CloseHandleGuard<HEVENT>);

impl Stops {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        let name = stop_event(std::process::id());
        HEVENT::CreateEvent(None, false, false, Some(&name)).map(Self).map_err(error_of)
    }

    /// Says so each time that a stop is asked for, for as long as somebody wants to know.
    pub fn each(self, mut tell: impl FnMut() -> bool) {
        while self.0.WaitForSingleObject(None) == Ok(co::WAIT::OBJECT_0) && tell() {}
    }

    /// Whether a stop was asked for since the last call.
    pub fn has_come(&mut self) -> bool {
        self.0.WaitForSingleObject(Some(0)) == Ok(co::WAIT::OBJECT_0)
    }
}
