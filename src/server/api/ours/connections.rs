//! How projects are connected to their forges: for administrators, but for the list of what came.

use crate::http::caller::check_address;
use crate::protocol::Secret;
use crate::server::api::ours::hooks;
use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{self, JsonBody, Path, QueryWords, message};
use crate::server::api::shared::lookup::{Slug, project};
use crate::server::api::shared::vocabulary::time;
use crate::server::auth::{Administrator, Person, new_token};
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::event::{Event, StoredChange};
use crate::server::pipelines::forge::hooks::SIGNING;
use crate::server::pipelines::forge::report::warnings as warnings_of;
use crate::server::pipelines::forge::round::{About, Hooked, about, set_hook};
use crate::server::pipelines::forge::take::{Replayed, replay as replay_changes};
use crate::server::pipelines::repository::{Error as ReadError, Missing, Reference};
use crate::server::secrets::access::check_token;
use crate::server::secrets::forge as secrets;
use crate::server::secrets::tokens::{self, FallbackCredential, TokenUser};
use crate::server::state::Shared;
use crate::server::store::forge_states::{EventState, Forge};
use crate::server::store::read::Project;
use crate::server::store::tables::deliveries::{self, ShownDelivery};
use crate::server::store::tables::forge::{self, Connection};
use crate::server::store::tables::reports::{self, ShownReport};
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// Deliveries that are listed, changes of each, and changes of one delivery on a page.
const MOST_LISTED: u32 = 50;
const MOST_CHANGES: u32 = 20;
const PAGE_OF_CHANGES: u32 = 1000;
/// Time between two looks at the refs of a repository, in seconds.
const POLL: RangeInclusive<u64> = 5..=7 * 24 * 60 * 60;

/// Serves the paths of this file.
pub fn router() -> Router<Shared> {
    let project = "/api/v2/project/{vcs}/{org}/{repo}";
    Router::new()
        .route(&format!("{project}/connection"), get(show).put(connect).delete(disconnect))
        .route(&format!("{project}/deliveries"), get(list))
        .route(&format!("{project}/deliveries/{{delivery}}/changes"), get(list_changes))
        .route(&format!("{project}/statuses"), get(statuses))
        .route(&format!("{project}/deliveries/{{delivery}}/replay"), post(replay))
}

/// The owner of what a project shows to the API of its forge.
pub fn token_of(view: &View, project: &ProjectId) -> Result<Option<&'static str>, StoreError> {
    if forge::secret(view, project, "token")?.is_some() {
        return Ok(Some("project"));
    }
    Ok(tokens::beside(view, project, TokenUser::ControlPlane)?.map(|beside| match beside {
        FallbackCredential::App => "github-app",
        FallbackCredential::Organisation(_) => "organization",
    }))
}

fn shown(state: &Shared, connection: &Connection, has_secret: bool, token_of: Option<&str>) -> Value {
    json!({
        "forge": connection.forge, "address": hooks::address(&state.settings.public_url, &connection.project),
        "repository_id": connection.repository, "repository_name": connection.full_name,
        "api_url": connection.api_url, "poll_seconds": connection.poll_ms.map(|ms| ms / 1000),
        "poll_message": connection.poll_message, "has_secret": has_secret,
        "has_token": token_of == Some("project"), "token_of": token_of, "token_message": connection.token_message,
    })
}

/// How a project is connected, as people see it.
async fn found(state: &Shared, project: &Project) -> Answer<Value> {
    let id = project.id.clone();
    let read = move |view: &View| {
        let Some(connection) = forge::connection(view, &id)? else { return Ok(None) };
        let has_secret = forge::secret(view, &id, "hook")?.is_some();
        Ok(Some((has_secret, token_of(view, &id)?, connection)))
    };
    let (has_secret, token_of, connection) = state.store.read(read).await?.ok_or_else(|| {
        ApiError::not_found(format!(
            "the project `{slug}` is not connected to a forge: `runlet admin project connect {slug}`",
            slug = project.slug
        ))
    })?;
    Ok(shown(state, &connection, has_secret, token_of))
}

async fn show(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    Ok(Json(found(&state, &project).await?))
}

/// Wishes for a connection; parts that are absent stay as they are.
struct Wanted {
    forge: Option<Forge>,
    api_url: Option<String>,
    repository_id: Option<String>,
    repository_name: Option<String>,
    poll_ms: Option<Option<u64>>,
    token: Option<Secret>,
    secret: Option<Secret>,
    rotates: bool,
    sets_hook: bool,
}

const KNOWN: [&str; 9] = [
    "forge",
    "api_url",
    "repository_id",
    "repository_name",
    "poll_seconds",
    "token",
    "secret",
    "rotate_secret",
    "set_hook",
];

fn wanted(body: &JsonBody) -> Answer<Wanted> {
    if !body.0.is_null() && !body.0.is_object() {
        return Err(bad("the body must be an object"));
    }
    body.check_names("a connection", &KNOWN)?;
    let text = |name: &str| Ok::<_, ApiError>(body.optional_text(name)?.map(str::to_owned));
    let forge = match text("forge")? {
        None => None,
        Some(word) => Some(Forge::parse(&word).ok_or_else(|| {
            let known = Forge::ALL.map(Forge::as_str).join(", ");
            bad(format!("`{word}` is no forge that is known here (known: {known})"))
        })?),
    };
    let api_url = text("api_url")?.map(|url| url.trim_end_matches('/').to_owned());
    if let Some(url) = api_url.as_deref().filter(|url| !url.is_empty()) {
        check_api(url)?;
    }
    let poll_ms = match body.0.get("poll_seconds") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(given) => match given.as_u64().filter(|seconds| POLL.contains(seconds)) {
            Some(seconds) => Some(Some(seconds * 1000)),
            None => {
                let (least, most) = (POLL.start(), POLL.end());
                return Err(bad(format!("`poll_seconds` is a number from {least} to {most}, or null")));
            }
        },
    };
    let token = text("token")?.map(|token| token.trim().to_owned());
    if let Some(token) = token.as_deref().filter(|token| !token.is_empty()) {
        check_token(token).map_err(|why| bad(format!("`token` cannot be used: {why}")))?;
    }
    let secret =
        text("secret")?.map(|secret| check_secret(&secret).map(|()| Secret::new(secret))).transpose()?;
    let rotates = body.is_set("rotate_secret")?;
    if rotates && secret.is_some() {
        return Err(bad(
            "`secret` is one that the forge has made, `rotate_secret` makes one here: give one of the two",
        ));
    }
    Ok(Wanted {
        forge,
        api_url,
        repository_id: text("repository_id")?,
        repository_name: text("repository_name")?,
        poll_ms,
        token: token.map(Secret::new),
        secret,
        rotates,
        sets_hook: body.is_set("set_hook")?,
    })
}

/// Checks the address of the API of a forge, as it will be called.
pub fn check_api(url: &str) -> Answer<()> {
    check_address(url).map_err(|why| {
        bad(format!(
            "`api_url` is the address of the API of the forge (`--api`), and this cannot be it: {why}"
        ))
    })
}

/// Checks the id of a repository, as a forge tells it in its deliveries.
fn check_repository_id(forge: Forge, id: &str) -> Answer<()> {
    let (is_one, form) = match forge {
        Forge::GitHub | Forge::GitLab | Forge::Gitea | Forge::Forgejo | Forge::BitbucketDc => {
            (id.len() <= 20 && id.bytes().all(|b| b.is_ascii_digit()), "a number, such as 4711")
        }
        Forge::BitbucketCloud => {
            let inner = id.strip_prefix('{').and_then(|id| id.strip_suffix('}')).unwrap_or_default();
            let is_one = inner.len() == 36 && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            (is_one, "a UUID in braces, such as {b2d6c8a0-1111-2222-3333-444455556666}")
        }
        Forge::Git => (true, ""),
    };
    match is_one {
        true => Ok(()),
        false => Err(bad(format!("`{id}` is no id of a repository at {forge}: there it is {form}"))),
    }
}

/// Checks the name of a repository, which stands in addresses of the forge.
fn check_repository_name(forge: Forge, name: &str) -> Answer<()> {
    let parts: Vec<&str> = name.split('/').collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && !part.bytes().all(|b| b == b'.')
            && !part.chars().any(|c| c.is_control() || c.is_whitespace() || "\\?#%:*[]".contains(c))
    };
    let is_count = match forge {
        Forge::Git => true,
        Forge::GitLab => parts.len() >= 2,
        _ => parts.len() == 2,
    };
    match is_count && name.len() <= 500 && parts.iter().all(is_part) {
        true => Ok(()),
        false => {
            Err(bad(format!("`{name}` is no name of a repository at {forge}: there it is such as acme/app")))
        }
    }
}

/// Checks a secret that a forge, or somebody, has made. A signing token of GitLab is a key in base64.
fn check_secret(secret: &str) -> Answer<()> {
    if !(16..=512).contains(&secret.len()) || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("`secret` is no secret of a webhook: it is one word of 16 to 512 characters"));
    }
    let key = secret.strip_prefix(SIGNING).map(|key| STANDARD.decode(key));
    if key.is_some_and(|key| !key.is_ok_and(|key| key.len() >= 16)) {
        return Err(bad(format!(
            "`secret` begins with `{SIGNING}` and is no signing token of GitLab: after it comes a key of at least 16 bytes in base64"
        )));
    }
    Ok(())
}

/// A new secret, in the form that a forge takes wherever it can be entered.
fn new_secret(forge: Forge, fresh: &str) -> Secret {
    match forge {
        // Good for either of the two fields there.
        Forge::GitLab => {
            Secret::new(format!("{SIGNING}{}", STANDARD.encode(digest(&SHA256, fresh.as_bytes()))))
        }
        _ => Secret::new(fresh),
    }
}

/// The forge that the first part of a slug stands for.
pub fn usual_forge(slug: &str) -> Option<Forge> {
    match slug.split('/').next().unwrap_or_default() {
        "gh" => Some(Forge::GitHub),
        "bb" => Some(Forge::BitbucketCloud),
        "gl" | "gitlab" => Some(Forge::GitLab),
        "gitea" => Some(Forge::Gitea),
        "forgejo" => Some(Forge::Forgejo),
        "git" => Some(Forge::Git),
        _ => None,
    }
}

/// The base of the API of the forges that are in one place only.
pub fn usual_api(forge: Forge) -> Option<String> {
    match forge {
        Forge::GitHub => Some("https://api.github.com".to_owned()),
        Forge::BitbucketCloud => Some("https://api.bitbucket.org/2.0".to_owned()),
        _ => None,
    }
}

async fn connect(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
    body: JsonBody,
) -> Answer<Json<Value>> {
    let wanted = wanted(&body)?;
    let sets_hook = wanted.sets_hook;
    let project = project(&state, slug).await?;
    let (sealer, of, fresh) = (state.settings.sealer.clone(), project.clone(), new_token("rlh_")?);
    // A mere look does not shorten the wait that a forge has asked for.
    let is_another_way =
        wanted.token.is_some() || wanted.api_url.is_some() || wanted.repository_name.is_some();
    let write = move |tx: &Tx<'_>| {
        let now = Millis::now();
        let was = forge::connection(tx, &of.id)?;
        let Some(kind) = wanted.forge.or(was.as_ref().map(|was| was.forge)).or_else(|| usual_forge(&of.slug))
        else {
            return Ok(Err(bad(format!(
                "say which forge `{}` is on: {}",
                of.slug,
                Forge::ALL.map(Forge::as_str).join(", ")
            ))));
        };
        if let Some(Err(wrong)) = wanted
            .repository_id
            .as_deref()
            .filter(|id| !id.is_empty())
            .map(|id| check_repository_id(kind, id))
        {
            return Ok(Err(wrong));
        }
        if let Some(Err(wrong)) =
            wanted.repository_name.as_deref().map(|name| check_repository_name(kind, name))
        {
            return Ok(Err(wrong));
        }
        // Another forge knows the repository by another id.
        let stays = was.filter(|was| was.forge == kind);
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let connection = Connection {
            project: of.id.clone(),
            forge: kind,
            repository: match wanted.repository_id {
                Some(id) => some(Some(id)),
                // A name that is given anew is of a repository that the next delivery names.
                None if wanted.repository_name.is_some() => None,
                None => stays.as_ref().and_then(|was| was.repository.clone()),
            },
            full_name: match wanted.repository_name {
                Some(name) => some(Some(name)),
                None => stays.as_ref().and_then(|was| was.full_name.clone()),
            },
            api_url: match wanted.api_url {
                Some(url) => some(Some(url)),
                None => stays.as_ref().map_or_else(|| usual_api(kind), |was| was.api_url.clone()),
            },
            poll_ms: wanted.poll_ms.unwrap_or_else(|| stays.as_ref().and_then(|was| was.poll_ms)),
            poll_failures: 0,
            poll_message: None,
            is_listed: false,
            token_message: None,
        };
        forge::connect(tx, &connection, now)?;
        let old = secrets::open(tx, &sealer, &of.id, "hook")?;
        let is_given = wanted.secret.is_some();
        let next = match wanted.secret {
            Some(given) => {
                Some(given).filter(|given| old.as_ref().is_none_or(|old| old.as_ref().ok() != Some(given)))
            }
            None if old.is_none() || wanted.rotates => Some(new_secret(kind, &fresh)),
            None => None,
        };
        if let Some(next) = &next {
            if let Some(Ok(old)) = old {
                // Both hold until the forge was told.
                secrets::keep(tx, &sealer, &of.id, "hook-before", &old, now)?;
            }
            secrets::keep(tx, &sealer, &of.id, "hook", next, now)?;
        }
        // A secret that the caller gave is not shown again.
        let secret = next.filter(|_| !is_given);
        match &wanted.token {
            Some(token) if token.expose().is_empty() => {
                forge::delete_secret(tx, &of.id, "token")?;
                forge::set_token_message(tx, &of.id, None)?;
            }
            Some(token) => {
                secrets::keep(tx, &sealer, &of.id, "token", token, now)?;
                forge::set_token_message(tx, &of.id, None)?;
            }
            None => {}
        }
        if is_another_way {
            reports::hurry(tx, &of.id, now)?;
        }
        tx.effect(Effect::Connected);
        Ok(Ok(secret))
    };
    let secret = state.store.write(write).await??;
    // The person who connects it anew may have changed something at the forge.
    state.installations.forget_all();
    let mut answer = found(&state, &project).await?;
    if let Some(secret) = secret {
        answer["secret"] = json!(secret.expose());
    }
    let id = project.id.clone();
    answer["warnings"] = json!(state.store.read(move |view| warnings_of(view, &id)).await?);
    let (found, is_silent) = look(&state, &project).await?;
    answer["found"] = found;
    if sets_hook {
        let address = hooks::address(&state.settings.public_url, &project.id);
        let Hooked { is_set, said } = match is_silent {
            // Each call to it would be waited for once more.
            true => Hooked::not("the API of the forge has not answered"),
            false => set_hook(&state, &project.id, &address).await?,
        };
        (answer["hook"], answer["is_hook_set"]) = (json!(said), json!(is_set));
    }
    Ok(Json(answer))
}

/// Asks the forge about the repository, and looks at it from here at the same time; also whether the forge was silent.
async fn look(state: &Shared, project: &Project) -> Answer<(Value, bool)> {
    let (mut found, told) = tokio::join!(look_by_git(state, project), about(state, &project.id));
    let told = told?;
    let is_silent = told.as_ref().is_some_and(|about| about.is_silent);
    if let Some(About { default_branch, version, message, .. }) = told {
        found["forge_version"] = json!(version);
        found["forge_default_branch"] = json!(default_branch);
        found["forge_message"] = json!(message);
    }
    Ok((found, is_silent))
}

async fn look_by_git(state: &Shared, project: &Project) -> Value {
    let branch = &project.default_branch;
    let Some(url) = &project.repository_url else {
        return json!({ "repository": null, "message": "the project has no repository: set it with `runlet admin project set-repository`" });
    };
    let reference = Reference::Branch(branch.clone());
    match state.settings.mirrors.read(project.id.as_str(), url, &reference).await {
        Ok(read) => json!({
            "repository": url, "default_branch": branch, "revision": read.commit.revision,
            "has_config": read.config.is_ok(), "message": read.config.err(),
        }),
        Err(
            ReadError::UnknownRef(why) | ReadError::Missing(Missing { why, .. }) | ReadError::Failed(why),
        ) => json!({ "repository": url, "default_branch": branch, "message": why }),
    }
}

async fn disconnect(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path(slug): Path<Slug>,
) -> Answer<Json<Value>> {
    let project = project(&state, slug).await?;
    let id = project.id.clone();
    if state.store.write(move |tx| forge::disconnect(tx, &id)).await? {
        return Ok(message("Disconnected."));
    }
    Err(ApiError::not_found(format!("the project `{}` is not connected to a forge", project.slug)))
}

fn shown_change(change: &StoredChange) -> Value {
    let name = match &change.event {
        Ok(Event::Pull(pull)) => format!("pull request {}", pull.number),
        Ok(Event::Push(push)) => push.reference.clone(),
        Ok(Event::Scheduled(_)) => String::new(),
        Err(_) => "a change that cannot be read".to_owned(),
    };
    let is_started = change.state == EventState::Started;
    json!({
        "name": name, "state": change.state, "message": change.sentence, "attempts": change.attempts,
        "pipeline_id": is_started.then_some(&change.pipeline),
    })
}

fn shown_delivery(delivery: &ShownDelivery, changes: &[StoredChange], counts: &[(EventState, u32)]) -> Value {
    let by_state: Map<String, Value> =
        counts.iter().map(|(state, count)| (state.as_str().to_owned(), json!(count))).collect();
    json!({
        "id": delivery.seq, "delivery": delivery.delivery, "source": delivery.source, "event": delivery.event,
        "received_at": time(Some(delivery.received_at)), "verdict": delivery.verdict, "message": delivery.sentence,
        "is_believed": !delivery.is_strange,
        "changes": changes.iter().map(shown_change).collect::<Vec<_>>(),
        "change_count": counts.iter().map(|(_, count)| count).sum::<u32>(), "changes_by_state": by_state,
    })
}

fn shown_status(shown: &ShownReport) -> Value {
    let report = &shown.report;
    json!({
        "revision": report.revision, "context": report.context, "ref": report.reference, "state": report.state,
        "description": report.description, "url": report.url, "told": report.sent_word, "is_due": shown.is_due,
        "attempts": report.attempts, "since": time(Some(report.since)), "message": shown.message,
        "next_try_at": time(Some(shown.not_before).filter(|_| shown.is_due)),
    })
}

fn most_of(words: &QueryWords) -> Answer<u32> {
    match words.get("limit") {
        None => Ok(MOST_LISTED),
        Some(word) => Ok(input::number::<u32>("limit", word)?.clamp(1, MOST_LISTED)),
    }
}

/// Statuses of commits that the forge was told or is to be told.
async fn statuses(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let (project, most) = (project(&state, slug).await?, most_of(&words)?);
    let listed = state.store.read(move |view| reports::list(view, &project.id, most)).await?;
    let items: Vec<Value> = listed.iter().map(shown_status).collect();
    Ok(Json(json!({ "items": items, "next_page_token": null })))
}

async fn list(
    State(state): State<Shared>,
    _person: Person,
    Path(slug): Path<Slug>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let (project, most) = (project(&state, slug).await?, most_of(&words)?);
    let read = move |view: &View| {
        let listed = deliveries::list(view, &project.id, most)?;
        let with_changes = |delivery: &ShownDelivery| {
            let changes = deliveries::events_of(view, delivery.seq, 0, MOST_CHANGES)?;
            Ok(shown_delivery(delivery, &changes, &deliveries::count_by_state(view, delivery.seq)?))
        };
        listed.iter().map(with_changes).collect::<Result<Vec<_>, StoreError>>()
    };
    Ok(Json(json!({ "items": state.store.read(read).await?, "next_page_token": null })))
}

/// All changes of one delivery, page by page, in the order of the list.
async fn list_changes(
    State(state): State<Shared>,
    _person: Person,
    Path((vcs, org, repo, delivery)): Path<(String, String, String, i64)>,
    words: QueryWords,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let most = match words.get("limit") {
        None => PAGE_OF_CHANGES,
        Some(word) => input::number::<u32>("limit", word)?.clamp(1, PAGE_OF_CHANGES),
    };
    let passed = match words.get("page-token").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => token.parse::<u32>().map_err(|_| bad("`page-token` is not one that was given out"))?,
    };
    let read = move |view: &View| match deliveries::is_of(view, &project.id, delivery)? {
        true => deliveries::events_of(view, delivery, passed, most).map(Some),
        false => Ok(None),
    };
    let Some(changes) = state.store.read(read).await? else {
        return Err(ApiError::not_found(format!("there is no delivery {delivery} of this project")));
    };
    let next = (changes.len() == most as usize).then(|| passed.saturating_add(most).to_string());
    let items: Vec<Value> = changes.iter().map(shown_change).collect();
    Ok(Json(json!({ "items": items, "next_page_token": next })))
}

async fn replay(
    State(state): State<Shared>,
    Administrator(_): Administrator,
    Path((vcs, org, repo, delivery)): Path<(String, String, String, i64)>,
) -> Answer<Json<Value>> {
    let project = project(&state, (vcs, org, repo)).await?;
    let write = move |tx: &Tx<'_>| replay_changes(tx, &project, delivery, Millis::now());
    match state.store.write(write).await? {
        Replayed { waiting: 0, left: None } => Err(ApiError::not_found(format!(
            "there is no delivery {delivery} of this project with a change that started nothing"
        ))),
        Replayed { waiting: 0, left: Some(why) } => {
            Err(conflict(format!("delivery {delivery} starts nothing now either: {why}")))
        }
        Replayed { waiting, .. } => Ok(Json(json!({ "message": "Accepted.", "changes": waiting }))),
    }
}
