//! Each kind of step: what it does with the host, with children that are waited for, and with the control plane.

mod artifacts;
mod cache;
mod cache_key;
mod checkout;
mod download;
mod files;
mod left;
mod listing;
mod locks;
mod masked_xml;
pub(super) mod names;
mod packing;
pub(super) mod run;
mod take_over;
mod test_results;
mod upload;
mod workspace;

use super::control::Control;
use super::end::StepEnd;
use super::host::TaskHost;
use super::output::log::StepLog;
use super::records::Records;
use crate::protocol::task_input::TaskInput;
use crate::protocol::{Step, StepAction};
pub(super) use take_over::take_over;

/// The copy of a report that is stored, for the fuzz target.
#[cfg(fuzzing)]
pub(super) fn masked_report(mut report: &[u8], secrets: &super::output::secrets::Secrets) -> Vec<u8> {
    let mut copy = Vec::new();
    // Memory takes everything.
    let _ = masked_xml::copy(&mut report, &mut copy, secrets, &false.into());
    copy
}

/// Does what `step` says; its output is in `log`. The answer is its end: an error where it could not do it all.
pub(super) fn act(
    input: &TaskInput,
    host: &TaskHost,
    control: &mut Control,
    records: &mut Records,
    step: &Step,
    log: &StepLog,
) -> Result<StepEnd, StepEnd> {
    let task = &input.task;
    match &step.action {
        StepAction::Run(run) => Ok(run::run(&task.job, host, control, run, log)),
        StepAction::Checkout { path, method } => checkout::checkout(input, host, control, path, *method, log),
        StepAction::StoreArtifacts { path, destination } => {
            let limit = task.max_artifact_bytes;
            artifacts::store(&host.places, control, records, limit, path, destination.as_deref(), log)
        }
        StepAction::StoreTestResults { path } => {
            test_results::store(host, control, records, task.max_artifact_bytes, path, log)
        }
        StepAction::SetupRemoteDocker => {
            log.note(
                "there is no remote Docker on a machine runner: use the Docker of this host, if it has one",
            );
            Ok(StepEnd::success())
        }
        StepAction::SaveCache { key, paths } => cache::save(task, host, control, records, key, paths, log),
        StepAction::RestoreCache { keys } => cache::restore(task, &host.places, control, records, keys, log),
        StepAction::PersistToWorkspace { root, paths } => {
            workspace::persist(host, control, &records.reporter, root, paths, log)
        }
        StepAction::AttachWorkspace { at } => {
            workspace::attach(&host.places, control, &records.reporter, at, log)
        }
        StepAction::AddSshKeys { .. } if input.local_source.is_some() => {
            log.note("the keys of the project are not on this host: ssh uses your own");
            Ok(StepEnd::success())
        }
        StepAction::AddSshKeys { .. } => unsupported("project SSH keys"),
        StepAction::InstallSigningBundle => unsupported("signing bundles"),
    }
}

fn unsupported(what: &str) -> Result<StepEnd, StepEnd> {
    Err(StepEnd::failed(format!("this version of the runner does not do {what} yet")))
}
