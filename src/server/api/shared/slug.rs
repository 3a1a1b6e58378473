//! Slugs in paths, made alike before anything is routed.
//!
//! Clients send the slug of a project as three segments or as one with `%2F` in it, with the long or the
//! short name of the version control system, or as the id of the project. Handlers see three segments
//! with the short name.

use crate::server::state::Shared;
use crate::server::store::read;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::Response;

/// Paths in which a slug follows.
const PREFIXES: [&str; 6] = [
    "/api/v2/project/",
    "/api/v1.1/project/",
    "/api/v2/insights/",
    "/api/v2/organization/",
    "/api/private/output/raw/",
    "/api/private/project/",
];

/// The short name of a version control system, as it stands in slugs.
pub fn short_vcs(vcs: &str) -> &str {
    match vcs {
        "github" => "gh",
        "bitbucket" => "bb",
        other => other,
    }
}

/// The long name of a version control system, as version 1.1 writes it.
pub fn long_vcs(vcs: &str) -> &str {
    match vcs {
        "gh" => "github",
        "bb" => "bitbucket",
        other => other,
    }
}

/// The provider that a version control system stands for, as clients know it.
pub fn provider(vcs: &str) -> &'static str {
    match vcs {
        "gh" => "GitHub",
        "bb" => "Bitbucket",
        _ => "CircleCI",
    }
}

/// `vcs/rest` with the short name of the version control system; a text without a slash stays as it is.
pub fn short_slug(slug: &str) -> String {
    match slug.split_once('/') {
        Some((vcs, rest)) => format!("{}/{rest}", short_vcs(vcs)),
        None => slug.to_owned(),
    }
}

/// Rewrites the path of a request where a slug stands in it.
pub async fn rewrite(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    if let Some((prefix, rest)) = split(request.uri().path()) {
        let (first, tail) = match rest.split_once('/') {
            Some((first, tail)) => (first, Some(tail)),
            None => (rest, None),
        };
        let slug = if is_uuid(first) { slug_of(&state, first).await } else { Some(canonical(first)) };
        if let Some(slug) = slug.filter(|slug| slug != first) {
            let mut path = format!("{prefix}{slug}");
            if let Some(part) = tail {
                path.push('/');
                path.push_str(part);
            }
            if let Some(query) = request.uri().query() {
                path.push('?');
                path.push_str(query);
            }
            // What cannot be a path any more finds nothing as it is.
            if let Ok(uri) = path.parse::<Uri>() {
                *request.uri_mut() = uri;
            }
        }
    }
    next.run(request).await
}

fn split(path: &str) -> Option<(&str, &str)> {
    PREFIXES.iter().find_map(|prefix| Some((*prefix, path.strip_prefix(prefix)?)))
}

/// One segment: `%2F` becomes a slash, the vcs its short name.
fn canonical(segment: &str) -> String {
    let decoded = segment.replace("%2F", "/").replace("%2f", "/");
    match decoded.split_once('/') {
        Some((vcs, rest)) => format!("{}/{rest}", short_vcs(vcs)),
        None => short_vcs(&decoded).to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

async fn slug_of(state: &Shared, id: &str) -> Option<String> {
    let id = id.to_ascii_lowercase().into();
    state.store.read(move |view| read::project_slug(view, &id)).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_made_alike() {
        assert_eq!(canonical("gh%2Facme%2Fapp"), "gh/acme/app");
        assert_eq!(canonical("github%2facme%2fapp"), "gh/acme/app");
        assert_eq!(canonical("bitbucket"), "bb");
        assert_eq!(canonical("circleci"), "circleci");
        assert_eq!(split("/api/v2/project/gh/a"), Some(("/api/v2/project/", "gh/a")));
        assert_eq!(split("/api/v2/context/x"), None);
        assert!(is_uuid("c9a646d3-9c61-4cb7-b3d6-0a7a1a1f8b8e") && !is_uuid("gh"));
    }
}
