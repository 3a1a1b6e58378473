//! A connection whose refusals say who speaks.
//!
//! The HTTP library answers what it cannot read (400, 414, 431) by itself, below every layer that could add a header.
//! It does so in one write of a head without a body, which is recognised here by its form.

use crate::protocol::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No answer of the library's own is longer, in bytes.
const LONGEST_HEAD: usize = 256;

/// A stream that marks the refusals of the HTTP library.
#[derive(Debug)]
pub(super) struct Marked<S> {
    inner: S,
    /// A marked head on its way.
    head: Vec<u8>,
    /// Bytes of it that are written.
    written: usize,
}

impl<S> Marked<S> {
    /// Wraps a connection.
    pub(super) fn new(inner: S) -> Self {
        Self { inner, head: Vec::new(), written: 0 }
    }
}

impl<S: AsyncWrite + Unpin> Marked<S> {
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.head.len() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(context, &self.head[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.head.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// The head with the mark, if it is one of the library's own.
fn marked(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > LONGEST_HEAD || !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let lower = text.to_ascii_lowercase();
    let is_own = lower.matches("\r\n\r\n").count() == 1
        && lower.contains("\r\ncontent-length: 0\r\n")
        && lower.contains("\r\nconnection: close\r\n")
        && !lower.contains(&format!("\r\n{}:", PROTOCOL_HEADER.to_ascii_lowercase()));
    let line = text.find("\r\n").filter(|_| is_own)? + 2;
    Some(format!("{}{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\n{}", &text[..line], &text[line..]).into_bytes())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Marked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(context))?;
        let Some(head) = marked(bytes) else { return Pin::new(&mut self.inner).poll_write(context, bytes) };
        self.head = head;
        // Taken over as a whole; what the line does not take now goes before anything else.
        let _ = self.poll_head(context)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Marked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_heads_of_the_library_are_marked() {
        let own = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";
        let text = marked(own.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        let line =
            format!("HTTP/1.1 400 Bad Request\r\nRunlet-Protocol: {PROTOCOL_VERSION}\r\ncontent-length");
        assert!(text.is_some_and(|text| text.starts_with(&line)));
        for other in [
            own.replace("400", "200"),
            own.replace(": 0", ": 5"),
            own.replace("date: x", "runlet-protocol: 2"),
            own.replace("connection: close\r\n", ""),
            format!("{own}body"),
        ] {
            assert_eq!(marked(other.as_bytes()), None, "{other}");
        }
    }
}
