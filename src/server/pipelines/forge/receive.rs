//! Deliveries of forges: believed, read, decided about and stored before they are answered. Nothing is fetched here.

use crate::logging::record;
use crate::protocol::Secret;
use crate::server::ids::{PipelineId, ProjectId};
use crate::server::pipelines::forge::event::{Event, Teller};
use crate::server::pipelines::forge::payload;
use crate::server::pipelines::forge::payload::parts::{Delivery, ForgeRepository};
use crate::server::pipelines::forge::signature::{BodyContent, hook, names, sender, verify};
use crate::server::pipelines::forge::take::{SAME, Stored, Taken, is_taken_anew, take};
use crate::server::secrets::forge as secrets;
use crate::server::secrets::sealer::Sealer;
use crate::server::state::Shared;
use crate::server::store::forge_states::{DeliverySource, Forge, Verdict};
use crate::server::store::read::{self, Project};
use crate::server::store::tables::deliveries::{self, NewDelivery};
use crate::server::store::tables::forge::{self, Connection};
use crate::server::store::tables::reports;
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use axum::http::HeaderMap;
use ring::digest::{SHA256, digest};
use std::sync::PoisonError;
use std::time::Duration;

/// Deliveries that are not believed are written down no more often than this.
const BETWEEN_REFUSED: Duration = Duration::from_secs(1);
/// Addresses whose deliveries are counted at a time, while they are not believed.
const MOST_COUNTED: usize = 10_000;
/// Largest body, in bytes.
pub const MOST_BODY_BYTES: usize = 25_000_000;

/// The answer to a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Status of the answer to the forge.
    pub status: u16,
    /// Sentence for people who look at the forge's own log.
    pub message: String,
    /// Ids of the pipelines that its changes get, unless their commits say otherwise.
    pub pipelines: Vec<PipelineId>,
}

impl Received {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), pipelines: Vec::new() }
    }

    /// The refusal of a sender without proof. Its words are always the same, and tell nothing of what is here.
    pub fn unauthorized() -> Self {
        Self::new(401, "this is no address of a project, or the delivery is not signed with its secret")
    }
}

/// Facts about a project that a delivery is judged by.
struct Known {
    project: Project,
    connection: Connection,
    secrets: Vec<Secret>,
}

fn known(view: &View, sealer: &Sealer, project: &ProjectId) -> Result<Option<Known>, StoreError> {
    let Some(connection) = forge::connection(view, project)? else { return Ok(None) };
    let Some(project) = read::project(view, project)? else { return Ok(None) };
    let mut known = Vec::new();
    for name in ["hook", "hook-before"] {
        // A secret that cannot be opened believes nobody; the start of the control plane says so.
        known.extend(secrets::open(view, sealer, &project.id, name)?.and_then(Result::ok));
    }
    Ok(Some(Known { project, connection, secrets: known }))
}

/// A delivery that is not taken.
pub struct Refused {
    /// Status of the answer.
    status: u16,
    /// The reason, as a sentence.
    why: String,
    /// Whether it was signed with a secret of the project.
    is_believed: bool,
}

impl Refused {
    /// Makes the refusal of a delivery from an unknown sender.
    pub fn stranger(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), is_believed: false }
    }

    /// Makes the refusal of a delivery whose signature is right.
    fn signed(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), is_believed: true }
    }
}

/// Takes a delivery to the address of a project. Never waits for anything but the store.
pub async fn receive(state: &Shared, project: &ProjectId, headers: &HeaderMap, body: &[u8]) -> Received {
    let (id, sealer) = (project.clone(), state.settings.sealer.clone());
    let known = match state.store.read(move |view| known(view, &sealer, &id)).await {
        Ok(Some(known)) => known,
        Ok(None) => {
            // An unknown project costs as much work as a known one.
            if let Some(content) = BodyContent::of(headers, body) {
                let _ = verify(Forge::GitHub, headers, &content, &[Secret::new("none")], Millis::now());
            }
            return Received::unauthorized();
        }
        Err(error) => return not_stored(project, &error),
    };
    let forge = known.connection.forge;
    let (event, id) = names(forge, headers);
    let has_id = id.is_some();
    let id = id.unwrap_or_else(|| crate::system::hex(digest(&SHA256, body).as_ref()));
    match read_delivery(&known, headers, body, &event) {
        Ok(delivery) => {
            let by = hook(forge, headers).map_or(Teller::Unnamed, Teller::Hook);
            store(state, known, Sent { id, has_id, event, by }, delivery).await
        }
        Err(refused) => {
            let answer = match refused.status {
                401 => Received::unauthorized(),
                status => Received::new(status, refused.why.clone()),
            };
            note_refused(state, project, &id, &event, refused).await;
            answer
        }
    }
}

/// Writes down that a delivery was not taken: people look for the reason in the list of deliveries. Those that were not
/// believed are written down once a second, with how many others came: strangers must not keep the store busy.
pub async fn note_refused(state: &Shared, project: &ProjectId, id: &str, event: &str, refused: Refused) {
    let id = id.to_owned();
    if refused.is_believed {
        note(state, project, id, event, refused.why, false).await;
        return;
    }
    // A guessed address costs no write, and has no part in the count.
    let of = project.clone();
    if !matches!(state.store.read(move |view| forge::connection(view, &of)).await, Ok(Some(_))) {
        return;
    }
    {
        let mut counts = state.not_believed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(project) {
            *count += 1;
            return;
        }
        if counts.len() >= MOST_COUNTED {
            return;
        }
        counts.insert(project.clone(), 0);
    }
    let seq = note(state, project, id, event, refused.why.clone(), true).await;
    let (state, project) = (state.clone(), project.clone());
    tokio::spawn(async move {
        tokio::time::sleep(BETWEEN_REFUSED).await;
        let count = {
            let mut counts = state.not_believed.lock().unwrap_or_else(PoisonError::into_inner);
            counts.remove(&project).unwrap_or_default()
        };
        let (Some(seq), true) = (seq, count > 0) else { return };
        let sentence = format!("{} (and {count} more within a second that were not believed)", refused.why);
        if let Err(error) = state.store.write(move |tx| deliveries::say(tx, seq, &sentence)).await {
            record!(Warn, project_id = project; "failed to write down how many deliveries were refused: {error}");
        }
    });
}

/// Writes a refused delivery of a project down, if that is connected. Returns its place in the list.
async fn note(
    state: &Shared,
    project: &ProjectId,
    id: String,
    event: &str,
    why: String,
    is_strange: bool,
) -> Option<i64> {
    let (of, event, now) = (project.clone(), event.to_owned(), Millis::now());
    let write = move |tx: &Tx<'_>| {
        if forge::connection(tx, &of)?.is_none() {
            return Ok(None);
        }
        let new = NewDelivery {
            project: &of,
            delivery: &id,
            source: DeliverySource::Webhook,
            event: &event,
            verdict: Verdict::Refused,
            is_strange,
            sentence: &why,
        };
        deliveries::add(tx, &new, now).map(Some)
    };
    state.store.write(write).await.unwrap_or_else(|error| {
        record!(Warn, project_id = project; "failed to write down that a delivery was refused: {error}");
        None
    })
}

fn not_stored(project: &ProjectId, error: &StoreError) -> Received {
    record!(Error, project_id = project; "failed to store a delivery of a forge: {error}");
    Received::new(503, "the delivery cannot be stored now: send it again later")
}

fn read_delivery(known: &Known, headers: &HeaderMap, body: &[u8], event: &str) -> Result<Delivery, Refused> {
    let wanted = known.connection.forge;
    match sender(headers) {
        Some(forge) if forge == wanted => {}
        Some(other) => {
            let why = format!("it is of {other}, and this project is connected to {wanted}");
            return Err(Refused::stranger(401, why));
        }
        None => return Err(Refused::stranger(401, "no header names an event of a forge")),
    }
    let kind = "its content type is neither `application/json` nor `application/x-www-form-urlencoded`";
    let content = BodyContent::of(headers, body);
    let is_other = content.is_none();
    // A body of another content type may still be signed correctly, so the signature is checked first.
    let content = content.unwrap_or(BodyContent { body, payload: None });
    verify(wanted, headers, &content, &known.secrets, Millis::now())
        .map_err(|why| Refused::stranger(401, why))?;
    if is_other {
        return Err(Refused::signed(415, kind));
    }
    if content.payload.as_ref().is_some_and(Vec::is_empty) {
        return Err(Refused::signed(
            400,
            "it is a form without the field `payload`: has the webhook the right content type?",
        ));
    }
    let delivery = payload::read(wanted, event, content.json()).map_err(|why| Refused::signed(400, why))?;
    if let Some(repository) = &delivery.repository {
        check_repository(known, repository).map_err(|why| Refused::signed(401, why))?;
    }
    Ok(delivery)
}

/// A right secret of one project must not start another: the repository is the one of the first delivery, which has the
/// name of the project or of its address.
fn check_repository(known: &Known, repository: &ForgeRepository) -> Result<(), String> {
    let ForgeRepository { id, full_name } = repository;
    match &known.connection.repository {
        Some(wanted) if wanted == id => Ok(()),
        Some(wanted) => {
            Err(format!("it is of the repository `{full_name}` ({id}), and this project is of {wanted}"))
        }
        // The hook of a plain server names what its server calls it.
        None if known.connection.forge == Forge::Git => Ok(()),
        None => {
            let slug = known.project.slug.split_once('/').map_or("", |(_, name)| name);
            let address = known.project.repository_url.as_deref().unwrap_or_default();
            let address = address.trim_end_matches('/').trim_end_matches(".git");
            let names = [Some(slug), known.connection.full_name.as_deref()];
            let lower = full_name.to_ascii_lowercase();
            let is_named = names.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(full_name));
            let before = address.to_ascii_lowercase();
            let is_addressed = before.strip_suffix(&lower).is_some_and(|rest| rest.ends_with(['/', ':']));
            if is_named || is_addressed {
                return Ok(());
            }
            Err(format!(
                "it is of the repository `{full_name}`, and neither the project's name nor its address ends so: say `runlet admin project connect {} --repository-name {full_name}` if it is right",
                known.project.slug
            ))
        }
    }
}

/// A delivery as its headers describe it.
struct Sent {
    /// The forge's id of it, or one that stands for its body.
    id: String,
    /// Whether it has an id of the forge.
    has_id: bool,
    /// The forge's name of the event.
    event: String,
    /// The hook that it was sent by.
    by: Teller,
}

async fn store(state: &Shared, known: Known, sent: Sent, delivery: Delivery) -> Received {
    let (project, now) = (known.project.id.clone(), Millis::now());
    let write = move |tx: &Tx<'_>| {
        let project = &known.project;
        let Sent { mut id, has_id, event, by } = sent;
        if let Some(before) = deliveries::find(tx, &project.id, &id)? {
            if is_taken_anew(tx, &project.id, before)? {
                // A forge sends it again because somebody asked it to.
                deliveries::delete(tx, before)?;
            } else if has_id && deliveries::hurry(tx, before, now)? {
                tx.effect(Effect::ForgeWork);
                return Ok(Received::new(
                    200,
                    "this delivery came before: what waits of it is tried again now",
                ));
            } else if has_id || !delivery.changes.iter().all(|change| matches!(change, Event::Push(_))) {
                return Ok(Received::new(200, "this delivery came before: nothing is done again"));
            } else {
                // Words that came before may tell of another push: of a branch that has been elsewhere meanwhile.
                id = format!("{id} {}", crate::server::ids::fresh_uuid());
            }
        }
        if let Some(ForgeRepository { id, full_name }) = &delivery.repository {
            let is_known = known.connection.repository.is_some();
            forge::pin(tx, &project.id, id, full_name)?;
            if is_known && !full_name.is_empty() && forge::rename(tx, &project.id, id, full_name)? {
                // Statuses that the old name led nowhere with are sent at once under the new one.
                reports::hurry(tx, &project.id, now)?;
                tx.effect(Effect::Connected);
            }
        }
        let verdict = if delivery.changes.is_empty() { Verdict::Ignored } else { Verdict::Accepted };
        // A sentence beside changes tells what they do not: each of them has one of its own.
        let sentence = match delivery.changes.len() {
            taken if taken > 0 && !delivery.remark.is_empty() => {
                format!("{} of it; left out: {}", counted(taken, "change"), delivery.remark)
            }
            _ => delivery.remark.clone(),
        };
        let new = NewDelivery {
            project: &project.id,
            delivery: &id,
            source: DeliverySource::Webhook,
            event: &event,
            verdict,
            is_strange: false,
            sentence: &sentence,
        };
        let seq = deliveries::add(tx, &new, now)?;
        let since = if has_id { now.minus(SAME) } else { Millis(0) };
        let is_cloud = known.connection.forge == Forge::BitbucketCloud;
        let of = Stored { seq, project, is_cloud, by, since, now };
        let (mut pipelines, mut last) = (Vec::new(), sentence);
        for change in delivery.changes {
            match take(tx, &of, change)? {
                Taken::Waits(pipeline) => pipelines.push(pipeline),
                Taken::Skipped(why) => last = why,
            }
        }
        if pipelines.is_empty() {
            return Ok(Received::new(200, last));
        }
        tx.effect(Effect::ForgeWork);
        let message = format!("{} to build", counted(pipelines.len(), "change"));
        Ok(Received { status: 202, message, pipelines })
    };
    match state.store.write(write).await {
        Ok(received) => received,
        Err(error) => not_stored(&project, &error),
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
