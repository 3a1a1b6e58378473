//! When a cache or an artifact was read last: what a quota takes goes in this order.

use crate::server::api::shared::failure::Answer;
use crate::server::state::Shared;
use crate::server::store::tables::keeping::{self, Counted};
use crate::server::time::Millis;
use std::time::Duration;

/// How exactly it is noted: reading often must not mean writing often.
const ABOUT: Duration = Duration::from_secs(60 * 60);

/// Notes that a cache or an artifact is read now.
pub async fn used(state: &Shared, row: Counted) -> Answer<()> {
    let now = Millis::now();
    let asked = row.clone();
    if state.store.read(move |view| keeping::is_unused_since(view, &asked, now.minus(ABOUT))).await? {
        state.store.write(move |tx| keeping::set_used(tx, &row, now)).await?;
    }
    Ok(())
}
