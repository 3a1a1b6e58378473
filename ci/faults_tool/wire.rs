//! Requests and answers as bytes: just enough of HTTP/1.1 to see where each ends.

use std::io::{self, Read};
use std::net::TcpStream;

/// A request or an answer, head and body, as it came.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// Length of the head with its empty line.
    pub(crate) head: usize,
}

impl Message {
    /// The words of the first line.
    pub(crate) fn first_line(&self) -> Vec<&str> {
        let line = self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        std::str::from_utf8(line).unwrap_or_default().split(' ').collect()
    }
}

/// End of the body of a message.
enum Body {
    Bytes(usize),
    Chunks,
}

/// Reads a whole message; `rest` holds what came behind the one before. `None` at the end of the connection.
pub(crate) fn read(stream: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Option<Message>> {
    let mut bytes = std::mem::take(rest);
    let mut piece = vec![0; 64 * 1024];
    loop {
        if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) {
            let end = match body_of(&bytes[..head]) {
                Body::Bytes(length) => Some(head + length),
                Body::Chunks => end_of_chunks(&bytes, head),
            };
            if let Some(end) = end.filter(|end| bytes.len() >= *end) {
                *rest = bytes.split_off(end);
                return Ok(Some(Message { bytes, head }));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) if bytes.is_empty() => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn body_of(head: &[u8]) -> Body {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    for line in head.lines().skip(1) {
        match line.split_once(':') {
            Some(("content-length", value)) => return Body::Bytes(value.trim().parse().unwrap_or(0)),
            Some(("transfer-encoding", value)) if value.contains("chunked") => return Body::Chunks,
            _ => {}
        }
    }
    Body::Bytes(0)
}

fn end_of_chunks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2 + size + 2;
        if size == 0 {
            return Some(at);
        }
        if at > bytes.len() {
            return None;
        }
    }
}
