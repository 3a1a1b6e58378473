//! Version 3: what the current command line of CircleCI reads. A run is a pipeline of version 2.

use crate::server::api::ours::results;
use crate::server::api::shared::input::{Body, Words, bad, project_by_slug};
use crate::server::api::shared::vocabulary::{job_v3, run_v3, step_v3, time, workflow_v3};
use crate::server::api::v2::{one, provider};
use crate::server::api::{Answer, Failure, Person};
use crate::server::engine::commit;
use crate::server::state::{Shared, timestamp};
use crate::server::store::View;
use crate::server::store::read::{self, Cursor, Filter, Job, Listed, Pipeline, Workflow};
use crate::server::time::Millis;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rusqlite::OptionalExtension;
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// Most entries of a page.
const MOST: usize = 100;
/// Entries of a page unless the client says.
const PAGE: usize = 20;

/// The paths.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v3/users", get(users))
        .route("/api/v3/orgs", get(organisations))
        .route("/api/v3/projects", get(projects))
        .route("/api/v3/projects/{id}", get(project))
        .route("/api/v3/runs", get(my_runs))
        .route("/api/v3/runs/search", post(search))
        .route("/api/v3/runs/{id}", get(run))
        .route("/api/v3/workflows", get(workflows))
        .route("/api/v3/workflows/{id}", get(workflow))
        .route("/api/v3/workflows/{id}/cancel", post(cancel))
        .route("/api/v3/jobs", get(jobs))
        .route("/api/v3/jobs/{id}", get(job))
        .route("/api/v3/jobs/{id}/artifacts", get(artifacts))
        .route("/api/v3/jobs/{id}/tests", get(tests))
}

fn entity(data: Value) -> Json<Value> {
    Json(json!({ "data": data }))
}

fn list(data: Vec<Value>, next: Option<String>) -> Json<Value> {
    Json(json!({ "data": data, "page": { "next": next, "prev": null } }))
}

fn filter<'w>(words: &'w Words, name: &str) -> Option<&'w str> {
    words.get(&format!("filter[{name}]")).map(String::as_str).filter(|value| !value.is_empty())
}

fn needed<'w>(words: &'w Words, name: &str) -> Answer<&'w str> {
    filter(words, name).ok_or_else(|| bad(format!("`filter[{name}]` is missing")))
}

async fn users(person: Person, words: Words) -> Answer<Json<Value>> {
    let wanted = needed(&words, "user_id")?;
    if wanted != "me" && wanted != person.id {
        return Ok(list(Vec::new(), None));
    }
    let attributes = json!({ "name": person.login, "login": person.login });
    Ok(list(vec![json!({ "id": person.id, "attributes": attributes, "references": {} })], None))
}

async fn organisations(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let slug = needed(&words, "slug")?.to_owned();
    let read = move |c: &View| {
        let (vcs, name) = slug.split_once('/').unwrap_or_default();
        let vcs = crate::server::api::shared::slug::short_vcs(vcs).to_owned();
        let mut query =
            c.prepare_cached("SELECT id, name FROM organisations WHERE vcs = ?1 AND name = ?2")?;
        let row = query.query_row([vcs, name.to_owned()], |row| {
            Ok(json!({ "id": row.get::<_, String>(0)?, "attributes": { "name": row.get::<_, String>(1)? }, "references": {} }))
        });
        Ok(row.optional()?)
    };
    Ok(list(state.store.read(read).await?.into_iter().collect(), None))
}

fn show_project(project: &crate::server::api::shared::input::Project) -> Value {
    let name = project.slug.rsplit('/').next().unwrap_or_default();
    json!({
        "id": project.id, "attributes": { "name": name, "slug": project.slug },
        "references": { "org": { "id": project.organisation } },
    })
}

async fn projects(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let slug = filter(&words, "slug").map(|slug| match slug.split_once('/') {
        Some((vcs, rest)) => format!("{}/{rest}", crate::server::api::shared::slug::short_vcs(vcs)),
        None => slug.to_owned(),
    });
    let (organisation, name) =
        (filter(&words, "org_id").map(str::to_owned), filter(&words, "name").map(str::to_owned));
    let read = move |c: &View| match (slug, organisation) {
        (Some(slug), _) => Ok(project_by_slug(c, &slug)?.into_iter().collect()),
        (None, Some(organisation)) => {
            let mut query = c.prepare_cached(
                "SELECT id, organisation_id, vcs || '/' || org || '/' || repo, repository_url, default_branch
                 FROM projects WHERE organisation_id = ?1 AND (?2 IS NULL OR repo = ?2) ORDER BY repo",
            )?;
            let rows = query.query_map(
                rusqlite::params![organisation, name],
                crate::server::api::shared::input::project_row,
            )?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        }
        (None, None) => Ok(Vec::new()),
    };
    if filter(&words, "slug").is_none() && filter(&words, "org_id").is_none() {
        return Err(bad("`filter[slug]` or `filter[org_id]` is missing"));
    }
    let found: Vec<crate::server::api::shared::input::Project> = state.store.read(read).await?;
    Ok(list(found.iter().map(show_project).collect(), None))
}

async fn project(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no project `{id}`");
    let read = move |c: &View| {
        let mut query = c.prepare_cached(
            "SELECT id, organisation_id, vcs || '/' || org || '/' || repo, repository_url, default_branch
             FROM projects WHERE id = ?1",
        )?;
        Ok(query.query_row([id], crate::server::api::shared::input::project_row).optional()?)
    };
    Ok(entity(show_project(&one(&state, what, read).await?)))
}

/// Puts fields into a map; null ones are left out, since clients cannot read empty ones.
fn with(mut map: Map<String, Value>, more: Value) -> Map<String, Value> {
    if let Value::Object(more) = more {
        map.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    map
}

fn show_run(run: &Pipeline) -> Value {
    let mut event = json!({ "type": run.trigger_type, "action": run.trigger_type });
    if let Some(revision) = &run.revision {
        let vcs = json!({
            "branch": run.branch, "tag": run.tag, "revision": revision, "origin_repository_url": run.repository_url,
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
    let errors: Value = serde_json::from_str(&run.errors).unwrap_or_default();
    let attributes = with(
        run_v3(run.status),
        json!({ "created_at": timestamp(run.created_at_ms), "errors": errors, "number": run.number }),
    );
    let mut references = json!({
        "project": { "id": run.project.id }, "event": { "attributes": event },
        "trigger": { "attributes": { "event_source": { "type": provider(&run.project).to_lowercase() } } },
    });
    if let Some(person) = &run.actor_id {
        references["user"] = json!({ "id": person });
    }
    json!({ "id": run.id, "attributes": attributes, "references": references })
}

fn show_runs(listed: &Listed) -> Json<Value> {
    list(listed.items.iter().map(show_run).collect(), listed.next.as_ref().map(Cursor::token))
}

async fn run(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let what = format!("there is no run `{id}`");
    Ok(entity(show_run(&one(&state, what, move |c| read::pipeline(c, &id)).await?)))
}

fn moment(text: &str) -> Answer<i64> {
    let time = humantime::parse_rfc3339_weak(text)
        .map_err(|_| bad(format!("`{text}` is not a time such as 2026-01-02T03:04:05Z")))?;
    Ok(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64))
}

fn after(token: Option<&str>) -> Answer<Option<Cursor>> {
    match token.filter(|token| !token.is_empty()) {
        None => Ok(None),
        Some(token) => {
            Cursor::parse(token).map(Some).ok_or_else(|| bad("the cursor is not one that was given out"))
        }
    }
}

async fn my_runs(State(state): State<Shared>, person: Person, words: Words) -> Answer<Json<Value>> {
    let wanted = needed(&words, "user_id")?;
    let actor = if wanted == "me" { person.id } else { wanted.to_owned() };
    let mut wanted = Filter { actor: Some(actor), ..Filter::default() };
    wanted.from_ms = filter(&words, "from").map(moment).transpose()?;
    wanted.to_ms = filter(&words, "to").map(moment).transpose()?;
    let (phase, outcome) =
        (filter(&words, "phase").map(str::to_owned), filter(&words, "current_outcome").map(str::to_owned));
    let cursor = after(words.get("page[cursor]").map(String::as_str))?;
    let limit = match words.get("page[limit]") {
        None => PAGE,
        Some(text) => {
            text.parse().map_err(|_| bad(format!("`page[limit]` must be a number, not `{text}`")))?
        }
    };
    let limit = limit.clamp(1, MOST);
    let read = move |c: &View| {
        let (mut found, mut cursor) = (Vec::new(), cursor);
        // Phases are made of many statuses: pages of the store are sifted until one is full.
        loop {
            let page = read::pipelines(c, &wanted, cursor.as_ref(), limit)?;
            let fits = |run: &Pipeline| {
                let fields = run_v3(run.status);
                let is = |name: &str, wanted: &Option<String>| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| fields.get(name).and_then(Value::as_str) == Some(wanted))
                };
                is("phase", &phase) && is("current_outcome", &outcome)
            };
            found.extend(page.items.into_iter().filter(|run| fits(run)));
            cursor = page.next;
            if found.len() >= limit || cursor.is_none() {
                return Ok(Listed { items: found, next: cursor });
            }
        }
    };
    Ok(show_runs(&state.store.read(read).await?))
}

async fn search(State(state): State<Shared>, _person: Person, body: Body) -> Answer<Json<Value>> {
    let body = &body.0;
    let scope = &body["scope"];
    let ids =
        scope["project_ids"].as_array().ok_or_else(|| bad("`scope.project_ids` must be a list of ids"))?;
    let mut wanted = Filter {
        projects: ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        from_ms: scope["from"].as_str().filter(|t| !t.is_empty()).map(moment).transpose()?,
        to_ms: scope["to"].as_str().filter(|t| !t.is_empty()).map(moment).transpose()?,
        ..Filter::default()
    };
    if wanted.projects.is_empty() {
        return Ok(list(Vec::new(), None));
    }
    for (name, value) in terms(body["filter"].as_str().unwrap_or_default()).map_err(bad)? {
        match name.as_str() {
            "pipeline.git.branch" => wanted.branch = Some(value),
            "pipeline.git.revision" => wanted.revision = Some(value),
            "pipeline.status" => wanted.status = Some(value),
            other => {
                return Err(bad(format!(
                    "`{other}` cannot be searched for (known: pipeline.git.branch, pipeline.git.revision, pipeline.status)"
                )));
            }
        }
    }
    let cursor = after(body["page"]["cursor"].as_str())?;
    let limit = body["page"]["limit"].as_u64().map_or(PAGE, |limit| limit as usize);
    if limit > MOST {
        return Err(bad(format!("`page.limit` can be at most {MOST}")));
    }
    let read = move |c: &View| read::pipelines(c, &wanted, cursor.as_ref(), limit.max(1));
    Ok(show_runs(&state.store.read(read).await?))
}

/// Terms `name == "value"` joined by ` and `; values are quoted as Go does.
fn terms(text: &str) -> Result<Vec<(String, String)>, String> {
    let wrong =
        || format!("the filter `{text}` is not understood: write `name == \"value\"`, joined by ` and `");
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("==").ok_or_else(wrong)?;
        let after = after.trim_start();
        let mut ends = after.match_indices('"').map(|(at, _)| at).skip(1);
        // The first quote that ends a well-formed string.
        let (value, end) = ends
            .find_map(|at| Some((serde_json::from_str::<String>(after.get(..=at)?).ok()?, at)))
            .ok_or_else(wrong)?;
        found.push((name.trim().to_owned(), value));
        rest = after[end + 1..].trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix("and ").ok_or_else(wrong)?.trim_start();
        }
    }
    Ok(found)
}

fn show_workflow(workflow: &Workflow) -> Value {
    let mut attributes = workflow_v3(workflow.status);
    attributes.insert("name".into(), workflow.name.clone().into());
    attributes.insert("created_at".into(), timestamp(workflow.created_at_ms).into());
    attributes.insert("ended_at".into(), time(workflow.stopped_at_ms));
    let mut references =
        json!({ "run": { "id": workflow.pipeline_id }, "project": { "id": workflow.project.id } });
    if let Some(person) = &workflow.started_by {
        references["user"] = json!({ "id": person });
    }
    json!({ "id": workflow.id, "attributes": attributes, "references": references })
}

async fn workflows(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let run = needed(&words, "run_id")?.to_owned();
    let found = state.store.read(move |c| read::workflows_of(c, &run)).await?;
    Ok(list(found.iter().map(show_workflow).collect(), None))
}

async fn workflow(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let what = format!("there is no workflow `{id}`");
    Ok(entity(show_workflow(&one(&state, what, move |c| read::workflow(c, &id)).await?)))
}

async fn cancel(State(state): State<Shared>, person: Person, Path(id): Path<String>) -> Answer<Response> {
    let (what, answer) = (format!("there is no workflow `{id}`"), json!({ "id": id }));
    let write = state.store.write(move |tx| {
        commit::cancel_workflow(tx, &id.into(), Some(&person.id.as_str().into()), Millis::now())
    });
    if !write.await? {
        return Err(Failure::not_found(what));
    }
    Ok((StatusCode::ACCEPTED, entity(answer)).into_response())
}

fn job_attributes(job: &Job) -> Map<String, Value> {
    let mut attributes = job_v3(job.status);
    attributes.insert("name".into(), job.name.clone().into());
    attributes.insert("type".into(), job.kind.as_str().into());
    attributes.insert("started_at".into(), time(job.started_at_ms));
    attributes.insert("ended_at".into(), time(job.stopped_at_ms));
    if let Some(number) = job.number {
        attributes.insert("number".into(), number.into());
    }
    attributes
}

async fn jobs(State(state): State<Shared>, _person: Person, words: Words) -> Answer<Json<Value>> {
    let workflow = needed(&words, "workflow_id")?.to_owned();
    let found = state.store.read(move |c| read::jobs_of(c, &workflow)).await?;
    let show = |job: &Job| {
        let references =
            json!({ "workflow": { "id": job.workflow_id }, "project": { "id": job.project.id } });
        json!({ "id": job.id, "attributes": job_attributes(job), "references": references })
    };
    Ok(list(found.iter().map(show).collect(), None))
}

async fn job(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Json<Value>> {
    let what = format!("there is no job `{id}`");
    let read = move |c: &View| {
        let Some(job) = read::job(c, &id)? else { return Ok(None) };
        let attempts = read::attempts(c, &job.ran_as)?;
        let actor = read::pipeline(c, &job.pipeline_id)?.and_then(|pipeline| pipeline.actor_id);
        Ok(Some((job, attempts, actor)))
    };
    let (job, attempts, actor) = one(&state, what, read).await?;
    let step = |step: &read::StepRow| {
        with(
            step_v3(step.status),
            json!({
                "name": step.name, "type": step.kind, "num": step.step, "exit_code": step.exit_code,
                "started_at": timestamp(step.started_at_ms), "ended_at": step.ended_at_ms.map(timestamp),
                "command": step.command,
            }),
        )
    };
    let executions: Vec<Value> = attempts
        .iter()
        .map(|attempt| json!({ "steps": attempt.steps.iter().map(step).collect::<Vec<_>>() }))
        .collect();
    let mut attributes = job_attributes(&job);
    attributes.insert("parallel_executions".into(), executions.into());
    let mut references = json!({
        "project": { "id": job.project.id }, "pipeline": { "id": job.pipeline_id }, "workflow": { "id": job.workflow_id },
    });
    if let Some(person) = actor {
        references["user"] = json!({ "id": person });
    }
    Ok(entity(json!({ "id": job.id, "attributes": attributes, "references": references })))
}

/// The job of a path, by its id.
async fn job_by_id(state: &Shared, id: String) -> Answer<Job> {
    let what = format!("there is no job `{id}`");
    one(state, what, move |c| read::job(c, &id)).await
}

async fn artifacts(
    State(state): State<Shared>,
    _person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let job = job_by_id(&state, id).await?;
    let found = state.store.read(move |c| read::artifacts(c, &job.ran_as)).await?;
    let show = |artifact: &read::Artifact| {
        let url = results::artifact_url(&state, artifact);
        json!({ "id": artifact.id, "attributes": { "path": artifact.path, "url": url, "execution": artifact.node_index } })
    };
    Ok(list(found.iter().map(show).collect(), None))
}

async fn tests(State(state): State<Shared>, _person: Person, Path(id): Path<String>) -> Answer<Response> {
    let job = job_by_id(&state, id).await?;
    let found = state.store.read(move |c| read::tests(c, &job.ran_as)).await?;
    let lines: String =
        found.iter().map(|test| format!("{}\n", crate::server::api::v2::show_test(test))).collect();
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod unit {
    use super::*;

    #[test]
    fn filters_are_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(terms("").unwrap(), []);
        assert_eq!(
            terms(r#"pipeline.git.branch == "a \"b\" and c" and pipeline.status == "failed""#).unwrap(),
            [pair("pipeline.git.branch", "a \"b\" and c"), pair("pipeline.status", "failed")]
        );
        for bad in ["x", "x == y", r#"x == "y" or z == "w""#, r#"x == "y"#] {
            assert!(terms(bad).is_err(), "{bad}");
        }
    }
}
