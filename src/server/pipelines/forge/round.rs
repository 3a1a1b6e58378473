//! The round from here to a forge and back: what it says of itself and of a repository, the webhook that it is asked to
//! make, and the test delivery that it is asked for.

use crate::http::caller::{Answer, LazyCaller};
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::reach::{Reach, Reached, reach};
use crate::server::pipelines::forge::words::{about_calls, answered, hook_call, test_call};
use crate::server::secrets::app::Rights;
use crate::server::secrets::forge as secrets;
use crate::server::state::Shared;
use crate::server::store::status::{DeliverySource, Verdict};
use crate::server::store::tables::deliveries::{self, Delivery};
use crate::server::store::{Error as StoreError, View};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a test delivery is waited for: forges send it a moment later.
const COMING: Duration = Duration::from_secs(10);
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
}

/// Makes a call; any answer but a good one is an error in words.
async fn ask(
    way: &Reached,
    caller: &Arc<LazyCaller>,
    method: &'static str,
    url: String,
    body: Option<&Value>,
) -> Result<Answer, String> {
    match way.call(caller, method, url, Vec::new(), body).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(answer),
        Ok(answer) => Err(answered(answer.status, &String::from_utf8_lossy(&answer.body))),
        Err(error) => Err(error.to_string()),
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Asks a forge about the repository of a project and about itself; `None` where there is no token for it.
pub async fn about(state: &Shared, project: &ProjectId) -> Result<Option<About>, StoreError> {
    let way = match reach(state, project, Rights::Contents).await? {
        Reach::Open(way) => way,
        Reach::Later(why) => return Ok(Some(About { message: Some(why), ..About::default() })),
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

/// Has the forge send its events to `address`, and asks it for a test delivery. Returns a sentence about how it went.
pub async fn set_hook(state: &Shared, project: &ProjectId, address: &str) -> Result<String, StoreError> {
    let not = |why: String| Ok(format!("it was not set: {why}"));
    let (id, sealer) = (project.clone(), state.settings.sealer.clone());
    let read = move |view: &View| {
        let secret = secrets::open(view, &sealer, &id, "hook")?.and_then(Result::ok);
        Ok((secret, deliveries::list(view, &id, 1)?.first().map_or(0, |delivery| delivery.seq)))
    };
    let (Some(secret), last) = state.store.read(read).await? else {
        return not("its secret cannot be opened: `--rotate-secret` makes a new one".to_owned());
    };
    let way = match reach(state, project, Rights::Hooks).await? {
        Reach::Open(way) => way,
        Reach::Closed(why) | Reach::Later(why) => return not(why),
    };
    let (forge, caller) = (way.connection.forge, Arc::<LazyCaller>::default());
    let Some(call) = hook_call(forge, &way.api, &way.name, address, secret.expose()) else {
        return not("`runlet admin project hook` prints the hook of a plain git server".to_owned());
    };
    let made = match ask(&way, &caller, "POST", call.url, Some(&call.body)).await {
        Ok(answer) => json(&answer),
        Err(why) => return not(why),
    };
    let test = made["id"].as_u64().and_then(|hook| test_call(forge, &way.api, &way.name, hook));
    let Some(url) = test else {
        return Ok("it was set; this forge sends no test delivery when it is asked".to_owned());
    };
    if let Err(why) = ask(&way, &caller, "POST", url, None).await {
        return Ok(format!("it was set, but there is no test delivery: {why}"));
    }
    Ok(match coming(state, project, last).await? {
        Some(Delivery { verdict: Verdict::Refused, sentence, .. }) => {
            format!("it was set, and its test delivery was refused: {sentence}")
        }
        Some(Delivery { event, .. }) => format!("it was set, and its test delivery came (`{event}`)"),
        None => format!(
            "it was set, but no test delivery came within {} s: can the forge reach {address}? (its own list of deliveries says)",
            COMING.as_secs()
        ),
    })
}

/// Waits for the first delivery of a forge to a project after this one.
async fn coming(state: &Shared, project: &ProjectId, last: i64) -> Result<Option<Delivery>, StoreError> {
    let end = Instant::now() + COMING;
    loop {
        let id = project.clone();
        let listed = state.store.read(move |view| deliveries::list(view, &id, 10)).await?;
        let is_it = |delivery: &Delivery| delivery.seq > last && delivery.source == DeliverySource::Webhook;
        let found = listed.into_iter().find(is_it);
        if found.is_some() || Instant::now() > end || *state.stopping.borrow() {
            return Ok(found);
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
