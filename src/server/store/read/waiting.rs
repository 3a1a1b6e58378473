//! Why a job waits for a runner.
//!
//! Only SQLite: `json_each` over the kinds of task that a runner takes.

use crate::protocol::TaskKind;
use crate::server::ids::JobId;
use crate::server::store::json::Message;
use crate::server::store::read::job::Job;
use crate::server::store::status::{JobStatus, Kind, MessageKind, TaskState};
use crate::server::store::tables::instances::ONLINE;
use crate::server::store::{Error, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, params};

/// Adds the reasons why a job waits, if it does, to its messages. A job runs as soon as one of its nodes does: of the others
/// it is told why they came back.
pub fn explain_waiting(view: &View, job: &mut Job, now: Millis) -> Result<(), Error> {
    let is_queued = job.status == JobStatus::Queued;
    if !is_queued && job.status != JobStatus::Running {
        return Ok(());
    }
    let back = given_back(view, &job.id, now)?;
    let is_paused = back.as_ref().is_some_and(|back| back.is_paused);
    let waits = if is_queued { waiting(view, job, is_paused, now)? } else { None };
    let kind = MessageKind::Warning.to_string();
    let told = back.map(|back| back.told).into_iter().chain(waits);
    job.messages.extend(told.map(|message| Message { kind: kind.clone(), message }));
    Ok(())
}

/// The last attempt that a runner gave back, or did not begin, before the task that waits, or that a runner has and has
/// not begun: it may come back for the same reason.
struct GivenBack {
    told: String,
    /// Whether its runner pauses, which already explains why it does not ask.
    is_paused: bool,
}

fn given_back(view: &View, job: &JobId, now: Millis) -> Result<Option<GivenBack>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT b.message, t.unclaims + t.host_unclaims, t.avoid_until_ms FROM tasks t
         JOIN tasks b ON b.job_id = t.job_id AND b.node_index = t.node_index AND b.attempt = t.attempt - 1
         WHERE t.job_id = ?1 AND t.status IN (?2, ?3) AND b.message IS NOT NULL ORDER BY t.seq LIMIT 1",
    )?;
    let found = query.query_row(params![job, TaskState::Queued, TaskState::Claimed], |row| {
        let (message, times, until): (String, u32, Option<Millis>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let until = until.filter(|until| *until > now);
        let pause = until.map_or_else(String::new, |until| format!("; that runner pauses until {until}"));
        let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        let told = format!("{message} (it has come back from runners {times}{pause})");
        Ok(GivenBack { told, is_paused: until.is_some() })
    });
    Ok(found.optional()?)
}

/// The reason why a queued job has not begun, as a sentence for people; nothing where a runner is about to take it, or
/// pauses after it gave it back.
fn waiting(view: &View, job: &Job, is_paused: bool, now: Millis) -> Result<Option<String>, Error> {
    if let Some(key) = waits_for_key(view, &job.id)? {
        return Ok(Some(format!("waits for its turn in the serial group `{key}`")));
    }
    let Some(queued) = queued_task(view, &job.id)? else { return Ok(None) };
    if queued.is_held {
        return Ok(Some(
            "held, because the control plane was restored from a backup: an administrator releases or ends it (`runlet admin task held`)"
                .to_owned(),
        ));
    }
    let class = &queued.class;
    let kind = match queued.kind {
        Kind(TaskKind::Machine) => "",
        Kind(TaskKind::Container) => " that takes containers",
        Kind(TaskKind::Unknown) => " that takes such a job",
    };
    if is_class_paused(view, class)? {
        return Ok(Some(format!(
            "the resource class `{class}` is paused (`runlet admin runner resume {class}`)"
        )));
    }
    if let Some(at) = queued.not_before {
        return Ok(Some(format!(
            "not before about {at}: the runner that had it before may still be at work"
        )));
    }
    let runners = runners(view, class, queued.kind, now)?;
    if runners.idle > 0 || is_paused && runners.busy == 0 {
        return Ok(None);
    }
    let ahead = count_ahead(view, class, queued.seq)?;
    let ahead = match ahead {
        0 => String::new(),
        1 => "; 1 task waits before it".to_owned(),
        count => format!("; {count} tasks wait before it"),
    };
    Ok(Some(match (runners.busy, runners.last) {
        (0, _) if runners.paused > 0 => {
            format!(
                "the runners of `{class}`{kind} that are there are paused (`runlet admin runner resume`){ahead}"
            )
        }
        (busy @ 1.., _) => format!("all runners of `{class}`{kind} are busy ({busy}){ahead}"),
        (0, Some((name, at))) => {
            format!("no runner of `{class}`{kind} is there: the last one, `{name}`, was seen at {at}{ahead}")
        }
        (0, None) => format!(
            "no runner of `{class}`{kind} was ever seen: start one with a token of this class (`runlet admin token create`){ahead}"
        ),
    }))
}

fn is_class_paused(view: &View, class: &str) -> Result<bool, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT 1 FROM resource_classes WHERE name = ?1 AND is_paused")?;
    Ok(query.exists([class])?)
}

/// The oldest task of a job that waits.
struct Queued {
    seq: i64,
    class: String,
    kind: Kind,
    is_held: bool,
    not_before: Option<Millis>,
}

fn queued_task(view: &View, job: &JobId) -> Result<Option<Queued>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT seq, resource_class, kind, is_held, not_before_ms FROM tasks
         WHERE job_id = ?1 AND status = ?2 ORDER BY seq LIMIT 1",
    )?;
    let found = query.query_row(params![job, TaskState::Queued], |row| {
        Ok(Queued {
            seq: row.get(0)?,
            class: row.get(1)?,
            kind: row.get(2)?,
            is_held: row.get(3)?,
            not_before: row.get(4)?,
        })
    });
    Ok(found.optional()?)
}

fn waits_for_key(view: &View, job: &JobId) -> Result<Option<String>, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT serial_group FROM jobs WHERE id = ?1 AND waits_for_lock")?;
    Ok(query.query_row([job], |row| row.get::<_, Option<String>>(0)).optional()?.flatten())
}

/// Runners of a class that take one kind of task.
struct Runners {
    /// Asked for work lately, and have none.
    idle: usize,
    /// Have a task.
    busy: usize,
    /// Asked for work lately, and get none for a while.
    paused: usize,
    /// Name of the one that was seen last, and when.
    last: Option<(String, Millis)>,
}

/// A runner of the class that takes tasks of the kind.
struct Seen {
    name: String,
    /// Time of its last call.
    at: Millis,
    is_busy: bool,
    is_paused: bool,
}

fn runners(view: &View, class: &str, kind: Kind, now: Millis) -> Result<Runners, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT i.name, i.last_connected_ms,
            EXISTS (SELECT 1 FROM tasks t WHERE t.resource_class = ?1 AND t.status IN (?3, ?4, ?5) AND t.runner_name = i.name),
            i.is_paused
         FROM runner_instances i JOIN resource_classes c ON c.id = i.resource_class_id
         WHERE c.name = ?1 AND EXISTS (SELECT 1 FROM json_each(i.takes) WHERE value = ?2)
         ORDER BY i.last_connected_ms DESC",
    )?;
    let [claimed, running, unreachable] = TaskState::HELD_BY_A_RUNNER;
    let values = params![class, kind, claimed, running, unreachable];
    let seen = query.query_map(values, |row| {
        Ok(Seen { name: row.get(0)?, at: row.get(1)?, is_busy: row.get(2)?, is_paused: row.get(3)? })
    })?;
    let seen: Vec<Seen> = seen.collect::<Result<_, _>>()?;
    let since = now.minus(ONLINE);
    let waits = |paused: bool| {
        seen.iter().filter(|one| one.at > since && !one.is_busy && one.is_paused == paused).count()
    };
    let (idle, paused) = (waits(false), waits(true));
    let busy = seen.iter().filter(|one| one.is_busy).count();
    Ok(Runners { idle, busy, paused, last: seen.into_iter().next().map(|one| (one.name, one.at)) })
}

fn count_ahead(view: &View, class: &str, seq: i64) -> Result<u64, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT count(*) FROM tasks WHERE status = ?1 AND resource_class = ?2 AND seq < ?3",
    )?;
    Ok(query.query_row(params![TaskState::Queued, class, seq], |row| row.get(0))?)
}
