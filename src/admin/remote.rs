//! The control plane as `runlet admin` sees it: calls, pages, and failures in its user's words.

use super::arguments::Arguments;
pub(super) use crate::http::encoded as encode;
use crate::http::{Body, Client, Endpoint, Error, Request};
use crate::outcome::{Failure, exit};
use crate::protocol::Secret;
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for an answer: a trigger may wait for a fetch.
const TIMEOUT: Duration = Duration::from_secs(240);
/// Longest token file, in bytes.
const MOST_TOKEN_BYTES: usize = 4096;
/// Most pages of one list: more is a list that never ends.
const MOST_PAGES: usize = 1000;

/// A control plane and a token for it.
pub(super) struct Remote {
    client: Client,
    token: Secret,
    ca_file: Option<PathBuf>,
}

impl Remote {
    /// Reads the address and the token from options, else from the environment.
    pub(super) fn new(arguments: &mut Arguments) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let url = arguments.option("server").or_else(|| variable("RUNLET_SERVER"));
        let url = url.ok_or_else(|| {
            Failure::usage(
                "say where the control plane is: `--server https://ci.example.com`, or RUNLET_SERVER",
            )
        })?;
        let ca_file = arguments.option("ca-file").or_else(|| variable("RUNLET_CA_FILE")).map(PathBuf::from);
        let token = match arguments.option("token-file") {
            Some(file) => std::fs::read_to_string(&file)
                .map_err(|e| Failure::usage(format!("failed to read the token file `{file}`: {e}")))?,
            None => variable("RUNLET_TOKEN").ok_or_else(|| {
                Failure::usage(
                    "a personal token is needed: `--token-file FILE` or RUNLET_TOKEN (the first start of `runlet server` leaves one in `admin-token` in its data folder)",
                )
            })?,
        };
        let token = token.trim();
        if token.is_empty() || token.len() > MOST_TOKEN_BYTES || token.bytes().any(|b| !b.is_ascii_graphic())
        {
            return Err(Failure::usage(
                "the personal token is empty, or is no token: it is one printable word",
            ));
        }
        let endpoint = Endpoint { url, ca_file: ca_file.clone(), client_certificate: None };
        let client = Client::new(&endpoint).map_err(failure)?;
        Ok(Self { client, token: Secret::new(token), ca_file })
    }

    /// Makes one call.
    pub(super) fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        self.attempt(method, path, body).map_err(failure)
    }

    /// Makes one call, for a command that goes on after some refusals; [`failure`] ends it after the others.
    pub(super) fn attempt(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Error> {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
        let request = Request { method, path, token: Some(&self.token), body, timeout: TIMEOUT };
        self.client.json(&request)
    }

    /// The address of the control plane, and the authority that it is trusted by.
    pub(super) fn place(&self) -> (&str, Option<&PathBuf>) {
        (self.client.url(), self.ca_file.as_ref())
    }

    /// The address of a page of the control plane.
    pub(super) fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.client.url().trim_end_matches('/'))
    }

    /// Opens an answer that is read as it arrives.
    pub(super) fn open(&self, path: &str) -> Result<impl Read + use<>, Failure> {
        self.client.open(path, &self.token).map_err(failure)
    }

    /// Reads all items of a list, page by page. `path` may have a query.
    pub(super) fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let (mut items, mut token) = (Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = match token.as_str() {
                "" => path.to_owned(),
                token => format!("{path}{separator}page-token={}", encode(token)),
            };
            let mut answer = self.call("GET", &page, None)?;
            if let Value::Array(more) = answer["items"].take() {
                items.extend(more);
            }
            match answer["next_page_token"].as_str() {
                Some(next) if next != token => token = next.to_owned(),
                _ => return Ok(items),
            }
        }
        Err(Failure::new(format!("the list at `{path}` does not end")))
    }
}

/// Turns a failed call into a failure of the command, with the exit code for it.
pub(super) fn failure(error: Error) -> Failure {
    let (code, message) = match &error {
        Error::Refused { status, refusal, message, .. } => {
            let said =
                refusal.as_ref().map(|refusal| refusal.message.clone()).filter(|text| !text.is_empty());
            let code = match status {
                401 => exit::AUTHENTICATION,
                404 => exit::NOT_FOUND,
                400..=499 => exit::REFUSED,
                _ => exit::FAILED,
            };
            let hint = if *status == 401 { " (`--token-file`, RUNLET_TOKEN)" } else { "" };
            (code, format!("{}{hint}", said.unwrap_or_else(|| message.clone())))
        }
        Error::Setup(message) => (exit::USAGE, message.clone()),
        Error::Transport(message)
        | Error::Unanswered(message)
        | Error::Undecodable(message)
        | Error::Foreign(message)
        | Error::TooLong { message, .. } => (exit::FAILED, message.clone()),
    };
    // The client speaks to runners, whose settings have other names.
    let names = [
        ("`api.url`", "`--server`"),
        ("`api.ca_file`", "`--ca-file`"),
        ("`api.auth_token`", "`--token-file`"),
    ];
    let message = names.iter().fold(message, |message, (setting, option)| message.replace(setting, option));
    Failure { code, message: message.chars().filter(|c| !c.is_control() || *c == '\n').collect() }
}

/// Checks `VCS/ORGANIZATION/REPOSITORY` and makes it a part of a path.
pub(super) fn slug_path(slug: &str) -> Result<String, Failure> {
    parts(slug, 3, "VCS/ORGANIZATION/REPOSITORY, such as `gh/acme/app`")
}

/// Checks `VCS/ORGANIZATION` and makes it a part of a path.
pub(super) fn owner_path(owner: &str) -> Result<String, Failure> {
    parts(owner, 2, "VCS/ORGANIZATION, such as `gh/acme`")
}

fn parts(text: &str, count: usize, expected: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() != count || parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
        return Err(Failure::usage(format!("`{text}` is not {expected}")));
    }
    Ok(parts.into_iter().map(encode).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths_are_encoded_and_counted() {
        assert_eq!(encode("a b/ü&="), "a%20b%2F%C3%BC%26%3D");
        assert_eq!(slug_path("gh/acme/app.rs").ok().as_deref(), Some("gh/acme/app.rs"));
        for slug in ["gh/acme", "gh//app", "gh/acme/app/x", "gh/../app", ""] {
            assert!(slug_path(slug).is_err(), "{slug}");
        }
        assert_eq!(owner_path("gh/acme").ok().as_deref(), Some("gh/acme"));
    }
}
