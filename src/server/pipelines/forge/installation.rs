//! Tokens of GitHub Apps: an App shows the forge a signed word and gets a token for one repository and some rights in it,
//! which is kept until shortly before its end.

use crate::http::Error;
use crate::http::caller::{AnyAnswer, Caller, Outgoing};
use crate::http::retry::retry_after;
use crate::logging::record;
use crate::protocol::Secret;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::limits::pause;
use crate::server::pipelines::forge::words::{answered, headers, path};
use crate::server::secrets::app::{self, AccessScope, App, KeptToken, NoToken, Rights};
use crate::server::secrets::pace::TokenPace;
use crate::server::secrets::sealer::Sealer;
use crate::server::state::Shared;
use crate::server::store::forge_states::Forge;
use crate::server::store::read;
use crate::server::store::tables::forge;
use crate::server::store::{Error as StoreError, View};
use crate::server::time::Millis;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A token is not used in the last minutes of its time.
pub const LAST: Duration = Duration::from_secs(5 * 60);
/// A token that goes to a job has so much of its hour left at least.
pub const FOR_A_JOB: Duration = Duration::from_secs(30 * 60);
/// How long the forge is not asked again after it gave no token.
pub const AGAIN: Duration = Duration::from_secs(30);
/// How long the calls for one token may take together.
const CALLS: Duration = Duration::from_secs(10);
/// Clocks that differ by more than this are told of: the forge minds, sooner or later.
const APART: Duration = Duration::from_secs(30);
/// Advice where a forge does not believe the word of an App.
const OTHER_KEY: &str =
    "its id and its private key do not belong together, or the key was deleted: set both again";

/// A project that goes by an App, as far as it can.
enum Found {
    None,
    Not(NoToken),
    App { app: App, scope: AccessScope },
}

fn find(view: &View, sealer: &Sealer, project: &ProjectId, rights: Rights) -> Result<Found, StoreError> {
    let Some(found) = app::of_project(view, sealer, project)? else { return Ok(Found::None) };
    let app::FoundApp { owner, app } = found;
    let app = match app {
        Ok(app) => app,
        Err(why) => {
            let why = format!("the GitHub App cannot be opened: {why}; set it again");
            return Ok(Found::Not(NoToken::Refused(why)));
        }
    };
    let slug = read::project_slug(view, project)?.unwrap_or_default();
    let connection = forge::connection(view, project)?.filter(|connection| connection.forge == Forge::GitHub);
    let api = connection.as_ref().and_then(|connection| connection.api_url.clone());
    let name = connection.as_ref().and_then(|connection| connection.name_there(&slug));
    Ok(match (api, name) {
        (Some(api), Some(name)) => {
            let scope =
                AccessScope { owner: owner.id().to_owned(), api, repository: name.to_owned(), rights };
            Found::App { app, scope }
        }
        _ => Found::Not(NoToken::Refused(format!(
            "the GitHub App is not used, because the project is not connected to GitHub: `runlet admin project connect {slug}`"
        ))),
    })
}

/// The token by which a project has these rights in its repository, good for as long as `least` at least; `None` where it
/// goes by no App.
pub async fn token(
    state: &Shared,
    project: &ProjectId,
    rights: Rights,
    least: Duration,
) -> Result<Option<Result<Secret, NoToken>>, StoreError> {
    let (id, sealer) = (project.clone(), state.settings.sealer.clone());
    let (app, scope) = match state.store.read(move |view| find(view, &sealer, &id, rights)).await? {
        Found::None => return Ok(None),
        Found::Not(why) => return Ok(Some(Err(why))),
        Found::App { app, scope } => (app, scope),
    };
    let cell = state.installations.cell(scope.clone(), Millis::now());
    // Others that come meanwhile wait for this one, and ask for none of their own.
    let mut kept = cell.lock().await;
    let now = Millis::now();
    if let Some(kept) = kept.as_ref().filter(|kept| kept.app == app) {
        let needed = if kept.token.is_ok() { now.plus(least) } else { now };
        if kept.until > needed {
            return Ok(Some(kept.token.clone()));
        }
    }
    let pace = pace(state, &scope.api, &app.id, &scope.repository);
    if let Some(rest) = pace.rest() {
        let (id, seconds) = (&app.id, rest.as_secs() + 1);
        let why =
            format!("the forge has asked for a pause of the GitHub App {id}, which ends in {seconds} s");
        return Ok(Some(Err(NoToken::Unanswered(why))));
    }
    let (by, of) = (app.clone(), scope);
    let got = tokio::task::spawn_blocking(move || get(&by, &of, &pace, now)).await;
    let broken_off = |_| Err(NoToken::Unanswered("the call for a token was broken off".to_owned()));
    let got = got.unwrap_or_else(broken_off);
    let (token, until) = match got {
        Ok((token, until)) => (Ok(token), until),
        Err(why) => {
            record!(Warn, project_id = project; "{why}");
            (Err(why), now.plus(AGAIN))
        }
    };
    *kept = Some(KeptToken { app, token: token.clone(), until });
    Ok(Some(token))
}

/// The pace of an App at the account that a repository is of: limits are for all tokens of an installation.
pub fn pace(state: &Shared, api: &str, app: &str, repository: &str) -> Arc<TokenPace> {
    let account = repository.split('/').next().unwrap_or_default().to_ascii_lowercase();
    state.paces.of(&[api, "app", app, &account])
}

/// Gets a token from the forge, with the end of its time.
fn get(app: &App, scope: &AccessScope, pace: &TokenPace, now: Millis) -> Result<(Secret, Millis), NoToken> {
    let word = app.word(now).map_err(NoToken::Refused)?;
    let failed = |error: Error| match error.is_retryable() {
        true => NoToken::Unanswered(error.to_string()),
        false => NoToken::Refused(error.to_string()),
    };
    let caller = Caller::new(false).map_err(failed)?;
    let end = Instant::now() + CALLS;
    let call = |method, path: &str, body: &[u8]| {
        let (url, headers) = (format!("{}{path}", scope.api), headers(Forge::GitHub, word.expose()));
        // A call without any time left is made all the same, and says that it waited.
        let timeout = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answer = caller.call(&Outgoing { method, url: &url, headers, body, timeout }).map_err(
            |error| match failed(error) {
                NoToken::Unanswered(why) => NoToken::Unanswered(format!(
                    "the GitHub App {} gets no token for `{}`: {why}; it is tried again",
                    app.id, scope.repository
                )),
                refused => refused,
            },
        )?;
        match (pause(pace, &answer), answer.status) {
            (Some(_), 400..) => {
                let said = answered(answer.status, &String::from_utf8_lossy(&answer.body));
                Err(NoToken::Unanswered(format!(
                    "the GitHub App {} gets no token for `{}` now: {said}; it is tried again",
                    app.id, scope.repository
                )))
            }
            _ => Ok(answer),
        }
    };
    let installation = match &app.installation {
        Some(id) => id.clone(),
        None => {
            let answer = call("GET", &format!("/repos/{}/installation", path(&scope.repository)), b"")?;
            let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            match found["id"].as_u64().filter(|_| answer.status == 200) {
                Some(id) => id.to_string(),
                None => return Err(refused(app, scope, &answer, true)),
            }
        }
    };
    let (permission, level) = scope.rights.permission();
    let short = scope.repository.rsplit('/').next().unwrap_or_default();
    let body = json!({ "repositories": [short], "permissions": { permission: level } }).to_string();
    let path = format!("/app/installations/{installation}/access_tokens");
    let answer = call("POST", &path, body.as_bytes())?;
    let made: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let until = made["expires_at"].as_str().and_then(|text| humantime::parse_rfc3339_weak(text).ok());
    let until = until.and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok());
    match (answer.status, made["token"].as_str(), until) {
        (200..=299, Some(token), Some(until)) => Ok((Secret::new(token), Millis(until.as_millis() as u64))),
        _ => Err(refused(app, scope, &answer, false)),
    }
}

/// Advice about clocks that are apart, where that is why the forge believes nothing: by the date of its answer, or because
/// it minds the times of the word that it was shown.
fn clocks(answer: &AnyAnswer, said: &str, now: Millis) -> Option<String> {
    let date = answer.header("date").and_then(|date| retry_after(date, SystemTime::UNIX_EPOCH));
    let here = Duration::from_millis(now.0);
    let apart = date.map(|there| (there.abs_diff(here), there > here));
    let minds_times =
        ["'iat'", "'exp'", "Issued at", "Expiration time"].iter().any(|word| said.contains(word));
    let least = if minds_times { APART / 2 } else { APART };
    match apart.filter(|(apart, _)| *apart > least) {
        Some((apart, is_behind)) => {
            let apart = match apart.as_secs() {
                seconds @ ..120 => format!("{seconds} s"),
                seconds => format!("{} minutes", (seconds + 30) / 60),
            };
            let side = if is_behind { "behind" } else { "ahead" };
            let told = format!(
                "the clocks of this host and of the forge are {apart} apart, this one is {side}: set the clock of the host of the control plane, best by NTP"
            );
            // Without a word about times another cause is as likely, and the clock alone may not be enough.
            Some(if minds_times { told } else { format!("{told}; if that changes nothing, {OTHER_KEY}") })
        }
        None => minds_times.then(|| {
            "the clock of this host and that of the forge are apart: set the clock of the host of the control plane, best by NTP"
                .to_owned()
        }),
    }
}

/// An answer of the forge without a token, as a sentence about what to do.
fn refused(app: &App, scope: &AccessScope, answer: &AnyAnswer, is_search: bool) -> NoToken {
    let (id, repository, rights) = (&app.id, &scope.repository, scope.rights.said());
    let said = answered(answer.status, &String::from_utf8_lossy(&answer.body));
    let advice = match answer.status {
        401 => clocks(answer, &said, Millis::now()).unwrap_or_else(|| OTHER_KEY.to_owned()),
        403 => "the installation is suspended, or the forge limits it: look at the settings of the organisation there".to_owned(),
        404 if is_search => {
            format!("it is not installed on `{repository}`: install it there, with access to this repository")
        }
        404 => format!("there is no such installation of it on `{repository}`: leave the installation away to have it found"),
        422 => format!("its installation has no access to `{repository}`, or not the permission `{rights}`: grant it in the settings of the App, and accept it where it is installed"),
        _ => "it is tried again".to_owned(),
    };
    let why = format!("the GitHub App {id} gets no token for `{repository}`: {said}; {advice}");
    if matches!(answer.status, 401 | 403 | 404 | 422) {
        NoToken::Refused(why)
    } else {
        NoToken::Unanswered(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told_by_the_date_of_an_answer_and_by_its_words() {
        // Sun, 06 Nov 1994 08:49:37 GMT.
        const THERE: u64 = 784_111_777;
        let told = |date: Option<&str>, said: &str, here: u64| {
            let headers = date.map(|date| ("date".to_owned(), date.to_owned())).into_iter().collect();
            let answer = AnyAnswer { status: 401, headers, body: Vec::new() };
            clocks(&answer, said, Millis(here * 1000))
        };
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let (iat, key) = ("'Issued at' claim ('iat') must be an Integer", "could not be decoded");
        for (date, said, here, words) in [
            (date, iat, THERE + 65, "are 65 s apart, this one is ahead: set the clock"),
            (date, key, THERE - 545, "are 9 minutes apart, this one is behind: set the clock"),
            (date, iat, THERE + 30, "are 30 s apart"),
            (date, key, THERE + 31, "are 31 s apart, this one is ahead: set the clock"),
            (date, key, THERE - 31, "are 31 s apart, this one is behind: set the clock"),
            // Differences as small as this need not be why: the other cause is said as well.
            (date, key, THERE + 31, "if that changes nothing, its id and its private key"),
            (date, iat, THERE, "the clock of this host and that of the forge are apart"),
            (None, iat, THERE, "the clock of this host and that of the forge are apart"),
        ] {
            assert!(told(date, said, here).is_some_and(|told| told.contains(words)), "{said} {words}");
        }
        for (date, here) in
            [(date, THERE + 30), (date, THERE - 30), (date, THERE), (None, THERE), (Some("today"), THERE)]
        {
            assert_eq!(told(date, key, here), None);
        }
        assert!(told(date, iat, THERE + 65).is_some_and(|told| !told.contains("private key")));
    }

    #[test]
    fn refusals_say_what_to_do() {
        let app = App { id: "7".to_owned(), installation: None, key: Secret::new("") };
        let scope = AccessScope {
            owner: "o".to_owned(),
            api: "https://api".to_owned(),
            repository: "acme/app".to_owned(),
            rights: Rights::Statuses,
        };
        let answer = |status, date: Option<&str>, is_search| {
            let headers = date.map(|date| ("date".to_owned(), date.to_owned())).into_iter().collect();
            refused(
                &app,
                &scope,
                &AnyAnswer { status, headers, body: b"{\"message\":\"no\"}".to_vec() },
                is_search,
            )
        };
        let said = |status, date, is_search| match answer(status, date, is_search) {
            NoToken::Refused(why) => why,
            NoToken::Unanswered(_) => "nobody has to change anything".to_owned(),
        };
        assert!(
            said(401, Some("Sun, 06 Nov 1994 08:49:37 GMT"), true)
                .contains("minutes apart, this one is ahead")
        );
        assert!(said(401, None, true).contains("private key"));
        assert!(said(404, None, true).contains("not installed on `acme/app`"));
        assert!(said(422, None, false).contains("`Commit statuses: Read and write`"));
        let answered = answer(503, None, false);
        assert!(matches!(answered, NoToken::Unanswered(_)), "it may pass");
        let all = answered.to_string();
        assert!(all.contains("App 7") && all.contains("answered 503") && all.contains("again"), "{all}");
    }
}
