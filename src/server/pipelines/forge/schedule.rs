//! Schedules that are due: each of their times is noted and becomes a change that is worked off, in one transaction, so
//! that it runs once whatever happens.

use crate::server::ids::{PipelineId, ProjectId};
use crate::server::pipelines::forge::event::{Event, Scheduled};
use crate::server::pipelines::forge::rounds::Rounds;
use crate::server::pipelines::forge::timetable::{self, Cron};
use crate::server::state::Shared;
use crate::server::store::status::{DeliverySource, EventState, Verdict};
use crate::server::store::tables::deliveries::{self, NewDelivery, NewEvent};
use crate::server::store::tables::schedules::{self, BranchSchedule, Schedule};
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use std::collections::BTreeMap;
use std::time::Duration;

/// Pause between two looks at the clock.
const TICK: Duration = Duration::from_secs(10);

/// Works until the control plane stops.
pub(super) async fn run(state: Shared) {
    let rounds = Rounds {
        what: "look for schedules that are due",
        woken: None,
        idle: TICK,
        least: TICK,
        pause: Duration::ZERO,
    };
    rounds.run(&state, |now| tick_once(&state, now)).await;
}

/// Everything that is due at a time.
struct Due {
    schedules: Vec<(Schedule, Millis)>,
    branches: Vec<(BranchSchedule, Millis)>,
}

fn due(view: &View, now: Millis) -> Result<Due, StoreError> {
    let schedules = schedules::list(view, None)?.into_iter().filter_map(|schedule| {
        let at = timetable::due(&schedule.timetable, schedule.id.as_str(), schedule.last, now)?;
        Some((schedule, at))
    });
    let branches = schedules::list_of_branches(view)?.into_iter().filter_map(|schedule| {
        let at = Cron::parse(&schedule.cron)?.due(schedule.last, now)?;
        Some((schedule, at))
    });
    Ok(Due { schedules: schedules.collect(), branches: branches.collect() })
}

async fn tick_once(state: &Shared, now: Millis) -> Result<Option<Millis>, StoreError> {
    let found = state.store.read(move |view| due(view, now)).await?;
    if found.schedules.is_empty() && found.branches.is_empty() {
        return Ok(None);
    }
    state.store.write(move |tx| note(tx, found, now)).await.map(|()| None)
}

fn note(tx: &Tx<'_>, found: Due, now: Millis) -> Result<(), StoreError> {
    for (schedule, at) in found.schedules {
        if !schedules::set_last(tx, &schedule.id, at)? {
            continue;
        }
        let mut parameters = schedule.parameters;
        let mut name = |key: &str| parameters.remove(key).and_then(|name| name.as_str().map(str::to_owned));
        let (branch, tag) = (name("branch"), name("tag"));
        let scheduled = Scheduled {
            due_ms: at.0,
            schedule: Some(schedule.id.to_string()),
            name: Some(schedule.name),
            branch,
            tag,
            workflows: None,
            parameters,
            actor_id: schedule.actor.map(String::from),
            actor_login: schedule.actor_login,
        };
        add(tx, &schedule.project, scheduled, now)?;
    }
    // The workflows of one branch that are due run in one pipeline.
    let mut by_branch: BTreeMap<(ProjectId, String), (Vec<String>, Millis)> = BTreeMap::new();
    for (schedule, at) in found.branches {
        if schedules::set_last_of_branch(tx, &schedule, at)? {
            let (workflows, latest) =
                by_branch.entry((schedule.project, schedule.branch)).or_insert((Vec::new(), at));
            workflows.push(schedule.workflow);
            *latest = at.max(*latest);
        }
    }
    for ((project, branch), (workflows, at)) in by_branch {
        let scheduled = Scheduled {
            due_ms: at.0,
            schedule: None,
            name: None,
            branch: Some(branch),
            tag: None,
            workflows: Some(workflows),
            parameters: BTreeMap::new(),
            actor_id: None,
            actor_login: SYSTEM.to_owned(),
        };
        add(tx, &project, scheduled, now)?;
    }
    Ok(())
}

/// The login in whose name schedules run that are nobody's.
pub const SYSTEM: &str = "system-actor";

fn add(tx: &Tx<'_>, project: &ProjectId, scheduled: Scheduled, now: Millis) -> Result<(), StoreError> {
    let what = match &scheduled.name {
        Some(name) => format!("the schedule `{name}`"),
        None => format!("workflows of `{}`", scheduled.branch.as_deref().unwrap_or_default()),
    };
    let sentence = format!("{what}, due at {}", Millis(scheduled.due_ms));
    let new = NewDelivery {
        project,
        delivery: &crate::server::ids::fresh_uuid(),
        source: DeliverySource::Schedule,
        event: "schedule",
        verdict: Verdict::Accepted,
        sentence: &sentence,
    };
    let delivery = deliveries::add(tx, &new, now)?;
    let event = Event::Scheduled(scheduled);
    let new = NewEvent {
        delivery,
        project,
        key: &event.key(),
        builds: None,
        event: &serde_json::to_value(&event)?,
        state: EventState::Waiting,
        sentence: "",
        pipeline: &PipelineId::fresh(),
    };
    deliveries::add_event(tx, &new, now)?;
    tx.effect(Effect::ForgeWork);
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::ids::ScheduleId;
    use crate::server::store::Store;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::tables::schedules::Timetable;
    use serde::Deserialize as _;
    use serde_json::json;

    const MINUTE_MS: u64 = 60_000;

    #[test]
    fn each_time_becomes_one_change_and_workflows_of_a_branch_go_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let project = store
            .write_blocking(|tx| {
                let project = ensure_project(tx, "gh/acme/app", None, Millis(0))?.project;
                let every = [("a", "* * * * *"), ("b", "* * * * *"), ("c", "0 0 1 1 *")];
                let every = every.map(|(workflow, cron)| (workflow.to_owned(), cron.to_owned()));
                schedules::set_of_branch(tx, &project, "main", &every, Millis(0))?;
                let schedule = Schedule {
                    id: ScheduleId::fresh(),
                    project: project.clone(),
                    name: "often".to_owned(),
                    description: String::new(),
                    timetable: Timetable {
                        per_hour: 60,
                        hours_of_day: (0..24).collect(),
                        days_of_week: ["THU", "FRI"].map(str::to_owned).to_vec(),
                        days_of_month: Vec::new(),
                        months: Vec::new(),
                    },
                    parameters: BTreeMap::from([("tag".to_owned(), json!("v1")), ("x".to_owned(), json!(1))]),
                    actor: None,
                    actor_login: SYSTEM.to_owned(),
                    created_at: Millis(0),
                    updated_at: Millis(0),
                    last: Millis(0),
                };
                schedules::set(tx, &schedule)?;
                Ok(project)
            })
            .unwrap();
        let tick = |minute: u64| {
            let now = Millis(minute * MINUTE_MS + 5_000);
            let found = store.read_blocking(|view| due(view, now)).unwrap();
            store.write_blocking(move |tx| note(tx, found, now)).unwrap();
        };
        let waiting = || -> Vec<Scheduled> {
            let found =
                store.read_blocking(|view| deliveries::due_events(view, &[], Millis(u64::MAX), 100)).unwrap();
            let event = |stored: &deliveries::StoredEvent| match Event::deserialize(&stored.event).unwrap() {
                Event::Scheduled(scheduled) => scheduled,
                other => unreachable!("{other:?}"),
            };
            found.iter().map(event).collect()
        };
        tick(10);
        tick(10);
        let found = waiting();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].tag.as_deref(), found[0].parameters.len()), (Some("v1"), 1));
        assert_eq!(found[1].workflows.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        // Back in time, and forth again.
        tick(9);
        tick(11);
        assert_eq!(waiting().len(), 4);
        store
            .write_blocking(move |tx| {
                let left = [("b".to_owned(), "* * * * *".to_owned())];
                schedules::set_of_branch(tx, &project, "main", &left, Millis(12 * MINUTE_MS))
            })
            .unwrap();
        tick(11);
        assert_eq!(waiting().len(), 4, "one that stays does not run again");
        tick(12);
        assert_eq!(waiting().last().unwrap().workflows.as_deref(), Some(&["b".to_owned()][..]));
    }
}
