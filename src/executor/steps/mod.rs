//! Each kind of step, on top of a task that can run children and talk to the control plane.

mod artifacts;
mod cache;
mod cache_key;
mod checkout;
mod download;
mod files;
mod left;
mod masked_xml;
pub(super) mod names;
mod packing;
mod run;
mod workspace;

use super::end::{ChildEnd, StepEnd, StopReason, end_of};
use super::output::log::StepLog;
use super::task::TaskRun;
use crate::http::Body;
use crate::protocol::{Action, Step};
use files::UploadError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// A file that was uploaded, its length in bytes and its SHA-256; or why it was not.
type Upload = Result<(u64, String), UploadError>;

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
            Action::AddSshKeys { .. } if self.input.local_source.is_some() => {
                log.note("the keys of the project are not on this host: ssh uses your own");
                StepEnd::success()
            }
            Action::AddSshKeys { .. } => unsupported("project SSH keys"),
            Action::InstallSigningBundle => unsupported("signing bundles"),
        }
    }

    /// Uploads a file of at most `limit` bytes.
    fn upload_file(&mut self, path: &Path, limit: u64) -> Result<Upload, StepEnd> {
        let (reporter, path) = (self.reporter.clone(), path.to_owned());
        self.beside(move |stop| files::upload(&reporter, &path, limit, stop))
    }

    /// One call of the task with a JSON body: it records an upload, or asks for one. The inner error is a sentence for
    /// the output of the step.
    fn post<A: DeserializeOwned + Send + 'static>(
        &mut self,
        call: &'static str,
        body: &impl Serialize,
    ) -> Result<Result<A, String>, StepEnd> {
        let body = match serde_json::to_vec(body) {
            Ok(body) => body,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let reporter = self.reporter.clone();
        self.beside(move |_| reporter.call("POST", call, Body::Json(&body)).map_err(|e| e.to_string()))
    }

    /// The end of a step that was stopped.
    fn stopped_end(&mut self) -> StepEnd {
        end_of(ChildEnd::Stopped(self.stopped().unwrap_or(StopReason::Cancel)))
    }
}

fn unsupported(what: &str) -> StepEnd {
    StepEnd::failed(format!("this version of the runner does not do {what} yet"))
}
