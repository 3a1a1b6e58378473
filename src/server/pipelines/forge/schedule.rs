//! Schedules that are due: each of their times is noted and becomes a change that is worked off, in one transaction, so
//! that it runs once whatever happens.

use crate::logging::record;
use crate::server::ids::{PipelineId, ProjectId};
use crate::server::pipelines::forge::event::{Event, Scheduled};
use crate::server::pipelines::forge::rounds::Rounds;
use crate::server::pipelines::forge::timetable::{self, Cron};
use crate::server::state::Shared;
use crate::server::store::forge_states::{DeliverySource, EventState, Verdict};
use crate::server::store::tables::deliveries::{self, NewDelivery, NewEvent};
use crate::server::store::tables::schedules::{self, BranchSchedule, Damaged, ScheduledPipeline};
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
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
    let said = Arc::<Mutex<HashSet<Damaged>>>::default();
    rounds.run(&state, |now| tick_once(&state, Arc::clone(&said), now)).await;
}

/// Schedules that are due at a time.
struct Due {
    /// Schedules of the API that nothing can be read of any more.
    damaged: Vec<Damaged>,
    schedules: Vec<(ScheduledPipeline, Millis)>,
    branches: Vec<(BranchSchedule, Millis)>,
}

fn due(view: &View, now: Millis) -> Result<Due, StoreError> {
    let (readable, damaged) = schedules::list(view, None)?;
    let schedules = readable.into_iter().filter_map(|schedule| {
        let at = timetable::due(&schedule.timetable, schedule.id.as_str(), schedule.last, now)?;
        Some((schedule, at))
    });
    let branches = schedules::list_of_branches(view)?.into_iter().filter_map(|schedule| {
        let at = Cron::parse(&schedule.cron)?.due(schedule.last, now)?;
        Some((schedule, at))
    });
    Ok(Due { damaged, schedules: schedules.collect(), branches: branches.collect() })
}

/// Looks for what is due. One that is damaged is told of once: the others go on.
async fn tick_once(
    state: &Shared,
    said: Arc<Mutex<HashSet<Damaged>>>,
    now: Millis,
) -> Result<Option<Millis>, StoreError> {
    let found = state.store.read(move |view| due(view, now)).await?;
    for one in &found.damaged {
        if said.lock().unwrap_or_else(PoisonError::into_inner).insert(one.clone()) {
            let Damaged { id, name } = one;
            let name = name.as_deref().unwrap_or("(damaged as well)");
            record!(Error, schedule_id = id, schedule = name;
                "a schedule is damaged in the database and does not run: delete it and make it anew (`/api/v2/schedule/{id}`)"
            );
        }
    }
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
        is_strange: false,
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
    use crate::server::pipelines::forge::event::StoredChange;
    use crate::server::store::Store;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::tables::schedules::Timetable;
    use proptest::prelude::*;
    use serde_json::json;

    const MINUTE_MS: u64 = 60_000;
    const DAYS: [&str; 7] = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

    /// A schedule of the API, for every minute of these days.
    fn every_minute(project: &ProjectId, days: &[&str], now: Millis) -> ScheduledPipeline {
        ScheduledPipeline {
            id: ScheduleId::fresh(),
            project: project.clone(),
            name: "often".to_owned(),
            description: String::new(),
            timetable: Timetable {
                per_hour: 60,
                hours_of_day: (0..24).collect(),
                days_of_week: days.iter().map(|&day| day.to_owned()).collect(),
                days_of_month: Vec::new(),
                months: Vec::new(),
            },
            parameters: BTreeMap::new(),
            actor: None,
            actor_login: SYSTEM.to_owned(),
            created_at: now,
            updated_at: now,
            last: now,
        }
    }

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
                let parameters =
                    BTreeMap::from([("tag".to_owned(), json!("v1")), ("x".to_owned(), json!(1))]);
                let schedule =
                    ScheduledPipeline { parameters, ..every_minute(&project, &["THU", "FRI"], Millis(0)) };
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
            let event = |stored: StoredChange| match stored.event.unwrap() {
                Event::Scheduled(scheduled) => scheduled,
                other => unreachable!("{other:?}"),
            };
            found.into_iter().map(event).collect()
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

    /// An event in the life of a control plane with schedules.
    #[derive(Clone, Debug)]
    enum Step {
        /// The clock goes on by so many minutes.
        On(u64),
        /// The clock is set back by so many minutes.
        Back(u64),
        /// The control plane looks at the clock.
        Look,
        /// The control plane looks, and dies before what it found is kept.
        Die,
        /// A push brings a config with the one list of times or with the other.
        Push(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..20).prop_map(Step::On),
            1 => (90u64..300).prop_map(Step::On),
            1 => (1u64..30).prop_map(Step::Back),
            6 => Just(Step::Look),
            2 => Just(Step::Die),
            1 => any::<bool>().prop_map(Step::Push),
        ]
    }

    /// Minutes of the hour of either list, and as a config writes them.
    const LISTS: [(&[u64], &str); 2] = [(&[0, 7, 20, 59], "0,7,20,59 * * * *"), (&[20, 21], "20-21 * * * *")];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn each_time_runs_once_over_deaths_and_clocks_that_are_set(steps in prop::collection::vec(step(), 1..40)) {
            let folder = tempfile::tempdir().unwrap();
            let open = || Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
            let mut store = open();
            let mut minute = 50_000u64;
            let at = |minute: u64| Millis(minute * MINUTE_MS + 5_000);
            let start = at(minute);
            let push = |store: &Store, project: &ProjectId, list: usize, now: Millis| {
                let (project, wanted) = (project.clone(), [("w".to_owned(), LISTS[list].1.to_owned())]);
                store.write_blocking(move |tx| schedules::set_of_branch(tx, &project, "main", &wanted, now)).unwrap();
            };
            let project = store
                .write_blocking(move |tx| {
                    let project = ensure_project(tx, "gh/acme/app", None, Millis(0))?.project;
                    let schedule = every_minute(&project, &DAYS, start);
                    schedules::set(tx, &schedule)?;
                    Ok(project)
                })
                .unwrap();
            push(&store, &project, 0, start);
            // The last minutes that counted, of the schedule of the API and of the one in the config, and all that ran.
            let (mut last, mut list, mut ran) = ([minute, minute], 0, [Vec::new(), Vec::new()]);
            for step in steps {
                match step {
                    Step::On(minutes) => minute += minutes,
                    Step::Back(minutes) => minute -= minutes,
                    Step::Push(other) => {
                        push(&store, &project, usize::from(other), at(minute));
                        if list != usize::from(other) {
                            (list, last[1]) = (usize::from(other), minute);
                        }
                    }
                    Step::Look => {
                        let found = store.read_blocking(|view| due(view, at(minute))).unwrap();
                        store.write_blocking(move |tx| note(tx, found, at(minute))).unwrap();
                        for (of, minutes) in [(0, None), (1, Some(LISTS[list].0))] {
                            // The last that fits of a quarter of an hour, if it is news.
                            let fits = |m: &u64| minutes.is_none_or(|minutes| minutes.contains(&(m % 60)));
                            let newest = (minute - 14..=minute).rev().find(fits);
                            if let Some(newest) = newest.filter(|newest| *newest > last[of]) {
                                last[of] = newest;
                                ran[of].push(newest);
                            }
                        }
                    }
                    Step::Die => {
                        let found = store.read_blocking(|view| due(view, at(minute))).unwrap();
                        let died = store.write_blocking(move |tx| {
                            note(tx, found, at(minute))?;
                            Err::<(), _>(StoreError::Closed)
                        });
                        prop_assert!(died.is_err());
                        drop(store);
                        store = open();
                    }
                }
                let found =
                    store.read_blocking(|view| deliveries::due_events(view, &[], Millis(u64::MAX >> 1), 10_000)).unwrap();
                let mut seen = [Vec::new(), Vec::new()];
                for stored in found {
                    let Ok(Event::Scheduled(scheduled)) = stored.event else { continue };
                    seen[usize::from(scheduled.schedule.is_none())].push(scheduled.due_ms / MINUTE_MS);
                }
                prop_assert_eq!(&seen, &ran);
            }
        }
    }
}
