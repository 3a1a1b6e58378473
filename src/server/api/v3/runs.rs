//! Runs: one, those of a person, and a search.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{self, JsonBody, Path, QueryWords, check_names, moment};
use crate::server::api::shared::lookup::one;
use crate::server::api::shared::paging::cursor;
use crate::server::api::shared::slug::provider;
use crate::server::api::shared::vocabulary::{self, run_v3};
use crate::server::api::v3::filter::{Term, terms};
use crate::server::api::v3::form::{check_filters, entity, filter, list, needed, uuid, with};
use crate::server::auth::Person;
use crate::server::ids::PipelineId;
use crate::server::state::Shared;
use crate::server::store::View;
use crate::server::store::read::{self, Cursor, Filter, Listed, Pipeline, RunStatus};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

/// Most entries of a page.
const MOST: usize = 100;
/// Entries of a page unless the client says.
const PAGE: usize = 20;

/// Serves the paths of this file.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/runs", get(of_person))
        .route("/api/v3/runs/search", post(search))
        .route("/api/v3/runs/{id}", get(by_id))
}

fn show(run: &Pipeline) -> Value {
    let mut event = json!({ "type": run.trigger_type, "action": run.trigger_type });
    if let Some(revision) = &run.revision {
        let vcs = json!({
            "branch": run.branch, "tag": run.tag, "revision": revision, "origin_repository_url": run.origin_url,
        });
        let mut vcs = with(Map::new(), vcs);
        if let Some(subject) = &run.subject {
            let author = run.author.clone().unwrap_or_default();
            let commit =
                json!({ "subject": subject, "url": "", "author": { "name": author, "login": author } });
            vcs.insert("commit".to_owned(), commit);
        }
        event["vcs"] = vcs.into();
    }
    let attributes = with(
        run_v3(run.status),
        json!({ "created_at": run.created_at.to_string(), "errors": run.errors, "number": run.number }),
    );
    let source = provider(&run.project.vcs).to_lowercase();
    let mut references = json!({
        "project": { "id": run.project.id }, "event": { "attributes": event },
        "trigger": { "attributes": { "event_source": { "type": source } } },
    });
    if let Some(person) = &run.actor_id {
        references["user"] = json!({ "id": person });
    }
    json!({ "id": run.id, "attributes": attributes, "references": references })
}

fn show_page(listed: &Listed) -> Json<Value> {
    list(listed.items.iter().map(show).collect(), listed.next.as_ref().map(Cursor::token))
}

async fn by_id(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<PipelineId>,
) -> Answer<Json<Value>> {
    let what = format!("there is no run `{id}`");
    Ok(entity(show(&one(&state, what, move |view| read::pipeline(view, &id)).await?)))
}

/// `filter[name]` of a query, which is one of the words that are known, unless it is absent or empty.
fn one_of(words: &QueryWords, name: &str, known: &[&'static str]) -> Answer<Option<&'static str>> {
    let Some(word) = filter(words, name) else { return Ok(None) };
    match known.iter().find(|known| **known == word) {
        Some(known) => Ok(Some(known)),
        None => Err(bad(format!("`filter[{name}]` cannot be `{word}`: it is one of {}", known.join(", ")))),
    }
}

async fn of_person(State(state): State<Shared>, person: Person, words: QueryWords) -> Answer<Json<Value>> {
    check_filters(&words, &["user_id", "phase", "current_outcome", "from", "to"])?;
    let actor = match needed(&words, "user_id")? {
        "me" => person.id,
        other => uuid("filter[user_id]", other)?,
    };
    let mut wanted = Filter { actor: Some(actor), ..Filter::default() };
    wanted.from = filter(&words, "from").map(|text| moment("filter[from]", text)).transpose()?;
    wanted.to = filter(&words, "to").map(|text| moment("filter[to]", text)).transpose()?;
    let phase = one_of(&words, "phase", &vocabulary::PHASES)?;
    let outcome = one_of(&words, "current_outcome", &vocabulary::OUTCOMES)?;
    let cursor = cursor(words.get("page[cursor]").map(String::as_str), "the cursor")?;
    let limit = match words.get("page[limit]") {
        None => PAGE,
        Some(text) => input::number("page[limit]", text)?,
    };
    let limit = limit.clamp(1, MOST);
    let read = move |view: &View| {
        let (mut found, mut cursor) = (Vec::new(), cursor);
        // Phases are made of many statuses: pages of the store are sifted until one is full.
        loop {
            let page = read::pipelines(view, &wanted, cursor.as_ref(), limit)?;
            let fits = |run: &Pipeline| {
                let fields = run_v3(run.status);
                let is = |name: &str, wanted: Option<&str>| {
                    wanted.is_none_or(|wanted| fields.get(name).and_then(Value::as_str) == Some(wanted))
                };
                is("phase", phase) && is("current_outcome", outcome)
            };
            found.extend(page.items.into_iter().filter(|run| fits(run)));
            cursor = page.next;
            if found.len() >= limit || cursor.is_none() {
                return Ok(Listed { items: found, next: cursor });
            }
        }
    };
    Ok(show_page(&state.store.read(read).await?))
}

async fn search(State(state): State<Shared>, _person: Person, body: JsonBody) -> Answer<Json<Value>> {
    body.check_names("a search", &["scope", "filter", "order_by", "page"])?;
    let sought = body.optional_text("filter")?.unwrap_or_default();
    let body = &body.0;
    let scope = &body["scope"];
    check_names(scope, "`scope`", &["project_ids", "from", "to"])?;
    check_names(&body["page"], "`page`", &["cursor", "limit"])?;
    let ids =
        scope["project_ids"].as_array().ok_or_else(|| bad("`scope.project_ids` must be a list of ids"))?;
    let ids = ids.iter().map(|id| uuid("scope.project_ids", id.as_str().unwrap_or_default()));
    let date = |name: &str| {
        let text = scope[name].as_str().filter(|text| !text.is_empty());
        text.map(|text| moment(&format!("scope.{name}"), text)).transpose()
    };
    let mut wanted = Filter {
        projects: ids.collect::<Answer<_>>()?,
        from: date("from")?,
        to: date("to")?,
        ..Filter::default()
    };
    if wanted.projects.is_empty() {
        return Ok(list(Vec::new(), None));
    }
    let mut status = None;
    for Term { name, value } in terms(sought).map_err(bad)? {
        match name.as_str() {
            "pipeline.git.branch" => wanted.branch = Some(value),
            "pipeline.git.revision" => wanted.revision = Some(value),
            "pipeline.status" => status = Some(value),
            other => {
                return Err(bad(format!(
                    "`{other}` cannot be searched for (known: pipeline.git.branch, pipeline.git.revision, pipeline.status)"
                )));
            }
        }
    }
    let cursor = cursor(body["page"]["cursor"].as_str(), "the cursor")?;
    let limit = body["page"]["limit"].as_u64().map_or(PAGE, |limit| limit as usize);
    if limit > MOST {
        return Err(bad(format!("`page.limit` can be at most {MOST}")));
    }
    if let Some(word) = status {
        let status = RunStatus::parse(&word);
        wanted.statuses.push(status.ok_or_else(|| {
            bad(format!("`pipeline.status` cannot be `{word}`: it is one of {}", RunStatus::WORDS.join(", ")))
        })?);
    }
    let read = move |view: &View| read::pipelines(view, &wanted, cursor.as_ref(), limit.max(1));
    Ok(show_page(&state.store.read(read).await?))
}
