//! From a push to a pipeline, and from its result back to the forge.
//!
//! `receive` takes what a forge sends: `signature` believes it, `payload` reads it, `rules` decide, and the store keeps
//! it before the forge is answered. `work` makes the pipelines. `poll` finds what no forge told of. `schedule` what is due by
//! its `timetable`. `report` tells the forge how it went, in its own `words`; `outgoing` tells whom people want told.

pub mod event;
pub mod outgoing;
pub mod payload;
mod poll;
pub mod receive;
mod report;
pub mod rules;
pub mod schedule;
pub mod signature;
pub mod timetable;
mod values;
pub mod words;
mod work;

use crate::server::state::Shared;

/// Does all of this room's work that nobody waits for, until the control plane stops.
pub async fn run(state: Shared) {
    tokio::join!(
        work::run(state.clone()),
        poll::run(state.clone()),
        schedule::run(state.clone()),
        report::run(state.clone()),
        outgoing::run(state)
    );
}
