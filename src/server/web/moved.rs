//! Addresses of the shape that CircleCI's web application has: links that tools print, and that stand in tickets.

use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::api::shared::slug::short_vcs;
use crate::server::web::shared::Web;
use crate::server::web::shown::path_part;
use axum::Router;
use axum::extract::RawQuery;
use axum::http::Uri;
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

/// Redirects with the words of the query, such as `branch`. A link to a step of a parallel run leads to that run: its steps have
/// numbers of their own here.
async fn moved(Path(parts): Path<HashMap<String, String>>, RawQuery(query): RawQuery) -> Redirect {
    let part = |name: &str| parts.get(name).map(|text| path_part(text));
    let vcs = parts.get("vcs").map_or("", |vcs| short_vcs(vcs));
    let slug = format!(
        "/{}/{}/{}",
        path_part(vcs),
        part("org").unwrap_or_default(),
        part("repo").unwrap_or_default()
    );
    let mut query: Vec<String> = query.into_iter().collect();
    let address = match (part("job"), part("pipeline"), part("workflow")) {
        (Some(job), ..) => {
            let mut tab = parts.get("tab").map_or("", String::as_str).split('/');
            match (tab.next(), tab.next().and_then(|run| run.parse::<u32>().ok())) {
                (Some(tab @ ("tests" | "artifacts")), _) => format!("{slug}/jobs/{job}/{tab}"),
                (Some("parallel-runs"), Some(run)) => {
                    query.push(format!("execution={run}"));
                    format!("{slug}/jobs/{job}")
                }
                _ => format!("{slug}/jobs/{job}"),
            }
        }
        (None, Some(pipeline), Some(workflow)) => format!("{slug}/{pipeline}/{workflow}"),
        (None, Some(pipeline), None) => format!("{slug}/{pipeline}"),
        (None, None, _) => slug,
    };
    let mark = if query.is_empty() { "" } else { "?" };
    Redirect::to(&format!("{address}{mark}{}", query.join("&")))
}

/// Redirects from an address that ends in a slash to that of the page, which has none. A page elsewhere is none of ours: what
/// begins with two slashes would be the address of another host.
pub(super) async fn without_slash(uri: Uri) -> Answer<Redirect> {
    let path = uri.path().trim_end_matches('/');
    if path.is_empty() || path.len() == uri.path().len() || path.starts_with("//") {
        return Err(ApiError::not_found("there is no page at this address"));
    }
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    Ok(Redirect::to(&format!("{path}{query}")))
}
