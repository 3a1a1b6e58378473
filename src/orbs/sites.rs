//! The sources of orbs of this machine: a folder of registry orbs, and web addresses that the operator has
//! allowed. With neither, orbs have to be inline.

use super::builtin;
use super::folder::OrbFolder;
use crate::config::{NoOrbs, OrbError, OrbReference, OrbSource, SOURCE_BYTES};
use crate::http::{Body, Client, Endpoint, Error, Request};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most prefixes that can be allowed.
const MOST_PREFIXES: usize = 5;
/// A fetched orb is used again for this long.
const FRESH: Duration = Duration::from_secs(300);
/// Fetched orbs that are remembered.
const MOST_REMEMBERED: usize = 100;
/// Longest time of a whole fetch.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Sources of orbs. Clones share what was fetched.
#[derive(Clone, Debug, Default)]
pub struct OrbSites {
    folder: Option<OrbFolder>,
    allowed: Vec<String>,
    fetched: Arc<Mutex<HashMap<String, (Instant, String)>>>,
    may_be_missing: bool,
}

impl OrbSites {
    /// Uses a folder or an archive of registry orbs.
    pub fn use_folder(&mut self, folder: PathBuf) {
        self.folder = Some(OrbFolder::new(folder));
    }

    /// Allows orbs whose URL begins with `prefix`, which must be `https://host/`, with a path or without.
    pub fn allow(&mut self, prefix: &str) -> Result<(), String> {
        let rest = prefix.strip_prefix("https://").unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        // Without a slash after the host, `https://good.example` would allow `https://good.example.evil`.
        if host.is_empty() || host.contains('@') || !rest.contains('/') {
            return Err(format!(
                "`{prefix}` cannot be allowed for orbs: write `https://HOST/` or `https://HOST/PATH`"
            ));
        }
        if self.allowed.len() >= MOST_PREFIXES {
            return Err(format!("no more than {MOST_PREFIXES} prefixes can be allowed for orbs"));
        }
        self.allowed.push(prefix.to_owned());
        Ok(())
    }

    /// Lets configs want orbs that are not here: the jobs that want one do not run, and the others do.
    pub fn let_be_missing(&mut self) {
        self.may_be_missing = true;
    }

    fn remembered(&self, url: &str) -> Option<String> {
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.get(url).filter(|(when, _)| when.elapsed() < FRESH).map(|(_, text)| text.clone())
    }

    fn remember(&self, url: &str, text: &str) {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.retain(|_, (when, _)| when.elapsed() < FRESH);
        if fetched.len() < MOST_REMEMBERED {
            fetched.insert(url.to_owned(), (Instant::now(), text.to_owned()));
        }
    }
}

impl OrbSource for OrbSites {
    fn resolve(&self, reference: &str) -> Result<(String, String), OrbError> {
        let found = match &self.folder {
            Some(folder) => folder.resolve(reference),
            None => NoOrbs.resolve(reference),
        };
        found.or_else(|missing| {
            let parsed = OrbReference::parse(reference)?;
            let (exact, text) = builtin::find(&parsed.namespace, &parsed.name).ok_or(missing)?;
            Ok((exact, text.to_owned()))
        })
    }

    fn may_be_missing(&self) -> bool {
        self.may_be_missing
    }

    fn place(&self, exact: &str) -> Option<String> {
        self.folder.as_ref().and_then(|folder| folder.place(exact))
    }

    fn fetch(&self, url: &str) -> Result<String, OrbError> {
        if self.allowed.is_empty() {
            return NoOrbs.fetch(url);
        }
        let climbs = url.split(['/', '?', '#']).any(|part| matches!(part, ".." | ".")) || url.contains('%');
        if climbs || !self.allowed.iter().any(|prefix| url.starts_with(prefix.as_str())) {
            return Err(OrbError::Missing(format!(
                "the orb `{url}` is not below an allowed address (allowed: {})",
                self.allowed.join(", ")
            )));
        }
        if let Some(text) = self.remembered(url) {
            return Ok(text);
        }
        let after_host = url.get("https://".len()..).and_then(|rest| rest.find('/'));
        let (base, path) = url.split_at(after_host.map_or(url.len(), |at| at + "https://".len()));
        let client = Client::new(&Endpoint { url: base.to_owned(), ..Endpoint::default() })
            .map_err(|error| format!("failed to fetch the orb `{url}`: {error}"))?;
        let request = Request { method: "GET", path, token: None, body: Body::Empty, timeout: TIMEOUT };
        let answer = client.send(&request).map_err(|error| {
            let kind = if error.is_retryable() { OrbError::Unreachable } else { OrbError::Missing };
            kind(match error {
                Error::Refused { status, .. } => format!(
                    "failed to fetch the orb `{url}`: the server answered {status}, and redirects are not followed"
                ),
                error => format!("failed to fetch the orb `{url}`: {error}"),
            })
        })?;
        if answer.status != 200 {
            let passes = matches!(answer.status, 408 | 425 | 429 | 500..=599);
            let kind = if passes { OrbError::Unreachable } else { OrbError::Missing };
            return Err(kind(format!(
                "failed to fetch the orb `{url}`: the server answered {}",
                answer.status
            )));
        }
        if answer.body.len() > SOURCE_BYTES {
            return Err(format!("the orb `{url}` is longer than {} bytes", SOURCE_BYTES).into());
        }
        let text =
            String::from_utf8(answer.body).map_err(|_| format!("the orb `{url}` is not UTF-8 text"))?;
        self.remember(url, &text);
        Ok(text)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_an_allowed_address_is_fetched() {
        let mut sites = OrbSites::default();
        assert!(
            sites
                .fetch("https://good.example/orbs/x.yml")
                .unwrap_err()
                .to_string()
                .contains("not allowed here")
        );
        for bad in
            ["http://good.example/", "https://good.example", "https:///x", "https://a@good.example/", "x"]
        {
            assert!(sites.allow(bad).is_err(), "{bad}");
        }
        sites.allow("https://good.example/orbs/").unwrap();
        for stranger in [
            "https://good.example.evil/orbs/x.yml",
            "https://good.example/other/x.yml",
            "https://good.example/orbs/../x.yml",
            "https://good.example/orbs/%2e%2e/x.yml",
            "http://good.example/orbs/x.yml",
        ] {
            let why = sites.fetch(stranger).unwrap_err().to_string();
            assert!(
                why.contains("not below an allowed address (allowed: https://good.example/orbs/)"),
                "{why}"
            );
        }
        sites.remember("https://good.example/orbs/x.yml", "commands: {}\n");
        assert_eq!(sites.clone().fetch("https://good.example/orbs/x.yml").unwrap(), "commands: {}\n");
        for _ in 0..4 {
            sites.allow("https://good.example/more/").unwrap();
        }
        assert!(sites.allow("https://good.example/more/").unwrap_err().contains("no more than 5"));
    }
}
