//! The style sheet, under an address that changes with it.

use crate::server::api::shared::failure::ApiError;
use crate::server::api::shared::input::Path;
use crate::server::web::shared::Web;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::OnceLock;

const STYLE: &str = include_str!("style.css");

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    Router::new().route("/-/{file}", get(style)).route("/favicon.ico", get(icon))
}

/// The path of the style sheet.
pub(super) fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let hash = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
        format!("/-/{}.css", crate::system::hex(&hash.as_ref()[..8]))
    })
}

async fn style(Path(file): Path<String>) -> Response {
    if address().strip_prefix("/-/") != Some(&file) {
        return ApiError::not_found("this is of another version of the control plane: reload the page")
            .into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, STYLE).into_response()
}

/// Browsers ask for one, whatever the page says.
async fn icon() -> Response {
    (StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "public, max-age=86400")]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_keeps_its_budget() {
        const MOST_BYTES: usize = 14 * 1024;
        assert!(STYLE.len() <= MOST_BYTES, "{} bytes", STYLE.len());
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"), "nothing is asked for beside it");
    }
}
