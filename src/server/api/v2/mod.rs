//! Version 2: one file for each kind of thing. What reads, and what people do to workflows and jobs, is in
//! `pipelines`, `workflows`, `jobs`, `insights`, `definitions` and `about`; the rest sets things up.

mod about;
pub mod checkout_keys;
pub mod contexts;
mod definitions;
mod insights;
mod jobs;
pub mod people;
mod pipelines;
pub mod projects;
pub mod schedules;
pub mod triggers;
pub mod variables;
pub mod webhooks;
mod workflows;

use crate::server::state::Shared;
use axum::Router;

/// The paths of pipelines, workflows and jobs, and of who is asking.
pub fn router() -> Router<Shared> {
    Router::new()
        .merge(about::router())
        .merge(pipelines::router())
        .merge(workflows::router())
        .merge(jobs::router())
        .merge(definitions::router())
        .merge(insights::router())
}
