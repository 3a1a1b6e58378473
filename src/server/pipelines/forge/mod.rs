//! From a push to a pipeline, and from its result back to the forge.
//!
//! `receive` hears what a forge sends: `signature` believes it, `payload` reads it, `take` decides by the `rules`, and the
//! store keeps it before the forge is answered; `copies` tells changes from news of changes that are known. `turns`
//! gives each project its turn, and `work` makes the pipelines, unless `order` says that others were ahead. `poll` finds what no forge told of, `schedule` what is due by
//! its `timetable`. `report` tells the forge how it went, in its own `words`; `outgoing` tells whom people want told.
//! All of these that wait for their time do so in `rounds`.
//!
//! `reach` is the way to the API of a forge, by a token of the project or by one of an `installation` of a GitHub App,
//! within the `limits` that the forge sets.
//! `access` lets git in, `round` tries the whole way there and back by `hooks`, `unchanged` spares `poll` what has not changed.

pub mod access;
mod copies;
pub mod event;
pub mod hooks;
pub mod installation;
mod limits;
mod order;
pub mod outgoing;
pub mod payload;
mod poll;
mod reach;
pub mod receive;
pub mod report;
pub mod round;
mod rounds;
pub mod rules;
pub mod schedule;
pub mod signature;
pub mod take;
pub mod timetable;
mod turns;
mod unchanged;
mod values;
mod words;
mod work;

use crate::server::state::Shared;
use rounds::Rounds;
use std::time::Duration;

/// Does all of this room's work that nobody waits for, until the control plane stops.
pub async fn run(state: Shared) {
    tokio::join!(
        turns::run(state.clone()),
        poll::run(state.clone()),
        schedule::run(state.clone()),
        report::run(state.clone()),
        outgoing::run(state.clone()),
        forget(state)
    );
}

/// Forgets every hour what is old; not at once, who starts has better things to do.
async fn forget(state: Shared) {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut is_start = true;
    let rounds = Rounds {
        what: "forget what is old of forges",
        woken: None,
        idle: HOUR,
        least: HOUR,
        pause: Duration::ZERO,
    };
    let round = |now| {
        let (state, is_start) = (&state, std::mem::take(&mut is_start));
        async move {
            if !is_start {
                work::forget(state, now).await?;
                report::forget(state, now).await?;
            }
            Ok(None)
        }
    };
    rounds.run(&state, round).await;
}
