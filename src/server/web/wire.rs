//! Pages on their way: a page that a browser has already is not sent again, and what is sent is small.
//!
//! Only whole pages and the style sheet come by here; logs and artifacts are streamed as they are. The field of forms
//! is in the pages that are compressed: cookies of `SameSite=Lax` go along with no request that a page of another site
//! could repeat in order to measure the answers.

use crate::server::api::shared::range::is_named;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// Bytes below which compression saves nothing worth the work.
const WORTH_PACKING: usize = 1024;
/// The last part of a page holds the time at which it was made, and nothing else that changes.
const FOOTER: &[u8] = b"<footer>";

/// Answers to a request with these headers: an unchanged page by its name only, another one compressed, if the browser
/// can read that.
pub(super) async fn travel(asked: &HeaderMap, response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let is_page = is_of(&parts.headers, "text/html");
    if parts.status != StatusCode::OK || !(is_page || is_of(&parts.headers, "text/css")) {
        return Response::from_parts(parts, body);
    }
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        parts.status = StatusCode::INTERNAL_SERVER_ERROR;
        return Response::from_parts(parts, Body::empty());
    };
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Cookie"));
    if is_page {
        let tag = tag(&bytes);
        let is_known = is_named(asked, &tag);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            parts.headers.insert(header::ETAG, tag);
        }
        if is_known {
            parts.status = StatusCode::NOT_MODIFIED;
            parts.headers.remove(header::CONTENT_TYPE);
            parts.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(parts, Body::empty());
        }
    }
    if bytes.len() < WORTH_PACKING || !takes_gzip(asked) {
        return Response::from_parts(parts, Body::from(bytes));
    }
    let plain = bytes.clone();
    // On a thread that may take its time: pages of logs are long.
    let Ok(Some(packed)) = tokio::task::spawn_blocking(move || packed(&plain)).await else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::from(packed))
}

fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|found| found.as_bytes().starts_with(kind.as_bytes()))
}

/// The name of what a page says. It is a weak one: the time at which the page was made does not count.
fn tag(page: &Bytes) -> String {
    let end = memchr::memmem::rfind(page, FOOTER).unwrap_or(page.len());
    let sum = ring::digest::digest(&ring::digest::SHA256, &page[..end]);
    format!("W/\"{}\"", crate::system::hex(&sum.as_ref()[..16]))
}

/// Whether the browser reads gzip: it names it, or everything, without a weight of nothing.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let codings = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|codings| codings.to_str().ok());
    let codings: Vec<&str> = codings.flat_map(|codings| codings.split(',')).collect();
    let weight = |wanted: &str| {
        codings.iter().find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().filter(|name| name.eq_ignore_ascii_case(wanted))?;
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            Some(weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)))
        })
    };
    weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(5));
    out.write_all(bytes).ok()?;
    out.finish().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    fn headers(given: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn page(text: &str, made: &str) -> Response {
        let text = format!("{}<footer>Made at {made}</footer>", text.repeat(500));
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        Response::builder().header(header::CONTENT_TYPE, kind).body(Body::from(text)).unwrap()
    }

    #[tokio::test]
    async fn a_page_that_says_the_same_is_not_sent_again() {
        let first = travel(&headers(&[]), page("pipeline", "1")).await;
        let name = first.headers()[header::ETAG].clone();
        let mut known = HeaderMap::new();
        known.insert(header::IF_NONE_MATCH, name.clone());
        let again = travel(&known, page("pipeline", "2")).await;
        assert_eq!((again.status(), &again.headers()[header::ETAG]), (StatusCode::NOT_MODIFIED, &name));
        assert!(to_bytes(again.into_body(), usize::MAX).await.unwrap().is_empty());
        assert_eq!(travel(&known, page("changed", "2")).await.status(), StatusCode::OK);
        // Refusals go as they are, and so does everything that is no page.
        let refused = Response::builder().status(StatusCode::NOT_FOUND).body(Body::from("no")).unwrap();
        assert!(travel(&known, refused).await.headers().get(header::ETAG).is_none());
    }

    #[tokio::test]
    async fn pages_are_small_for_browsers_that_can_read_it() {
        let asked = headers(&[(header::ACCEPT_ENCODING, "br;q=1.0, gzip;q=0.8, *;q=0.1")]);
        let sent = travel(&asked, page("pipeline", "1")).await;
        assert_eq!(sent.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = to_bytes(sent.into_body(), usize::MAX).await.unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("pipelinepipeline") && text.ends_with("</footer>") && bytes.len() < 300);
        for cannot in ["", "br", "gzip;q=0", "identity, gzip; q=0.0"] {
            let sent = travel(&headers(&[(header::ACCEPT_ENCODING, cannot)]), page("pipeline", "1")).await;
            assert!(sent.headers().get(header::CONTENT_ENCODING).is_none(), "{cannot}");
        }
    }
}
