//! The bytes of an artifact, for every address that serves them.

use crate::http::encoded;
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::api::shared::range::{self, Wanted};
use crate::server::api::shared::stream;
use crate::server::api::shared::uses::used;
use crate::server::ids::ArtifactId;
use crate::server::state::Shared;
use crate::server::store::read::Content;
use crate::server::store::tables::keeping::Counted;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Answers with the artifact, a part of it, or, to a client that has it, with its name alone.
pub async fn artifact(
    state: &Shared,
    id: ArtifactId,
    Content { sha256, length, path }: Content,
    headers: &HeaderMap,
) -> Answer<Response> {
    let tag = format!("\"{sha256}\"");
    if range::is_named(headers, &tag) {
        used(state, Counted::Artifact(id)).await?;
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let (status, from, end) = match range::wanted(headers, length, Some(&tag)) {
        Wanted::Whole => (StatusCode::OK, 0, length),
        Wanted::Part(from, end) => (StatusCode::PARTIAL_CONTENT, from, end),
        Wanted::Outside => {
            let named = [(header::CONTENT_RANGE, range::content_range(None, length))];
            let why = format!("the artifact has {length} bytes, and the range begins after them");
            return Ok((named, ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, why)).into_response());
        }
    };
    let blobs = state.blobs.clone();
    let stretch = blocking(move || blobs.objects.open(&sha256)).await?;
    used(state, Counted::Artifact(id)).await?;
    // Never rendered in the browser: artifacts are whatever jobs make.
    let named = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (end - from).to_string()),
        (header::CONTENT_DISPOSITION, disposition(&path)),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, tag),
    ];
    let mut response = (status, named, stream::between(stretch, from, end)).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = HeaderValue::try_from(range::content_range(Some((from, end)), length));
        response.headers_mut().extend(range.ok().map(|range| (header::CONTENT_RANGE, range)));
    }
    Ok(response)
}

/// The last part of the name, in the form that every client reads, and in the form that holds any character.
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !"\"\\/%".contains(c);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", encoded(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_break_out_of_nothing() {
        assert_eq!(
            disposition("a/b/report 1.xml"),
            "attachment; filename=\"report 1.xml\"; filename*=UTF-8''report%201.xml"
        );
        assert_eq!(
            disposition("x/\"; evil=\r\nü"),
            "attachment; filename=\"_; evil=___\"; filename*=UTF-8''%22%3B%20evil%3D%0D%0A%C3%BC"
        );
    }
}
