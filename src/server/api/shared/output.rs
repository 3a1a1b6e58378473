//! Output of steps, opened or refused.

use crate::protocol::TaskId;
use crate::server::api::shared::failure::{Answer, ApiError, blocking};
use crate::server::blobs::Stretch;
use crate::server::state::Shared;
use axum::http::StatusCode;

/// The reason why there is no output of a step that may have written some.
pub const REMOVED: &str = "this output is older than the control plane keeps it, and has been removed";

/// Refuses output that has been removed.
pub fn kept(is_gone: bool) -> Answer<()> {
    if is_gone { Err(ApiError::new(StatusCode::GONE, REMOVED)) } else { Ok(()) }
}

/// Opens the output of a step. One that has been removed is refused: without bytes it would look as if the step had
/// written nothing.
pub async fn open(state: &Shared, task: TaskId, step: u32, is_gone: bool) -> Answer<Stretch> {
    kept(is_gone)?;
    let blobs = state.blobs.clone();
    blocking(move || blobs.outputs.open(&task, step)).await
}
