//! The tasks of a machine runner, one at a time: what it knows of the present one, and what it deals with it by.
//!
//! `begin` has its beginning, `ended` its end, `earlier` what an earlier run has left.

use super::agents::Agents;
use super::place::PlaceLock;
use super::state::RunnerRecord;
use super::watched::Watched;
use crate::agent::claims::Claims;
use crate::agent::settings::Settings;
use crate::executor::cleanup::Before;

/// A task from its claim to the last word about it.
pub(super) struct Tasks {
    pub(super) settings: Settings,
    pub(super) claims: Claims,
    pub(super) record: RunnerRecord,
    pub(super) agents: Agents,
    pub(super) watched: Option<Watched>,
    /// The working directory before the task that this run of the runner has started.
    pub(super) before: Option<Before>,
    /// Lock that keeps other runners out of the working directory.
    pub(super) place: Option<PlaceLock>,
}
