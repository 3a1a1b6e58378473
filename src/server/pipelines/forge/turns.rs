//! Turns of projects whose changes wait: those of one project come one after the other, those of several projects do not
//! wait for each other, and a host that hangs holds up its own projects only.

use crate::server::ids::ProjectId;
use crate::server::pipelines::forge::event::{Event, StoredChange};
use crate::server::pipelines::forge::rounds::{Busy, Hosts, Rounds};
use crate::server::pipelines::forge::work::work_in_order;
use crate::server::state::Shared;
use crate::server::store::read;
use crate::server::store::tables::deliveries;
use crate::server::store::{Error as StoreError, View};
use crate::server::time::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Projects that are worked for at once.
const AT_ONCE: usize = 16;
/// Projects of one host that are worked for at once.
const OF_ONE_HOST: usize = 4;
/// The longest time without a look for work while there is some.
const WHILE_BUSY: Duration = Duration::from_secs(1);
/// Changes that are looked at together.
const BATCH: u32 = 200;
/// The longest time without a look for work.
const IDLE: Duration = Duration::from_secs(60);

/// Works until the control plane stops.
pub(super) async fn run(state: Shared) {
    let (busy, room, hosts) = (Busy::new(), Arc::new(Semaphore::new(AT_ONCE)), Hosts::new(OF_ONE_HOST));
    let rounds = Rounds {
        what: "look for changes that wait",
        woken: Some(state.hub.forge()),
        idle: IDLE,
        least: Duration::from_millis(20),
        pause: Duration::ZERO,
    };
    rounds.run(&state, |now| hand_out(&state, &busy, &room, &hosts, now)).await;
}

/// Starts work for the projects that have some. Returns when there is more, as far as is known.
async fn hand_out(
    state: &Shared,
    busy: &Busy<ProjectId>,
    room: &Arc<Semaphore>,
    hosts: &Hosts,
    now: Millis,
) -> Result<Option<Millis>, StoreError> {
    // Projects whose host is busy are looked past, so that their changes do not hide those of others.
    let mut held: Vec<ProjectId> = Vec::new();
    loop {
        let working: Vec<ProjectId> = busy.list().into_iter().chain(held.iter().cloned()).collect();
        let read = move |view: &View| {
            let mut by_project: BTreeMap<ProjectId, (String, Vec<StoredChange>)> = BTreeMap::new();
            for event in deliveries::due_events::<Event>(view, &working, now, BATCH)? {
                if !by_project.contains_key(&event.project) {
                    let url = read::project(view, &event.project)?.and_then(|found| found.repository_url);
                    by_project.insert(event.project.clone(), (url.unwrap_or_default(), Vec::new()));
                }
                if let Some((_, events)) = by_project.get_mut(&event.project) {
                    events.push(event);
                }
            }
            Ok(by_project)
        };
        let found = state.store.read(read).await?;
        if found.is_empty() {
            // The next one may be due before any of the work has ended.
            return match busy.list().is_empty() {
                true => state.store.read(deliveries::next_event).await,
                false => Ok(Some(now.plus(WHILE_BUSY))),
            };
        }
        if !begin(state, busy, room, hosts, found, &mut held) {
            return Ok(Some(now.plus(WHILE_BUSY)));
        }
    }
}

/// Begins the work for projects. Those whose host is busy are added to `held`; false where there is no room left.
fn begin(
    state: &Shared,
    busy: &Busy<ProjectId>,
    room: &Arc<Semaphore>,
    hosts: &Hosts,
    found: BTreeMap<ProjectId, (String, Vec<StoredChange>)>,
    held: &mut Vec<ProjectId>,
) -> bool {
    for (project, (url, events)) in found {
        // Work that ends frees a place and wakes the loop.
        let Ok(permit) = Arc::clone(room).try_acquire_owned() else { return false };
        let Ok(turn) = hosts.of(&url).try_acquire_owned() else {
            held.push(project);
            continue;
        };
        let at_work = busy.enter(project);
        let state = state.clone();
        tokio::spawn(async move {
            for event in events {
                if *state.stopping.borrow() {
                    break;
                }
                work_in_order(&state, &event).await;
            }
            drop((permit, turn));
            drop(at_work);
            state.hub.forge().notify_one();
        });
    }
    true
}
