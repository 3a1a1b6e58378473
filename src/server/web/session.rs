//! Logins: a personal token becomes a cookie, which is a secret of its own.
//!
//! Cookies open pages and never the API; a form changes something only with a field that is made of the cookie's
//! secret. Text browsers tell nothing of where a form comes from, so that the field is what protects; what other
//! browsers tell is looked at before.

use crate::server::api::shared::callers::holder_of;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::auth::{PeerAddress, Person, new_token, token_hash};
use crate::server::clients::AcceptedConnection;
use crate::server::store::tables::audit::{self, AuditEntry};
use crate::server::store::tables::sessions::{self, Login, Over};
use crate::server::time::Millis;
use crate::server::web::record::act;
use crate::server::web::shared::Web;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use ring::hmac;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// A login that is not used for this long is over.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// A login is over after this long.
const LIFE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// A use is written down when the last one was this long ago.
const NOTED: Duration = Duration::from_secs(5 * 60);
/// Longest value of a cookie that is looked at, in bytes.
const MOST_COOKIE: usize = 200;

/// The secret of a cookie: of a login, or of a browser that is about to sign in.
#[derive(Clone)]
pub(super) struct CookieSecret(String);

impl CookieSecret {
    /// Makes a fresh one.
    pub(super) fn fresh() -> Answer<Self> {
        Ok(Self(new_token("")?))
    }

    /// The text, for the cookie.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// The hidden field of a form.
    pub(super) fn field(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        crate::system::hex(hmac::sign(&key, b"form").as_ref())
    }

    /// Whether a form came from a page that was made for this cookie.
    pub(super) fn check(&self, headers: &HeaderMap, field: &str, public_url: &str) -> Answer<()> {
        let refused =
            |why: &str| Err(ApiError::new(StatusCode::FORBIDDEN, format!("{why}: nothing was changed")));
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) {
            return refused("the form was sent by a page of another site");
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            if host.is_empty() || (text("host") != Some(host) && origin != origin_of(public_url)) {
                return refused("the form was sent by a page of another site");
            }
        }
        let ours = ring::digest::digest(&ring::digest::SHA256, self.field().as_bytes());
        let theirs = ring::digest::digest(&ring::digest::SHA256, field.as_bytes());
        // Of digests, so that the time it takes tells nothing about the field.
        if ours.as_ref() != theirs.as_ref() {
            return refused(
                "the form is of another login, or of none: go back, reload the page and try again",
            );
        }
        Ok(())
    }
}

fn origin_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |at| &url[..host + at])
}

/// The cookies of a control plane. Over TLS their names begin so that no other host can set them; without it they
/// cannot: text browsers drop what is only for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cookie {
    /// Session of a login.
    Login,
    /// Session of a browser that is about to sign in.
    Visit,
}

impl Cookie {
    fn name(self, is_tls: bool) -> &'static str {
        match (self, is_tls) {
            (Self::Login, true) => "__Host-runlet",
            (Self::Login, false) => "runlet",
            (Self::Visit, true) => "__Host-runlet-visit",
            (Self::Visit, false) => "runlet-visit",
        }
    }

    /// The value of the cookie in a request.
    pub(super) fn of(self, headers: &HeaderMap, is_tls: bool) -> Option<CookieSecret> {
        let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let name = self.name(is_tls);
        let (_, value) = pairs.find(|(found, value)| *found == name && value.len() <= MOST_COOKIE)?;
        Some(CookieSecret(value.to_owned()))
    }

    /// Sets it; an empty value ends it. The attributes stand in this order because a text browser takes `SameSite` for
    /// another cookie, and what follows for that one's.
    pub(super) fn set(self, value: &str, is_tls: bool) -> HeaderValue {
        let age = match (self, value) {
            (_, "") => 0,
            (Self::Login, _) => LIFE.as_secs(),
            (Self::Visit, _) => IDLE.as_secs(),
        };
        let secure = if is_tls { " Secure;" } else { "" };
        let name = self.name(is_tls);
        let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly;{secure} SameSite=Lax");
        // Secrets are hexadecimal.
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

fn over(now: Millis) -> Over {
    Over { created_before: now.minus(LIFE), used_before: now.minus(IDLE) }
}

/// Signs in with a personal token; `None` when it is none. It stands in the audit log.
pub(super) async fn sign_in(
    web: &Web,
    parts: &Parts,
    peer: &PeerAddress,
    token: &str,
) -> Answer<Option<CookieSecret>> {
    let tokens = vec![token.to_owned()];
    let Some(person) = holder_of(parts, &web.state, tokens, Person::find).await? else {
        return Ok(None);
    };
    let secret = CookieSecret::fresh()?;
    let (hash, now) = (token_hash(secret.expose()), Millis::now());
    let act = AuditEntry {
        status: Some(StatusCode::SEE_OTHER.as_u16()),
        ..act(&person, peer, "/login", &json!({}))
    };
    let write = web.state.store.write(move |tx| {
        audit::add(tx, &act)?;
        sessions::add_login(tx, &hash, &person.token, now, over(now))
    });
    write.await?;
    Ok(Some(secret))
}

/// Ends a login. It stands in the audit log.
pub(super) async fn sign_out(web: &Web, visitor: &Visitor, peer: &PeerAddress) -> Answer<()> {
    let hash = token_hash(visitor.secret.expose());
    let act = act(&visitor.person, peer, "/logout", &json!({}));
    let act = AuditEntry { status: Some(StatusCode::SEE_OTHER.as_u16()), ..act };
    let write = web.state.store.write(move |tx| {
        audit::add(tx, &act)?;
        sessions::end_login(tx, &hash)
    });
    Ok(write.await?)
}

/// Person who is signed in.
pub(super) struct Visitor {
    /// Person whose token opened the session.
    pub(super) person: Person,
    /// Value of their cookie; its hash is stored.
    pub(super) secret: CookieSecret,
}

/// A page for nobody leads to the login, which leads back to it.
impl FromRequestParts<Web> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        let found = find(parts, web).await.map_err(IntoResponse::into_response)?;
        found.ok_or_else(|| {
            let wanted = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            Redirect::to(&format!("/login?next={}", super::shown::query_value(wanted))).into_response()
        })
    }
}

async fn find(parts: &Parts, web: &Web) -> Answer<Option<Visitor>> {
    let Some(secret) = Cookie::Login.of(&parts.headers, web.is_tls) else { return Ok(None) };
    let (hash, now) = (token_hash(secret.expose()), Millis::now());
    let key = hash.clone();
    let found = web.state.store.read(move |view| sessions::find_login(view, &key, over(now))).await?;
    let Some(Login { owner, used_at }) = found else { return Ok(None) };
    // A login that is over is no wrong token: its browser is only told to sign in again.
    if let Some(connection) = parts.extensions.get::<Arc<AcceptedConnection>>() {
        connection.set_known(&owner.user);
    }
    if now.since(used_at) >= NOTED {
        web.state.store.write(move |tx| sessions::use_login(tx, &hash, now)).await?;
    }
    let person = Person { id: owner.user, login: owner.login, is_admin: owner.is_admin, token: owner.token };
    Ok(Some(Visitor { person, secret }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_others_change_nothing() {
        let secret = CookieSecret::fresh().unwrap();
        let check = |headers: &[(&'static str, &str)], field: &str| {
            let mut map = HeaderMap::new();
            map.insert("host", HeaderValue::from_static("ci.test:8"));
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            secret.check(&map, field, "https://ci.example.com/base").is_ok()
        };
        let field = secret.field();
        assert!(
            check(&[], &field) && !check(&[], "") && !check(&[], &CookieSecret::fresh().unwrap().field())
        );
        for origin in ["http://ci.test:8", "https://ci.example.com"] {
            assert!(check(&[("origin", origin)], &field), "{origin}");
        }
        for origin in ["null", "https://evil", "", "https://ci.example.com.evil", "http://ci.test:80"] {
            assert!(!check(&[("origin", origin)], &field), "{origin}");
        }
        assert!(check(&[("sec-fetch-site", "same-origin")], &field));
        for site in ["cross-site", "same-site", ""] {
            assert!(!check(&[("sec-fetch-site", site)], &field), "{site}");
        }
    }

    #[test]
    fn cookies_are_read_as_they_are_set() {
        for is_tls in [false, true] {
            let set = Cookie::Login.set("abc", is_tls);
            let text = set.to_str().unwrap();
            assert!(text.ends_with("SameSite=Lax") && text.contains("; Path=/; Max-Age=1209600; HttpOnly;"));
            assert_eq!(text.contains("Secure"), is_tls);
            let mut headers = HeaderMap::new();
            let sent = format!("SameSite=Lax; {}; x", text.split(';').next().unwrap());
            headers.insert(header::COOKIE, HeaderValue::from_str(&sent).unwrap());
            assert_eq!(Cookie::Login.of(&headers, is_tls).unwrap().expose(), "abc");
            assert!(Cookie::Visit.of(&headers, is_tls).is_none());
            assert!(Cookie::Login.of(&headers, !is_tls).is_none());
        }
    }
}
