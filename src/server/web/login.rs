//! Signing in and out.

use crate::logging::record;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::auth::PeerAddress;
use crate::server::web::frame::Head;
use crate::server::web::session::{Cookie, CookieSecret, Visitor, sign_in, sign_out};
use crate::server::web::shared::Web;
use crate::server::web::shown::page;
use askama::Template;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use serde::Deserialize;
use std::time::Instant;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    Router::new().route("/login", get(form).post(enter)).route("/logout", post(leave))
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    head: Head,
    next: String,
    field: String,
    wrong: bool,
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    next: String,
}

/// A path of this host, whatever was asked for.
fn path_of(next: &str) -> &str {
    let is_path = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && !next.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii());
    if is_path { next } else { "/" }
}

async fn form(State(web): State<Web>, headers: HeaderMap, Query(wanted): Query<Wanted>) -> Answer<Response> {
    show(&web, &headers, &wanted.next, false)
}

/// The form for a browser, which keeps its secret over several tabs.
fn show(web: &Web, headers: &HeaderMap, next: &str, wrong: bool) -> Answer<Response> {
    let visit = match Cookie::Visit.of(headers, web.is_tls) {
        Some(secret) => secret,
        None => CookieSecret::fresh()?,
    };
    let head = Head::of("Sign in", None);
    let login = Login { head, next: path_of(next).to_owned(), field: visit.field(), wrong };
    let mut response = page(&login)?;
    *response.status_mut() = if wrong { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let set = response.headers_mut();
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set.append(header::SET_COOKIE, Cookie::Visit.set(visit.expose(), web.is_tls));
    Ok(response)
}

#[derive(Deserialize)]
struct Entered {
    #[serde(default)]
    token: String,
    #[serde(default)]
    field: String,
    #[serde(default)]
    next: String,
}

async fn enter(
    State(web): State<Web>,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    parts: Parts,
    Form(entered): Form<Entered>,
) -> Answer<Response> {
    let headers = &parts.headers;
    let visit = Cookie::Visit.of(headers, web.is_tls).ok_or_else(|| {
        let why = "the browser sent no cookie with the form: allow cookies of this host, and sign in again";
        ApiError::new(StatusCode::FORBIDDEN, why)
    })?;
    visit.check(headers, &entered.field, &web.state.settings.public_url)?;
    // Tokens cannot be guessed; the limit saves work and shows in the log. A right one always opens: whoever shares the
    // address of somebody who tries is not kept out.
    let Some(secret) = sign_in(&web, &parts, &peer, entered.token.trim()).await? else {
        let now = Instant::now();
        let Some(wait) = web.failures.add(peer.0.ip(), now) else {
            return show(&web, headers, &entered.next, true);
        };
        record!(Warn, client = peer.0.ip(); "an address sends wrong tokens to the login page");
        let why = "too many wrong tokens came from this address: wait a minute and try again";
        let refused = ApiError::new(StatusCode::TOO_MANY_REQUESTS, why);
        return Ok(([(header::RETRY_AFTER, wait.as_secs().max(1).to_string())], refused).into_response());
    };
    let mut response = Redirect::to(path_of(&entered.next)).into_response();
    let set = response.headers_mut();
    set.append(header::SET_COOKIE, Cookie::Login.set(secret.expose(), web.is_tls));
    set.append(header::SET_COOKIE, Cookie::Visit.set("", web.is_tls));
    Ok(response)
}

#[derive(Deserialize)]
struct Left {
    #[serde(default)]
    field: String,
}

async fn leave(
    State(web): State<Web>,
    visitor: Visitor,
    ConnectInfo(peer): ConnectInfo<PeerAddress>,
    headers: HeaderMap,
    Form(left): Form<Left>,
) -> Answer<Response> {
    visitor.secret.check(&headers, &left.field, &web.state.settings.public_url)?;
    sign_out(&web, &visitor, &peer).await?;
    let mut response = Redirect::to("/login").into_response();
    response.headers_mut().append(header::SET_COOKIE, Cookie::Login.set("", web.is_tls));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_paths_of_this_host_only() {
        for good in ["/", "/gh/acme/app/jobs/7?step=4", "/a?b=//c"] {
            assert_eq!(path_of(good), good);
        }
        for bad in ["", "//evil", "/\\evil", "https://evil", "javascript:x", "/\t/evil", "/a\r\nb", "/ä"] {
            assert_eq!(path_of(bad), "/", "{bad:?}");
        }
    }
}
