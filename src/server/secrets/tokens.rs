//! Tokens of organisations for their forge, and what a project goes by that has no token of its own: a GitHub App of its
//! own, then the token of its organisation, then the App of its organisation.

use super::access::{GitLogin, is_of_api};
use super::sealer::{SealError, SealedFor, Sealer};
use crate::protocol::Secret;
use crate::server::ids::{OrganisationId, ProjectId};
use crate::server::store::forge_states::Forge;
use crate::server::store::tables::apps::{self, AppOwner};
use crate::server::store::tables::tokens::{self, SealedToken};
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;

/// The credential of a project that has no token of its own.
pub enum FallbackCredential {
    /// A GitHub App, of the project or of its organisation.
    App,
    /// The token of its organisation.
    Organisation(SealedToken),
}

/// The party that shows a token to a forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUser {
    /// The control plane itself.
    ControlPlane,
    /// Jobs of the project: they get a token that all projects of an organisation go by only where that is wanted.
    Jobs,
}

/// Finds what a project goes by that has no token of its own.
pub fn beside(
    view: &View,
    project: &ProjectId,
    user: TokenUser,
) -> Result<Option<FallbackCredential>, Error> {
    let app = apps::owner_for(view, project)?;
    if let Some(AppOwner::Project(_)) = app {
        return Ok(Some(FallbackCredential::App));
    }
    let token = tokens::of_project(view, project)?;
    Ok(match token.filter(|token| token.is_for_jobs || user == TokenUser::ControlPlane) {
        Some(token) => Some(FallbackCredential::Organisation(token)),
        None => app.map(|_| FallbackCredential::App),
    })
}

/// A token of an organisation, as people give it.
pub struct NewToken {
    /// Organisation whose projects go by it.
    pub organisation: OrganisationId,
    /// The forge that it is for.
    pub forge: Forge,
    /// Base of the API that it is shown to.
    pub api_url: String,
    /// The name that goes with it where git asks for one.
    pub username: String,
    /// Whether jobs get it for checkout.
    pub is_for_jobs: bool,
    /// The token in the clear.
    pub token: Secret,
}

/// Keeps the token of an organisation in place of what was there. It is sealed for its address as well, so that whoever
/// can write the database has it shown to nobody else.
pub fn keep(tx: &Tx<'_>, sealer: &Sealer, new: NewToken, now: Millis) -> Result<(), Error> {
    let NewToken { organisation, forge, api_url, username, is_for_jobs, token } = new;
    let fail = |why: SealError| Error::Corrupt(format!("the token cannot be sealed: {why}"));
    let sealed = sealer.seal(SealedFor::Organisation(&organisation, &api_url), &token).map_err(fail)?;
    tokens::set(
        tx,
        &SealedToken { organisation, forge, api_url, username, is_for_jobs, sealed, updated_at: now },
    )
}

/// Opens the token of an organisation.
pub fn open(sealer: &Sealer, token: &SealedToken) -> Result<Secret, SealError> {
    sealer.open(SealedFor::Organisation(&token.organisation, &token.api_url), &token.sealed)
}

/// The login by which the token of an organisation lets git into a repository; `None` where that is at another host than
/// the API that it is for.
pub fn login(sealer: &Sealer, token: &SealedToken, url: &str) -> Option<Result<GitLogin, SealError>> {
    let with = |opened| GitLogin { username: token.username.clone(), token: opened, is_bearer: false };
    is_of_api(&token.api_url, url).then(|| open(sealer, token).map(with))
}
