//! The round from here to a forge and back: what it says of itself and of a repository, the webhook that it is asked to
//! make, and the test delivery that it is asked for.

use crate::http::caller::{AnyAnswer, LazyCaller};
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::hooks::{Hooks, id_of};
use crate::server::pipelines::forge::reach::{Reach, Reached, TokenSource, reach};
use crate::server::pipelines::forge::words::{about_calls, said};
use crate::server::secrets::app::Rights;
use crate::server::secrets::forge as secrets;
use crate::server::state::Shared;
use crate::server::store::forge_states::{DeliverySource, Verdict};
use crate::server::store::tables::deliveries::{self, ShownDelivery};
use crate::server::store::{Error as StoreError, View};
use serde_json::Value;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a test delivery is waited for: forges send it a moment later.
const COMING: Duration = Duration::from_secs(10);
/// How long a forge may take to say something of itself.
const FOUND: Duration = Duration::from_secs(10);
/// Pages of the list of webhooks that are looked at.
const MOST_PAGES: u32 = 10;
/// Pause between two looks for it.
const BETWEEN: Duration = Duration::from_millis(100);

/// A forge's own words about a repository and about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Name of the default branch there.
    pub default_branch: Option<String>,
    /// Version of the forge; clouds have none.
    pub version: Option<String>,
    /// The reason why the forge told nothing.
    pub message: Option<String>,
    /// Whether that is because it did not answer in time.
    pub is_silent: bool,
}

/// Makes a call; any answer but a good one is an error in words.
async fn ask(
    way: &Reached,
    caller: &Arc<LazyCaller>,
    method: &'static str,
    url: String,
    body: Option<&Value>,
) -> Result<AnyAnswer, String> {
    match way.call(caller, method, url, Vec::new(), body).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(answer),
        Ok(answer) => Err(said(&answer)),
        Err(error) => Err(error.to_string()),
    }
}

fn json(answer: &AnyAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Asks a forge about the repository of a project and about itself; `None` where there is no token for it. A forge that does
/// not answer is not waited for for long: somebody waits for what is found.
pub async fn about(state: &Shared, project: &ProjectId) -> Result<Option<About>, StoreError> {
    match tokio::time::timeout(FOUND, ask_about(state, project)).await {
        Ok(told) => told,
        Err(_) => {
            let message = format!(
                "the API of the forge has not answered within {} s: is it there (`--api`), and can it be reached from here?",
                FOUND.as_secs()
            );
            Ok(Some(About { message: Some(message), is_silent: true, ..About::default() }))
        }
    }
}

async fn ask_about(state: &Shared, project: &ProjectId) -> Result<Option<About>, StoreError> {
    let way = match reach(state, project, Rights::Contents).await? {
        Reach::Open(way) => way,
        Reach::Later(why) | Reach::Away(why) => {
            return Ok(Some(About { message: Some(why), ..About::default() }));
        }
        Reach::Closed(_) => return Ok(None),
    };
    let Some(calls) = about_calls(way.connection.forge, &way.api, &way.name) else { return Ok(None) };
    let (caller, mut about) = (Arc::<LazyCaller>::default(), About::default());
    match ask(&way, &caller, "GET", calls.repository, None).await {
        Ok(answer) => {
            let branch = json(&answer).pointer(calls.branch_at).and_then(Value::as_str).map(str::to_owned);
            about.default_branch = branch;
            about.version = answer.header("x-github-enterprise-version").map(str::to_owned);
        }
        Err(why) => about.message = Some(why),
    }
    if let Some(url) = calls.version {
        // A forge that keeps its version to itself is none the worse.
        let said = ask(&way, &caller, "GET", url, None).await.map(|answer| json(&answer)).unwrap_or_default();
        about.version = said["version"].as_str().map(str::to_owned);
    }
    Ok(Some(about))
}

/// Outcome of the wish for a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// Whether it is there now.
    pub is_set: bool,
    /// A sentence about it.
    pub said: String,
}

impl Hooked {
    /// A webhook that was not set, with the reason.
    pub fn not(why: impl Display) -> Self {
        Self { is_set: false, said: format!("it was not set: {why}") }
    }
}

/// Calls about the webhooks of one repository.
struct Calls {
    way: Box<Reached>,
    caller: Arc<LazyCaller>,
    hooks: Hooks,
}

impl Calls {
    /// Makes a call; any answer but a good one is a sentence about what is missing.
    async fn make(&self, method: &'static str, url: String, body: Option<&Value>) -> Result<Value, String> {
        match self.way.call(&self.caller, method, url, Vec::new(), body).await {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(json(&answer)),
            Ok(answer) if answer.status < 400 => Err(said(&answer)),
            Ok(answer) => {
                let said = String::from_utf8_lossy(&answer.body);
                Err(self.hooks.refused(answer.status, &said, self.way.by == TokenSource::App))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The ids of the webhooks that lead here by now.
    async fn ours(&self) -> Result<Vec<String>, String> {
        let mut ids = Vec::new();
        for page in 1..=MOST_PAGES {
            let found = self.hooks.ours(&self.make("GET", self.hooks.page(page), None).await?);
            ids.extend(found.ids);
            if !found.has_more {
                break;
            }
        }
        Ok(ids)
    }

    /// Makes the webhook, or makes of the one that is there what it is to be, and takes away what leads here besides.
    /// Returns its id, and how it was done.
    async fn set(&self) -> Result<(String, String), String> {
        let (before, body) = (self.ours().await?, self.hooks.body());
        let kept = before.first().zip(self.hooks.change());
        let mut answer = match kept {
            Some((id, method)) => self.make(method, self.hooks.one(id), Some(&body)).await?,
            None => self.make("POST", self.hooks.list().to_owned(), Some(&body)).await?,
        };
        let id = match kept {
            Some((id, _)) => id.clone(),
            None => id_of(&answer).ok_or("the forge does not say which webhook it has made")?,
        };
        if let Some(body) = self.hooks.unsigned(&answer) {
            answer = self.make("PUT", self.hooks.one(&id), Some(&body)).await?;
        }
        let mut done = match (before.is_empty(), kept) {
            (true, _) => "it was set".to_owned(),
            (false, Some(_)) => "it was there, and was set anew".to_owned(),
            (false, None) => "it was set in place of the one that was there".to_owned(),
        };
        if answer["signing_token_present"] == Value::Bool(true) {
            done.push_str(", and signs");
        }
        let mut left = 0;
        for other in before.iter().filter(|other| **other != id) {
            left += usize::from(self.make("DELETE", self.hooks.one(other), None).await.is_err());
        }
        if left > 0 {
            done.push_str(&format!(" ({left} more lead here and could not be taken away)"));
        }
        Ok((id, done))
    }
}

/// Has the forge send its events to `address`, once however often it is asked, and asks it for a test delivery.
pub async fn set_hook(state: &Shared, project: &ProjectId, address: &str) -> Result<Hooked, StoreError> {
    let (id, sealer) = (project.clone(), state.settings.sealer.clone());
    let read = move |view: &View| {
        let secret = secrets::open(view, &sealer, &id, "hook")?.and_then(Result::ok);
        Ok((secret, deliveries::list(view, &id, 1)?.first().map_or(0, |delivery| delivery.seq)))
    };
    let (Some(secret), last) = state.store.read(read).await? else {
        return Ok(Hooked::not("its secret cannot be opened: `--rotate-secret` makes a new one"));
    };
    let way = match reach(state, project, Rights::Hooks).await? {
        Reach::Open(way) => way,
        Reach::Closed(why) | Reach::Later(why) | Reach::Away(why) => return Ok(Hooked::not(why)),
    };
    let Some(hooks) = Hooks::of(way.connection.forge, &way.api, &way.name, address, secret.expose()) else {
        return Ok(Hooked::not("`runlet admin project hook` prints the hook of a plain git server"));
    };
    let calls = Calls { way, caller: Arc::default(), hooks };
    let (hook, done) = match calls.set().await {
        Ok(set) => set,
        Err(why) => return Ok(Hooked::not(why)),
    };
    let set = |said: String| Ok(Hooked { is_set: true, said });
    let Some(url) = calls.hooks.test(&hook) else {
        return set(format!("{done}; this forge sends no test delivery when it is asked"));
    };
    if let Err(why) = calls.make("POST", url, None).await {
        return set(format!("{done}, but there is no test delivery: {why}"));
    }
    set(match coming(state, project, last).await? {
        Some(ShownDelivery { verdict: Verdict::Refused, sentence, .. }) => {
            format!("{done}, and its test delivery was refused: {sentence}")
        }
        Some(ShownDelivery { event, .. }) => format!("{done}, and its test delivery came (`{event}`)"),
        None => format!(
            "{done}, but no test delivery came within {} s: can the forge reach {address}? (its own list of deliveries says)",
            COMING.as_secs()
        ),
    })
}

/// Waits for the first delivery of a forge to a project after this one; where none came that was believed, one that was not.
async fn coming(state: &Shared, project: &ProjectId, last: i64) -> Result<Option<ShownDelivery>, StoreError> {
    let end = Instant::now() + COMING;
    loop {
        let id = project.clone();
        let listed = state.store.read(move |view| deliveries::list(view, &id, 10)).await?;
        let is_it =
            |delivery: &ShownDelivery| delivery.seq > last && delivery.source == DeliverySource::Webhook;
        let (strange, mut believed): (Vec<_>, Vec<_>) =
            listed.into_iter().filter(is_it).partition(|delivery| delivery.is_strange);
        let is_over = Instant::now() > end || *state.stopping.borrow();
        if !believed.is_empty() || is_over {
            believed.extend(strange);
            return Ok(believed.into_iter().next());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
