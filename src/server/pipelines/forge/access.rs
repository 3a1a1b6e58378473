//! Access of git to the repositories of projects: of the control plane's own, and of tasks whose token is got when they are
//! handed out.

use crate::logging::record;
use crate::protocol::{Secret, Variable};
use crate::server::engine::handout::Unopened;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::installation;
use crate::server::secrets::access::{self, APP_USER, Access, GitLogin};
use crate::server::secrets::app::{NoToken, Rights};
use crate::server::secrets::tokens::{self, FallbackCredential, TokenUser};
use crate::server::state::Shared;
use crate::server::store::status::MessageKind;
use crate::server::store::tables::{forge, jobs};
use crate::server::store::{Effect, Error, Tx};
use std::sync::Arc;
use std::time::Duration;

/// Lets the mirrors into the repositories of projects by what is set for them.
pub fn open_mirrors(state: &Shared) {
    // The state holds the mirrors, and these must not hold the state.
    let weak = Arc::downgrade(state);
    state.settings.mirrors.open_by(move |project: String, url: String| {
        let (state, project) = (weak.upgrade(), ProjectId::from(project));
        async move {
            match state {
                Some(state) => files(&state, &project, &url).await,
                None => Vec::new(),
            }
        }
    });
}

async fn files(state: &Shared, project: &ProjectId, url: &str) -> Vec<Variable> {
    let (sealer, of) = (state.settings.sealer.clone(), project.clone());
    let mut access = match state.store.read(move |view| access::open(view, &sealer, &of)).await {
        Ok(Ok(access)) => access,
        Ok(Err(why)) => {
            record!(Warn, project_id = project; "git gets no keys for a repository: {why}");
            return Vec::new();
        }
        Err(error) => {
            record!(Error, project_id = project; "failed to read the keys of a repository: {error}");
            return Vec::new();
        }
    };
    if access.login.is_none()
        && let Err(error) = let_in_beside(state, project, url, &mut access).await
    {
        record!(Error, project_id = project; "failed to read what opens a repository besides its keys: {error}");
    }
    access.files(url)
}

/// Adds the login that a project goes by that has none of its own.
async fn let_in_beside(
    state: &Shared,
    project: &ProjectId,
    url: &str,
    access: &mut Access,
) -> Result<(), Error> {
    let of = project.clone();
    let beside = state.store.read(move |view| tokens::beside(view, &of, TokenUser::ControlPlane)).await?;
    match beside {
        // Why there is no token was said where it was got; the forge says the rest.
        Some(FallbackCredential::App) => {
            let_in(state, project, url, installation::LAST, access).await.map(drop)
        }
        Some(FallbackCredential::Organisation(token)) => {
            match tokens::login(&state.settings.sealer, &token, url) {
                Some(Ok(login)) => access.login = Some(login),
                Some(Err(why)) => record!(Warn, project_id = project;
                    "git gets no token of the organisation for a repository: {why}; set it anew (`runlet admin forge-token set`)"
                ),
                None => {}
            }
            Ok(())
        }
        None => Ok(()),
    }
}

/// Adds the login that a GitHub App gets.
async fn let_in(
    state: &Shared,
    project: &ProjectId,
    url: &str,
    least: Duration,
    access: &mut Access,
) -> Result<Result<(), NoToken>, Error> {
    let of = project.clone();
    let connection = state.store.read(move |view| forge::connection(view, &of)).await?;
    let api = connection.and_then(|connection| connection.api_url).unwrap_or_default();
    if !access::is_of_api(&api, url) {
        return Ok(Ok(()));
    }
    Ok(match installation::token(state, project, Rights::Contents, least).await? {
        Some(Ok(token)) => {
            access.login = Some(GitLogin { username: APP_USER.to_owned(), token, is_bearer: false });
            Ok(())
        }
        Some(Err(why)) => Err(why),
        None => Ok(()),
    })
}

/// Completes a task that git is let in for by a GitHub App, and writes it as JSON. Without a token its job is told why.
pub async fn open_task(state: &Shared, unopened: Unopened) -> Result<Vec<u8>, Error> {
    let Unopened { mut handed, mut access, url, project, job, pipeline } = unopened;
    if let Err(why) = let_in(state, &project, &url, installation::FOR_A_JOB, &mut access).await? {
        let write = move |tx: &Tx<'_>| {
            // A repeated claim gets the same task, and adds no second message.
            if jobs::add_message_once(tx, &job, MessageKind::Warning, &why.to_string())? {
                tx.effect(Effect::Changed(pipeline));
            }
            Ok(())
        };
        state.store.write(write).await?;
    }
    let masked: Vec<Secret> = access.masked();
    handed.task.mask.extend(masked);
    handed.task.git_files = access.files(&url);
    Ok(serde_json::to_vec(&handed)?)
}
