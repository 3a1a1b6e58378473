//! Calls to the control plane: claims, and what is said of a task that has no agent (yet).

use crate::agent::calls::{self, SHORT, encode, post};
use crate::http::{Body, Client, Error, Request};
use crate::protocol::{
    Beside, ClaimRequest, Container, FIRST_BESIDE, GiveBackReason, OutputAnswer, RefusalCode, Secret, TaskId,
    Variable,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::time::Duration;

/// A claimed task, as far as it concerns whoever starts its pod: the agent in the pod gets the rest by itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ClaimedTask {
    pub(super) id: TaskId,
    pub(super) token: Secret,
    pub(super) allocation: String,
    pub(super) job_name: String,
    pub(super) job_url: String,
    pub(super) lease_seconds: u32,
    /// How long its pod may wait for its start.
    #[serde(default)]
    pub(super) begin_seconds: u32,
    #[serde(default)]
    pub(super) built_in: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) variables: Vec<Variable>,
    #[serde(default)]
    pub(super) mask: Vec<Secret>,
    #[serde(default)]
    pub(super) containers: Vec<Container>,
}

/// Asks for a task. The nonce makes a repetition harmless.
pub(super) fn claim(
    client: &Client,
    token: &Secret,
    body: &ClaimRequest,
    wait: Duration,
) -> Result<Option<ClaimedTask>, Error> {
    let Some(answer) = calls::ask(client, token, body, wait)? else { return Ok(None) };
    // The error of a parser may quote its input, which holds secrets.
    serde_json::from_slice(&answer).map(Some).map_err(|error| {
        let column = error.column();
        Error::Undecodable(format!(
            "the answer to a claim is not what a control plane says (column {column})"
        ))
    })
}

/// Outcome of a call with the token of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The task is this runner's.
    Yes,
    /// The task has ended there, or went to another runner.
    Over,
}

/// A refusal that says that the task is over is an answer.
fn heard<T>(answer: Result<T, Error>) -> Result<Heard, Error> {
    match answer {
        Ok(_) => Ok(Heard::Yes),
        Err(error) if matches!(error.code(), Some(RefusalCode::TaskEnded | RefusalCode::Begun)) => {
            Ok(Heard::Over)
        }
        // The token or the task is not known any more.
        Err(Error::Refused { status: 401 | 404, .. }) => Ok(Heard::Over),
        Err(error) => Err(error),
    }
}

/// Keeps the claim of a task whose agent does not run yet.
pub(super) fn heartbeat(client: &Client, id: &TaskId, token: &Secret) -> Result<Heard, Error> {
    let path = format!("/api/v3/runner/tasks/{id}/heartbeat?wait=0");
    heard(client.json::<IgnoredAny>(&post(&path, token, b"{}")))
}

/// Gives a task back that has not begun. One that has ended has been given back as well.
pub(super) fn give_back(
    client: &Client,
    id: &TaskId,
    token: &Secret,
    message: &str,
    pause: Duration,
) -> Result<Heard, Error> {
    heard(calls::give_back(client, id, token, GiveBackReason::Host, message, pause))
}

/// Ends a task for good.
pub(super) fn fail(client: &Client, token: &Secret, allocation: &str, message: &str) -> Result<Heard, Error> {
    heard(calls::fail(client, token, allocation, message))
}

/// Reports that the pod of a task is gone. `class` is the token of its class.
pub(super) fn lost(
    client: &Client,
    class: &Secret,
    id: &TaskId,
    allocation: &str,
    message: &str,
) -> Result<Heard, Error> {
    match calls::lost(client, class, id, Some(allocation), message) {
        Err(Error::Refused { status: 404 | 409, .. }) => Ok(Heard::Over),
        answer => answer.map(|()| Heard::Yes),
    }
}

/// Says what became of a record of this runner.
pub(super) fn beside(
    client: &Client,
    id: &TaskId,
    token: &Secret,
    n: u32,
    record: &Beside,
) -> Result<Heard, Error> {
    let path = format!("/api/v3/runner/tasks/{id}/beside/{n}");
    heard(client.json::<IgnoredAny>(&post(&path, token, &encode(record)?)))
}

/// Sends output of a record of this runner. Returns how much is stored, or nothing when the task takes none any more.
pub(super) fn output(
    client: &Client,
    id: &TaskId,
    token: &Secret,
    n: u32,
    offset: u64,
    bytes: &[u8],
) -> Result<Option<u64>, Error> {
    let path = format!("/api/v3/runner/tasks/{id}/steps/{}/output?offset={offset}", FIRST_BESIDE + n);
    let request = Request {
        method: "PATCH",
        path: &path,
        token: Some(token),
        body: Body::Bytes(bytes),
        timeout: SHORT,
    };
    match client.json::<OutputAnswer>(&request) {
        Ok(answer) => Ok(Some(answer.offset)),
        // Another agent of this runner had said more.
        Err(Error::Refused { refusal: Some(refusal), .. }) if refusal.code == Some(RefusalCode::Gap) => {
            Ok(refusal.offset)
        }
        Err(Error::Refused { status: 400..=499, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
