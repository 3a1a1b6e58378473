//! Tasks that wait for a runner, when their class changes or lets them wait no longer.

use crate::server::engine::commit::task;
use crate::server::engine::task::{Task, WaitTerms};
use crate::server::ids::ResourceClassId;
use crate::server::store::tables::fleet::{self, WaitingTask};
use crate::server::store::tables::tasks;
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;
use std::time::Duration;

/// Ends tasks that have waited for a runner longer than their class lets them. Returns how many.
pub fn waited_too_long(tx: &Tx<'_>, now: Millis) -> Result<usize, Error> {
    let mut count = 0;
    for WaitingTask { row, limit, is_class_paused } in fleet::overdue(tx, now)? {
        let class = row.resource_class.clone();
        let terms = WaitTerms { class: &class, limit: Some(limit), is_paused: is_class_paused };
        count += task::each(tx, [row], now, |task| task.waited_too_long(&terms, now))?;
    }
    Ok(count)
}

/// A resource class goes on after a pause: the time begins anew in which runners are to take what waits.
pub fn waits_anew(tx: &Tx<'_>, class: &str, now: Millis) -> Result<(), Error> {
    let anew = |task: &mut Task| {
        task.waits_anew(now);
        Vec::new()
    };
    task::each(tx, tasks::queued_of_class(tx, class)?, now, anew).map(drop)
}

/// Sets how long a task of a class may wait. While there was no limit nobody looked whether runners could be heard: the time
/// of what waits begins with the first one.
pub fn limit_waits(
    tx: &Tx<'_>,
    (id, name): (&ResourceClassId, &str),
    limit: Option<Duration>,
    now: Millis,
) -> Result<(), Error> {
    if fleet::set_wait_limit(tx, id, limit)? { waits_anew(tx, name, now) } else { Ok(()) }
}

/// A resource class is deleted: what waits for its runners ends. Returns how many tasks that were.
pub fn class_deleted(tx: &Tx<'_>, class: &str, now: Millis) -> Result<usize, Error> {
    task::each(tx, tasks::queued_of_class(tx, class)?, now, |task| task.class_deleted(class, now))
}
