//! Files to clients, piece by piece: as they are, or as the inside of a JSON string.
//!
//! A piece is read when the connection has taken the one before it. A client that hangs up drops the stream,
//! and nothing more is read.

use crate::protocol::TaskId;
use crate::server::api::shared::failure::{Answer, blocking};
use crate::server::blobs::Stretch;
use crate::server::state::Shared;
use crate::server::store::read;
use crate::server::time::Millis;
use axum::body::{Body, Bytes};
use futures_util::{Stream, StreamExt};
use std::io;
use std::sync::Arc;

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 * 1024;

/// The bytes of the file from one offset to before another, or to its end if that comes first.
pub fn between(stretch: Stretch, from: u64, end: u64) -> Body {
    Body::from_stream(pieces(stretch, from, end).map(|piece| piece.map(Bytes::from)))
}

/// The file as text inside a JSON document: `before`, the text without quotes around it, `after`. What is not
/// UTF-8 is shown as U+FFFD, as `String::from_utf8_lossy` does.
pub fn in_json(stretch: Stretch, before: String, after: String) -> Body {
    let mut escaper = Escaper::default();
    let text =
        pieces(stretch, 0, u64::MAX).map(Some).chain(futures_util::stream::iter([None])).map(move |piece| {
            match piece {
                Some(piece) => piece.map(|piece| escaper.escape(&piece)),
                None => Ok(escaper.end()),
            }
        });
    let whole =
        futures_util::stream::iter([Ok(before)]).chain(text).chain(futures_util::stream::iter([Ok(after)]));
    Body::from_stream(whole)
}

/// When the output of a step came: offsets in bytes, with the time of what begins there. While it runs, these are the times
/// at which it arrived here; at its end the runner tells its own.
pub async fn output_times(state: &Shared, task: &TaskId, step: u32) -> Answer<Vec<(u64, Millis)>> {
    // In this order: at the end memory forgets what the rows have by then.
    let arrived = state.blobs.outputs.times(task, step);
    let task = task.clone();
    let told = state.store.read(move |view| read::output_times(view, &task, step)).await?;
    let arrived = arrived.into_iter().map(|(offset, at_ms)| (offset, Millis(at_ms)));
    Ok(if told.is_empty() { arrived.collect() } else { told })
}

/// The whole file as text whose lines begin with the times at which they came, where `times` tells: offsets with the time of
/// what begins there.
pub fn stamped(stretch: Stretch, times: Vec<(u64, Millis)>) -> Body {
    let mut stamper = Stamper { times, ..Stamper::default() };
    Body::from_stream(pieces(stretch, 0, u64::MAX).map(move |piece| piece.map(|piece| stamper.stamp(&piece))))
}

/// Writes times before the lines of a text.
#[derive(Default)]
struct Stamper {
    times: Vec<(u64, Millis)>,
    /// How many of them are behind.
    passed: usize,
    /// Bytes of the text so far.
    at: u64,
    is_inside_line: bool,
}

impl Stamper {
    fn stamp(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(piece.len() + piece.len() / 4);
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            while self.times.get(self.passed).is_some_and(|(offset, _)| *offset <= self.at) {
                self.passed += 1;
            }
            let time = self.passed.checked_sub(1).map(|last| self.times[last].1);
            if let Some(time) = time.filter(|_| !self.is_inside_line) {
                text.extend(format!("{time} ").bytes());
            }
            text.extend_from_slice(line);
            self.at += line.len() as u64;
            self.is_inside_line = !line.ends_with(b"\n");
        }
        text
    }
}

fn pieces(stretch: Stretch, from: u64, end: u64) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    let end = end.min(stretch.length());
    let stretch = Arc::new(stretch);
    futures_util::stream::try_unfold(from, move |from| {
        let stretch = Arc::clone(&stretch);
        async move {
            if from >= end {
                return Ok(None);
            }
            // The reason is in the log; the client sees that the answer is cut.
            let most = usize::try_from(end - from).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let read = blocking(move || stretch.read(from, most)).await;
            let bytes = read.map_err(|_| io::Error::other("the file cannot be read"))?;
            let next = from + bytes.len() as u64;
            Ok(Some((bytes, next)))
        }
    })
}

/// Writes bytes as the inside of a JSON string; a character may be cut by the end of a piece.
#[derive(Default)]
struct Escaper {
    /// The beginning of a character whose rest is in the next piece; at most three bytes.
    cut: Vec<u8>,
}

impl Escaper {
    fn escape(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(piece);
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let is_cut = chunks.peek().is_none()
                && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if is_cut {
                self.cut = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        quoted(&text)
    }

    fn end(&mut self) -> String {
        quoted(&String::from_utf8_lossy(&std::mem::take(&mut self.cut)))
    }
}

/// The inside of a JSON string that holds the text.
fn quoted(text: &str) -> String {
    let mut json = serde_json::Value::from(text).to_string();
    json.pop();
    json.remove(0);
    json
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::example::output as stored;
    use proptest::prelude::*;

    #[tokio::test]
    async fn a_file_goes_out_in_pieces() {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
        let (_dir, stretch) = stored(&bytes);
        let mut stream = between(stretch, 100, 599_990).into_data_stream();
        let (mut sizes, mut read) = (Vec::new(), Vec::new());
        while let Some(piece) = stream.next().await {
            let piece = piece.unwrap();
            sizes.push(piece.len());
            read.extend_from_slice(&piece);
        }
        assert_eq!(sizes, [PIECE_BYTES, PIECE_BYTES, 599_990 - 100 - 2 * PIECE_BYTES]);
        assert_eq!(read, bytes[100..599_990]);
    }

    #[tokio::test]
    async fn text_in_json_is_that_of_the_whole_file() {
        let mut bytes = "ä\"\\\n\u{1}\u{7f}€".repeat(40_000).into_bytes();
        bytes.insert(1, b'x');
        bytes.extend_from_slice(&[0xf0, 0x9f]);
        let (_dir, stretch) = stored(&bytes);
        let body = in_json(stretch, "\"".to_owned(), "\"".to_owned());
        let sent = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        assert_eq!(sent, serde_json::Value::from(String::from_utf8_lossy(&bytes)).to_string());
    }

    proptest! {
        #[test]
        fn lines_have_the_time_of_their_beginning_however_they_are_cut(size in 1_usize..9) {
            let times = vec![(0, Millis(1_000)), (3, Millis(2_000)), (7, Millis(3_000))];
            let mut stamper = Stamper { times, ..Stamper::default() };
            let stamped: Vec<u8> = b"ab\ncd\nef\n\ngh".chunks(size).flat_map(|piece| stamper.stamp(piece)).collect();
            let at = |second: u64, text: &str| format!("1970-01-01T00:00:0{second}.000Z {text}");
            let lines = [at(1, "ab\n"), at(2, "cd\n"), at(2, "ef\n"), at(3, "\n"), at(3, "gh")];
            prop_assert_eq!(String::from_utf8_lossy(&stamped), lines.concat());
            let mut nobody_knows = Stamper::default();
            prop_assert_eq!(nobody_knows.stamp(b"ab\ncd"), b"ab\ncd");
        }

        #[test]
        fn cuts_do_not_show(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0)], 0..40), size in 1_usize..7) {
            let mut escaper = Escaper::default();
            let mut text: String = bytes.chunks(size).map(|piece| escaper.escape(piece)).collect();
            text.push_str(&escaper.end());
            prop_assert_eq!(text, quoted(&String::from_utf8_lossy(&bytes)));
        }
    }
}
