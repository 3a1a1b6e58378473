//! Records that a runner keeps beside those of the task agent: what becomes of a pod, the output of its services.

use crate::protocol::event::cut;
use crate::protocol::limits::{EVENT_TEXT_BYTES, RECORDS_BESIDE};
use crate::protocol::{Beside, EventsAnswer, FIRST_BESIDE};
use crate::server::api::runner::holder::Holder;
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::api::shared::input::Path;
use crate::server::engine::commit::task;
use crate::server::state::Shared;
use crate::server::time::Millis;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

/// Stores a record, or its end.
pub(super) async fn beside(
    State(state): State<Shared>,
    holder: Holder,
    Path((_, n)): Path<(String, u32)>,
    Json(mut beside): Json<Beside>,
) -> Answer<Json<EventsAnswer>> {
    if n >= RECORDS_BESIDE {
        let why = format!("a runner keeps at most {RECORDS_BESIDE} records beside those of the task");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, why));
    }
    let texts = [Some(&mut beside.name), Some(&mut beside.kind), beside.message.as_mut()];
    texts.into_iter().flatten().for_each(|text| cut(text, EVENT_TEXT_BYTES));
    let (id, lease) = (holder.id.clone(), state.settings.lease());
    let stored = state
        .store
        .write(move |tx| task::beside(tx, &id, FIRST_BESIDE + n, &beside, lease, Millis::now()))
        .await?;
    let taken = stored.map_err(|why| holder.refused(why))?;
    let cancel = holder.decided(Ok(taken))?.cancel;
    Ok(Json(EventsAnswer { next: 0, cancel }))
}
