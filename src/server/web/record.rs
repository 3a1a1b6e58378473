//! Acts of people on pages, in the audit log: logins, and the forms that change something.

use crate::server::api::shared::failure::Answer;
use crate::server::auth::{PeerAddress, Person};
use crate::server::store::tables::audit::{self, AuditEntry};
use crate::server::time::Millis;
use crate::server::web::shared::Web;
use axum::http::StatusCode;
use serde_json::{Map, Value};

/// An act that was written down before it is done.
pub(super) struct RecordedAct {
    seq: i64,
    detail: Map<String, Value>,
}

/// An act of a person on a page, as it is about to be done.
pub(super) fn act(person: &Person, peer: &PeerAddress, path: &str, detail: &Value) -> AuditEntry {
    AuditEntry {
        at: Millis::now(),
        user: person.id.clone(),
        login: person.login.clone(),
        token: person.token.clone(),
        address: peer.0.ip().to_string(),
        method: "POST".to_owned(),
        path: path.to_owned(),
        detail: detail.as_object().cloned().unwrap_or_default(),
        status: None,
    }
}

/// Writes down what a person is about to do.
pub(super) async fn record(
    web: &Web,
    person: &Person,
    peer: &PeerAddress,
    path: &str,
    detail: &Value,
) -> Answer<RecordedAct> {
    let act = act(person, peer, path, detail);
    let detail = act.detail.clone();
    Ok(RecordedAct { seq: web.state.store.write(move |tx| audit::add(tx, &act)).await?, detail })
}

impl RecordedAct {
    /// Writes down how it was answered.
    pub(super) async fn answered(self, web: &Web, status: StatusCode) {
        let Self { seq, detail } = self;
        let write = web.state.store.write(move |tx| audit::answered(tx, seq, status.as_u16(), &detail)).await;
        if let Err(error) = write {
            log::error!("failed to write into the audit log how a form was answered: {error}");
        }
    }
}
