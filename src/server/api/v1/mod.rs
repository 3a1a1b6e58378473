//! Version 1.1, the parts that clients still call: projects and their variables, builds with their steps, artifacts, tests.

mod builds;
mod projects;
mod show;
mod trigger;
mod variables;

use crate::server::state::Shared;
use axum::Router;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new()
        .merge(projects::router())
        .merge(builds::router())
        .merge(trigger::router())
        .merge(variables::router())
}
