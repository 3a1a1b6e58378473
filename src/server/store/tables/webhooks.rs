//! Webhooks that tell others of ended workflows and jobs, and what is on its way to them.
//!
//! Only SQLite: the triggers of `hooks.sql`, `json_each` for the list of busy webhooks, the `id` beside `min(at_ms)`,
//! `LIMIT -1` with OFFSET, and a comparison that is compared with a flag: truth values are integers.

use crate::server::ids::{ProjectId, WebhookCallId, WebhookId};
use crate::server::store::forge_states::CallState;
use crate::server::store::json::Json;
use crate::server::store::words::Word;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;
use rusqlite::{OptionalExtension, Row, params};

/// Calls of a webhook that are kept once they are done, and that may wait.
const MOST_KEPT: u32 = 100;
const MOST_WAITING: u32 = 1000;

/// Webhook of a project: an address that is told of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Identifies it in URLs.
    pub id: WebhookId,
    /// The project whose ends it tells of.
    pub project: ProjectId,
    /// A name for people.
    pub name: String,
    /// The address that is called.
    pub url: String,
    /// The events that it is for.
    pub events: Vec<String>,
    /// Time of its making.
    pub created_at: Millis,
    /// Time of its last change.
    pub updated_at: Millis,
}

const WEBHOOK: &str = "SELECT id, project_id, name, url, events, created_at_ms, updated_at_ms FROM webhooks";

fn webhook_row(row: &Row<'_>) -> rusqlite::Result<Webhook> {
    Ok(Webhook {
        id: row.get(0)?,
        project: row.get(1)?,
        name: row.get(2)?,
        url: row.get(3)?,
        events: row.get::<_, Json<_>>(4)?.0,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
    })
}

/// Reads the webhooks of a project, oldest first.
pub fn list(view: &View, project: &ProjectId) -> Result<Vec<Webhook>, Error> {
    let mut query =
        view.sql().prepare_cached(&format!("{WEBHOOK} WHERE project_id = ?1 ORDER BY created_at_ms, id"))?;
    Ok(query.query_map([project], webhook_row)?.collect::<Result<_, _>>()?)
}

/// Finds a webhook.
pub fn find(view: &View, id: &WebhookId) -> Result<Option<Webhook>, Error> {
    let mut query = view.sql().prepare_cached(&format!("{WEBHOOK} WHERE id = ?1"))?;
    Ok(query.query_row([id], webhook_row).optional()?)
}

/// Adds a webhook, or changes it.
pub fn set(tx: &Tx<'_>, webhook: &Webhook) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "INSERT INTO webhooks (id, project_id, name, url, events, created_at_ms, updated_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET name = ?3, url = ?4, events = ?5, updated_at_ms = ?7",
        )?
        .execute(params![
            webhook.id,
            webhook.project,
            webhook.name,
            webhook.url,
            serde_json::to_string(&webhook.events)?,
            webhook.created_at,
            webhook.updated_at
        ])?;
    Ok(())
}

/// Deletes a webhook with what is on its way. False when there is none.
pub fn delete(tx: &Tx<'_>, id: &WebhookId) -> Result<bool, Error> {
    Ok(tx.sql().prepare_cached("DELETE FROM webhooks WHERE id = ?1")?.execute([id])? > 0)
}

/// A call of a webhook.
#[derive(Clone, Debug)]
pub struct WebhookCall {
    /// Identifies it, also to whoever is called: the same at every try.
    pub id: WebhookCallId,
    /// Webhook that is to be called.
    pub webhook: WebhookId,
    /// Name of the event, such as `workflow-completed`.
    pub event: String,
    /// The id of the workflow or the job.
    pub subject: String,
    /// Time of the event.
    pub at: Millis,
    /// The body, once it was made.
    pub body: Option<String>,
    /// How far it is.
    pub state: CallState,
    /// How often it was tried.
    pub attempts: u32,
    /// Result of the last try.
    pub message: String,
}

const CALL: &str =
    "SELECT id, webhook_id, event, subject, at_ms, body, state, attempts, message FROM webhook_calls";

fn call_row(row: &Row<'_>) -> rusqlite::Result<WebhookCall> {
    Ok(WebhookCall {
        id: row.get(0)?,
        webhook: row.get(1)?,
        event: row.get(2)?,
        subject: row.get(3)?,
        at: row.get(4)?,
        body: row.get(5)?,
        state: row.get(6)?,
        attempts: row.get(7)?,
        message: row.get(8)?,
    })
}

/// Calls that wait, in the words of the index on them.
fn waiting() -> String {
    format!("state = {}", CallState::Waiting.literal())
}

fn due_sql() -> String {
    format!(
        "{CALL} WHERE id IN (SELECT id FROM (SELECT id, min(at_ms) FROM webhook_calls
            WHERE {} AND not_before_ms <= ?1 AND webhook_id NOT IN (SELECT value FROM json_each(?2))
            GROUP BY webhook_id)) ORDER BY at_ms LIMIT ?3",
        waiting()
    )
}

fn next_sql() -> String {
    format!("SELECT min(not_before_ms) FROM webhook_calls WHERE {}", waiting())
}

/// The next call of each webhook whose time has come; none of the busy webhooks.
pub fn due(view: &View, busy: &[WebhookId], now: Millis, most: u32) -> Result<Vec<WebhookCall>, Error> {
    // The query takes one call of each webhook: whatever waits for a receiver that is gone, the others are not behind it.
    let mut query = view.sql().prepare_cached(&due_sql())?;
    let busy = serde_json::to_string(busy)?;
    Ok(query.query_map(params![now, busy, most], call_row)?.collect::<Result<_, _>>()?)
}

/// The time of the next call of any webhook.
pub fn next(view: &View) -> Result<Option<Millis>, Error> {
    Ok(view.sql().prepare_cached(&next_sql())?.query_row([], |row| row.get(0))?)
}

/// Keeps the body of a call, which every try sends.
pub fn set_body(tx: &Tx<'_>, call: &WebhookCallId, body: &str) -> Result<(), Error> {
    let sql = "UPDATE webhook_calls SET body = ?2 WHERE id = ?1 AND body IS NULL";
    tx.sql().prepare_cached(sql)?.execute(params![call, body])?;
    Ok(())
}

/// Notes how a try ended; `again`: when the next one is due.
pub fn set_tried(
    tx: &Tx<'_>,
    call: &WebhookCall,
    state: CallState,
    message: &str,
    again: Millis,
) -> Result<(), Error> {
    tx.sql()
        .prepare_cached(
            "UPDATE webhook_calls SET state = ?2, message = ?3, not_before_ms = ?4, attempts = attempts + 1 WHERE id = ?1",
        )?
        .execute(params![call.id, state, message, again])?;
    // The newest are the log; of those that wait too many are a receiver that is gone.
    for (is_waiting, most) in [(false, MOST_KEPT), (true, MOST_WAITING)] {
        tx.sql()
            .prepare_cached(
                "DELETE FROM webhook_calls WHERE id IN (SELECT id FROM webhook_calls WHERE webhook_id = ?1
                    AND (state = ?3) = ?4 ORDER BY at_ms DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![call.webhook, most, CallState::Waiting, is_waiting])?;
    }
    Ok(())
}

/// The newest calls of a webhook, newest first.
pub fn calls_of(view: &View, webhook: &WebhookId, most: u32) -> Result<Vec<WebhookCall>, Error> {
    let mut query =
        view.sql().prepare_cached(&format!("{CALL} WHERE webhook_id = ?1 ORDER BY at_ms DESC LIMIT ?2"))?;
    Ok(query.query_map(params![webhook, most], call_row)?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;
    use crate::server::store::plans::assert_uses;
    use crate::server::store::tables::projects::ensure_project;

    #[test]
    fn what_waits_is_found_by_its_index() {
        for sql in [due_sql(), next_sql()] {
            assert_uses(&sql, "webhook_calls_waiting");
        }
    }

    #[test]
    fn a_webhook_with_much_to_send_holds_up_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let ids: Vec<WebhookId> = store
            .write_blocking(|tx| {
                let project = ensure_project(tx, "gh/acme/app", None, Millis(0))?.project;
                let mut ids = Vec::new();
                for (calls, at) in [(10, 1), (2, 100)] {
                    let webhook = Webhook {
                        id: WebhookId::fresh(),
                        project: project.clone(),
                        name: "n".to_owned(),
                        url: "https://example.com".to_owned(),
                        events: Vec::new(),
                        created_at: Millis(0),
                        updated_at: Millis(0),
                    };
                    set(tx, &webhook)?;
                    for n in 0..calls {
                        tx.sql()
                            .prepare_cached(
                                "INSERT INTO webhook_calls (id, webhook_id, event, subject, at_ms, state, not_before_ms)
                                 VALUES (?1 || '-' || ?2, ?1, 'job-completed', 's', ?2, 'waiting', 0)",
                            )?
                            .execute(params![webhook.id, at + n])?;
                    }
                    ids.push(webhook.id);
                }
                Ok(ids)
            })
            .unwrap();
        let due = |busy: &[WebhookId]| -> Vec<(WebhookId, Millis)> {
            let found = store.read_blocking(|view| due(view, busy, Millis(1000), 4)).unwrap();
            found.into_iter().map(|call| (call.webhook, call.at)).collect()
        };
        assert_eq!(due(&[]), [(ids[0].clone(), Millis(1)), (ids[1].clone(), Millis(100))]);
        assert_eq!(due(&ids[..1]), [(ids[1].clone(), Millis(100))]);
    }
}
