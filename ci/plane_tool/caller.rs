//! A connection to the control plane: one call after the other, with as little work on this side as there can be.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Far longer than any answer takes.
const LONGEST: Duration = Duration::from_secs(120);

pub(crate) struct Caller {
    stream: TcpStream,
    /// Bytes that came and are of no answer yet.
    rest: Vec<u8>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| {
            format!("an answer {} is no JSON: {error}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

impl Caller {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, String> {
        let connected = TcpStream::connect(address).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LONGEST))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| format!("failed to connect to {address}: {error}"))?;
        Ok(Self { stream, rest: Vec::new() })
    }

    /// Sends a call without waiting for its answer.
    pub(crate) fn send(&mut self, line: &str, token: &str, body: &[u8]) -> Result<(), String> {
        let mut bytes = format!(
            "{line} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\nrunlet-protocol: 2\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes).map_err(|error| format!("failed to send `{line}`: {error}"))
    }

    /// Waits for the answer to the oldest call that has none.
    pub(crate) fn receive(&mut self) -> Result<Answer, String> {
        loop {
            if let Some(answer) = self.take()? {
                return Ok(answer);
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err("the control plane closed a connection".to_owned()),
                Ok(n) => self.rest.extend_from_slice(&piece[..n]),
                Err(error) => return Err(format!("failed to read an answer: {error}")),
            }
        }
    }

    /// An answer whose last byte has come.
    fn take(&mut self) -> Result<Option<Answer>, String> {
        let Some(head) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&self.rest[..head]).map_err(|error| error.to_string())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| format!("an answer begins with `{text}`"))?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let end = head + 4 + length.unwrap_or(0);
        if self.rest.len() < end {
            return Ok(None);
        }
        let rest = self.rest.split_off(end);
        let mut body = std::mem::replace(&mut self.rest, rest);
        body.drain(..head + 4);
        Ok(Some(Answer { status, body }))
    }

    /// Makes a call that must succeed.
    pub(crate) fn call(&mut self, line: &str, token: &str, body: &[u8]) -> Result<Answer, String> {
        self.send(line, token, body)?;
        let answer = self.receive()?;
        if answer.status < 300 {
            return Ok(answer);
        }
        Err(format!("`{line}` is answered with {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
    }
}

impl std::os::fd::AsFd for Caller {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
