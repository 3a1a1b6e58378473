//! The list of pipelines: of all projects, or of one.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{Path, moment};
use crate::server::api::shared::lookup::{Slug, project};
use crate::server::store::read::{self, Cursor, Filter, Pipeline, RunStatus, Workflow};
use crate::server::store::tables::people;
use crate::server::time::Millis;
use crate::server::web::frame::Head;
use crate::server::web::session::Visitor;
use crate::server::web::shared::Web;
use crate::server::web::shown::{self, Mark, page, query_value};
use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use std::collections::BTreeSet;

/// Pipelines of one page.
const PAGE: usize = 50;
/// Serves the paths of this file.
pub(super) fn router() -> Router<Web> {
    Router::new().route("/", get(all)).route("/{vcs}/{org}/{repo}", get(of_project))
}

/// The query of an address, in its order.
type Words = Query<Vec<(String, String)>>;

/// Wishes that narrow the list down; empty texts do not.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// A branch or a tag.
    branch: String,
    /// Statuses of which one is enough.
    statuses: Vec<String>,
    by: String,
    /// Pipelines that were created before this moment are left out.
    since: String,
    before: String,
}

impl Wanted {
    fn of(Query(words): Words) -> Answer<Self> {
        let mut wanted = Self::default();
        let mut given = BTreeSet::new();
        for (name, text) in words {
            let place = match name.as_str() {
                "status" => {
                    let word = text.trim().to_owned();
                    if !word.is_empty() && !wanted.statuses.contains(&word) {
                        wanted.statuses.push(word);
                    }
                    continue;
                }
                "branch" => &mut wanted.branch,
                "by" => &mut wanted.by,
                "since" => &mut wanted.since,
                "before" => &mut wanted.before,
                _ => continue,
            };
            *place = text.trim().to_owned();
            if !given.insert(name.clone()) {
                return Err(bad(format!("`{name}` stands in the query more than once")));
            }
        }
        Ok(wanted)
    }
}

#[derive(Template)]
#[template(path = "list.html")]
struct List {
    head: Head,
    /// The project, unless all are shown.
    slug: Option<String>,
    wanted: Wanted,
    statuses: Vec<(&'static str, bool)>,
    rows: Vec<Row>,
    /// Projects to choose from, where all are shown.
    projects: Vec<String>,
    older: Option<String>,
}

impl List {
    fn is_narrowed(&self) -> bool {
        let Wanted { branch, statuses, by, since, before } = &self.wanted;
        !statuses.is_empty() || [branch, by, since, before].iter().any(|text| !text.is_empty())
    }

    /// The statuses that are shown, in words.
    fn shown_statuses(&self) -> String {
        self.wanted.statuses.join(" or ")
    }
}

struct Row {
    address: String,
    slug: String,
    number: i64,
    mark: Mark,
    place: String,
    revision: String,
    subject: String,
    actor: String,
    created: String,
    /// The first error of the config.
    error: Option<String>,
    workflows: Vec<Part>,
}

struct Part {
    address: String,
    name: String,
    mark: Mark,
    took: String,
}

fn row(pipeline: Pipeline, workflows: Vec<Workflow>) -> Row {
    let slug = pipeline.project.slug();
    let address = format!("/{slug}/{}", pipeline.number);
    let part = |workflow: Workflow| Part {
        address: format!("{address}/{}", workflow.id),
        mark: workflow.status.into(),
        took: shown::took(Some(workflow.created_at), workflow.stopped_at),
        name: workflow.name,
    };
    let workflows = workflows.into_iter().map(part).collect();
    let (place, revision) = shown::source(&pipeline);
    Row {
        number: pipeline.number,
        mark: pipeline.status.into(),
        place,
        revision,
        subject: pipeline.subject.unwrap_or_default(),
        actor: pipeline.actor_login,
        created: shown::moment(pipeline.created_at),
        error: pipeline.errors.into_iter().next().map(|error| error.message),
        workflows,
        slug,
        address,
    }
}

/// Reads a day, or a moment of one.
fn since(text: &str) -> Answer<Millis> {
    match text.len() {
        // The text of a day.
        10 => moment("since", &format!("{text} 00:00:00")),
        _ => moment("since", text),
    }
    .map_err(|_| {
        bad(format!(
            "`since` is a day such as 2026-01-02, or a time such as 2026-01-02T03:04:05Z, not `{text}`"
        ))
    })
}

async fn all(State(web): State<Web>, visitor: Visitor, words: Words) -> Answer<Response> {
    let wanted = Wanted::of(words)?;
    let projects = web.state.store.read(|view| read::projects_of_some(view, None)).await?;
    let projects = projects.into_iter().map(|project| project.slug).collect();
    show(&web, Head::for_visitor("Pipelines", &visitor), None, Filter::default(), wanted, projects).await
}

async fn of_project(
    State(web): State<Web>,
    visitor: Visitor,
    Path(path): Path<Slug>,
    words: Words,
) -> Answer<Response> {
    let wanted = Wanted::of(words)?;
    let project = project(&web.state, path).await?;
    let filter = Filter { projects: vec![project.id], ..Filter::default() };
    let head = Head::for_visitor(&project.slug, &visitor);
    show(&web, head, Some(project.slug), filter, wanted, Vec::new()).await
}

async fn show(
    web: &Web,
    head: Head,
    slug: Option<String>,
    mut filter: Filter,
    wanted: Wanted,
    projects: Vec<String>,
) -> Answer<Response> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    filter.branch_or_tag = given(&wanted.branch);
    for word in &wanted.statuses {
        let known = RunStatus::WORDS.join(", ");
        let refused = || bad(format!("`{word}` is not a status of a pipeline: it is one of {known}"));
        filter.statuses.push(RunStatus::parse(word).ok_or_else(refused)?);
    }
    filter.from = given(&wanted.since).map(|text| since(&text)).transpose()?;
    let after = given(&wanted.before).map(|token| {
        Cursor::parse(&token).ok_or_else(|| bad("`before` is not of a link of this list: go back to it"))
    });
    let (after, by) = (after.transpose()?, given(&wanted.by));
    let found = web.state.store.read(move |view| {
        if let Some(login) = by {
            match people::find_user(view, &login)? {
                Some(user) => filter.actor = Some(user.id),
                None => return Ok((Vec::new(), None)),
            }
        }
        let listed = read::pipelines(view, &filter, after.as_ref(), PAGE)?;
        let with_workflows = |pipeline: Pipeline| {
            let workflows = read::workflows_of(view, &pipeline.id)?;
            Ok(row(pipeline, workflows))
        };
        let rows = listed.items.into_iter().map(with_workflows);
        Ok((rows.collect::<Result<Vec<_>, crate::server::store::Error>>()?, listed.next))
    });
    let (rows, next) = found.await?;
    let older = next.map(|cursor| {
        let Wanted { branch, statuses, by, since, .. } = &wanted;
        let before = &cursor.token();
        let words = [("branch", branch), ("by", by), ("since", since), ("before", before)];
        let words = words.into_iter().chain(statuses.iter().map(|word| ("status", word)));
        let query = words
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", query_value(value)))
            .collect::<Vec<_>>();
        format!("?{}", query.join("&"))
    });
    let statuses =
        RunStatus::WORDS.map(|word| (word, wanted.statuses.iter().any(|wanted| wanted == word))).to_vec();
    page(&List { head, slug, wanted, statuses, rows, projects, older })
}
