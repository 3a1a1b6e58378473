//! Handing out a task: one transaction that finds, marks and describes it.

use crate::config::{JobKind, WorkflowJob};
use crate::protocol::limits::CLAIM_BYTES;
use crate::protocol::{ClaimRequest, HeldTask, Secret, Source, Task, TaskId, Variable};
use crate::server::auth::ClassToken;
use crate::server::engine::commit::say;
use crate::server::engine::commit::task::{self, InHand};
use crate::server::engine::task::{Claim, ClaimedAgain, DEFAULT_BUDGET, LONGEST_BEGIN, Machine};
use crate::server::pipelines::continuation;
use crate::server::secrets::variables::{self, Withheld};
use crate::server::state::{Settings, new_token, token_hash};
use crate::server::store::status::TaskState;
use crate::server::store::tables::tasks::Asking;
use crate::server::store::tables::{instances, progress, tasks};
use crate::server::store::{Effect, Error, Tx, new_id};
use crate::server::time::Millis;
use std::collections::BTreeMap;
use std::time::Duration;

/// A runner that asks for work.
#[derive(Clone, Debug)]
pub struct Claimer {
    /// Its token.
    pub token: ClassToken,
    /// What it says of itself.
    pub request: ClaimRequest,
    /// The protocol version that it speaks.
    pub protocol: u32,
    /// Its address.
    pub ip: String,
}

/// The answer to a claim.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// A task, as JSON of [`Task`].
    Task(Vec<u8>),
    /// The nonce has got a task before, which has begun or ended since.
    Holds(HeldTask),
    /// There is none for this runner.
    Nothing {
        /// One that waits may be claimed by it from then on.
        again_at: Option<Millis>,
    },
}

/// The oldest task of the class that waits, or the one that this claim was given before when the answer
/// was lost on the way.
pub fn claim(tx: &Tx<'_>, claimer: &Claimer, settings: &Settings, now: Millis) -> Result<Claimed, Error> {
    let (token, request) = (&claimer.token, &claimer.request);
    instances::seen(tx, &token.class_id, request, &claimer.ip, now)?;
    if let (Some(machine), Some(boot)) = (&request.machine_id, &request.boot_id) {
        task::host_restarted(tx, &token.class, machine, boot, now)?;
    }
    if let Some(row) = tasks::find_by_nonce(tx, &token.id, &request.nonce)? {
        let mut hand = InHand::of(row)?;
        let allocation = new_id();
        match hand.task.claim_again(&allocation, settings.lease(), now) {
            ClaimedAgain::Again => {
                if let Some(answer) = hand_out(tx, hand, claimer, settings, now)? {
                    return Ok(Claimed::Task(answer));
                }
            }
            // Runners of protocol 1 know no such answer: to them it is a claim like any other.
            ClaimedAgain::Holds { .. } if claimer.protocol < 2 => {}
            ClaimedAgain::Holds { ended } => {
                let allocation = hand.row.allocation.unwrap_or_default();
                return Ok(Claimed::Holds(HeldTask { id: hand.row.id, allocation, ended }));
            }
        }
    }
    tell_of_runners_with_one_name(tx, claimer, now)?;
    let others = instances::has_others(tx, &token.class_id, &request.name, now)?;
    let asking = Asking { class: &token.class, runner: &request.name, others, now };
    // A task that may not or cannot be handed out ends here; the next one is looked at.
    while let Some(row) = tasks::first_queued(tx, asking)? {
        let mut hand = InHand::of(row)?;
        let budget =
            tasks::budget_of_class(tx, &token.class_id)?.map_or(DEFAULT_BUDGET, Duration::from_millis);
        let machine = request.machine_id.clone().zip(request.boot_id.clone());
        let claim = Claim {
            allocation: new_id(),
            runner: request.name.clone(),
            machine: machine.map(|(id, boot)| Machine { id, boot }),
            protocol: claimer.protocol,
            budget,
        };
        if let Err(why) = hand.task.claim(claim, others, settings.lease(), now) {
            return Err(Error::Corrupt(format!("the task `{}` stands in a queue: {why:?}", hand.row.id)));
        }
        if let Some(answer) = hand_out(tx, hand, claimer, settings, now)? {
            instances::used(tx, &token.class_id, &request.name, now)?;
            return Ok(Claimed::Task(answer));
        }
    }
    Ok(Claimed::Nothing { again_at: tasks::next_claimable_at(tx, asking)? })
}

/// A task that runs is not ended because somebody with the name of its runner asks for work: two runners may have one
/// name. People are told.
fn tell_of_runners_with_one_name(tx: &Tx<'_>, claimer: &Claimer, now: Millis) -> Result<(), Error> {
    let name = &claimer.request.name;
    for row in tasks::begun_of_runner(tx, &claimer.token.class, name)? {
        let message = format!(
            "a runner named {name} asks for work while this task runs on one of that name: either two runners have the same name, or the task is lost and ends when it was not heard of for too long"
        );
        if !progress::has_message(tx, &row.job, &message)? {
            log::warn!(
                "a runner asks for work while a task runs under its name runner={name} task_id={} now_ms={now}",
                row.id
            );
            say(tx, row.job.as_str(), "warning", &message)?;
            tx.effect(Effect::Changed(row.pipeline.to_string()));
        }
    }
    Ok(())
}

/// Describes a claimed task and writes the claim. Nothing where the task cannot be handed out and has ended.
fn hand_out(
    tx: &Tx<'_>,
    mut hand: InHand,
    claimer: &Claimer,
    settings: &Settings,
    now: Millis,
) -> Result<Option<Vec<u8>>, Error> {
    let (status, why) = match variables::of_job(tx, &settings.sealer, hand.row.job.as_str())? {
        Ok(variables) => {
            let task_token = new_token("rlt_")?;
            let claim = hand.task.claim_of().cloned();
            let claim = claim.ok_or_else(|| Error::Corrupt(format!("`{}` is not claimed", hand.row.id)))?;
            let described =
                describe(tx, hand.row.id.to_string(), task_token.clone(), &claim, variables, settings)?;
            let answer = serde_json::to_vec(&described)?;
            if answer.len() <= CLAIM_BYTES {
                hand.row.token_hash = Some(token_hash(&task_token));
                hand.row.nonce = Some(claimer.request.nonce.clone());
                hand.row.claimed_with = Some(claimer.token.id.clone());
                hand.write(tx, now)?;
                return Ok(Some(answer));
            }
            let why = format!(
                "the task cannot be handed out: its steps and variables have {} bytes as JSON, the limit is {CLAIM_BYTES}",
                answer.len()
            );
            (TaskState::InfrastructureFail, why)
        }
        Err(Withheld::Unauthorized(why)) => (TaskState::Failed, format!("unauthorized: {why}")),
        Err(Withheld::Unusable(why)) => (TaskState::InfrastructureFail, why),
    };
    log::warn!("a task cannot be handed out: {why} task_id={}", hand.row.id);
    let then = hand.task.refuse(status, &why, now);
    hand.keep(tx, then, now)?;
    Ok(None)
}

fn describe(
    tx: &Tx<'_>,
    id: String,
    token: String,
    claim: &Claim,
    variables: Vec<Variable>,
    settings: &Settings,
) -> Result<Task, Error> {
    let mut query = tx.prepare_cached(
        "SELECT t.node_index, t.pipeline_id, j.id, j.name, j.number, j.parallelism, j.definition, j.workflow_id,
            w.workspace_id, p.repository_url, p.revision, p.branch, p.tag, p.actor_login, p.reference,
            r.id, r.organisation_id, r.vcs, r.org, r.repo, j.timings_of IS NOT NULL
         FROM tasks t JOIN jobs j ON j.id = t.job_id JOIN workflows w ON w.id = j.workflow_id
            JOIN pipelines p ON p.id = t.pipeline_id JOIN projects r ON r.id = t.project_id WHERE t.id = ?1",
    )?;
    let task = query.query_row([&id], |row| {
        let text = |index: usize| row.get::<_, String>(index);
        let maybe = |index: usize| row.get::<_, Option<String>>(index);
        let number: i64 = row.get(4)?;
        let job_url = format!("{}/{}/{}/{}/{number}", settings.public_url, text(17)?, text(18)?, text(19)?);
        let mut built_in: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: String| built_in.insert(name.to_owned(), value);
        set("CI", "true".to_owned());
        set("CIRCLECI", "true".to_owned());
        set("CIRCLE_BUILD_NUM", number.to_string());
        set("CIRCLE_BUILD_URL", job_url.clone());
        set("CIRCLE_JOB", text(3)?);
        set("CIRCLE_PIPELINE_ID", text(1)?);
        set("CIRCLE_WORKFLOW_ID", text(7)?);
        set("CIRCLE_WORKFLOW_JOB_ID", text(2)?);
        set("CIRCLE_WORKFLOW_WORKSPACE_ID", text(8)?);
        set("CIRCLE_PROJECT_ID", text(15)?);
        set("CIRCLE_ORGANIZATION_ID", text(16)?);
        set("CIRCLE_PROJECT_USERNAME", text(18)?);
        set("CIRCLE_PROJECT_REPONAME", text(19)?);
        set("CIRCLE_USERNAME", text(13)?);
        for (name, column) in
            [("CIRCLE_REPOSITORY_URL", 9), ("CIRCLE_SHA1", 10), ("CIRCLE_BRANCH", 11), ("CIRCLE_TAG", 12)]
        {
            if let Some(value) = maybe(column)? {
                set(name, value);
            }
        }
        let source = match (maybe(9)?, maybe(10)?) {
            (Some(repository_url), Some(revision)) => Some(Source {
                repository_url,
                revision,
                branch: maybe(11)?,
                tag: maybe(12)?,
                reference: maybe(14)?,
            }),
            _ => None,
        };
        let has_test_timings: bool = row.get(20)?;
        let (node_index, node_total): (u32, u32) = (row.get(0)?, row.get(5)?);
        Ok((node_index, text(3)?, node_total, text(6)?, job_url, built_in, source, has_test_timings))
    })?;
    let (node_index, job_name, node_total, definition, job_url, mut built_in, source, has_test_timings) =
        task;
    let definition: WorkflowJob = serde_json::from_str(&definition)?;
    let mut mask = Vec::new();
    if let Some(key) = continuation::key_for_claim(tx, &id)? {
        mask.push(Secret::new(key.clone()));
        built_in.insert("CIRCLE_CONTINUATION_KEY".to_owned(), key);
    }
    let JobKind::Build { job } = definition.kind else {
        return Err(Error::Corrupt(format!("the task `{id}` is of a job without steps")));
    };
    tx.effect(Effect::Changed(built_in.get("CIRCLE_PIPELINE_ID").cloned().unwrap_or_default()));
    Ok(Task {
        id: TaskId::new(id).map_err(|e| Error::Corrupt(e.to_string()))?,
        token: Secret::new(token),
        allocation: claim.allocation.clone(),
        job_name,
        job_url,
        job: *job,
        node_index,
        node_total,
        built_in,
        variables,
        mask,
        source,
        has_test_timings,
        lease_seconds: settings.lease_seconds,
        begin_seconds: LONGEST_BEGIN.as_secs() as u32,
        budget_seconds: claim.budget.as_secs() as u32,
        heartbeat_wait_seconds: settings.heartbeat_wait_seconds,
        max_step_output_bytes: settings.max_step_output_bytes,
        max_artifact_bytes: settings.max_artifact_bytes,
    })
}
