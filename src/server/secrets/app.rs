//! GitHub Apps: their sealed private keys, the words that these sign, and the tokens that were got by them. No IO;
//! `pipelines/forge/installation` talks to the forge.

use super::sealer::{SealError, SealedFor, Sealer};
use crate::protocol::Secret;
use crate::server::ids::ProjectId;
use crate::server::store::tables::apps::{self, AppOwner};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest text of a private key, in bytes.
const MOST_KEY_BYTES: usize = 16 * 1024;
/// A signed word of an App holds from so long before the present, for clocks that differ, to so long after it: the forge
/// takes ten minutes at most. In seconds.
const BEFORE: u64 = 60;
const AFTER: u64 = 540;

/// A GitHub App.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// App ID or client ID.
    pub id: String,
    /// The id of its installation; `None`: the forge is asked for the one of each repository.
    #[serde(default)]
    pub installation: Option<String>,
    /// Private key of the App, as PEM.
    pub key: Secret,
}

impl App {
    /// Checks what people give; the error is a sentence for them.
    pub fn check(&self) -> Result<(), String> {
        let is_word =
            |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_word(&self.id) {
            return Err(
                "the id of an App is a number such as 123456, or a client ID such as Iv23li...".to_owned()
            );
        }
        let is_number =
            |text: &String| !text.is_empty() && text.len() < 20 && text.bytes().all(|b| b.is_ascii_digit());
        if self.installation.as_ref().is_some_and(|id| !is_number(id)) {
            return Err("the id of an installation is a number, as the address of its page has it".to_owned());
        }
        self.pair().map(drop)
    }

    fn pair(&self) -> Result<KeyPair, String> {
        let text = self.key.expose();
        let no_key = "the private key is not one: give the file that GitHub made, which begins with `-----BEGIN RSA PRIVATE KEY-----`";
        if text.len() > MOST_KEY_BYTES {
            return Err(format!("the private key has more than {MOST_KEY_BYTES} bytes"));
        }
        match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(der)) => KeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(no_key.to_owned()),
        }
        .map_err(|error| {
            format!("the private key cannot be used: {error} (an RSA key of 2048 to 4096 bits is expected)")
        })
    }

    /// The word that the App shows the forge to be known: a JSON Web Token, signed with RS256, good for some minutes from `now`. The
    /// error is a sentence for people.
    pub fn word(&self, now: Millis) -> Result<Secret, String> {
        let seconds = now.0 / 1000;
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({ "iat": seconds.saturating_sub(BEFORE), "exp": seconds + AFTER, "iss": self.id });
        let text = format!("{}.{}", part(json!({ "alg": "RS256", "typ": "JWT" })), part(claims));
        let pair = self.pair()?;
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| "nothing can be signed with the private key".to_owned())?;
        Ok(Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

/// Reads the App of an owner itself. The inner error says why one that is there cannot be opened.
pub fn of_owner(
    view: &View,
    sealer: &Sealer,
    owner: &AppOwner,
) -> Result<Option<Result<App, SealError>>, Error> {
    let open = |sealed: Vec<u8>| {
        let text = sealer.open(SealedFor::App(owner.id()), &sealed)?;
        serde_json::from_str(text.expose()).map_err(|_| SealError::Damaged)
    };
    Ok(apps::sealed(view, owner)?.map(open))
}

/// The App that a project goes by.
pub struct FoundApp {
    /// The project or its organisation.
    pub owner: AppOwner,
    /// The App; the error says why it cannot be opened.
    pub app: Result<App, SealError>,
}

/// Finds the App that a project goes by.
pub fn of_project(view: &View, sealer: &Sealer, project: &ProjectId) -> Result<Option<FoundApp>, Error> {
    let Some(owner) = apps::owner_for(view, project)? else { return Ok(None) };
    Ok(of_owner(view, sealer, &owner)?.map(|app| FoundApp { owner, app }))
}

/// Keeps the App of an owner in place of what was there.
pub fn keep(tx: &Tx<'_>, sealer: &Sealer, owner: &AppOwner, app: &App, now: Millis) -> Result<(), Error> {
    let text = Secret::new(serde_json::to_string(app)?);
    let fail = |why: SealError| Error::Corrupt(format!("the GitHub App cannot be sealed: {why}"));
    let sealed = sealer.seal(SealedFor::App(owner.id()), &text).map_err(fail)?;
    apps::set(tx, owner, &sealed, now)
}

/// Rights that a token of an installation is narrowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rights {
    /// To tell statuses of commits.
    Statuses,
    /// To read what is in the repository.
    Contents,
    /// To make webhooks.
    Hooks,
}

impl Rights {
    /// The permission and its level, as the forge's API names them.
    pub fn permission(self) -> (&'static str, &'static str) {
        match self {
            Rights::Statuses => ("statuses", "write"),
            Rights::Contents => ("contents", "read"),
            Rights::Hooks => ("repository_hooks", "write"),
        }
    }

    /// The permission as the forge's pages name it.
    pub fn said(self) -> &'static str {
        match self {
            Rights::Statuses => "Commit statuses: Read and write",
            Rights::Contents => "Contents: Read-only",
            Rights::Hooks => "Webhooks: Read and write",
        }
    }
}

/// A token is for one repository and some rights in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessScope {
    /// Id of the owner of the App.
    pub owner: String,
    /// Base of the API that it is got from.
    pub api: String,
    /// Name of the repository there, such as `acme/app`.
    pub repository: String,
    /// Rights that it has.
    pub rights: Rights,
}

/// The reason why an App gets no token, in a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// The forge refuses it, or the App cannot be used: a person has to change something.
    Refused(String),
    /// The forge gave no answer that counts: the next try may go better.
    Unanswered(String),
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoToken::Refused(why) | NoToken::Unanswered(why) => f.write_str(why),
        }
    }
}

/// A token that was got, or the reason why not.
#[derive(Clone, Debug)]
pub struct KeptToken {
    /// App by which it was got: with another one it counts for nothing.
    pub app: App,
    /// The token, or why there is none.
    pub token: Result<Secret, NoToken>,
    /// The end of its time, or the time of the next try.
    pub until: Millis,
}

/// A place for one token: whoever gets it holds the lock, and the others have what that brought.
pub type TokenCell = Arc<tokio::sync::Mutex<Option<KeptToken>>>;

/// The tokens that were got since the start.
#[derive(Debug, Default)]
pub struct Installations(Mutex<HashMap<AccessScope, TokenCell>>);

impl Installations {
    /// The cell of a place. Cells of tokens whose time is over go.
    pub fn cell(&self, scope: AccessScope, now: Millis) -> TokenCell {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, cell| {
            Arc::strong_count(cell) > 1
                || cell.try_lock().is_ok_and(|kept| kept.as_ref().is_some_and(|kept| kept.until > now))
        });
        Arc::clone(cells.entry(scope).or_default())
    }

    /// Forgets all of them: somebody may have changed something at the forge, after which what was refused is granted, or
    /// what was granted opens nothing.
    pub fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets a token that opens nothing any more.
    pub fn forget(&self, token: &Secret) {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, cell| {
            // A token that is being got now has its cell locked, and stays.
            cell.try_lock()
                .map_or(true, |kept| kept.as_ref().is_none_or(|kept| kept.token.as_ref() != Ok(token)))
        });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its key should fail loudly")]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use std::process::Command;

    fn openssl(args: &[&str]) -> String {
        let made = Command::new("openssl").args(args).output().unwrap();
        String::from_utf8(made.stdout).unwrap()
    }

    fn app(key: &str) -> App {
        App { id: "123".to_owned(), installation: None, key: Secret::new(key) }
    }

    #[test]
    fn a_word_is_signed_and_holds_for_ten_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, openssl(&["genrsa", "2048"])).unwrap();
        let file = file.to_str().unwrap();
        let pkcs1 = openssl(&["rsa", "-in", file, "-traditional"]);
        assert!(pkcs1.contains("BEGIN RSA PRIVATE KEY"), "{pkcs1}");
        let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", file]);
        for key in [pkcs1, pkcs8] {
            let app = app(&key);
            app.check().unwrap();
            let word = app.word(Millis(1_700_000_000_123)).unwrap();
            let (text, signature) = word.expose().rsplit_once('.').unwrap();
            let public = app.pair().unwrap().public().as_ref().to_vec();
            let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
            public.verify(text.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
            let claims = URL_SAFE_NO_PAD.decode(text.split_once('.').unwrap().1).unwrap();
            let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(claims, json!({ "iat": 1_699_999_940, "exp": 1_700_000_540, "iss": "123" }));
        }
    }

    #[test]
    fn what_is_no_app_is_refused_in_words() {
        let small = openssl(&["genrsa", "1024"]);
        for (app, why) in [
            (app("ghp_token"), "begins with"),
            (app("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"), "cannot be used"),
            (app(&small), "2048 to 4096"),
            (App { id: "1 2".to_owned(), ..app("") }, "client ID"),
            (App { installation: Some("acme".to_owned()), ..app("") }, "number"),
        ] {
            let said = app.check().unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn tokens_are_forgotten_when_their_time_is_over_or_they_open_nothing() {
        let scope = |repository: &str| AccessScope {
            owner: "o".to_owned(),
            api: "https://api".to_owned(),
            repository: repository.to_owned(),
            rights: Rights::Statuses,
        };
        let (all, token) = (Installations::default(), Secret::new("ghs_1"));
        for (repository, until) in [("a/a", 10), ("a/b", 20)] {
            let kept = KeptToken { app: app(""), token: Ok(token.clone()), until: Millis(until) };
            *all.cell(scope(repository), Millis(0)).try_lock().unwrap() = Some(kept);
        }
        let has = |repository: &str, now: u64| {
            all.cell(scope(repository), Millis(now)).try_lock().unwrap().is_some()
        };
        assert!(has("a/a", 5) && has("a/b", 5));
        assert!(has("a/b", 15) && !has("a/a", 15));
        all.forget(&Secret::new("ghs_2"));
        assert!(has("a/b", 15));
        all.forget(&token);
        assert!(!has("a/b", 15));
        let cell = all.cell(scope("a/c"), Millis(0));
        *cell.try_lock().unwrap() = Some(KeptToken { app: app(""), token: Ok(token), until: Millis(20) });
        assert!(has("a/c", 15));
        all.forget_all();
        assert!(!has("a/c", 15), "though somebody holds it still");
    }
}
