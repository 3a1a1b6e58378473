//! Holders of tokens: people, runners of a resource class, and task agents. Tokens are looked up by their hash, so
//! that how long it takes tells nothing about them.

use crate::server::ids::{ClassTokenId, PersonalTokenId, ResourceClassId, UserId};
use crate::server::store::tables::tasks::{self, TaskRow};
use crate::server::store::tables::{classes, people};
use crate::server::store::{Error, View};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::net::SocketAddr;

/// The bearer token of an `Authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    credentials(header, "Bearer")
}

/// The credentials of an `Authorization` header that has this scheme, in letters of any case.
pub fn credentials<'h>(header: &'h str, scheme: &str) -> Option<&'h str> {
    let (given, credentials) = header.trim_start().split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
}

/// A person, by a personal token.
#[derive(Clone, Debug)]
pub struct Person {
    /// Identifies them in what they trigger, cancel and approve.
    pub id: UserId,
    /// The name that others call them by; unique.
    pub login: String,
    /// Whether they may change what is set up.
    pub is_admin: bool,
    /// Identifies the token by which they called.
    pub token: PersonalTokenId,
}

impl Person {
    /// The person of the first of these tokens that is one.
    pub fn find(view: &View, tokens: &[String]) -> Result<Option<Self>, Error> {
        for token in tokens {
            if let Some(row) = people::person_of_token(view, &token_hash(token))? {
                return Ok(Some(Self {
                    id: row.user,
                    login: row.login,
                    is_admin: row.is_admin,
                    token: row.token,
                }));
            }
        }
        Ok(None)
    }
}

/// A person who may change what is set up: resource classes, projects, secrets, people.
#[derive(Clone, Debug)]
pub struct Administrator(pub Person);

/// A runner, by its resource class token.
#[derive(Clone, Debug)]
pub struct ClassToken {
    /// Identifies the token.
    pub id: ClassTokenId,
    /// Identifies the class, whatever becomes of its name.
    pub class_id: ResourceClassId,
    /// Name of the class: `namespace/name`.
    pub class: String,
}

impl ClassToken {
    /// The holder of a token.
    pub fn find(view: &View, token: &str) -> Result<Option<Self>, Error> {
        let row = classes::class_of_token(view, &token_hash(token))?;
        Ok(row.map(|row| Self { id: row.token, class_id: row.class, class: row.name }))
    }

    /// Whether it has not been deleted since the call began.
    pub fn is_there(&self, view: &View) -> Result<bool, Error> {
        classes::is_token(view, &self.id)
    }
}

/// The task of a task token.
pub fn task_of(view: &View, token: &str) -> Result<Option<TaskRow>, Error> {
    tasks::find_by_token(view, &token_hash(token))
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// A fresh secret of 256 bits with a prefix that says what it opens.
pub fn new_token(prefix: &str) -> Result<String, Error> {
    let mut bytes = [0u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Corrupt("the system gave no random bytes".into()))?;
    Ok(format!("{prefix}{}", crate::system::hex(&bytes)))
}

/// The hash of a token, which is all that is stored of it. Looking a token up by its hash tells nothing about it by timing.
pub fn token_hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}
