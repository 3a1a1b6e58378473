//! Version 1.1, the parts that clients still call: projects, builds with their steps, artifacts, tests.

mod builds;
mod projects;
mod show;
mod trigger;

use crate::server::state::Shared;
use axum::Router;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    Router::new().merge(projects::router()).merge(builds::router()).merge(trigger::router())
}
