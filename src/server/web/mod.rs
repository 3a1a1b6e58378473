//! The web page: pipelines, jobs, their logs and results, for people with a browser.
//!
//! Every page is complete without a script and can be read in a text browser; the address holds all that it shows. It
//! reads what the APIs read, and anybody with a personal token may see everything, as there. Nothing of what jobs wrote
//! reaches a page unescaped, and the policy in `HEADERS` is the second wall.

mod acts;
mod failures;
mod frame;
mod job;
mod jobs;
mod list;
mod log;
mod login;
mod moved;
mod pipeline;
mod record;
mod results;
mod session;
mod shared;
mod shown;
mod style;
mod wire;

use crate::server::api::shared::failure::{ApiError, Shape};
use crate::server::api::shared::{shape, speaker, unread};
use crate::server::state::Shared;
use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use frame::Head;
use shared::Web;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// All rows of some output as HTML, for the fuzz target.
#[cfg(fuzzing)]
pub fn log_rows(output: &str) -> String {
    log::rows(output)
}

/// Headers of every page. No script runs; styles come from this host; nobody puts a page into a frame.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// Builds the routes of all pages.
pub fn router(state: Shared) -> axum::Router {
    let is_tls = state.settings.public_url.starts_with("https://");
    let web = Web { state, is_tls, failures: Arc::default() };
    axum::Router::new()
        .merge(list::router())
        .merge(pipeline::router())
        .merge(job::router())
        .merge(acts::router())
        .merge(results::router())
        .merge(moved::router())
        .merge(login::router())
        .merge(style::router())
        .fallback(moved::without_slash)
        .layer(middleware::from_fn(unread::drain))
        .layer(middleware::from_fn_with_state(web.clone(), dress))
        .layer(middleware::from_fn(speaker::mark))
        .with_state(web)
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct Refused {
    head: Head,
    message: String,
}

/// Puts the headers on, sends what is not known yet, and makes pages of refusals for those who ask for pages: a program whose address is not
/// quite right is refused as it is elsewhere.
async fn dress(State(web): State<Web>, request: Request, next: Next) -> Response {
    web.state.figures.requests.fetch_add(1, Ordering::Relaxed);
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    let asks_for_page =
        accepted.filter_map(|kinds| kinds.to_str().ok()).any(|kinds| kinds.contains("text/html"));
    let asked = request.headers().clone();
    let mut response = shape::own_words(next.run(request).await, Shape::Message).await;
    let status = response.status();
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if asks_for_page && (status.is_client_error() || status.is_server_error()) && !is_page {
        let retry = response.headers_mut().remove(header::RETRY_AFTER);
        response = refusal(status, response.extensions().get::<ApiError>());
        response.headers_mut().extend(retry.map(|value| (header::RETRY_AFTER, value)));
    }
    response = wire::travel(&asked, response).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

fn refusal(status: StatusCode, failure: Option<&ApiError>) -> Response {
    let title = status.canonical_reason().unwrap_or("Refused");
    let message = failure.map_or("This address cannot be used in this way.", ApiError::message);
    let head = Head::of(format!("{title} ({})", status.as_u16()), None);
    match shown::page(&Refused { head, message: message.to_owned() }) {
        Ok(page) => (status, page).into_response(),
        Err(failure) => failure.into_response(),
    }
}
