//! The rest of a task whose agent is gone: its runner sends what is left of the output, and needs a token for that.

use crate::protocol::{LostTask, Secret};
use crate::server::auth::token_hash;
use crate::server::engine::commit::task::{InHand, NotLost};
use crate::server::secrets::sealer::Sealer;
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Makes another token for a task whose agent is gone; the agent's own ends. Refused when output is not taken.
pub fn token_for(
    tx: &Tx<'_>,
    class: &str,
    request: &LostTask,
    sealer: &Sealer,
    now: Millis,
) -> Result<Result<Secret, NotLost>, Error> {
    let Some(mut hand) = InHand::find(tx, &request.id)?.filter(|hand| hand.row.resource_class == class)
    else {
        return Ok(Err(NotLost::Unknown));
    };
    if let Err(refused) = hand.task.rest(request.allocation.as_deref(), now) {
        return Ok(Err(NotLost::Refused(refused)));
    }
    let token =
        sealer.task_token(&["rest", request.id.as_str(), request.allocation.as_deref().unwrap_or("")]);
    hand.row.token_hash = Some(token_hash(&token));
    hand.write(tx, now)?;
    Ok(Ok(Secret::new(token)))
}
