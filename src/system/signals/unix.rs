//! Signals.

use super::OutsideRequest;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

const ALL: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR2];

/// Requests to a runner, which waits for others as well: TERM and INT stop it, HUP and USR2 are the other wishes.
pub struct Asks(SignalDelivery<UnixStream, SignalOnly>);

impl Asks {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        SignalDelivery::with_pipe(read, write, SignalOnly, ALL).map(Self)
    }

    /// Requests since the last call.
    pub fn pending(&mut self) -> impl Iterator<Item = OutsideRequest> {
        self.0.pending().map(|signal| match signal {
            SIGHUP => OutsideRequest::Reload,
            SIGUSR2 => OutsideRequest::Leave,
            _ => OutsideRequest::Stop,
        })
    }
}

/// Readable when there is a request.
impl AsFd for Asks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}

/// Requests to a task agent. HUP and USR2 are for runners, and whoever signals a whole service sends them here as well:
/// they are passed over, and not ignored, which steps would inherit.
pub struct Stops(Signals);

impl Stops {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        Signals::new(ALL).map(Self)
    }

    /// Says so each time that a stop is asked for, for as long as somebody wants to know.
    pub fn each(mut self, mut tell: impl FnMut() -> bool) {
        for signal in self.0.forever() {
            if !matches!(signal, SIGHUP | SIGUSR2) && !tell() {
                return;
            }
        }
    }

    /// Whether a stop was asked for since the last call.
    pub fn has_come(&mut self) -> bool {
        self.0.pending().any(|signal| signal == SIGTERM)
    }
}
