//! Task agents of a machine runner: the means to start them, and to find them and whatever they leave.

use super::group::Group;
use super::{orphans, tools};
use crate::agent::settings::Settings;
use crate::system::proc;
use std::path::PathBuf;

/// The task agents of a runner.
pub(super) struct Agents {
    pub(super) program: PathBuf,
    pub(super) tool_directory: Option<PathBuf>,
    /// The mark of what belongs to this runner and no other.
    pub(super) identity: Option<String>,
    /// Control group of the processes of its tasks.
    pub(super) group: Option<Group>,
    /// Orphans of its tasks become its children.
    pub(super) adopts: bool,
}

impl Agents {
    /// Makes this process ready for them. The second value says why a quota cannot be kept, if so.
    pub(super) fn new(
        settings: &Settings,
        program: PathBuf,
        identity: Option<String>,
    ) -> (Self, Option<String>) {
        let adopts = settings.owns_process && orphans::become_reaper();
        // A process is in one group at a time.
        let identity = identity.filter(|_| settings.owns_process);
        let mut group = identity.as_deref().and_then(Group::of);
        let mut refusal = None;
        if settings.quotas.is_any() && settings.owns_process {
            let limited = match &mut group {
                Some(group) => group.limit(&settings.quotas),
                None => Err("this runner may make no control group".to_owned()),
            };
            if let Err(why) = limited {
                refusal = Some(format!(
                    "`runner.quota` cannot be kept: {why}; set `Delegate=yes` in its unit, or remove it"
                ));
            }
        }
        if settings.owns_process && group.is_none() {
            log::info!(
                "no control group is to be had: what a task leaves behind is found by descent, and after a kill of runner and task agent by its environment only"
            );
        }
        if !proc::is_mounted() {
            log::warn!(
                "/proc is not mounted: processes that a task leaves behind cannot be found and ended; mount it"
            );
        }
        let tool_directory = tools::prepare(settings, &program);
        (Self { program, tool_directory, identity, group, adopts }, refusal)
    }
}
