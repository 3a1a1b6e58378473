//! Webhooks that tell others of ended workflows and jobs: one call at a time for each webhook, tried again for hours,
//! always with the same id and body.

use crate::http::caller::{LazyCaller, Outgoing};
use crate::logging::record;
use crate::protocol::Secret;
use crate::server::ids::WebhookId;
use crate::server::pipelines::forge::rounds::{Busy, Rounds};
use crate::server::secrets::forge as secrets;
use crate::server::secrets::sealer::Sealer;
use crate::server::state::{ServerSettings, Shared};
use crate::server::store::forge_states::{CallState, Forge};
use crate::server::store::read::{self, Job, Pipeline, Workflow};
use crate::server::store::status::JobStatus;
use crate::server::store::tables::forge::{self, Connection};
use crate::server::store::tables::webhooks::{self, Webhook, WebhookCall};
use crate::server::store::{Error as StoreError, View};
use crate::server::time::Millis;
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Pause between two looks for what has ended.
const BETWEEN: Duration = Duration::from_millis(250);
/// The longest time without a look.
const IDLE: Duration = Duration::from_secs(60);
/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);
/// Calls that are looked at together.
const BATCH: u32 = 200;
/// Waits before another try, in seconds; then it is given up.
const AGAIN_SECONDS: [u64; 6] = [10, 60, 300, 1800, 7200, 21600];

/// The two ways to call: any address, and public ones only.
#[derive(Default)]
struct Callers {
    any: LazyCaller,
    public: LazyCaller,
}

/// The name that the signing secret of a webhook is kept by.
pub fn secret_name(webhook: &WebhookId) -> String {
    format!("webhook/{webhook}")
}

/// Works until the control plane stops.
pub(super) async fn run(state: Shared) {
    let (callers, busy) = (Arc::new(Callers::default()), Busy::new());
    let rounds = Rounds {
        what: "look for webhooks to call",
        woken: Some(state.hub.webhooks()),
        idle: IDLE,
        least: BETWEEN,
        pause: BETWEEN,
    };
    rounds.run(&state, |now| pass(&state, &callers, &busy, now)).await;
}

async fn pass(
    state: &Shared,
    callers: &Arc<Callers>,
    busy: &Busy<WebhookId>,
    now: Millis,
) -> Result<Option<Millis>, StoreError> {
    let working = busy.list();
    let due = state.store.read(move |view| webhooks::due(view, &working, now, BATCH)).await?;
    if due.is_empty() {
        return state.store.read(webhooks::next).await;
    }
    for call in due {
        let (webhook, call_id) = (call.webhook.clone(), call.id.clone());
        let at_work = busy.enter(webhook.clone());
        let (state, callers) = (state.clone(), Arc::clone(callers));
        tokio::spawn(async move {
            if let Err(error) = try_once(&state, &callers, call).await {
                record!(Error, webhook_id = webhook, call_id = call_id;
                    "failed to write down how the call of a webhook went: {error}"
                );
            }
            drop(at_work);
            state.hub.webhooks().notify_one();
        });
    }
    Ok(None)
}

/// A call with all that it is made of.
struct Ready {
    webhook: Webhook,
    secret: Option<Secret>,
    body: String,
}

fn ready(
    view: &View,
    settings: &ServerSettings,
    sealer: &Sealer,
    call: &WebhookCall,
) -> Result<Option<Ready>, StoreError> {
    let Some(webhook) = webhooks::find(view, &call.webhook)? else { return Ok(None) };
    let name = secret_name(&webhook.id);
    let secret = match secrets::open(view, sealer, &webhook.project, &name)?.transpose() {
        Ok(secret) => secret,
        // A call that should be signed is not sent without a signature.
        Err(_) => return Ok(None),
    };
    let body = match &call.body {
        Some(body) => body.clone(),
        None => match payload(view, settings, call, &webhook)? {
            Some(body) => body.to_string(),
            None => return Ok(None),
        },
    };
    Ok(Some(Ready { webhook, secret, body }))
}

async fn try_once(state: &Shared, callers: &Arc<Callers>, call: WebhookCall) -> Result<(), StoreError> {
    let (settings, of) = (state.settings.clone(), call.clone());
    let read = move |view: &View| ready(view, &settings, &settings.sealer, &of);
    let Some(Ready { webhook, secret, body }) = state.store.read(read).await? else {
        let why = "what it is about is gone, or its signing secret cannot be opened: set it again";
        return state
            .store
            .write(move |tx| webhooks::set_tried(tx, &call, CallState::Failed, why, Millis(0)))
            .await;
    };
    let (id, kept) = (call.id.clone(), body.clone());
    state.store.write(move |tx| webhooks::set_body(tx, &id, &kept)).await?;
    let mut headers =
        vec![("circleci-event-type", call.event.clone()), ("user-agent", "CircleCI-Webhook/1.0".to_owned())];
    headers.extend(secret.map(|secret| ("circleci-signature", signature(&secret, body.as_bytes()))));
    let is_allowed = is_allowed(&state.settings.webhook_hosts, &webhook.url);
    let callers = Arc::clone(callers);
    let calling = tokio::task::spawn_blocking(move || {
        let (caller, is_guarded) = if is_allowed { (&callers.any, false) } else { (&callers.public, true) };
        let (url, body) = (webhook.url.as_str(), body.as_bytes());
        caller.call(is_guarded, &Outgoing { method: "POST", url, headers, body, timeout: CALL })
    });
    let (is_done, is_wrong, message) = match calling.await {
        Err(_) => return Ok(()),
        Ok(Err(error @ crate::http::Error::Setup(_))) => (false, true, error.to_string()),
        Ok(Err(error)) => (false, false, error.to_string()),
        Ok(Ok(answer)) => ((200..300).contains(&answer.status), false, format!("answered {}", answer.status)),
    };
    let again = AGAIN_SECONDS.get(call.attempts as usize).filter(|_| !is_wrong);
    let (state_now, at) = match (is_done, again) {
        (true, _) => (CallState::Done, Millis(0)),
        (false, Some(seconds)) => (CallState::Waiting, Millis::now().plus(Duration::from_secs(*seconds))),
        (false, None) => (CallState::Failed, Millis(0)),
    };
    state.store.write(move |tx| webhooks::set_tried(tx, &call, state_now, &message, at)).await
}

/// `v1=` and the hexadecimal HMAC-SHA256 of a body.
fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = Key::new(HMAC_SHA256, secret.expose().as_bytes());
    format!("v1={}", crate::system::hex(sign(&key, body).as_ref()))
}

/// Whether the host of an address may be called though it is not public.
fn is_allowed(hosts: &[String], url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    hosts.iter().any(|host| {
        authority == host
            || authority
                .rsplit_once(':')
                .is_some_and(|(name, port)| name == host && port.parse::<u16>().is_ok())
    })
}

/// The long name of a kind of forge, of which the beginning of a slug is the short one.
fn long(vcs: &str) -> &str {
    match vcs {
        "gh" => "github",
        "bb" => "bitbucket",
        other => other,
    }
}

/// Gathers the body of a call about an event; `None`: it is gone.
fn payload(
    view: &View,
    settings: &ServerSettings,
    call: &WebhookCall,
    webhook: &Webhook,
) -> Result<Option<Value>, StoreError> {
    let job = match call.event.as_str() {
        "job-completed" => match read::job(view, &call.subject.as_str().into())? {
            Some(job) => Some(job),
            None => return Ok(None),
        },
        _ => None,
    };
    let workflow = match &job {
        Some(job) => job.workflow_id.clone(),
        None => call.subject.as_str().into(),
    };
    let Some(workflow) = read::workflow(view, &workflow)? else { return Ok(None) };
    let Some(pipeline) = read::pipeline(view, &workflow.pipeline_id)? else { return Ok(None) };
    let project = &pipeline.project;
    let mut body = json!({
        "id": call.id, "type": call.event, "happened_at": call.at.to_string(),
        "webhook": { "id": webhook.id, "name": webhook.name },
        "project": { "id": project.id, "name": project.repo, "slug": format!("{}/{}/{}", long(&project.vcs), project.org, project.repo) },
        "organization": { "id": project.organisation, "name": project.org },
        "workflow": shown_workflow(settings, &workflow, job.is_none()),
        "pipeline": shown_pipeline(&pipeline, forge::connection(view, &project.id)?.as_ref()),
    });
    if let Some(job) = job {
        body["job"] = shown_job(&job);
    }
    Ok(Some(body))
}

fn shown_workflow(settings: &ServerSettings, workflow: &Workflow, with_status: bool) -> Value {
    let mut shown = json!({
        "id": workflow.id, "name": workflow.name, "created_at": workflow.created_at.to_string(),
        "stopped_at": workflow.stopped_at.map(|at| at.to_string()),
        "url": format!("{}/{}/{}", settings.public_url, workflow.project.slug(), workflow.pipeline_number),
    });
    if with_status {
        shown["status"] = json!(workflow.status);
    }
    shown
}

fn shown_pipeline(pipeline: &Pipeline, connection: Option<&Connection>) -> Value {
    let trigger = match pipeline.trigger_type.as_str() {
        "scheduled_pipeline" => "schedule",
        "explicit" => "api",
        other => other,
    };
    let mut shown = json!({
        "id": pipeline.id, "number": pipeline.number, "created_at": pipeline.created_at.to_string(),
        "trigger": { "type": trigger },
    });
    let Some((url, revision)) = pipeline.repository_url.as_ref().zip(pipeline.revision.as_ref()) else {
        return shown;
    };
    match connection.filter(|connection| matches!(connection.forge, Forge::GitLab | Forge::BitbucketDc)) {
        Some(connection) => {
            shown["trigger_parameters"] = trigger_parameters(pipeline, connection, trigger, url, revision);
        }
        None => shown["vcs"] = vcs(pipeline, url, revision),
    }
    shown
}

/// The commit of a pipeline, of projects that CircleCI calls those of GitHub or Bitbucket.
fn vcs(pipeline: &Pipeline, url: &str, revision: &str) -> Value {
    let mut commit = json!({
        "subject": pipeline.subject, "body": pipeline.body, "author": { "name": pipeline.author },
    });
    if let Some(made) = &pipeline.made {
        commit["author"]["email"] = json!(made.author_email);
        commit["authored_at"] = json!(made.authored_at);
        commit["committer"] = json!({ "name": made.committer, "email": made.committer_email });
        commit["committed_at"] = json!(made.committed_at);
    }
    let mut vcs = json!({
        "provider_name": long(&pipeline.project.vcs), "origin_repository_url": pipeline.origin_url,
        "target_repository_url": url, "revision": revision, "commit": commit,
    });
    for (name, value) in [("branch", &pipeline.branch), ("tag", &pipeline.tag)] {
        if let Some(value) = value {
            vcs[name] = json!(value);
        }
    }
    vcs
}

/// `trigger_parameters`: what `vcs` is for projects of GitHub and Bitbucket Cloud, for those of other forges.
fn trigger_parameters(
    pipeline: &Pipeline,
    connection: &Connection,
    trigger: &str,
    url: &str,
    revision: &str,
) -> Value {
    let (branch, tag) = (pipeline.branch.as_deref(), pipeline.tag.as_deref());
    let reference = match (&pipeline.reference, branch, tag) {
        (Some(reference), _, _) => reference.clone(),
        (None, _, Some(tag)) => format!("refs/tags/{tag}"),
        (None, branch, None) => format!("refs/heads/{}", branch.unwrap_or_default()),
    };
    let kind = match (trigger, &pipeline.reference, tag) {
        ("webhook", Some(_), _) => "merge_request",
        ("webhook", None, Some(_)) => "tag_push",
        ("webhook", None, None) => "push",
        (other, _, _) => other,
    };
    let mut circleci = json!({
        "event_time": pipeline.created_at.to_string(), "event_type": kind, "trigger_type": connection.forge,
    });
    if let Some(actor) = &pipeline.actor_id {
        circleci["actor_id"] = json!(actor);
    }
    let mut shown = json!({
        "circleci": circleci,
        "git": {
            "branch": branch.unwrap_or_default(), "tag": tag.unwrap_or_default(), "ref": reference,
            "checkout_sha": revision, "checkout_url": url,
        },
    });
    if connection.forge == Forge::GitLab {
        let made = pipeline.made.clone().unwrap_or_default();
        let subject = pipeline.subject.as_deref().unwrap_or_default();
        let body = pipeline.body.as_deref().filter(|body| !body.is_empty());
        let message = body.map_or_else(|| subject.to_owned(), |body| format!("{subject}\n\n{body}"));
        shown["gitlab"] = json!({
            "type": kind, "branch": branch.unwrap_or_default(), "ref": reference, "checkout_sha": revision,
            "commit_sha": revision, "commit_title": subject, "commit_message": message,
            "commit_timestamp": made.authored_at, "commit_author_name": pipeline.author,
            "commit_author_email": made.author_email, "user_name": pipeline.actor_login,
            "user_username": pipeline.actor_login, "user_avatar": pipeline.actor_avatar,
            "repo_name": pipeline.project.repo, "repo_url": url, "project_id": connection.repository,
            "web_url": url.trim_end_matches(".git"),
        });
    }
    shown
}

fn shown_job(job: &Job) -> Value {
    let status = match job.status {
        JobStatus::Success => "success",
        JobStatus::Canceled => "canceled",
        JobStatus::Unauthorized => "unauthorized",
        _ => "failed",
    };
    json!({
        "id": job.id, "number": job.number, "name": job.name, "status": status,
        "started_at": job.started_at.map(|at| at.to_string()), "stopped_at": job.stopped_at.map(|at| at.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_that_receivers_check() {
        for (secret, body, expected) in [
            ("another-secret", "lalala", "daa220016c8f29a8b214fbfc3671aeec2145cfb1e6790184ffb38b6d0425fa00"),
            ("secret", "hello world", "734cc62f32841568f45715aeb9f4d7891324e6d948e4c6c60c0621cdac48623a"),
        ] {
            assert_eq!(signature(&Secret::new(secret), body.as_bytes()), format!("v1={expected}"));
        }
    }

    #[test]
    fn hosts_are_allowed_by_their_whole_name() {
        let hosts = ["127.0.0.1".to_owned(), "ci.example:8443".to_owned()];
        for url in ["http://127.0.0.1:8000/x", "http://127.0.0.1/x", "https://ci.example:8443/y?z"] {
            assert!(is_allowed(&hosts, url), "{url}");
        }
        for url in
            ["http://127.0.0.1.evil.example/x", "https://ci.example/y", "https://evil.example/127.0.0.1"]
        {
            assert!(!is_allowed(&hosts, url), "{url}");
        }
    }
}
