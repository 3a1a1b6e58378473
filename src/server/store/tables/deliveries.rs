//! Deliveries of forges, and the changes in them that wait to be worked off.
//!
//! Only SQLite: `json_each` for the list of busy projects, `LIMIT -1` with OFFSET, `INDEXED BY`, without which all changes
//! there are would be looked at, `last_insert_rowid` for the number of a delivery (elsewhere RETURNING);
//! flags are integers.

use crate::server::ids::{PipelineId, ProjectId};
use crate::server::store::forge_states::{DeliverySource, EventState, Verdict};
use crate::server::store::json::{DamagedColumn, Json, json_or_why};
use crate::server::store::words::Word;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

/// Refused deliveries of a project that are kept.
const MOST_REFUSED: u32 = 50;
/// Deliveries of strangers to a project that are kept, and listed beside all others: strangers must neither fill the disk
/// nor push out of the list what people look for.
const MOST_OF_STRANGERS: u32 = 10;

/// Changes of a ref that are looked at for one that is told of again.
const MOST_OF_A_REF: u32 = 1000;

/// A delivery that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewDelivery<'a> {
    /// The project that it was sent to.
    pub project: &'a ProjectId,
    /// The forge's id of it.
    pub delivery: &'a str,
    /// How it was learned of.
    pub source: DeliverySource,
    /// The forge's name of the event.
    pub event: &'a str,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Whether nobody knows who sent it.
    pub is_strange: bool,
    /// A sentence about it.
    pub sentence: &'a str,
}

/// A delivery as people see it.
#[derive(Clone, Debug)]
pub struct ShownDelivery {
    /// Identifies it here.
    pub seq: i64,
    /// The forge's id of it.
    pub delivery: String,
    /// How it was learned of.
    pub source: DeliverySource,
    /// The forge's name of the event.
    pub event: String,
    /// Time of its coming.
    pub received_at: Millis,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Whether nobody knows who sent it.
    pub is_strange: bool,
    /// A sentence about it.
    pub sentence: String,
}

/// A change of a ref or of a pull request; `E` is the form of whoever stored it.
#[derive(Clone, Debug)]
pub struct StoredEvent<E> {
    /// Identifies it; changes are worked off in this order.
    pub seq: i64,
    /// Project whose repository changed.
    pub project: ProjectId,
    /// The change. Damage in one is in the way of no other: whoever works it off ends it.
    pub event: Result<E, DamagedColumn>,
    /// Time of its coming.
    pub at: Millis,
    /// How far the change is worked off.
    pub state: EventState,
    /// How often it was tried.
    pub attempts: u32,
    /// A sentence about what became of it.
    pub sentence: String,
    /// The id that its pipeline gets, if it gets one.
    pub pipeline: PipelineId,
}

const EVENT: &str =
    "SELECT seq, project_id, event, at_ms, state, attempts, sentence, pipeline_id FROM forge_events";

fn event_row<E: DeserializeOwned>(row: &Row<'_>) -> rusqlite::Result<StoredEvent<E>> {
    Ok(StoredEvent {
        seq: row.get(0)?,
        project: row.get(1)?,
        event: json_or_why(row, 2)?,
        at: row.get(3)?,
        state: row.get(4)?,
        attempts: row.get(5)?,
        sentence: row.get(6)?,
        pipeline: row.get(7)?,
    })
}

fn find_sql() -> String {
    // The index knows of no others.
    let refused = Verdict::Refused.literal();
    format!(
        "SELECT seq FROM forge_deliveries WHERE project_id = ?1 AND delivery = ?2 AND verdict <> {refused}"
    )
}

/// Changes that wait, in the words of the index on them.
fn waiting() -> String {
    format!("state = {}", EventState::Waiting.literal())
}

fn due_sql() -> String {
    format!(
        "{EVENT} INDEXED BY forge_events_waiting WHERE {} AND not_before_ms <= ?1 AND project_id NOT IN (SELECT value FROM json_each(?2))
         ORDER BY seq LIMIT ?3",
        waiting()
    )
}

fn next_sql() -> String {
    format!("SELECT min(not_before_ms) FROM forge_events WHERE {}", waiting())
}

/// Finds a delivery by the forge's id of it, unless it was refused.
pub fn find(view: &View, project: &ProjectId, delivery: &str) -> Result<Option<i64>, Error> {
    let mut query = view.sql().prepare_cached(&find_sql())?;
    Ok(query.query_row(params![project, delivery], |row| row.get(0)).optional()?)
}

/// Forgets a delivery with its changes.
pub fn delete(tx: &Tx<'_>, delivery: i64) -> Result<(), Error> {
    tx.sql().prepare_cached("DELETE FROM forge_deliveries WHERE seq = ?1")?.execute([delivery])?;
    Ok(())
}

/// Stores a delivery.
pub fn add(tx: &Tx<'_>, new: &NewDelivery<'_>, now: Millis) -> Result<i64, Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_deliveries (project_id, delivery, source, event, received_at_ms, verdict, is_strange, sentence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new.project,
            new.delivery,
            new.source,
            new.event,
            now,
            new.verdict,
            new.is_strange,
            new.sentence
        ])?;
    let seq = tx.sql().last_insert_rowid();
    if new.verdict == Verdict::Refused {
        let most = if new.is_strange { MOST_OF_STRANGERS } else { MOST_REFUSED };
        tx.sql().prepare_cached(&excess_sql())?.execute(params![new.project, new.is_strange, most])?;
    }
    Ok(seq)
}

fn excess_sql() -> String {
    format!(
        "DELETE FROM forge_deliveries WHERE seq IN (SELECT seq FROM forge_deliveries WHERE project_id = ?1
         AND is_strange = ?2 AND verdict = {} ORDER BY seq DESC LIMIT -1 OFFSET ?3)",
        Verdict::Refused.literal()
    )
}

/// Puts another sentence about a delivery.
pub fn say(tx: &Tx<'_>, seq: i64, sentence: &str) -> Result<(), Error> {
    let sql = "UPDATE forge_deliveries SET sentence = ?2 WHERE seq = ?1";
    tx.sql().prepare_cached(sql)?.execute(params![seq, sentence])?;
    Ok(())
}

/// A change that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    /// The delivery that it came in.
    pub delivery: i64,
    /// Project whose repository changed.
    pub project: &'a ProjectId,
    /// Changes with the same key within minutes may be the same change.
    pub key: &'a str,
    /// Branch and commit that it would build.
    pub builds: Option<&'a str>,
    /// The change itself: its form is for whoever works it off.
    pub event: &'a serde_json::Value,
    /// State that it is stored in: waiting, or decided already.
    pub state: EventState,
    /// A sentence about what became of it, where that is decided.
    pub sentence: &'a str,
    /// The id that its pipeline gets, if it gets one.
    pub pipeline: &'a PipelineId,
}

/// Stores a change.
pub fn add_event(tx: &Tx<'_>, new: &NewEvent<'_>, now: Millis) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO forge_events (delivery_seq, project_id, key, builds, event, at_ms, state, not_before_ms, sentence,
                pipeline_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6, ?8, ?9)",
        )?
        .execute(params![
            new.delivery,
            new.project,
            new.key,
            new.builds,
            new.event.to_string(),
            now,
            new.state,
            new.sentence,
            new.pipeline
        ])?;
    Ok(())
}

/// Whether a change with this key came since.
pub fn has_key_since(view: &View, project: &ProjectId, key: &str, since: Millis) -> Result<bool, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT 1 FROM forge_events WHERE project_id = ?1 AND key = ?2 AND at_ms >= ?3")?;
    Ok(query.exists(params![project, key, since])?)
}

/// Whether a change that would build this came since, whatever became of it.
pub fn leads_since(view: &View, project: &ProjectId, builds: &str, since: Millis) -> Result<bool, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT 1 FROM forge_events WHERE project_id = ?1 AND builds = ?2 AND at_ms >= ?3")?;
    Ok(query.exists(params![project, builds, since])?)
}

/// Keys of the changes of one ref or pull request, whose name no other text of a key follows than after a space.
fn keys_of_ref(reference: &str) -> (String, String) {
    (format!("{reference} "), format!("{reference}!"))
}

fn of_ref_sql() -> String {
    format!(
        "{EVENT} INDEXED BY forge_events_by_key WHERE project_id = ?1 AND key > ?2 AND key < ?3 AND at_ms >= ?4
         ORDER BY seq DESC LIMIT ?5"
    )
}

/// The changes of a ref or a pull request that came since, the oldest first; the newest of them where they are very many.
pub fn of_ref<E: DeserializeOwned>(
    view: &View,
    project: &ProjectId,
    reference: &str,
    since: Millis,
) -> Result<Vec<StoredEvent<E>>, Error> {
    let mut query = view.sql().prepare_cached(&of_ref_sql())?;
    let (first, end) = keys_of_ref(reference);
    let rows = query.query_map(params![project, first, end, since, MOST_OF_A_REF], event_row)?;
    let mut events = rows.collect::<Result<Vec<_>, _>>()?;
    events.reverse();
    Ok(events)
}

/// The place of the last change of all.
pub fn last_event(view: &View) -> Result<i64, Error> {
    let sql = "SELECT coalesce(max(seq), 0) FROM forge_events";
    Ok(view.sql().prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Whether a ref was told of after this place.
pub fn is_told_after(view: &View, project: &ProjectId, reference: &str, seq: i64) -> Result<bool, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT 1 FROM forge_events INDEXED BY forge_events_by_key
         WHERE project_id = ?1 AND key > ?2 AND key < ?3 AND seq > ?4",
    )?;
    let (first, end) = keys_of_ref(reference);
    Ok(query.exists(params![project, first, end, seq])?)
}

fn building_sql() -> String {
    format!(
        "{EVENT} INDEXED BY forge_events_by_build WHERE project_id = ?1 AND builds >= ?2 AND builds < ?3
         AND state IN (?4, ?5) ORDER BY seq DESC LIMIT ?6"
    )
}

/// The changes that build a branch at a commit and wait, or were built, the newest first. Commits may be told by their first
/// 12 digits only, and are compared by them; with none of them all of the branch are meant.
pub fn building<E: DeserializeOwned>(
    view: &View,
    project: &ProjectId,
    branch: &str,
    commit: &str,
) -> Result<Vec<StoredEvent<E>>, Error> {
    let first = format!("{branch} {}", commit.get(..12).unwrap_or(commit));
    // Behind all hexadecimal digits.
    let end = format!("{first}g");
    let mut query = view.sql().prepare_cached(&building_sql())?;
    let states = (EventState::Waiting, EventState::Started);
    let rows = query.query_map(params![project, first, end, states.0, states.1, MOST_OF_A_REF], event_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The changes that wait and whose time has come, in the order of their coming; none of the busy projects.
pub fn due_events<E: DeserializeOwned>(
    view: &View,
    busy: &[ProjectId],
    now: Millis,
    most: u32,
) -> Result<Vec<StoredEvent<E>>, Error> {
    let mut query = view.sql().prepare_cached(&due_sql())?;
    let busy = serde_json::to_string(busy)?;
    Ok(query.query_map(params![now, busy, most], event_row)?.collect::<Result<_, _>>()?)
}

/// The changes that came with one or after it, the newest first. `E` is the form of whoever stored them: one that cannot be
/// read is an error.
pub fn events_since<E: DeserializeOwned>(
    view: &View,
    project: &ProjectId,
    seq: i64,
) -> Result<Vec<E>, Error> {
    let mut query = view.sql().prepare_cached(
        "SELECT event FROM forge_events WHERE project_id = ?1
            AND delivery_seq >= (SELECT delivery_seq FROM forge_events WHERE seq = ?2) ORDER BY seq DESC",
    )?;
    let events = query.query_map(params![project, seq], |row| Ok(row.get::<_, Json<E>>(0)?.0))?;
    Ok(events.collect::<Result<_, _>>()?)
}

/// The time at which the next waiting change may be tried.
pub fn next_event(view: &View) -> Result<Option<Millis>, Error> {
    Ok(view.sql().prepare_cached(&next_sql())?.query_row([], |row| row.get(0))?)
}

/// Notes what became of a change that waited. False when it waits no longer.
pub fn finish_event(tx: &Tx<'_>, seq: i64, state: EventState, sentence: &str) -> Result<bool, Error> {
    let sql = "UPDATE forge_events SET state = ?2, sentence = ?3 WHERE seq = ?1 AND state = ?4";
    Ok(tx.sql().prepare_cached(sql)?.execute(params![seq, state, sentence, EventState::Waiting])? > 0)
}

/// Puts a change in another form.
pub fn set_event(tx: &Tx<'_>, seq: i64, event: &serde_json::Value) -> Result<(), Error> {
    let sql = "UPDATE forge_events SET event = ?2 WHERE seq = ?1";
    tx.sql().prepare_cached(sql)?.execute(params![seq, event.to_string()])?;
    Ok(())
}

/// Has the changes of a delivery that wait for another try be tried at once, and as often as new ones. False when there are
/// none.
pub fn hurry(tx: &Tx<'_>, delivery: i64, now: Millis) -> Result<bool, Error> {
    let mut query = tx.sql().prepare_cached(
        "UPDATE forge_events SET not_before_ms = ?2, attempts = 0
         WHERE delivery_seq = ?1 AND state = ?3 AND attempts > 0",
    )?;
    Ok(query.execute(params![delivery, now, EventState::Waiting])? > 0)
}

/// Has a change wait for another try.
pub fn postpone_event(tx: &Tx<'_>, seq: i64, sentence: &str, until: Millis) -> Result<(), Error> {
    let sql =
        "UPDATE forge_events SET attempts = attempts + 1, not_before_ms = ?2, sentence = ?3 WHERE seq = ?1";
    tx.sql().prepare_cached(sql)?.execute(params![seq, until, sentence])?;
    Ok(())
}

/// The changes of a delivery to a project that started nothing, in their order.
pub fn without_pipeline<E: DeserializeOwned>(
    view: &View,
    project: &ProjectId,
    delivery: i64,
) -> Result<Vec<StoredEvent<E>>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "{EVENT} WHERE delivery_seq = ?2 AND project_id = ?1 AND state IN (?3, ?4) ORDER BY seq"
    ))?;
    let [skipped, failed] = EventState::STARTED_NOTHING;
    Ok(query.query_map(params![project, delivery, skipped, failed], event_row)?.collect::<Result<_, _>>()?)
}

/// Has a change that started nothing be worked off again, as a new one; `sentence` says so to people.
pub fn replay(tx: &Tx<'_>, seq: i64, sentence: &str, now: Millis) -> Result<(), Error> {
    let mut query = tx.sql().prepare_cached(
        "UPDATE forge_events SET state = ?3, not_before_ms = ?2, attempts = 0, sentence = ?4
         WHERE seq = ?1 AND state IN (?5, ?6)",
    )?;
    let [skipped, failed] = EventState::STARTED_NOTHING;
    query.execute(params![seq, now, EventState::Waiting, sentence, skipped, failed])?;
    Ok(())
}

fn list_sql(is_strange: bool) -> String {
    let which = match is_strange {
        true => format!("is_strange = 1 AND verdict = {}", Verdict::Refused.literal()),
        false => "is_strange = 0".to_owned(),
    };
    format!(
        "SELECT seq, delivery, source, event, received_at_ms, verdict, is_strange, sentence FROM forge_deliveries
         WHERE project_id = ?1 AND {which} ORDER BY seq DESC LIMIT ?2"
    )
}

/// The newest deliveries of a project, newest first, and among them the newest of strangers, which do not count.
pub fn list(view: &View, project: &ProjectId, most: u32) -> Result<Vec<ShownDelivery>, Error> {
    let mut listed = Vec::new();
    for (is_strange, most) in [(false, most), (true, most.min(MOST_OF_STRANGERS))] {
        let mut query = view.sql().prepare_cached(&list_sql(is_strange))?;
        let rows = query.query_map(params![project, most], |row| {
            Ok(ShownDelivery {
                seq: row.get(0)?,
                delivery: row.get(1)?,
                source: row.get(2)?,
                event: row.get(3)?,
                received_at: row.get(4)?,
                verdict: row.get(5)?,
                is_strange: row.get(6)?,
                sentence: row.get(7)?,
            })
        })?;
        for row in rows {
            listed.push(row?);
        }
    }
    listed.sort_by_key(|delivery| std::cmp::Reverse(delivery.seq));
    Ok(listed)
}

/// The changes of a delivery, at most so many behind the first `passed`: those that failed before those that wait, then those
/// that were skipped, those that have a pipeline last.
pub fn events_of<E: DeserializeOwned>(
    view: &View,
    delivery: i64,
    passed: u32,
    most: u32,
) -> Result<Vec<StoredEvent<E>>, Error> {
    let mut query = view.sql().prepare_cached(&format!(
        "{EVENT} WHERE delivery_seq = ?1 ORDER BY state <> ?4, state <> ?5, state <> ?6, seq LIMIT ?3 OFFSET ?2"
    ))?;
    let (failed, waiting, skipped) = (EventState::Failed, EventState::Waiting, EventState::Skipped);
    let rows = query.query_map(params![delivery, passed, most, failed, waiting, skipped], event_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many changes of a delivery are in each state that some are in.
pub fn count_by_state(view: &View, delivery: i64) -> Result<Vec<(EventState, u32)>, Error> {
    let mut query = view
        .sql()
        .prepare_cached("SELECT state, count(*) FROM forge_events WHERE delivery_seq = ?1 GROUP BY state")?;
    Ok(query.query_map([delivery], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

/// Whether a project has a delivery.
pub fn is_of(view: &View, project: &ProjectId, delivery: i64) -> Result<bool, Error> {
    let mut query =
        view.sql().prepare_cached("SELECT 1 FROM forge_deliveries WHERE seq = ?2 AND project_id = ?1")?;
    Ok(query.exists(params![project, delivery])?)
}

/// Forgets deliveries that came before a time and hold nothing that waits. Returns how many.
pub fn delete_before(tx: &Tx<'_>, before: Millis, most: u32) -> Result<usize, Error> {
    let mut query = tx.sql().prepare_cached(
        "DELETE FROM forge_deliveries WHERE seq IN (SELECT seq FROM forge_deliveries d WHERE received_at_ms < ?1
            AND NOT EXISTS (SELECT 1 FROM forge_events e WHERE e.delivery_seq = d.seq AND e.state = ?3) LIMIT ?2)",
    )?;
    Ok(query.execute(params![before, most, EventState::Waiting])?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;
    use crate::server::store::plans::assert_uses;
    use crate::server::store::tables::projects::ensure_project;

    #[test]
    fn what_waits_and_what_was_not_refused_is_found_by_its_index() {
        assert_uses(&due_sql(), "forge_events_waiting");
        assert_uses(&next_sql(), "forge_events_waiting");
        assert_uses(&find_sql(), "forge_deliveries_by_id");
        assert_uses(&of_ref_sql(), "forge_events_by_key");
        assert_uses(&building_sql(), "forge_events_by_build");
        assert_uses(&excess_sql(), "forge_deliveries_refused");
        assert_uses(&list_sql(true), "forge_deliveries_refused");
        assert_uses(&list_sql(false), "forge_deliveries_by_project");
    }

    #[test]
    fn a_change_that_cannot_be_read_is_an_error_of_whoever_counts_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let counted = store.write_blocking(|tx| {
            let project = ensure_project(tx, "gh/acme/app", None, Millis(0))?.project;
            tx.sql().execute_batch(
                "INSERT INTO forge_deliveries (project_id, delivery, source, event, received_at_ms, verdict, sentence)
                 SELECT id, 'd', 'webhook', 'push', 0, 'accepted', '' FROM projects;
                 INSERT INTO forge_events (delivery_seq, project_id, key, event, at_ms, not_before_ms, state, sentence,
                    pipeline_id)
                 SELECT seq, project_id, 'k', '7', 0, 0, 'waiting', '', 'p' FROM forge_deliveries",
            )?;
            let seq = tx.sql().last_insert_rowid();
            let mut counted = vec![events_since::<u8>(tx, &project, seq)?.len()];
            tx.sql().execute("UPDATE forge_events SET event = '{'", [])?;
            counted.extend(events_since::<u8>(tx, &project, seq).map(|events| events.len()));
            Ok(counted)
        });
        assert_eq!(counted.unwrap(), [1]);
    }

    #[test]
    fn a_change_that_cannot_be_read_is_in_the_way_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let due = store.write_blocking(|tx| {
            ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            tx.sql().execute_batch(
                "INSERT INTO forge_deliveries (project_id, delivery, source, event, received_at_ms, verdict, sentence)
                 SELECT id, 'd', 'webhook', 'push', 0, 'accepted', '' FROM projects",
            )?;
            for event in ["7", "{", "null", "8"] {
                tx.sql().execute(
                    "INSERT INTO forge_events (delivery_seq, project_id, key, event, at_ms, not_before_ms, state, sentence,
                        pipeline_id)
                     SELECT seq, project_id, ?1, ?1, 0, 0, 'waiting', '', ?1 FROM forge_deliveries",
                    [event],
                )?;
            }
            due_events::<u8>(tx, &[], Millis(0), 10)
        });
        let due: Vec<_> =
            due.unwrap().into_iter().map(|one| one.event.map_err(|why| why.to_string())).collect();
        assert_eq!((due[0].clone(), due[3].clone()), (Ok(7), Ok(8)));
        for damaged in &due[1..3] {
            assert!(
                damaged.as_ref().is_err_and(|why| why.contains("damaged in the database")),
                "{damaged:?}"
            );
        }
    }
}
