//! State that the handlers of pages share.

use crate::server::state::Shared;
use crate::server::web::failures::Failures;
use axum::extract::FromRef;
use std::sync::Arc;

/// State that the handlers of pages share.
#[derive(Clone)]
pub(super) struct Web {
    /// The state of the control plane.
    pub(super) state: Shared,
    /// Whether people come over TLS: then cookies may go that way only.
    pub(super) is_tls: bool,
    /// Wrong tokens of the last minute, by address.
    pub(super) failures: Arc<Failures>,
}

impl FromRef<Web> for Shared {
    fn from_ref(web: &Web) -> Self {
        web.state.clone()
    }
}
