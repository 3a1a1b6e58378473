//! The calls of every runner to the control plane: claim, give back, lost.

use crate::http::{Body, Client, Error, Request};
use crate::protocol::{
    AboutAnswer, AboutRequest, ClaimRequest, GiveBack, GiveBackAnswer, GiveBackReason, GivenBack, HeldTask,
    LostTask, RefusalCode, RestAnswer, Secret, Task, TaskId, json,
};
use serde::Serialize;
use serde::de::IgnoredAny;
use std::time::{Duration, SystemTime};

/// How much longer than it asks to be parked a claim may take.
const MARGIN: Duration = Duration::from_secs(20);
/// Path of [`about`].
pub(super) const ABOUT: &str = "/api/v3/runner/self";
/// Longest wait for a call that is answered at once.
pub(crate) const SHORT: Duration = Duration::from_secs(30);

/// Answer to a claim.
#[derive(Debug)]
pub(super) enum Answered {
    /// Task that the runner has now.
    Task(Box<Task>),
    /// No task came up in time.
    Nothing,
    /// A task that this runner cannot read, such as one with a kind of step that it does not know.
    Unreadable {
        /// Task that is given back.
        task: HeldTask,
        /// Token of the task.
        token: Secret,
        /// The reason, for people.
        why: String,
    },
}

/// Asks for a task, as the control plane writes it. The nonce makes a repetition harmless.
pub(crate) fn ask(
    client: &Client,
    token: &Secret,
    body: &ClaimRequest,
    wait: Duration,
) -> Result<Option<Vec<u8>>, Error> {
    let body = encode(body)?;
    let path = format!("/api/v3/runner/claim?wait={}", wait.as_secs());
    let request = Request {
        method: "POST",
        path: &path,
        token: Some(token),
        body: Body::Json(&body),
        timeout: wait + MARGIN,
    };
    let response = client.send(&request)?;
    if response.status == 204 {
        return Ok(None);
    }
    response.raw(&request, client.url()).map(Some)
}

/// Asks for a task that this machine may run.
pub(super) fn claim(
    client: &Client,
    token: &Secret,
    body: &ClaimRequest,
    wait: Duration,
) -> Result<Answered, Error> {
    let Some(body) = ask(client, token, body, wait)? else { return Ok(Answered::Nothing) };
    let error = match json::read(&body) {
        Ok(task) => return Ok(Answered::Task(Box::new(task))),
        Err(error) => error.to_string(),
    };
    let Some((task, token)) = unreadable(&body) else {
        let why = format!("the answer to a claim is not what a control plane says: {error}");
        return Err(Error::Undecodable(why));
    };
    // The error of a parser may quote its input, which holds secrets, but for the name of what is unknown.
    let what = error.split_once("unknown variant ").map(|(_, what)| format!(": it has {what}"));
    let version = env!("CARGO_PKG_VERSION");
    let why = format!("this runner (version {version}) is too old for the task{}", what.unwrap_or_default());
    Ok(Answered::Unreadable { task, token, why })
}

/// The task of a [`CLAIMED_HEADER`](crate::protocol::CLAIMED_HEADER), and its allocation.
pub(crate) fn claimed(header: &str) -> Option<(TaskId, &str)> {
    let (id, allocation) = header.split_once(' ')?;
    Some((TaskId::new(id).ok()?, allocation))
}

/// Finds the task of an answer that cannot be read, and the token to give it back with.
fn unreadable(body: &[u8]) -> Option<(HeldTask, Secret)> {
    let task = json::read(body).ok()?;
    let RestAnswer { token } = json::read(body).ok()?;
    Some((task, token))
}

/// Asks whose the token is, and who answers. Bytes of `padding` come back.
pub(crate) fn about(
    client: &Client,
    token: &Secret,
    name: &str,
    padding: usize,
    timeout: Duration,
) -> Result<AboutAnswer, Error> {
    let body = encode(&AboutRequest { name: name.to_owned(), padding: "x".repeat(padding) })?;
    client.json(&Request { timeout, ..post(ABOUT, token, &body) })
}

/// Reports that a task's agent is gone. Harmless when the task has ended.
pub(crate) fn lost(
    client: &Client,
    token: &Secret,
    id: &TaskId,
    allocation: Option<&str>,
    message: &str,
) -> Result<(), Error> {
    let allocation = allocation.map(str::to_owned);
    let body = encode(&LostTask { id: id.clone(), allocation, message: message.to_owned() })?;
    let path = format!("/api/v3/runner/tasks/{id}/lost");
    client.json::<IgnoredAny>(&post(&path, token, &body)).map(drop)
}

/// Asks for a token with which the rest of a task's output can be sent. Its agent is gone.
pub(super) fn rest(
    client: &Client,
    token: &Secret,
    id: &TaskId,
    allocation: Option<&str>,
    message: &str,
) -> Result<Secret, Error> {
    let allocation = allocation.map(str::to_owned);
    let body = encode(&LostTask { id: id.clone(), allocation, message: message.to_owned() })?;
    let path = format!("/api/v3/runner/tasks/{id}/rest");
    client.json::<RestAnswer>(&post(&path, token, &body)).map(|answer| answer.token)
}

/// Gives a task back that has not begun. `token` is the task's. False when it had ended before, whatever by.
pub(crate) fn give_back(
    client: &Client,
    id: &TaskId,
    token: &Secret,
    reason: GiveBackReason,
    message: &str,
    pause: Duration,
) -> Result<bool, Error> {
    let body = encode(&GiveBack {
        task_id: id.clone(),
        task_token: token.clone(),
        reason,
        message: Some(message.to_owned()),
        pause_seconds: u32::try_from(pause.as_secs()).unwrap_or(u32::MAX),
    })?;
    match client.json::<GiveBackAnswer>(&post("/api/v3/runner/unclaim", token, &body)) {
        Err(error) if error.code() == Some(RefusalCode::TaskEnded) => Ok(false),
        answer => answer.map(|answer| answer.outcome != GivenBack::Canceled),
    }
}

/// Ends a task for good that has not begun. `token` is the task's.
pub(crate) fn fail(client: &Client, token: &Secret, allocation: &str, message: &str) -> Result<(), Error> {
    use base64::Engine;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let message = base64::engine::general_purpose::STANDARD.encode(message);
    let body = serde_json::json!({ "allocation": allocation, "timestamp": now, "message": message });
    match client.json::<IgnoredAny>(&post("/api/v2/task/event/fail", token, &encode(&body)?)) {
        // The task has ended already, or is not this runner's any more.
        Err(Error::Refused { status: 404 | 409, refusal: Some(_), .. }) => Ok(()),
        answer => answer.map(drop),
    }
}

/// A call that is answered at once.
pub(crate) fn post<'a>(path: &'a str, token: &'a Secret, body: &'a [u8]) -> Request<'a> {
    Request { method: "POST", path, token: Some(token), body: Body::Json(body), timeout: SHORT }
}

/// A body as JSON.
pub(crate) fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|error| Error::Setup(format!("cannot write JSON: {error}")))
}
