//! Introduction of a runner: it asks before its first claim, `runlet doctor` whenever it likes. Nothing changes by it.

use crate::protocol::{AboutAnswer, AboutRequest, SeenRunner};
use crate::server::api::shared::callers::ProtocolVersion;
use crate::server::api::shared::failure::Answer;
use crate::server::auth::ClassToken;
use crate::server::state::Shared;
use crate::server::store::tables::{classes, instances};
use crate::server::time::Millis;
use axum::Json;
use axum::extract::State;

/// Answers with the class of the token, and what is known of the runner.
pub(super) async fn about(
    State(state): State<Shared>,
    token: ClassToken,
    ProtocolVersion(_): ProtocolVersion,
    Json(request): Json<AboutRequest>,
) -> Answer<Json<AboutAnswer>> {
    let (id, class, name) = (token.id, token.class_id, request.name);
    let read = state
        .store
        .read(move |view| Ok((classes::nickname(view, &id)?, instances::find(view, &class, &name)?)));
    let (nickname, seen) = read.await?;
    let now = Millis::now();
    Ok(Json(AboutAnswer {
        resource_class: token.class,
        token_nickname: nickname.unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time_ms: now.0,
        seen: seen.map(|(hostname, at)| SeenRunner { hostname, seconds_ago: now.since(at).as_secs() }),
        padding: request.padding,
    }))
}
