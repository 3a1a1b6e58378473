//! Each kind of step, on top of a task that can run children and talk to the control plane.

mod artifacts;
mod cache;
mod cache_key;
mod checkout;
mod download;
mod files;
mod masked_xml;
pub(super) mod names;
mod packing;
mod run;
mod workspace;

use super::end::StepEnd;
use super::output::log::StepLog;
use super::task::TaskRun;
use crate::protocol::{Action, Step};

impl TaskRun {
    /// Does what `step` says; its output is in `log`, its end is the answer.
    pub(in crate::executor) fn act(&mut self, record: u32, step: &Step, log: &StepLog) -> StepEnd {
        match &step.action {
            Action::Run(run) => self.run_step(record, run, log),
            Action::Checkout { path, method } => self.checkout(record, path, *method, log),
            Action::StoreArtifacts { path, destination } => {
                self.store_artifacts(record, path, destination.as_deref(), log)
            }
            Action::StoreTestResults { path } => self.store_test_results(record, path, log),
            Action::SetupRemoteDocker => {
                log.note("there is no remote Docker on a machine runner: use the Docker of this host, if it has one");
                StepEnd::success()
            }
            Action::SaveCache { key, paths } => self.save_cache(key, paths, log),
            Action::RestoreCache { keys } => self.restore_cache(keys, log),
            Action::PersistToWorkspace { root, paths } => self.persist_to_workspace(record, root, paths, log),
            Action::AttachWorkspace { at } => self.attach_workspace(at, log),
            Action::AddSshKeys { .. } => unsupported("project SSH keys"),
            Action::InstallSigningBundle => unsupported("signing bundles"),
        }
    }
}

fn unsupported(what: &str) -> StepEnd {
    StepEnd::failed(format!("this version of the runner does not do {what} yet"))
}
