//! Version 3: what the current command line of CircleCI reads. A run is a pipeline of version 2.

mod definitions;
mod filter;
mod form;
mod jobs;
mod names;
mod projects;
mod runs;
mod workflows;

use crate::server::state::Shared;
use axum::Router;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .merge(projects::router())
        .merge(runs::router())
        .merge(workflows::router())
        .merge(jobs::router())
        .merge(definitions::router())
        .merge(names::router())
}
