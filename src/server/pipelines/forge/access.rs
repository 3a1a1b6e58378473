//! Access of git to the repositories of projects: of the control plane's own, and of tasks whose token is got when they are
//! handed out.

use crate::logging::record;
use crate::protocol::Secret;
use crate::server::engine::handout::Unopened;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::installation;
use crate::server::pipelines::repository::Opening;
use crate::server::secrets::access::{self, APP_USER, Access, GitLogin};
use crate::server::secrets::app::{NoToken, Rights};
use crate::server::secrets::tokens::{self, FallbackCredential, TokenUser};
use crate::server::state::Shared;
use crate::server::store::status::MessageKind;
use crate::server::store::tables::{forge, jobs};
use crate::server::store::{Effect, Error, Tx, View, read};
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
                Some(state) => opening(&state, &project, &url).await,
                None => Opening::default(),
            }
        }
    });
}

async fn opening(state: &Shared, project: &ProjectId, url: &str) -> Opening {
    let (sealer, of) = (state.settings.sealer.clone(), project.clone());
    let read = move |view: &View| {
        Ok((access::open(view, &sealer, &of)?, read::project_slug(view, &of)?.unwrap_or_default()))
    };
    let (mut access, slug) = match state.store.read(read).await {
        Ok((Ok(access), slug)) => (access, slug),
        Ok((Err(why), slug)) => {
            record!(Warn, project_id = project; "git gets no keys for a repository: {why}");
            let shut = format!(
                "what is to let git in cannot be opened: {why}; set it again with `runlet admin project access {slug}`"
            );
            return Opening { files: Vec::new(), shut };
        }
        Err(error) => {
            record!(Error, project_id = project; "failed to read the keys of a repository: {error}");
            return Opening::default();
        }
    };
    let shut = match &access.login {
        _ if !is_web(url) => of_keys(&access, &slug),
        Some(login) => format!(
            "the token of the project (with the name `{}`) opens nothing there: set another one with `runlet admin project access {slug} --with-token`",
            login.username
        ),
        None => match let_in_beside(state, project, &slug, url, &mut access).await {
            Ok(shut) => shut,
            Err(error) => {
                record!(Error, project_id = project; "failed to read what opens a repository besides its keys: {error}");
                String::new()
            }
        },
    };
    Opening { files: access.files(url), shut }
}

fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// The sentence about a repository behind ssh that is shut.
fn of_keys(access: &Access, slug: &str) -> String {
    match access.keys.is_empty() {
        true => format!(
            "the project has no key that opens it: `runlet admin project access {slug} --new-key` makes one, whose public half the forge is given"
        ),
        false => format!(
            "no key of the project opens it: give the forge the public half of one (`runlet admin project access {slug}` shows them)"
        ),
    }
}

/// Adds the login that a project goes by that has none of its own. Returns what is said where that opens nothing.
async fn let_in_beside(
    state: &Shared,
    project: &ProjectId,
    slug: &str,
    url: &str,
    access: &mut Access,
) -> Result<String, Error> {
    let of = project.clone();
    let beside = state.store.read(move |view| tokens::beside(view, &of, TokenUser::ControlPlane)).await?;
    let set = format!("`runlet admin project access {slug} --with-token` sets a token for it");
    let elsewhere = |what: &str, api: &str| {
        format!("it asks for a login, and {what} is for the host of `{api}` only: {set}")
    };
    Ok(match beside {
        Some(FallbackCredential::App) => {
            match let_in(state, project, url, installation::LAST, access).await? {
                LetIn::Granted => format!(
                    "a token of the GitHub App opens nothing there: is the address that of the repository that it is installed on? {set}"
                ),
                LetIn::Refused(why) => why.to_string(),
                LetIn::Elsewhere(api) if api.is_empty() => format!(
                    "it asks for a login, and the GitHub App is not used, because the project is not connected to GitHub: `runlet admin project connect {slug}`, or {set}"
                ),
                LetIn::Elsewhere(api) => elsewhere("the GitHub App", &api),
            }
        }
        Some(FallbackCredential::Organisation(token)) => {
            let organisation = slug.rsplit_once('/').map_or(slug, |(organisation, _)| organisation);
            let anew = format!("set it anew (`runlet admin forge-token set {organisation}`)");
            match tokens::login(&state.settings.sealer, &token, url) {
                Some(Ok(login)) => {
                    access.login = Some(login);
                    format!("the token of its organisation opens nothing there: {anew}, or {set}")
                }
                Some(Err(why)) => {
                    record!(Warn, project_id = project;
                        "git gets no token of the organisation for a repository: {why}; set it anew (`runlet admin forge-token set`)"
                    );
                    format!("the token of its organisation cannot be opened: {why}; {anew}")
                }
                None => elsewhere("the token of its organisation", &token.api_url),
            }
        }
        None => format!(
            "it asks for a login, and the project has none: `runlet admin project access {slug} --with-token` sets one (a repository that is not there asks as well)"
        ),
    })
}

/// Outcome of the wish of a GitHub App to let git in.
enum LetIn {
    /// Git has its token.
    Granted,
    /// Reason why the App gets no token.
    Refused(NoToken),
    /// Tokens of the App are shown to the host of this API only, which is another one.
    Elsewhere(String),
}

/// Adds the login that a GitHub App gets.
async fn let_in(
    state: &Shared,
    project: &ProjectId,
    url: &str,
    least: Duration,
    access: &mut Access,
) -> Result<LetIn, Error> {
    let of = project.clone();
    let connection = state.store.read(move |view| forge::connection(view, &of)).await?;
    let api = connection.and_then(|connection| connection.api_url).unwrap_or_default();
    if !access::is_of_api(&api, url) {
        return Ok(LetIn::Elsewhere(api));
    }
    Ok(match installation::token(state, project, Rights::Contents, least).await? {
        Some(Ok(token)) => {
            access.login = Some(GitLogin { username: APP_USER.to_owned(), token, is_bearer: false });
            LetIn::Granted
        }
        Some(Err(why)) => LetIn::Refused(why),
        // Somebody took the App away meanwhile.
        None => LetIn::Elsewhere(String::new()),
    })
}

/// Completes a task that git is let in for by a GitHub App, and writes it as JSON. Without a token its job is told why.
pub async fn open_task(state: &Shared, unopened: Unopened) -> Result<Vec<u8>, Error> {
    let Unopened { mut handed, mut access, url, project, job, pipeline } = unopened;
    if let LetIn::Refused(why) = let_in(state, &project, &url, installation::FOR_A_JOB, &mut access).await? {
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
