//! The machine runner's calls to the control plane: claim, unclaim, lost.

use super::settings::Settings;
use crate::http::{Body, Client, Error, Request};
use crate::protocol::{ClaimRequest, LostTask, Task, TaskId, TaskKind};
use serde::Serialize;
use serde::de::IgnoredAny;
use std::time::Duration;

/// How much longer than it asks to be parked a claim may take.
const MARGIN: Duration = Duration::from_secs(20);
/// For a call that is answered at once.
const SHORT: Duration = Duration::from_secs(30);

/// Asks for a task; `None` when none came up in time. `nonce` makes a repetition harmless.
pub(super) fn claim(
    client: &Client,
    settings: &Settings,
    nonce: &str,
    wait: Duration,
) -> Result<Option<Task>, Error> {
    let body = ClaimRequest {
        name: settings.name.clone(),
        hostname: super::settings::host_name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        nonce: nonce.to_owned(),
        machine_id: None,
        boot_id: None,
        takes: vec![TaskKind::Machine],
    };
    let body = encode(&body)?;
    let path = format!("/api/v3/runner/claim?wait={}", wait.as_secs());
    let request = Request {
        method: "POST",
        path: &path,
        token: Some(&settings.token),
        body: Body::Json(&body),
        timeout: wait + MARGIN,
    };
    let response = client.send(&request)?;
    match response.status {
        204 => Ok(None),
        _ => response.decode(&request, client.url()).map(Some),
    }
}

/// Reports that a task's agent is gone. Harmless when the task has ended.
pub(super) fn lost(client: &Client, settings: &Settings, id: &TaskId, message: &str) -> Result<(), Error> {
    let body = encode(&LostTask { id: id.clone(), allocation: None, message: message.to_owned() })?;
    let path = format!("/api/v3/runner/tasks/{id}/lost");
    let request = Request {
        method: "POST",
        path: &path,
        token: Some(&settings.token),
        body: Body::Json(&body),
        timeout: SHORT,
    };
    client.json::<IgnoredAny>(&request).map(drop)
}

#[derive(Serialize)]
struct Unclaim<'a> {
    task_id: &'a TaskId,
    task_token: &'a str,
}

/// Gives a task back that was not begun.
pub(super) fn unclaim(client: &Client, task: &Task) -> Result<(), Error> {
    let body = encode(&Unclaim { task_id: &task.id, task_token: task.token.expose() })?;
    let request = Request {
        method: "POST",
        path: "/api/v3/runner/unclaim",
        token: Some(&task.token),
        body: Body::Json(&body),
        timeout: SHORT,
    };
    let response = client.send(&request)?;
    match response.status {
        200..=299 => Ok(()),
        _ => response.decode::<IgnoredAny>(&request, client.url()).map(drop),
    }
}

fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|error| Error::Setup(format!("cannot write JSON: {error}")))
}
