//! Forms that change something: a workflow or a job is cancelled, an approval given, a workflow run again.
//!
//! Each is a form of its own with the field of the login, does what the call of the API does, and leads back to the
//! page that it stands on. Who did it is in the audit log.

use crate::server::api::shared::acts::{approve, cancel_job, cancel_workflow, run_workflow_again};
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::api::shared::lookup::{Numbered, job_of, one, project, unknown_workflow};
use crate::server::auth::{PeerAddress, Person};
use crate::server::ids::{JobId, WorkflowId};
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read;
use crate::server::web::record::record;
use crate::server::web::session::Visitor;
use crate::server::web::shared::Web;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Form, Router};
use serde::Deserialize;
use serde_json::json;
use std::future::Future;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    let workflow = "/{vcs}/{org}/{repo}/{number}/{workflow}";
    Router::new()
        .route(&format!("{workflow}/cancel"), post(cancel).get(back))
        .route(&format!("{workflow}/rerun"), post(rerun).get(back))
        .route(&format!("{workflow}/approve/{{job}}"), post(give).get(back_twice))
        .route("/{vcs}/{org}/{repo}/jobs/{number}/cancel", post(end_job).get(back))
}

#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    field: String,
    /// `failed` or `start`, of a rerun.
    #[serde(default)]
    from: String,
}

/// The page that an address of a form belongs to: its path without the last parts.
fn above(path: &str, parts: usize) -> &str {
    (0..parts).fold(path, |path, _| path.rsplit_once('/').map_or("", |(above, _)| above))
}

/// Sends a person who comes by such an address in another way, after signing in for one, to its page.
async fn back(uri: Uri) -> Redirect {
    Redirect::to(above(uri.path(), 1))
}

async fn back_twice(uri: Uri) -> Redirect {
    Redirect::to(above(uri.path(), 2))
}

/// A form that a person sent.
struct Act {
    web: Web,
    visitor: Visitor,
    peer: PeerAddress,
    path: String,
    headers: HeaderMap,
}

impl FromRequestParts<Web> for Act {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, web).await.map_err(IntoResponse::into_response)?;
        let ConnectInfo(peer) = ConnectInfo::<PeerAddress>::from_request_parts(parts, web)
            .await
            .map_err(IntoResponse::into_response)?;
        let (path, headers) = (parts.uri.path().to_owned(), parts.headers.clone());
        Ok(Self { web: web.clone(), visitor, peer, path, headers })
    }
}

impl Act {
    fn state(&self) -> Shared {
        self.web.state.clone()
    }

    fn person(&self) -> Person {
        self.visitor.person.clone()
    }

    /// The page above the address of the form, by this many parts.
    fn page(&self, parts: usize) -> String {
        above(&self.path, parts).to_owned()
    }

    /// Checks where the form comes from, writes it down, does what it is for, and leads to a page.
    async fn done(self, sent: &Sent, act: impl Future<Output = Answer<String>>) -> Answer<Response> {
        let Self { web, visitor, peer, path, headers } = self;
        visitor.secret.check(&headers, &sent.field, &web.state.settings.public_url)?;
        let detail = match sent.from.as_str() {
            "" => json!({}),
            from => json!({ "from": from }),
        };
        // An act that cannot be written down is not done.
        let note = record(&web, &visitor.person, &peer, &path, &detail).await?;
        let outcome = act.await;
        let status = outcome.as_ref().map_or_else(ApiError::status, |_| StatusCode::SEE_OTHER);
        note.answered(&web, status).await;
        Ok(Redirect::to(&outcome?).into_response())
    }
}

/// The workflow of an address, if it is there.
async fn find(state: &Shared, path: Numbered, id: WorkflowId) -> Answer<WorkflowId> {
    let (vcs, org, repo, number) = path;
    let project = project(state, (vcs, org, repo)).await?;
    let (what, wanted) = (unknown_workflow(&id), id.clone());
    let read = move |view: &View| {
        let found = read::workflow(view, &wanted)?;
        Ok(found.filter(|found| found.project.id == project.id && found.pipeline_number == number))
    };
    one(state, what, read).await?;
    Ok(id)
}

type OfWorkflow = (String, String, String, i64, WorkflowId);

async fn cancel(
    act: Act,
    Path((vcs, org, repo, number, id)): Path<OfWorkflow>,
    Form(sent): Form<Sent>,
) -> Answer<Response> {
    let (state, person, page) = (act.state(), act.person(), act.page(1));
    let work = async move {
        let id = find(&state, (vcs, org, repo, number), id).await?;
        cancel_workflow(&state, id, person).await?;
        Ok(page)
    };
    act.done(&sent, work).await
}

async fn give(
    act: Act,
    Path((vcs, org, repo, number, id, job)): Path<(String, String, String, i64, WorkflowId, JobId)>,
    Form(sent): Form<Sent>,
) -> Answer<Response> {
    let (state, person, page) = (act.state(), act.person(), act.page(2));
    let work = async move {
        let id = find(&state, (vcs, org, repo, number), id).await?;
        approve(&state, id, job, person).await?;
        Ok(page)
    };
    act.done(&sent, work).await
}

async fn rerun(
    act: Act,
    Path((vcs, org, repo, number, id)): Path<OfWorkflow>,
    Form(sent): Form<Sent>,
) -> Answer<Response> {
    let (state, person, pipeline) = (act.state(), act.person(), act.page(2));
    let from = sent.from.clone();
    let work = async move {
        let only_failed = match from.as_str() {
            "failed" => true,
            "start" => false,
            _ => return Err(ApiError::new(StatusCode::BAD_REQUEST, "`from` is `failed` or `start`")),
        };
        let id = find(&state, (vcs, org, repo, number), id).await?;
        let made = run_workflow_again(&state, id, only_failed, person).await?;
        Ok(format!("{pipeline}/{made}"))
    };
    act.done(&sent, work).await
}

async fn end_job(act: Act, Path(path): Path<Numbered>, Form(sent): Form<Sent>) -> Answer<Response> {
    let (state, person, page) = (act.state(), act.person(), act.page(1));
    let work = async move {
        let job = job_of(&state, path).await?;
        cancel_job(&state, job.id, person).await?;
        Ok(page)
    };
    act.done(&sent, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_leads_back_to_its_page() {
        assert_eq!(above("/gh/acme/app/7/w/cancel", 1), "/gh/acme/app/7/w");
        assert_eq!(above("/gh/acme/app/7/w/approve/j", 2), "/gh/acme/app/7/w");
        assert_eq!(above("/gh", 3), "");
    }
}
