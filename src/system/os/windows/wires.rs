//! Pipes and wakes as sockets of this host, since nothing else can be waited for together. Whoever else connects is not
//! let in.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::windows::io::OwnedHandle;
use std::sync::mpsc;
use std::time::Duration;

/// An end of a pair of sockets that wake each other.
pub type Wake = TcpStream;
/// The output of a child, as it is read.
pub type HeardPipe = TcpStream;
/// The reading end of a pipe.
pub type OwnedPipe = OwnedHandle;

/// How much is moved at a time.
const MOVED: usize = 64 * 1024;
/// How long bytes of a pipe are waited for that are there already.
const PATIENCE: Duration = Duration::from_millis(500);

/// Two ends, of which one becomes readable when the other is written to.
pub fn wake_pair() -> io::Result<(Wake, Wake)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let first = TcpStream::connect(listener.local_addr()?)?;
    let own = first.local_addr()?;
    loop {
        let (second, from) = listener.accept()?;
        if from == own {
            first.set_nodelay(true)?;
            second.set_nodelay(true)?;
            return Ok((first, second));
        }
    }
}

/// A pipe that is read without waiting, and can be waited for with others: a thread moves what comes into a socket.
pub fn hear(pipe: OwnedPipe) -> io::Result<HeardPipe> {
    let (heard, mut out) = wake_pair()?;
    heard.set_nonblocking(true)?;
    let mut pipe = File::from(pipe);
    crate::system::threads::start_small("pipe", 64 * 1024, move || {
        let mut buffer = vec![0; MOVED];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if out.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // Not only its end: a program that was started meanwhile may have the socket as well.
        let _ = out.shutdown(Shutdown::Write);
    })?;
    Ok(heard)
}

/// All that is in a pipe now, up to so many bytes. Other processes that hold its other end are waited for a moment.
pub fn read_now(pipe: OwnedPipe, most: u64) -> Vec<u8> {
    let (sender, parts) = mpsc::channel();
    let mut pipe = File::from(pipe).take(most);
    let read = move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    };
    let mut bytes = Vec::new();
    if crate::system::threads::start_small("pipe", 64 * 1024, read).is_ok() {
        while let Ok(part) = parts.recv_timeout(PATIENCE) {
            bytes.extend(part);
        }
    }
    bytes
}

/// Bytes that fit into an empty pipe are not known.
pub fn pipe_room<T>(_: &T) -> Option<usize> {
    None
}
