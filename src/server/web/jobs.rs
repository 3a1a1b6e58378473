//! The jobs of a workflow as rows of a table, each after those that it waits for.

use crate::server::store::read::Job;
use crate::server::store::status::JobStatus;
use crate::server::web::shown::{self, Mark};
use std::collections::{HashMap, HashSet};

/// Row of the table: one job, or one run of a job.
pub(super) struct JobRow {
    /// Id of the job, which is the anchor on the page of the workflow.
    pub(super) id: String,
    /// Name as expanded in its workflow.
    pub(super) name: String,
    /// Address of the job's page; an approval has none.
    pub(super) address: Option<String>,
    /// Number in the project.
    pub(super) number: Option<i64>,
    /// Status of the job, as glyph and word.
    pub(super) mark: Mark,
    /// How long it ran.
    pub(super) took: String,
    /// The jobs that it waits for, in words.
    pub(super) after: String,
    /// How far from the beginning it stands, for its indent; at most [`DEEPEST`].
    pub(super) depth: usize,
    /// Sentences about how it went.
    pub(super) reasons: Vec<String>,
    /// Whether it waits for a person.
    pub(super) is_waiting: bool,
}

/// Deepest indent of a row, in steps: deeper graphs stay on the screen.
const DEEPEST: usize = 6;

/// The rows of the jobs of one workflow.
pub(super) fn rows(jobs: Vec<Job>) -> Vec<JobRow> {
    let depths = depths(&jobs);
    let mut rows: Vec<JobRow> = jobs.iter().zip(depths).map(|(job, depth)| row(job, depth)).collect();
    // Stable: jobs of one depth stand in the order of the config.
    rows.sort_by_key(|row| row.depth);
    for row in &mut rows {
        row.depth = row.depth.min(DEEPEST);
    }
    rows
}

/// The longest way to each job from one that waits for none. The compiler lets no job wait for itself.
fn depths(jobs: &[Job]) -> Vec<usize> {
    let places: HashMap<&str, usize> =
        jobs.iter().enumerate().map(|(place, job)| (job.name.as_str(), place)).collect();
    let mut depths = vec![0; jobs.len()];
    // Rounds are as many as there are jobs at most: each settles one more of the longest way.
    for _ in 0..jobs.len() {
        let mut is_settled = true;
        for (place, job) in jobs.iter().enumerate() {
            let required = job.requires.iter().filter_map(|required| places.get(required.job.as_str()));
            let depth = required.map(|before| depths[*before] + 1).max().unwrap_or(0);
            if depth > depths[place] {
                depths[place] = depth;
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    depths
}

fn row(job: &Job, depth: usize) -> JobRow {
    let after: Vec<&str> = job.requires.iter().map(|required| required.job.as_str()).collect();
    JobRow {
        id: job.id.to_string(),
        name: job.name.clone(),
        address: job.number.map(|number| format!("/{}/jobs/{number}", job.project.slug())),
        number: job.number,
        mark: job.status.into(),
        took: shown::took(job.started_at, job.stopped_at),
        after: after.join(", "),
        depth,
        reasons: reasons(job),
        is_waiting: job.status == JobStatus::OnHold,
    }
}

/// Why a job ended, or waits, as far as anybody knows.
pub(super) fn reasons(job: &Job) -> Vec<String> {
    // Each execution tells its own, and they often are the same.
    let mut told = HashSet::new();
    let messages = job.messages.iter().map(|message| message.message.clone());
    let mut reasons: Vec<String> = messages.filter(|reason| told.insert(reason.clone())).collect();
    if job.status == JobStatus::OnHold && reasons.is_empty() {
        reasons.push("waits for a person to approve it".to_owned());
    }
    reasons
}
