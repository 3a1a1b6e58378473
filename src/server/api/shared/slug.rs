//! Slugs in paths, made alike before anything is routed.
//!
//! Clients send the slug of a project as three segments or as one with `%2F` in it, with the long or the
//! short name of the version control system, as `circleci/ORGANISATION-ID/PROJECT-ID`, or as the id of the project;
//! that of an organisation likewise. Handlers see three segments, or two, with the short name.

use crate::server::state::Shared;
use crate::server::store::read::{self, Organisation, Project};
use crate::server::store::{Error, View};
use axum::extract::Request;
use axum::http::Uri;

/// The path in which the slug of an organisation follows.
const ORGANISATION: &str = "/api/v2/organization/";

/// Paths in which a slug follows.
const PREFIXES: [&str; 6] = [
    "/api/v2/project/",
    "/api/v1.1/project/",
    "/api/v2/insights/",
    ORGANISATION,
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
        "gl" | "gitlab" => "GitLab",
        "gitea" => "Gitea",
        "forgejo" => "Forgejo",
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
pub async fn rewrite(state: &Shared, request: &mut Request) {
    if let Some((prefix, rest)) = split(request.uri().path()) {
        let found = match Named::of(prefix, rest) {
            Named::Segments(path) => Some(path),
            Named::Project { id, owner, tail } => {
                slug_of_project(state, id, owner).await.map(|slug| format!("{slug}{tail}"))
            }
            Named::Organisation { id, tail } => {
                slug_of_organisation(state, id).await.map(|slug| format!("{slug}{tail}"))
            }
        };
        if let Some(found) = found.filter(|found| found != rest) {
            let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
            // A text that cannot be a path any more finds nothing as it is.
            if let Ok(uri) = format!("{prefix}{found}{query}").parse::<Uri>() {
                *request.uri_mut() = uri;
            }
        }
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    PREFIXES.iter().find_map(|prefix| Some((*prefix, path.strip_prefix(prefix)?)))
}

/// Begin of a path after its prefix. Ids are in lower case; a tail is empty or begins with a slash.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    /// The segments of a slug, made alike, and all that follows.
    Segments(String),
    /// `PROJECT-ID`, or `circleci/ORGANISATION-ID/PROJECT-ID`.
    Project { id: String, owner: Option<String>, tail: String },
    /// `ORGANISATION-ID`, or `circleci/ORGANISATION-ID`.
    Organisation { id: String, tail: String },
}

impl Named {
    fn of(prefix: &str, rest: &str) -> Self {
        // Only the first segment can hold a whole slug; what follows it is for the handler to decode.
        let (first, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let decoded = first.replace("%2F", "/").replace("%2f", "/");
        let names_project = prefix != ORGANISATION;
        if is_uuid(&decoded) {
            let (id, tail) = (decoded.to_ascii_lowercase(), tail.to_owned());
            return if names_project {
                Self::Project { id, owner: None, tail }
            } else {
                Self::Organisation { id, tail }
            };
        }
        let whole = format!("{decoded}{tail}");
        let tail_after =
            |count: usize| whole.match_indices('/').nth(count).map_or("", |(at, _)| &whole[at..]);
        let segments: Vec<&str> = whole.splitn(4, '/').collect();
        match segments.as_slice() {
            ["circleci", org, project, ..] if names_project && is_uuid(project) => Self::Project {
                id: project.to_ascii_lowercase(),
                owner: Some(org.to_ascii_lowercase()),
                tail: tail_after(2).to_owned(),
            },
            ["circleci", org, ..] if !names_project && is_uuid(org) => {
                Self::Organisation { id: org.to_ascii_lowercase(), tail: tail_after(1).to_owned() }
            }
            _ => Self::Segments(short_slug_or_vcs(&whole)),
        }
    }
}

fn short_slug_or_vcs(slug: &str) -> String {
    if slug.contains('/') { short_slug(slug) } else { short_vcs(slug).to_owned() }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// Finds the project that a client names: `vcs/org/repo`, `circleci/ORGANISATION-ID/PROJECT-ID`, or its id.
pub fn project_named(view: &View, text: &str) -> Result<Option<Project>, Error> {
    match Named::of("", text) {
        Named::Project { id, owner, .. } => {
            let found = read::project(view, &id.into())?;
            Ok(found.filter(|project| owner.is_none_or(|owner| project.organisation.as_str() == owner)))
        }
        Named::Segments(slug) => read::project_by_slug(view, &slug),
        Named::Organisation { .. } => Ok(None),
    }
}

/// Finds the organisation that a client names: `vcs/org`, `circleci/ORGANISATION-ID`, or its id.
pub fn organisation_named(view: &View, text: &str) -> Result<Option<Organisation>, Error> {
    match Named::of(ORGANISATION, text) {
        Named::Organisation { id, .. } => read::organisation(view, &id.into()),
        Named::Segments(slug) => {
            let (vcs, name) = slug.split_once('/').unwrap_or_default();
            read::organisation_by_name(view, vcs, name)
        }
        Named::Project { .. } => Ok(None),
    }
}

async fn slug_of_project(state: &Shared, id: String, owner: Option<String>) -> Option<String> {
    let named = owner.map_or_else(|| id.clone(), |owner| format!("circleci/{owner}/{id}"));
    let found = state.store.read(move |view| project_named(view, &named)).await;
    found.ok().flatten().map(|project| project.slug)
}

async fn slug_of_organisation(state: &Shared, id: String) -> Option<String> {
    let found = state.store.read(move |view| organisation_named(view, &id)).await;
    found.ok().flatten().map(|Organisation { vcs, name, .. }| format!("{vcs}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "c9a646d3-9c61-4cb7-b3d6-0a7a1a1f8b8e";
    const OWNER: &str = "00000000-0000-4000-8000-00000000000a";

    #[test]
    fn slugs_are_made_alike() {
        let segments = |text: &str| match Named::of("/api/v2/project/", text) {
            Named::Segments(segments) => segments,
            other => format!("{other:?}"),
        };
        assert_eq!(segments("gh%2Facme%2Fapp"), "gh/acme/app");
        assert_eq!(segments("github%2facme%2fapp/job/7"), "gh/acme/app/job/7");
        assert_eq!(segments("github/acme/app/tree/a%2Fb"), "gh/acme/app/tree/a%2Fb");
        assert_eq!(segments("bitbucket"), "bb");
        assert_eq!(segments("circleci/acme/app"), "circleci/acme/app");
        assert_eq!(split("/api/v2/project/gh/a"), Some(("/api/v2/project/", "gh/a")));
        assert_eq!(split("/api/v2/context/x"), None);
        assert!(is_uuid(ID) && !is_uuid("gh"));
    }

    #[test]
    fn ids_stand_where_slugs_do() {
        let (id, tail) = (ID.to_owned(), "/job/7".to_owned());
        let by_id = Named::Project { id: id.clone(), owner: None, tail: tail.clone() };
        assert_eq!(Named::of("/api/v2/project/", &format!("{}/job/7", ID.to_uppercase())), by_id);
        let by_both = Named::Project { id, owner: Some(OWNER.to_owned()), tail };
        for text in [format!("circleci/{OWNER}/{ID}/job/7"), format!("circleci%2F{OWNER}%2F{ID}/job/7")] {
            assert_eq!(Named::of("/api/v2/project/", &text), by_both);
        }
        let organisation = Named::Organisation { id: OWNER.to_owned(), tail: "/project".to_owned() };
        for text in [format!("{OWNER}/project"), format!("circleci/{OWNER}/project")] {
            assert_eq!(Named::of(ORGANISATION, &text), organisation);
        }
    }
}
