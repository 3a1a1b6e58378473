//! Addresses of output that need no token: the address holds a sealed claim, which works for a while.

use crate::protocol::{Secret, TaskId};
use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::secrets::sealer::SealedFor;
use crate::server::state::Shared;
use crate::server::time::Millis;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;

/// An address works this long.
const GOOD_FOR: Duration = Duration::from_secs(60 * 60);

/// Makes an address of the output of a step.
pub fn output_url(state: &Shared, task: &TaskId, step: u32) -> Answer<String> {
    let claim = Secret::new(format!("{task} {step} {}", Millis::now().plus(GOOD_FOR).0));
    let sealed = state
        .settings
        .sealer
        .seal(SealedFor::Link, &claim)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(format!("{}/api/v1.1/output/{}", state.settings.public_url, URL_SAFE_NO_PAD.encode(sealed)))
}

/// Reads the last segment of an address: the task and its step, if it was made here and still works.
pub fn open(state: &Shared, link: &str) -> Option<(TaskId, u32)> {
    let sealed = URL_SAFE_NO_PAD.decode(link).ok()?;
    let claim = state.settings.sealer.open(SealedFor::Link, &sealed).ok()?;
    let mut words = claim.expose().split(' ');
    let task = TaskId::new(words.next()?).ok()?;
    let step = words.next()?.parse().ok()?;
    let until = Millis(words.next()?.parse().ok()?);
    (Millis::now() <= until).then_some((task, step))
}
