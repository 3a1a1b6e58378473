//! Read models: typed rows for people's clients, from which each version of the API renders.
//!
//! One query for each need. Ids are types, times are `Millis`, statuses are enums, JSON columns are typed
//! values; `api` puts them into each version's words. Nothing here decides or writes.
//!
//! Each file's header lists what only SQLite understands in its statements.

mod attempt;
mod insight;
mod job;
mod organisation;
mod output;
mod person;
mod pipeline;
mod project;
mod result;
mod run_status;
mod storage;
mod test_runs;
mod waiting;
mod watch;
mod workflow;

pub use crate::server::store::json::Message;
pub use attempt::{Attempt, StepRow, attempts};
pub use insight::{
    Branches, FlakyTest, JobRun, Runs, WorkflowRun, branches, flaky_tests, job_runs, known_names,
    workflow_runs,
};
pub use job::{Job, Recent, job, job_by_number, jobs_of, recent_jobs};
pub use organisation::{Organisation, organisation, organisation_by_name, organisations};
pub use output::{BegunStep, Extent, StepOutput, output_times, step_begun, step_output};
pub use person::{PersonRow, person};
pub use pipeline::{
    Configs, Cursor, Filter, Listed, Pipeline, configs, is_pipeline, pipeline, pipeline_by_number, pipelines,
};
pub use project::{
    Project, ProjectRef, project, project_by_slug, project_refs, project_slug, projects_of, projects_of_some,
};
pub use result::{Artifact, Content, Test, artifact_content, artifacts, each_test, tests};
pub use run_status::RunStatus;
pub use storage::{StorageUse, StoredKind, database_bytes, stored};
pub use test_runs::{TestOverRuns, TestRun, test_runs};
pub use waiting::explain_waiting;
pub use watch::{Present, WatchedJob, WatchedStep, WatchedWorkflow, present};
pub use workflow::{Workflow, is_workflow, latest_workflow_with, workflow, workflows_of};
