//! The way to the API of a project's forge: its address, the repository there, and a token: of the project itself, of its
//! organisation, or got by a GitHub App.

use crate::http::Error;
use crate::http::caller::{AnyAnswer, LazyCaller, Outgoing};
use crate::protocol::Secret;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::installation;
use crate::server::pipelines::forge::limits::pause;
use crate::server::pipelines::forge::words::{headers, leads_on};
use crate::server::secrets::app::{self, NoToken, Rights};
use crate::server::secrets::forge as secrets;
use crate::server::secrets::pace::TokenPace;
use crate::server::secrets::sealer::Sealer;
use crate::server::secrets::tokens::{self, FallbackCredential, TokenUser};
use crate::server::state::Shared;
use crate::server::store::forge_states::Forge;
use crate::server::store::tables::forge::{self, Connection};
use crate::server::store::{Error as StoreError, View, read};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(20);
/// Time between the beginnings of two writes by one token, where the forge minds.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// Calls that one is made of at most, where the forge says that the repository is elsewhere.
const MOST_CALLS: u32 = 4;

/// The source of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenSource {
    /// The token of the project itself.
    Project,
    /// The token of the project's organisation.
    Organisation,
    /// A GitHub App, which gets another one where this one opens nothing.
    App,
}

/// A forge that can be called for a project.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    /// How the project is connected to it.
    pub(super) connection: Connection,
    /// Base of its API.
    pub(super) api: String,
    /// Name of the repository there.
    pub(super) name: String,
    /// Token that opens it.
    pub(super) token: Secret,
    /// The owner of the token.
    pub(super) by: TokenSource,
    /// How fast the token may be used there, which all share that go by it.
    pub(super) pace: Arc<TokenPace>,
}

/// The reason why a call brought no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The call was not made: the forge has asked for a pause, which lasts so long.
    Paused(Duration),
    /// The call failed.
    Failed(Error),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Paused(rest) => write!(
                f,
                "the forge has asked for a pause of this token, which ends in {} s",
                rest.as_secs().saturating_add(1)
            ),
            NoAnswer::Failed(error) => fmt::Display::fmt(error, f),
        }
    }
}

/// A way to a forge, or the reason why there is none, as a phrase for people.
pub(super) enum Reach {
    /// The way is open.
    Open(Box<Reached>),
    /// The way is closed until somebody changes how the project is connected.
    Closed(String),
    /// The token was refused, or a GitHub App is refused one: reports wait until somebody sets that right.
    Later(String),
    /// A GitHub App was not answered when it asked for a token: soon it may be.
    Away(String),
}

/// Finds the way to the forge of a project, with these rights where a GitHub App has to get them.
pub(super) async fn reach(state: &Shared, project: &ProjectId, rights: Rights) -> Result<Reach, StoreError> {
    let (id, sealer) = (project.clone(), state.settings.sealer.clone());
    let read = move |view: &View| {
        let token = secrets::open(view, &sealer, &id, "token")?;
        let token = match token {
            Some(token) => Some((TokenSource::Project, token)),
            None => match tokens::beside(view, &id, TokenUser::ControlPlane)? {
                Some(FallbackCredential::Organisation(sealed)) => {
                    Some((TokenSource::Organisation, tokens::open(&sealer, &sealed)))
                }
                Some(FallbackCredential::App) | None => None,
            },
        };
        let app = match &token {
            Some(_) => None,
            None => app::of_project(view, &sealer, &id)?.and_then(|found| found.app.ok()).map(|app| app.id),
        };
        let slug = read::project_slug(view, &id)?.unwrap_or_default();
        Ok((forge::connection(view, &id)?, token, app, slug))
    };
    let (connection, kept, app, slug) = state.store.read(read).await?;
    let closed = |why: &str| Ok(Reach::Closed(why.to_owned()));
    let Some(connection) = connection else { return closed("the project is connected to no forge") };
    let (Some(api), Some(name)) = (&connection.api_url, connection.name_there(&slug)) else {
        return closed("say where the API of the forge is (`--api URL`)");
    };
    let (api, name) = (api.clone(), name.to_owned());
    if let Some((by, token)) = kept {
        let (whose, anew) = match by {
            TokenSource::Organisation => ("the token of its organisation", "`runlet admin forge-token set`"),
            TokenSource::Project | TokenSource::App => ("its token", "`--with-token`"),
        };
        let token = match token {
            Ok(token) => token,
            Err(why) => {
                return Ok(Reach::Later(format!("{whose} cannot be opened: {why}; set it anew ({anew})")));
            }
        };
        if let Some(why) = connection.token_message {
            let why = format!("{whose} is not used any more: {why}; set it anew ({anew})");
            return Ok(Reach::Later(why));
        }
        let pace = state.paces.of(&[&api, token.expose()]);
        return Ok(Reach::Open(Box::new(Reached { connection, api, name, token, by, pace })));
    }
    Ok(match installation::token(state, project, rights, installation::LAST).await? {
        Some(Ok(token)) => {
            let pace = installation::pace(state, &api, &app.unwrap_or_default(), &name);
            Reach::Open(Box::new(Reached { connection, api, name, token, by: TokenSource::App, pace }))
        }
        Some(Err(NoToken::Refused(why))) => Reach::Later(why),
        Some(Err(NoToken::Unanswered(why))) => Reach::Away(why),
        None => Reach::Closed("there is no token (`--with-token`) that may be used".to_owned()),
    })
}

/// Whether a project has any way to its forge by now: one that was given none may have been connected meanwhile.
pub(super) fn has_way(view: &View, project: &ProjectId) -> Result<bool, StoreError> {
    let is_placed = forge::connection(view, project)?.is_some_and(|connection| connection.api_url.is_some());
    Ok(is_placed
        && (forge::secret(view, project, "token")?.is_some()
            || tokens::beside(view, project, TokenUser::ControlPlane)?.is_some()))
}

impl Reached {
    /// Whether this is still the repository that the project is connected to.
    pub(super) fn is_same_place(&self, view: &View) -> Result<bool, StoreError> {
        let (was, now) = (&self.connection, forge::connection(view, &self.connection.project)?);
        Ok(now.is_some_and(|now| {
            now.forge == was.forge && now.api_url == was.api_url && now.full_name == was.full_name
        }))
    }

    /// Whether this is still the way that the project would go: what a forge says to another token means nothing.
    pub(super) fn is_same_way(&self, view: &View, sealer: &Sealer) -> Result<bool, StoreError> {
        let project = &self.connection.project;
        let (by, token) = match secrets::open(view, sealer, project, "token")? {
            Some(own) => (TokenSource::Project, own.ok()),
            None => match tokens::beside(view, project, TokenUser::ControlPlane)? {
                Some(FallbackCredential::Organisation(sealed)) => {
                    (TokenSource::Organisation, tokens::open(sealer, &sealed).ok())
                }
                Some(FallbackCredential::App) => (TokenSource::App, Some(self.token.clone())),
                None => return Ok(false),
            },
        };
        let is_same_token = by == self.by && token.as_ref() == Some(&self.token);
        Ok(is_same_token && self.is_same_place(view)?)
    }

    /// Makes a call with further headers, at the pace of the token: one write after another, and none of whatever kind
    /// while the forge wants a pause.
    pub(super) async fn call(
        &self,
        caller: &Arc<LazyCaller>,
        method: &'static str,
        mut url: String,
        more: Vec<(&'static str, String)>,
        body: Option<&Value>,
    ) -> Result<AnyAnswer, NoAnswer> {
        let between = match self.connection.forge {
            Forge::GitHub => BETWEEN_WRITES,
            _ => Duration::ZERO,
        };
        let _turn = match method {
            "GET" => None,
            _ => Some(self.pace.turn(between).await),
        };
        let mut headers = headers(self.connection.forge, self.token.expose());
        headers.extend(more);
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut calls = 0;
        loop {
            if let Some(rest) = self.pace.rest() {
                return Err(NoAnswer::Paused(rest));
            }
            let (caller, to, headers, body) =
                (Arc::clone(caller), url.clone(), headers.clone(), body.clone());
            let calling = tokio::task::spawn_blocking(move || {
                caller.call(
                    false,
                    &Outgoing { method, url: &to, headers, body: body.as_bytes(), timeout: CALL },
                )
            });
            let broken_off = |_| Err(Error::Transport("the call was broken off".to_owned()));
            let answer = calling.await.unwrap_or_else(broken_off).map_err(NoAnswer::Failed)?;
            pause(&self.pace, &answer);
            calls += 1;
            match leads_on(method, &url, answer.status, answer.header("location")) {
                Some(place) if calls < MOST_CALLS => url = place,
                _ => return Ok(answer),
            }
        }
    }
}
