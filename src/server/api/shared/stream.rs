//! Files to clients, piece by piece: as they are, or as the inside of a JSON string.
//!
//! A piece is read when the connection has taken the one before it. A client that hangs up drops the stream,
//! and nothing more is read.

use crate::server::api::shared::failure::blocking;
use crate::server::blobs::Stretch;
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
        fn cuts_do_not_show(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0)], 0..40), size in 1_usize..7) {
            let mut escaper = Escaper::default();
            let mut text: String = bytes.chunks(size).map(|piece| escaper.escape(piece)).collect();
            text.push_str(&escaper.end());
            prop_assert_eq!(text, quoted(&String::from_utf8_lossy(&bytes)));
        }
    }
}
