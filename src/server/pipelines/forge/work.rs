//! Working off what came: reads the commit of each change and makes its pipeline.

use crate::logging::record;
use crate::server::ids::{ProjectId, UserId};
use crate::server::pipelines::create;
use crate::server::pipelines::forge::event::{Actor, Event, Pull, Push, Scheduled, StoredChange, Unbuilt};
use crate::server::pipelines::forge::order::{Lost, Overtaken, lost, overtaken, waits_before};
use crate::server::pipelines::forge::rules::{
    SAYS_SKIP, built_by_pull, filtered_paths, made_of_known, wants_paths,
};
use crate::server::pipelines::forge::take::{full_id, is_built_by_pull};
use crate::server::pipelines::forge::values;
use crate::server::pipelines::repository::{Ask, Error as ReadError, Missing, PullRef, Read, Reference};
use crate::server::pipelines::triggers::revision;
use crate::server::pipelines::types::{ConfigOrigin, Happened, Trigger};
use crate::server::state::Shared;
use crate::server::store::forge_states::{EventState, Forge};
use crate::server::store::read::{self, Project};
use crate::server::store::status::TriggerType;
use crate::server::store::tables::deliveries;
use crate::server::store::tables::forge;
use crate::server::store::tables::projects::{self, ProjectSettings};
use crate::server::store::{Error as StoreError, Tx, View};
use crate::server::time::Millis;
use std::collections::BTreeMap;
use std::time::Duration;

/// Waits before another try, in seconds, where a repository cannot be read; then the pipeline says why there is none.
/// Together some two hours: an outage of a forge is no reason to lose a push.
const AGAIN_SECONDS: [u64; 14] = [2, 5, 15, 30, 60, 120, 300, 600, 900, 900, 900, 900, 900, 900];
/// Tries of a change whose config imports orbs that cannot be fetched, some four minutes; then its pipeline is errored.
const ORB_TRIES: u32 = 6;
/// Advice about a change that cannot be read any more.
const SEND_AGAIN: &str = "have the forge send the delivery again, or start a pipeline by hand";
/// Branches whose history is looked at for the commit that another one was made of.
const MOST_TIPS: usize = 50;
/// How long deliveries are kept: longer than any forge sends one again.
const KEPT: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// Deliveries that are forgotten in one write.
const FORGOTTEN: u32 = 500;

/// Forgets old deliveries.
pub(super) async fn forget(state: &Shared, now: Millis) -> Result<(), StoreError> {
    let before = now.minus(KEPT);
    loop {
        let count = state.store.write(move |tx| deliveries::delete_before(tx, before, FORGOTTEN)).await?;
        if count < FORGOTTEN as usize {
            return Ok(());
        }
    }
}

/// End of the work on a change.
enum End {
    /// The pipeline was made, and the change is done with it.
    Started,
    /// The change needs no pipeline.
    Skipped(String),
    /// The change gets no pipeline, and later changes are decided by that.
    Unbuilt(String, Unbuilt),
    /// The change cannot be worked off.
    Failed(String),
    /// The change is tried again.
    Later(String),
}

/// Works off a change behind those of its ref that were stored before it and wait for another try. What has kept one of them
/// from being read may be over, and then this one must not overtake it.
pub(super) async fn work_in_order(state: &Shared, stored: &StoredChange) {
    while let Ok(event) = &stored.event {
        let (of, event) = (stored.clone(), event.clone());
        match state.store.read(move |view| waits_before(view, &of, &event)).await {
            Ok(Some(before)) if !work_once(state, &before, false).await => {}
            Ok(_) => break,
            Err(StoreError::Closed) => return,
            Err(error) => {
                record!(Error, project_id = stored.project, change = stored.seq;
                    "failed to look for changes that wait before this one: {error}"
                );
                break;
            }
        }
    }
    work_once(state, stored, true).await;
}

/// Works a change off; true where it still waits. `counts`: this is one of its tries, and the next one is later; else that
/// stays as it was.
async fn work_once(state: &Shared, stored: &StoredChange, counts: bool) -> bool {
    let end = match work(state, stored).await {
        Ok(end) => end,
        Err(StoreError::Closed) => return true,
        Err(error) => End::Later(format!("the store refused it: {error}")),
    };
    let (seq, attempts) = (stored.seq, stored.attempts);
    let waits = matches!(end, End::Later(_));
    let written = match end {
        End::Started => return false,
        End::Later(_) if !counts => return true,
        End::Skipped(why) => {
            state.store.write(move |tx| deliveries::finish_event(tx, seq, EventState::Skipped, &why)).await
        }
        End::Unbuilt(why, because) => {
            let event = stored.event.as_ref().ok().map(|event| event.clone().unbuilt(because));
            let write = move |tx: &Tx<'_>| {
                if let Some(event) = &event {
                    deliveries::set_event(tx, seq, &serde_json::to_value(event)?)?;
                }
                deliveries::finish_event(tx, seq, EventState::Skipped, &why)
            };
            state.store.write(write).await
        }
        End::Failed(why) => {
            record!(Warn, project_id = stored.project, change = seq; "a change of a repository was not built: {why}");
            state.store.write(move |tx| deliveries::finish_event(tx, seq, EventState::Failed, &why)).await
        }
        End::Later(why) => {
            let wait = AGAIN_SECONDS.get(attempts as usize).copied().unwrap_or(AGAIN_SECONDS[13]);
            let until = Millis::now().plus(Duration::from_secs(wait));
            let write = state.store.write(move |tx| deliveries::postpone_event(tx, seq, &why, until));
            write.await.map(|()| true)
        }
    };
    if let Err(error) = written {
        record!(Error, project_id = stored.project, change = seq;
            "failed to write down what became of a change of a repository: {error}"
        );
        return true;
    }
    waits
}

/// Facts about a project when a change of it is worked off.
struct About {
    project: Project,
    settings: ProjectSettings,
    forge: Forge,
    urls: Vec<String>,
    base_revision: Option<String>,
}

fn about(view: &View, project: &ProjectId, event: &Event) -> Result<Option<About>, StoreError> {
    let Some(found) = read::project(view, project)? else { return Ok(None) };
    // A schedule needs no forge.
    let forge = match (forge::connection(view, project)?, event) {
        (Some(connection), _) => connection.forge,
        (None, Event::Scheduled(_)) => Forge::Git,
        (None, _) => return Ok(None),
    };
    let (mut urls, mut base_revision) = (Vec::new(), None);
    let branch = match event {
        Event::Push(push) => push.branch().map(str::to_owned),
        Event::Pull(pull) => Some(pull.branch()),
        Event::Scheduled(due) => due.branch.clone(),
    };
    if let Some(branch) = &branch {
        urls.extend(forge::pulls_of_branch(view, project, branch)?.into_iter().map(|pull| pull.url));
        base_revision = forge::newest_revision(view, project, branch)?;
    }
    Ok(Some(About {
        project: found,
        settings: projects::settings(view, project)?.unwrap_or_default(),
        forge,
        urls,
        base_revision,
    }))
}

async fn work(state: &Shared, stored: &StoredChange) -> Result<End, StoreError> {
    let event = match &stored.event {
        Ok(event) => event.clone(),
        Err(unreadable) => return Ok(End::Failed(format!("{unreadable}: {SEND_AGAIN}"))),
    };
    let (id, of) = (stored.project.clone(), event.clone());
    let Some(about) = state.store.read(move |view| about(view, &id, &of)).await? else {
        return Ok(End::Failed("the project is not connected to a forge any more".to_owned()));
    };
    let Some(url) = about.project.repository_url.clone() else {
        return Ok(End::Failed(format!(
            "the project `{slug}` has no repository to read from: `runlet admin project set-repository {slug} URL`",
            slug = about.project.slug
        )));
    };
    match &event {
        Event::Push(push) => work_push(state, stored, &event, push, &about, &url).await,
        Event::Pull(pull) => work_pull(state, stored, &event, pull, &about, &url).await,
        Event::Scheduled(due) => work_scheduled(state, stored, &event, due, &about, &url).await,
    }
}

fn path(settings: &ProjectSettings) -> Option<String> {
    Some(settings.config_path.clone()).filter(|path| !path.is_empty())
}

async fn work_push(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    push: &Push,
    about: &About,
    url: &str,
) -> Result<End, StoreError> {
    let reference = match (push.branch(), push.tag()) {
        (Some(branch), _) => Reference::Branch(branch.to_owned()),
        (None, Some(tag)) => Reference::Tag(tag.to_owned()),
        (None, None) => return Ok(End::Failed("it is no branch and no tag".to_owned())),
    };
    // The pull request may have waited as well when the push came.
    let (id, of, place) = (stored.project.clone(), push.clone(), stored.seq);
    if let Some(branch) = push.branch()
        && state.store.read(move |view| is_built_by_pull(view, &id, &of, Some(place))).await?
    {
        return Ok(End::Skipped(built_by_pull(branch)));
    }
    let wants_paths = wants_paths(&about.settings) && push.branch().is_some();
    let since = about.base_revision.clone().unwrap_or_else(|| push.before.clone());
    let ask = Ask {
        reference: reference.clone(),
        commit: Some(push.commit.clone()),
        config: path(&about.settings),
        since: Some(since).filter(|since| wants_paths && !super::event::is_zeros(since)),
    };
    let mirrors = &state.settings.mirrors;
    let project = &stored.project;
    let read = match mirrors.read_as(project.as_str(), url, ask).await {
        Ok(read) => read,
        Err(error) => return unread(state, stored, event, about, url, error).await,
    };
    let mut is_late = false;
    match overtaken(state, stored, event, &read, url).await? {
        Overtaken::By { object, why } => {
            let (id, name, is_here) = (project.clone(), push.reference.clone(), push.after.clone());
            let late = serde_json::to_value(event.clone().unbuilt(Unbuilt::Late))?;
            let seq = stored.seq;
            let write = move |tx: &Tx<'_>| {
                if forge::seen_ref(tx, &id, &name)?.as_ref() == Some(&is_here) {
                    let object = Some(object.as_str()).filter(|object| !super::event::is_zeros(object));
                    forge::see_ref(tx, &id, &name, object)?;
                }
                deliveries::set_event(tx, seq, &late)
            };
            state.store.write(write).await?;
            if !about.settings.is_each_commit_built {
                return Ok(End::Skipped(why));
            }
            is_late = true;
        }
        Overtaken::No if push.late_for.is_some() => {
            let (id, name, object) = (project.clone(), push.reference.clone(), push.after.clone());
            state.store.write(move |tx| forge::see_ref(tx, &id, &name, Some(&object))).await?;
        }
        Overtaken::No => {}
        Overtaken::Unknown(why) => return Ok(End::Later(why)),
    }
    if read.commit.skips_ci() {
        return Ok(End::Skipped(SAYS_SKIP.to_owned()));
    }
    if let Some(branch) = push.branch().filter(|_| push.is_untold && super::event::is_zeros(&push.before))
        && branch != about.project.default_branch
        && was_there(state, stored, push, about, url, &read.commit.revision).await?
    {
        return Ok(End::Skipped(made_of_known(branch)));
    }
    if let Some(why) = filtered_paths(&about.settings, read.changed.as_deref()) {
        return Ok(End::Skipped(why));
    }
    start(state, stored, event, about, &reference, read, is_late).await
}

/// Whether a commit was in the repository before the delivery that a branch at it came in: what the others were at by
/// then is compared, the default one first.
async fn was_there(
    state: &Shared,
    stored: &StoredChange,
    push: &Push,
    about: &About,
    url: &str,
    commit: &str,
) -> Result<bool, StoreError> {
    let (id, seq) = (stored.project.clone(), stored.seq);
    let read =
        move |view: &View| Ok((forge::refs(view, &id)?, deliveries::events_since::<Event>(view, &id, seq)?));
    let (mut refs, since) = state.store.read(read).await?;
    let default = format!("refs/heads/{}", about.project.default_branch);
    let mut is_default_known = refs.contains_key(&default);
    for event in since {
        let Event::Push(later) = event else { continue };
        is_default_known |= later.reference == default;
        match super::event::is_zeros(&later.before) {
            true => refs.remove(&later.reference),
            false => refs.insert(later.reference, later.before),
        };
    }
    refs.remove(&push.reference);
    let mirrors = &state.settings.mirrors;
    if !is_default_known {
        // No delivery told of it yet: it is where it has been all the time.
        let ask = Ask::from(&Reference::Branch(about.project.default_branch.clone()));
        if let Ok(read) = mirrors.read_as(stored.project.as_str(), url, ask).await {
            refs.insert(default.clone(), read.commit.revision);
        }
    }
    if refs.values().any(|object| object == commit) {
        return Ok(true);
    }
    let first = refs.remove(&default);
    let others = refs.into_iter().filter(|(name, _)| name.starts_with("refs/heads/"));
    let tips: Vec<String> =
        first.into_iter().chain(others.map(|(_, object)| object)).take(MOST_TIPS).collect();
    Ok(mirrors.is_in_any(stored.project.as_str(), url, commit, &tips).await)
}

async fn work_pull(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    pull: &Pull,
    about: &About,
    url: &str,
) -> Result<End, StoreError> {
    let reference = match (&pull.reference, pull.is_fork) {
        (Some(reference), true) => {
            Reference::Pull(PullRef { reference: reference.clone(), branch: pull.branch() })
        }
        (None, true) => return Ok(End::Failed("this forge keeps no ref of it".to_owned())),
        (_, false) => Reference::Branch(pull.head_branch.clone()),
    };
    let (id, branch, head) = (stored.project.clone(), pull.head_branch.clone(), pull.head.clone());
    let commit = match super::event::is_object(&pull.head) {
        true => Some(pull.head.clone()),
        // The branch may have moved on since, but its push told of the whole id.
        false if pull.is_fork || pull.head.is_empty() => None,
        false => state.store.read(move |view| full_id(view, &id, &branch, &head)).await?,
    };
    let since = about.base_revision.clone().filter(|_| !pull.is_fork && wants_paths(&about.settings));
    let ask = Ask { reference: reference.clone(), commit, config: path(&about.settings), since };
    let read = match state.settings.mirrors.read_as(stored.project.as_str(), url, ask).await {
        Ok(read) => read,
        Err(error) => return unread(state, stored, event, about, url, error).await,
    };
    if !read.commit.revision.starts_with(&pull.head) {
        // Some forges tell the beginning of the commit only: the branch is elsewhere, or not there yet.
        let why = format!(
            "the branch `{}` of the repository `{url}` is at {}, and not at {}",
            pull.head_branch, read.commit.revision, pull.head
        );
        let tip = Some(read.commit.revision);
        let missing = ReadError::Missing(Missing { why, tip, has_commit: false });
        return unread(state, stored, event, about, url, missing).await;
    }
    match overtaken(state, stored, event, &read, url).await? {
        Overtaken::By { why, .. } => return Ok(End::Unbuilt(why, Unbuilt::Late)),
        Overtaken::Unknown(why) => return Ok(End::Later(why)),
        Overtaken::No => {}
    }
    if !pull.is_fork {
        if read.commit.skips_ci() {
            return Ok(End::Skipped(SAYS_SKIP.to_owned()));
        }
        if let Some(why) = filtered_paths(&about.settings, read.changed.as_deref()) {
            return Ok(End::Skipped(why));
        }
        let (id, branch, head) =
            (stored.project.clone(), pull.head_branch.clone(), read.commit.revision.clone());
        if !pull.answers_push
            && state.store.read(move |view| forge::has_pipeline(view, &id, &branch, &head)).await?
        {
            return Ok(End::Skipped("the branch is built at this commit already".to_owned()));
        }
    }
    start(state, stored, event, about, &reference, read, false).await
}

/// A schedule builds what its ref points to by now, whatever the message of the commit says.
async fn work_scheduled(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    due: &Scheduled,
    about: &About,
    url: &str,
) -> Result<End, StoreError> {
    let reference = match (&due.branch, &due.tag) {
        (None, Some(tag)) => Reference::Tag(tag.clone()),
        (Some(branch), _) => Reference::Branch(branch.clone()),
        (None, None) => Reference::Branch(about.project.default_branch.clone()),
    };
    let ask = Ask { config: path(&about.settings), ..Ask::from(&reference) };
    match state.settings.mirrors.read_as(stored.project.as_str(), url, ask).await {
        Ok(read) => start(state, stored, event, about, &reference, read, false).await,
        Err(ReadError::UnknownRef(why) | ReadError::Missing(Missing { why, .. })) => Ok(End::Skipped(why)),
        // The next time comes soon enough.
        Err(ReadError::Failed(why)) if stored.attempts >= 5 => Ok(End::Failed(why)),
        Err(ReadError::Failed(why)) => Ok(End::Later(why)),
    }
}

/// The commit of a change cannot be read. A repository that cannot be read is tried again for a while, then a pipeline says
/// why; a commit that is not there is awaited for as long, unless its ref has moved on.
async fn unread(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    about: &About,
    url: &str,
    error: ReadError,
) -> Result<End, StoreError> {
    let is_last = stored.attempts as usize >= AGAIN_SECONDS.len();
    let why = match error {
        ReadError::UnknownRef(why) => return Ok(End::Skipped(why)),
        ReadError::Missing(missing) => {
            return Ok(match lost(state, stored, event, &missing, url).await? {
                Lost::Gone(why) => End::Unbuilt(why, Unbuilt::Gone),
                Lost::Awaited if is_last => End::Failed(format!(
                    "{}, and has not got it within two hours: have the forge send the delivery again when it is there",
                    missing.why
                )),
                Lost::Awaited => {
                    End::Later(format!("{}; it may get there yet, and is tried again", missing.why))
                }
            });
        }
        ReadError::Failed(why) => why,
    };
    if !is_last {
        return Ok(End::Later(why));
    }
    let mut trigger = trigger_of(stored, event, about);
    trigger.fetch_error = Some(why);
    made(create::create(state, trigger).await)
}

async fn start(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    about: &About,
    reference: &Reference,
    read: Read,
    is_late: bool,
) -> Result<End, StoreError> {
    let mut trigger = trigger_of(stored, event, about);
    trigger.waits_for_orbs = stored.attempts < ORB_TRIES;
    let url = about.project.repository_url.as_deref().unwrap_or_default();
    let revision = revision(url, reference, &read.commit, &about.project.default_branch);
    if let Some(happened) = trigger.happened.as_mut() {
        values::of_revision(&mut happened.values, &revision);
        happened.is_late = is_late;
    }
    let is_untold = matches!(event, Event::Push(push) if push.actor.login.is_empty());
    if is_untold && !read.commit.author.is_empty() {
        // A look at refs does not show who pushed, but who wrote the commit.
        trigger.actor = read.commit.author.clone();
    }
    trigger.revision = Some(revision);
    trigger.config_origin =
        Some(ConfigOrigin { reference: reference.full(), revision: read.commit.revision.clone() });
    match read.config {
        Ok(text) => trigger.config = text,
        Err(why) => trigger.fetch_error = Some(why),
    }
    made(create::create(state, trigger).await)
}

fn made(
    result: Result<crate::server::pipelines::types::CreatedPipeline, crate::server::pipelines::types::Error>,
) -> Result<End, StoreError> {
    use crate::server::pipelines::types::Error;
    match result {
        Ok(_) => Ok(End::Started),
        Err(Error::Store(error)) => Err(error),
        Err(Error::NoOrbs(errors)) => Ok(End::Later(errors.to_string())),
        Err(error) => Ok(End::Failed(error.to_string())),
    }
}

fn trigger_of(stored: &StoredChange, event: &Event, about: &About) -> Trigger {
    let (actor, kind) = match event {
        Event::Push(push) => (push.actor.clone(), TriggerType::Webhook),
        Event::Pull(pull) => (pull.actor.clone(), TriggerType::Webhook),
        Event::Scheduled(due) => {
            (Actor { login: due.actor_login.clone(), avatar_url: None }, TriggerType::Scheduled)
        }
    };
    let (name, action) = match event {
        Event::Push(_) => ("push", "push"),
        Event::Pull(pull) => ("pull_request", pull.action.as_str()),
        Event::Scheduled(_) => ("schedule", "schedule"),
    };
    let (workflows, actor_id, parameters) = match event {
        Event::Scheduled(due) => {
            (due.workflows.clone(), due.actor_id.clone().map(UserId::from), due.parameters.clone())
        }
        _ => (None, None, BTreeMap::new()),
    };
    let is_fork = matches!(event, Event::Pull(pull) if pull.is_fork);
    let happened = Happened {
        pipeline: stored.pipeline.clone(),
        change: Some(stored.seq),
        trigger: match kind {
            TriggerType::Scheduled => "schedule".to_owned(),
            _ => values::trigger_type(about.forge).to_owned(),
        },
        event: name.to_owned(),
        action: action.to_owned(),
        values: values::of_event(event, about.base_revision.as_deref()),
        pull: values::pull_facts(event, &about.urls),
        actor_avatar: actor.avatar_url.clone(),
        actor_id,
        is_untrusted: is_fork,
        is_late: false,
        workflows,
    };
    let file = path(&about.settings).unwrap_or_else(|| ".circleci/config.yml".to_owned());
    Trigger {
        actor: if actor.login.is_empty() { "unknown".to_owned() } else { actor.login.clone() },
        happened: Some(happened),
        parameters,
        ..Trigger::new(&about.project.slug, &file, kind)
    }
}
