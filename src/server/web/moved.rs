//! Addresses of the shape that CircleCI's web application has: links that tools print, and that stand in tickets.

use crate::server::api::shared::input::Path;
use crate::server::api::shared::slug::short_vcs;
use crate::server::web::shared::Web;
use crate::server::web::shown::path_part;
use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use std::collections::HashMap;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    let project = "/pipelines/{vcs}/{org}/{repo}";
    Router::new()
        .route(project, get(moved))
        .route(&format!("{project}/{{pipeline}}"), get(moved))
        .route(&format!("{project}/{{pipeline}}/workflows/{{workflow}}"), get(moved))
        .route(&format!("{project}/{{pipeline}}/workflows/{{workflow}}/jobs/{{job}}"), get(moved))
        .route(&format!("{project}/{{pipeline}}/workflows/{{workflow}}/jobs/{{job}}/{{*tab}}"), get(moved))
}

async fn moved(Path(parts): Path<HashMap<String, String>>) -> Redirect {
    let part = |name: &str| parts.get(name).map(|text| path_part(text));
    let vcs = parts.get("vcs").map_or("", |vcs| short_vcs(vcs));
    let slug = format!(
        "/{}/{}/{}",
        path_part(vcs),
        part("org").unwrap_or_default(),
        part("repo").unwrap_or_default()
    );
    Redirect::to(&match (part("job"), part("pipeline"), part("workflow")) {
        (Some(job), ..) => match parts.get("tab").map(String::as_str) {
            Some(tab @ ("tests" | "artifacts")) => format!("{slug}/jobs/{job}/{tab}"),
            _ => format!("{slug}/jobs/{job}"),
        },
        (None, Some(pipeline), Some(workflow)) => format!("{slug}/{pipeline}/{workflow}"),
        (None, Some(pipeline), None) => format!("{slug}/{pipeline}"),
        (None, None, _) => slug,
    })
}
