//! The place of a runner's record: its state directory, another one, or none.

use super::error::Error;
use super::state::{OpenError, RunnerRecord};
use crate::agent::settings::Settings;

/// Opens the state; a directory that cannot be used costs the memory, not the runner.
pub(super) fn open(settings: &Settings) -> Result<RunnerRecord, Error> {
    let Some(directory) = &settings.state_directory else { return Ok(RunnerRecord::forgetful()) };
    let uid = crate::system::os::geteuid().as_raw();
    let fallback = std::env::temp_dir().join(format!("runlet-{uid}"));
    let mut reasons = Vec::new();
    for directory in [directory, &fallback] {
        match RunnerRecord::open(directory, &settings.name) {
            Ok(record) => {
                if let Some(reason) = reasons.first() {
                    log::warn!("{reason}; keeping state in `{}` instead", directory.display());
                }
                return Ok(record);
            }
            Err(OpenError::Taken(message)) => return Err(Error::Taken(message)),
            Err(OpenError::Unusable(reason)) => reasons.push(reason),
        }
    }
    log::warn!(
        "{}; a runner restarted during a task will not know of it; set `runner.state_directory`",
        reasons.join("; ")
    );
    Ok(RunnerRecord::forgetful())
}
