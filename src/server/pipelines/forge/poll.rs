//! Looking at the refs of repositories that no webhook tells of, or whose webhooks may have been missed.

use crate::logging::record;
use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::event::{Actor, Event, NO_OBJECT, Push, Teller};
use crate::server::pipelines::forge::rounds::{Busy, Hosts, Rounds};
use crate::server::pipelines::forge::take::{SAME, Stored, take};
use crate::server::pipelines::forge::unchanged::{Asked, Unchanged};
use crate::server::pipelines::repository::look::ListedRef;
use crate::server::state::Shared;
use crate::server::store::forge_states::{DeliverySource, Forge, Verdict};
use crate::server::store::read::{self, Project};
use crate::server::store::tables::deliveries::{self, NewDelivery};
use crate::server::store::tables::forge::{self, Connection};
use crate::server::store::tables::projects;
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Repositories of one host that are looked at at once.
const OF_ONE_HOST: usize = 2;
/// Repositories that are looked at at once.
const AT_ONCE: usize = 32;
/// The longest wait after failures, unless looks are further apart anyway.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// The longest time without a look for projects that are due.
const IDLE: Duration = Duration::from_secs(30);

/// The looks that are begun, and how many there may be.
struct Looks {
    busy: Busy<ProjectId>,
    hosts: Hosts,
    room: Semaphore,
    unchanged: Unchanged,
}

/// Looks until the control plane stops.
pub(super) async fn run(state: Shared) {
    let looks = Arc::new(Looks {
        busy: Busy::new(),
        hosts: Hosts::new(OF_ONE_HOST),
        room: Semaphore::new(AT_ONCE),
        unchanged: Unchanged::default(),
    });
    let rounds = Rounds {
        what: "find the projects whose refs are to be looked at",
        woken: Some(state.hub.polls()),
        idle: IDLE,
        least: Duration::from_millis(50),
        pause: Duration::ZERO,
    };
    rounds.run(&state, |now| look_at_due(&state, &looks, now)).await;
}

/// Begins to look at every project that is due. Returns when the next one is due.
async fn look_at_due(state: &Shared, looks: &Arc<Looks>, now: Millis) -> Result<Option<Millis>, StoreError> {
    let due = state.store.read(move |view| forge::due_polls(view, now, AT_ONCE as u32)).await?;
    if !due.is_empty() {
        // Due again after this at the earliest, whatever becomes of these looks.
        let (all, later) = (due.clone(), now.plus(LONGEST));
        state.store.write(move |tx| all.iter().try_for_each(|id| forge::put_off_poll(tx, id, later))).await?;
    }
    for project in due {
        // A look that still waits for its turn at its host is not begun twice.
        let Some(at_work) = looks.busy.try_enter(project.clone()) else { continue };
        let (state, looks) = (state.clone(), Arc::clone(looks));
        tokio::spawn(async move {
            if let Err(error) = look(&state, &looks, &project).await {
                record!(Error, project_id = project; "failed to write down what a look at the refs found: {error}");
            }
            drop(at_work);
        });
    }
    state.store.read(forge::next_poll).await
}

async fn look(state: &Shared, looks: &Looks, id: &ProjectId) -> Result<(), StoreError> {
    let unchanged = &looks.unchanged;
    let of = id.clone();
    let found = state
        .store
        .read(move |view| {
            let last = deliveries::last_event(view)?;
            let found = forge::connection(view, &of)?.zip(read::project(view, &of)?);
            Ok(found.map(|(connection, project)| (connection, project, last)))
        })
        .await?;
    let Some((connection, project, last)) = found else { return Ok(()) };
    let listed = match &project.repository_url {
        None => Err("the project has no repository to read from".to_owned()),
        Some(url) => {
            // The turn at the host comes first: a host that hangs keeps the room of two, and not all of it.
            let Ok(_turn) = looks.hosts.of(url).acquire_owned().await else { return Ok(()) };
            let Ok(_place) = looks.room.acquire().await else { return Ok(()) };
            let asked = match connection.forge {
                Forge::GitHub if connection.is_listed => unchanged.ask(state, id, Millis::now()).await?,
                _ => Asked::Look(None),
            };
            match asked {
                Asked::Same => Ok(None),
                Asked::Look(marks) => {
                    let listed = state.settings.mirrors.list_refs(id.as_str(), url).await;
                    unchanged.keep(id, marks.filter(|_| listed.is_ok()));
                    listed.map(Some)
                }
            }
        }
    };
    let now = Millis::now();
    let next = next_look(&connection, listed.is_err(), now);
    match listed {
        // A repository that cannot be listed is not taken for an empty one.
        Err(why) => {
            if connection.poll_failures == 0 {
                record!(Warn, project = project.slug.as_str(); "{why}");
            }
            let id = id.clone();
            state.store.write(move |tx| forge::set_polled(tx, &id, Some(&why), next)).await
        }
        Ok(None) => {
            let id = id.clone();
            state.store.write(move |tx| forge::set_polled(tx, &id, None, next)).await
        }
        Ok(Some(listed)) => {
            let steps = steps(state, &project, &listed).await?;
            let write = move |tx: &Tx<'_>| {
                let is_whole = note(tx, &project, &connection, &Look { listed, steps, last }, now)?;
                forge::set_polled(tx, &project.id, None, next).map(|()| is_whole)
            };
            if !state.store.write(write).await? {
                unchanged.keep(id, None);
            }
            Ok(())
        }
    }
}

/// The commits that lead to where a branch is now, by the full name of the branch.
type Steps = BTreeMap<String, Vec<String>>;

/// Finds the commits of each branch that has moved, for projects that want each of them built.
async fn steps(state: &Shared, project: &Project, listed: &[ListedRef]) -> Result<Steps, StoreError> {
    let id = project.id.clone();
    let read = move |view: &View| {
        let wants = projects::settings(view, &id)?.is_some_and(|settings| settings.is_each_commit_built);
        if wants { forge::refs(view, &id).map(Some) } else { Ok(None) }
    };
    let (Some(seen), Some(url)) = (state.store.read(read).await?, &project.repository_url) else {
        return Ok(Steps::new());
    };
    let mut steps = Steps::new();
    for one in listed.iter().filter(|one| one.name.starts_with("refs/heads/")) {
        let Some(before) = seen.get(&one.name).filter(|before| **before != one.object) else { continue };
        let mirrors = &state.settings.mirrors;
        let found = mirrors.commits_between(project.id.as_str(), url, before, &one.object).await;
        steps.extend(found.map(|found| (one.name.clone(), found)));
    }
    Ok(steps)
}

/// A push as the pushes of each of its commits.
fn one_by_one(push: Push, steps: &Steps) -> Vec<Push> {
    match steps.get(&push.reference).filter(|steps| steps.last() == Some(&push.after)) {
        None => vec![push],
        Some(commits) => {
            let mut before = push.before.clone();
            let step = |commit: &String| Push {
                before: std::mem::replace(&mut before, commit.clone()),
                after: commit.clone(),
                commit: commit.clone(),
                ..push.clone()
            };
            commits.iter().map(step).collect()
        }
    }
}

/// The time of the next look: at its interval, off by up to a tenth of it; later after failures.
fn next_look(connection: &Connection, has_failed: bool, now: Millis) -> Millis {
    let interval = Duration::from_millis(connection.poll_ms.unwrap_or(LONGEST.as_millis() as u64));
    let mut wait = interval;
    if has_failed {
        let doubled = interval.saturating_mul(1 << connection.poll_failures.min(8));
        wait = doubled.min(LONGEST.max(interval));
    }
    let mut random = [0u8; 2];
    // Without randomness they are looked at in step, which is a pity and no more.
    let _ = SystemRandom::new().fill(&mut random);
    let part = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    now.plus(wait.mul_f64(0.9 + 0.2 * part))
}

/// A look at the refs of a repository.
struct Look {
    /// The refs that are there.
    listed: Vec<ListedRef>,
    /// The commits between.
    steps: Steps,
    /// The place of the last change that was told of before it.
    last: i64,
}

/// Compares what is there with what was seen before, and stores the changes. The first look finds no news. False when
/// something was left to the next look.
fn note(
    tx: &Tx<'_>,
    project: &Project,
    connection: &Connection,
    look: &Look,
    now: Millis,
) -> Result<bool, StoreError> {
    let seen = forge::refs(tx, &project.id)?;
    // A webhook may have told of a newer state than the list has: the next look compares it.
    let is_told = |name: &str| deliveries::is_told_after(tx, &project.id, name, look.last);
    let (mut changes, mut is_whole) = (Vec::new(), true);
    if connection.is_listed {
        for push in differences(&seen, &look.listed) {
            match is_told(&push.reference)? {
                true => is_whole = false,
                false => changes.push(push),
            }
        }
    } else {
        for one in &look.listed {
            match is_told(&one.name)? {
                true => is_whole = false,
                false => forge::see_ref(tx, &project.id, &one.name, Some(&one.object))?,
            }
        }
    }
    if changes.is_empty() {
        return Ok(is_whole);
    }
    let new = NewDelivery {
        project: &project.id,
        delivery: &crate::server::ids::fresh_uuid(),
        source: DeliverySource::Poll,
        event: "refs",
        verdict: Verdict::Accepted,
        is_strange: false,
        sentence: &format!("{} of its refs differ from what was seen before", changes.len()),
    };
    let seq = deliveries::add(tx, &new, now)?;
    let of = Stored { seq, project, is_cloud: false, by: Teller::Look, since: now.minus(SAME), now };
    for push in changes.into_iter().flat_map(|push| one_by_one(push, &look.steps)) {
        take(tx, &of, Event::Push(push))?;
    }
    tx.effect(Effect::ForgeWork);
    Ok(is_whole)
}

/// The changes that lead from what was seen to what is there.
fn differences(seen: &BTreeMap<String, String>, listed: &[ListedRef]) -> Vec<Push> {
    let mut changes = Vec::new();
    let actor = Actor::default();
    for one in listed {
        let before = seen.get(&one.name);
        // Some forges tell the commit of a tag, and no more.
        if before.is_some_and(|before| *before == one.object || *before == one.commit) {
            continue;
        }
        changes.push(Push {
            reference: one.name.clone(),
            before: before.cloned().unwrap_or_else(|| NO_OBJECT.to_owned()),
            after: one.object.clone(),
            commit: one.commit.clone(),
            is_untold: true,
            actor: actor.clone(),
            ..Push::default()
        });
    }
    let is_there = |name: &str| listed.iter().any(|one| one.name == name);
    // A repository that lists nothing at all was emptied or is not the right one: nothing is taken for deleted.
    if !listed.is_empty() {
        for (name, before) in seen.iter().filter(|(name, _)| !is_there(name)) {
            changes.push(Push {
                reference: name.clone(),
                before: before.clone(),
                after: NO_OBJECT.to_owned(),
                commit: NO_OBJECT.to_owned(),
                actor: actor.clone(),
                ..Push::default()
            });
        }
    }
    changes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;
    use crate::server::store::tables::projects::ensure_project;

    fn connection(failures: u32) -> Connection {
        Connection {
            project: "p".into(),
            forge: Forge::Git,
            repository: None,
            full_name: None,
            api_url: None,
            poll_ms: Some(60_000),
            poll_failures: failures,
            poll_message: None,
            is_listed: true,
            token_message: None,
        }
    }

    #[test]
    fn a_list_that_is_older_than_what_a_webhook_tells_moves_nothing_back() {
        const MAIN: &str = "refs/heads/main";
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let write = |tx: &Tx<'_>| {
            let id = ensure_project(tx, "gh/acme/app", None, Millis(0))?.project;
            let project = read::project(tx, &id)?.unwrap();
            forge::see_ref(tx, &id, MAIN, Some("a"))?;
            let last = deliveries::last_event(tx)?;
            let look = |last| Look { listed: vec![listed(MAIN, "a", "a")], steps: Steps::new(), last };
            // The push comes while the refs are listed.
            let push = Push {
                reference: MAIN.to_owned(),
                before: "a".to_owned(),
                after: "b".to_owned(),
                commit: "b".to_owned(),
                ..Push::default()
            };
            let new = NewDelivery {
                project: &id,
                delivery: "d",
                source: DeliverySource::Webhook,
                event: "push",
                verdict: Verdict::Accepted,
                is_strange: false,
                sentence: "",
            };
            let seq = deliveries::add(tx, &new, Millis(1))?;
            let of = Stored {
                seq,
                project: &project,
                is_cloud: false,
                by: Teller::Unnamed,
                since: Millis(0),
                now: Millis(1),
            };
            take(tx, &of, Event::Push(push))?;
            let is_whole = note(tx, &project, &connection(0), &look(last), Millis(2))?;
            let after = (is_whole, forge::seen_ref(tx, &id, MAIN)?);
            // A look that begins later finds what it finds.
            let is_whole = note(tx, &project, &connection(0), &look(last + 1), Millis(3))?;
            Ok((after, (is_whole, forge::seen_ref(tx, &id, MAIN)?)))
        };
        let (first, second) = store.write_blocking(write).unwrap();
        assert_eq!(first, (false, Some("b".to_owned())));
        assert_eq!(second, (true, Some("a".to_owned())));
    }

    fn listed(name: &str, object: &str, commit: &str) -> ListedRef {
        ListedRef { name: name.to_owned(), object: object.to_owned(), commit: commit.to_owned() }
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let seen: BTreeMap<String, String> =
            [("refs/heads/main", "a"), ("refs/heads/old", "b"), ("refs/tags/v1", "c")]
                .into_iter()
                .map(|(name, object)| (name.to_owned(), object.to_owned()))
                .collect();
        let now = [
            listed("refs/heads/main", "d", "d"),
            listed("refs/heads/new", "a", "a"),
            // Seen by its commit before.
            listed("refs/tags/v1", "t", "c"),
            listed("refs/tags/v2", "u", "d"),
        ];
        let shown = |changes: Vec<Push>| -> Vec<String> {
            changes
                .iter()
                .map(|push| format!("{} {} {}", push.reference, &push.before[..1], push.commit))
                .collect()
        };
        assert_eq!(
            shown(differences(&seen, &now)),
            [
                "refs/heads/main a d".to_owned(),
                "refs/heads/new 0 a".to_owned(),
                "refs/tags/v2 0 d".to_owned(),
                format!("refs/heads/old b {NO_OBJECT}")
            ]
        );
        assert!(differences(&seen, &[]).is_empty(), "an empty list deletes nothing");
        let steps = Steps::from([(
            "refs/heads/main".to_owned(),
            vec!["b".to_owned(), "c".to_owned(), "d".to_owned()],
        )]);
        let all: Vec<Push> =
            differences(&seen, &now).into_iter().flat_map(|push| one_by_one(push, &steps)).collect();
        let main: Vec<_> = all[..3].iter().map(|push| format!("{} {}", push.before, push.after)).collect();
        assert!(main == ["a b", "b c", "c d"] && all.len() == 6, "{main:?}");
    }

    #[test]
    fn looks_are_off_by_a_tenth_and_later_after_failures() {
        let within = |at: Millis, seconds: u64| (seconds * 900..=seconds * 1100).contains(&at.0);
        assert!(within(next_look(&connection(0), false, Millis(0)), 60));
        assert!(within(next_look(&connection(2), true, Millis(0)), 240));
        assert!(within(next_look(&connection(99), true, Millis(0)), 900));
    }
}
