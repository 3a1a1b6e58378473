//! Changes of a task, in the store: loads it, lets the machine decide, writes what became of it, and carries
//! out what follows, all in the caller's transaction.

use crate::protocol::limits::MESSAGE_BYTES;
use crate::protocol::{
    BeginRequest, Beside, EventKind, FinishAnswer, FinishRequest, GiveBack, LostTask, TaskEvent, TaskId,
    TaskStatus,
};
use crate::server::engine::commit::advance::settle;
use crate::server::engine::commit::job::{close_job, end_job, say, set_status, waking};
use crate::server::engine::commit::ripple::Ripple;
use crate::server::engine::commit::{fence, rerun, serial};
use crate::server::engine::graph;
use crate::server::engine::task::{
    Call, Consequence, Denied, FinishReport, Finished, GivenBack, GivingBack, NextAttempt, Passed, Task,
    Transition, Unaccounted,
};
use crate::server::ids::JobId;
use crate::server::store::status::{MessageKind, StepState, TaskState};
use crate::server::store::tables::small_outputs::{self, SmallOutput};
use crate::server::store::tables::steps::LeftOutStep;
use crate::server::store::tables::tasks::{self, Place, TaskRow};
use crate::server::store::tables::{jobs, progress, steps, workflows};
use crate::server::store::{Effect, EndedTask, Error, Tx, View};
use crate::server::time::Millis;
use std::time::Duration;

/// A failure of the infrastructure that is told later than this after the last step says when that had ended.
const TOLD_AT_ONCE: Duration = Duration::from_secs(60);

/// A task and its row, in the hand of a transaction.
#[derive(Clone, Debug)]
pub struct InHand {
    /// Row as it was read in this transaction.
    pub row: TaskRow,
    /// The task as a value of the machine.
    pub task: Task,
    was: Task,
    first_event: u64,
}

impl InHand {
    /// Makes the task from a row that was read in this transaction.
    pub fn of(row: TaskRow) -> Result<Self, Error> {
        let task = Task::of(&row)?;
        Ok(Self { first_event: row.next_event, row, was: task.clone(), task })
    }

    /// Finds the task by its id.
    pub fn find(view: &View, id: &TaskId) -> Result<Option<Self>, Error> {
        tasks::find(view, id)?.map(Self::of).transpose()
    }

    /// Finds the task by an id that was read in this transaction, or that a token has proven.
    fn known(view: &View, id: &TaskId) -> Result<Self, Error> {
        Self::find(view, id)?.ok_or_else(|| Error::Corrupt(format!("the task `{id}` is gone")))
    }

    /// Writes what became of it, and carries out what follows.
    pub fn keep(mut self, tx: &Tx<'_>, then: Vec<Consequence>, now: Millis) -> Result<(), Error> {
        let has_news = self.row.next_event > self.first_event;
        if self.task == self.was && then.is_empty() && !has_news {
            return Ok(());
        }
        self.task.write_to(&mut self.row, now);
        if then.is_empty() && self.task.is_renewed(&self.was) {
            // By far the most frequent write: no index is touched.
            return tasks::renew(tx, &self.row);
        }
        for consequence in &then {
            if let Consequence::Ended(Some(message))
            | Consequence::Again(NextAttempt { why: Some(message), .. }) = consequence
            {
                self.row.message = Some(message.clone());
            }
        }
        if self.task.claim_of() == self.was.claim_of() {
            tasks::update_after_claim(tx, &self.row)?;
        } else {
            tasks::update(tx, &self.row)?;
        }
        then.into_iter().try_for_each(|consequence| self.follow(tx, consequence, now))
    }

    /// Writes a claim, with what the row has of it beside the machine.
    pub fn write(mut self, tx: &Tx<'_>, now: Millis) -> Result<(), Error> {
        self.task.write_to(&mut self.row, now);
        tasks::update(tx, &self.row)
    }

    fn follow(&self, tx: &Tx<'_>, consequence: Consequence, now: Millis) -> Result<(), Error> {
        let row = &self.row;
        match consequence {
            Consequence::Begun => {
                progress::begin_job(tx, &row.job, now)?;
                tx.effect(Effect::Changed(row.pipeline.clone()));
            }
            Consequence::CancelAsked => tx.effect(Effect::Cancel(row.id.clone())),
            Consequence::Ended(message) => self.ended(tx, message.as_deref(), now)?,
            Consequence::Again(next) => again(tx, row, &next, now)?,
            Consequence::Say(message) => {
                say(tx, &row.job, MessageKind::Warning, &message)?;
                tx.effect(Effect::Changed(row.pipeline.clone()));
            }
            Consequence::FenceGone => fence_gone(tx, &row.job, now)?,
            Consequence::Released => tx.effect(waking(tx, &row.resource_class, now)?),
        }
        Ok(())
    }

    fn ended(&self, tx: &Tx<'_>, message: Option<&str>, now: Millis) -> Result<(), Error> {
        let row = &self.row;
        tx.effect(Effect::Ended(EndedTask {
            id: row.id.clone(),
            resource_class: row.resource_class.clone(),
            status: row.status,
            ran: row.started_at.map(|started| now.since(started)),
        }));
        close_steps(tx, row, now)?;
        if let Some(message) = message {
            // Nodes that end together have one sentence.
            jobs::add_message_once(tx, &row.job, MessageKind::Error, message)?;
        }
        if row.status == TaskState::Retried {
            return Ok(());
        }
        if row.fence_until.is_some() {
            fence_moved(tx, &row.job, now)?;
        }
        let status = graph::job_status(&tasks::states_of_job(tx, &row.job)?);
        let mut ripple = Ripple::default();
        if !status.is_terminal() {
            set_status(tx, &row.job, status)?;
        } else if tasks::is_job_fenced(tx, &row.job)? {
            // The agent may still be at work: the job keeps the key of its serial group.
            close_job(tx, &row.job, status, now)?;
        } else {
            end_job(tx, &row.job, status, &mut ripple, now)?;
        }
        ripple.touch(progress::workflow_of(tx, &row.job)?);
        settle(tx, ripple, now)
    }
}

/// Ends the steps of a task that has ended: what its agent says of them late replaces this.
fn close_steps(tx: &Tx<'_>, row: &TaskRow, now: Millis) -> Result<(), Error> {
    // A record that a runner keeps beside ends with the task, and is no failure of a task that has none.
    if !matches!(row.status, TaskState::Canceled | TaskState::InfrastructureFail) {
        steps::close_beside(tx, &row.id, now)?;
    }
    let canceled = row.status == TaskState::Canceled;
    let status = if canceled { StepState::Canceled } else { StepState::InfrastructureFail };
    steps::close_running(tx, &row.id, status, now)
}

/// A further attempt, under a new id: the token of the one before is dead.
fn again(tx: &Tx<'_>, row: &TaskRow, next: &NextAttempt, now: Millis) -> Result<(), Error> {
    let mut task = Task::further(next, now);
    // Another run of the job may have been given up since this one entered its queue.
    task.wait_for_fence(fence::before(tx, &row.job)?, now);
    tasks::insert(tx, Place::after(row), &task.initial(), now)?;
    // The node waits again, and so does its job where nothing else of it runs.
    set_status(tx, &row.job, graph::job_status(&tasks::states_of_job(tx, &row.job)?))?;
    let class = row.resource_class.clone();
    let is_for_others = next.avoid.is_some();
    tx.effect(if is_for_others { Effect::QueuedForOthers(class) } else { waking(tx, &class, now)? });
    Ok(())
}

/// Changes tasks one after another, each as its row is by then: what followed from one before may have changed it.
/// Returns of how many something followed.
pub(super) fn each(
    tx: &Tx<'_>,
    rows: impl IntoIterator<Item = TaskRow>,
    now: Millis,
    mut change: impl FnMut(&mut Task) -> Vec<Consequence>,
) -> Result<usize, Error> {
    let mut count = 0;
    for row in rows {
        let mut hand = InHand::known(tx, &row.id)?;
        let then = change(&mut hand.task);
        count += usize::from(!then.is_empty());
        hand.keep(tx, then, now)?;
    }
    Ok(count)
}

/// The fence of a task of the job is new, was moved, or is gone: so is the wait of what replaces it and has no runner yet.
pub(super) fn fence_moved(tx: &Tx<'_>, job: &JobId, now: Millis) -> Result<(), Error> {
    for row in tasks::queued_in_chain(tx, job)? {
        let fence = tasks::fence_before(tx, &row.job)?;
        if let Some(fence) = fence.as_ref().filter(|_| row.not_before.is_none()) {
            fence::say(tx, &row.job, fence)?;
        }
        let until = fence.map(|fence| fence.until);
        each(tx, [row], now, |task| task.wait_for_fence(until, now))?;
    }
    Ok(())
}

/// The agent of a task has stopped: what the job and its workflow kept from others passes on.
fn fence_gone(tx: &Tx<'_>, job: &JobId, now: Millis) -> Result<(), Error> {
    fence_moved(tx, job, now)?;
    let mut ripple = Ripple::default();
    let standing = progress::standing(tx, job)?;
    if standing.job_ended && !tasks::is_job_fenced(tx, job)? {
        serial::leave(tx, job, &mut ripple, now)?;
    }
    let workflow = &standing.workflow;
    if standing.workflow_ended && !tasks::is_workflow_fenced(tx, workflow)? {
        serial::leave_all(tx, workflow, &mut ripple, now)?;
        // Somebody may have been quicker.
        if !workflows::has_rerun(tx, workflow)? {
            rerun::automatically(tx, workflow, standing.workflow_status, &mut ripple, now)?;
        }
    }
    settle(tx, ripple, now)
}

/// An answer of a call that the machine may have refused.
pub type Decided<A> = Result<Result<A, Denied>, Error>;

fn decided<A>(tx: &Tx<'_>, hand: InHand, step: Result<Transition<A>, Denied>, now: Millis) -> Decided<A> {
    match step {
        Ok(Transition { answer, then }) => hand.keep(tx, then, now).map(|()| Ok(answer)),
        Err(refused) => Ok(Err(refused)),
    }
}

/// A call of the agent that writes nothing else.
pub fn call(tx: &Tx<'_>, id: &TaskId, call: Call, lease: Duration, now: Millis) -> Decided<Passed> {
    let mut hand = InHand::known(tx, id)?;
    let step = hand.task.call(call, lease, now);
    decided(tx, hand, step, now)
}

/// A call of the agent whose bytes or rows are still to come, or that only reads.
pub fn announce(tx: &Tx<'_>, id: &TaskId, call: Call, lease: Duration, now: Millis) -> Decided<Passed> {
    let mut hand = InHand::known(tx, id)?;
    let step = hand.task.announce(call, lease, now);
    decided(tx, hand, step, now)
}

/// A call of the agent that writes `work` as well: what the machine says of the task and what is written are one
/// commit, so that nothing is written for a task that ended in between. Nothing is written where it refuses.
pub fn call_and<T>(
    tx: &Tx<'_>,
    id: &TaskId,
    kind: Call,
    lease: Duration,
    now: Millis,
    work: impl FnOnce(&Tx<'_>) -> Result<T, Error>,
) -> Decided<(Passed, T)> {
    match call(tx, id, kind, lease, now)? {
        Ok(taken) => Ok(Ok((taken, work(tx)?))),
        Err(refused) => Ok(Err(refused)),
    }
}

/// Reads for the agent, in one view of the store with what the machine says of the task.
pub fn read_for<T>(
    view: &View,
    id: &TaskId,
    kind: Call,
    now: Millis,
    work: impl FnOnce(&View) -> Result<T, Error>,
) -> Decided<(Passed, T)> {
    let mut hand = InHand::known(view, id)?;
    // The lease was renewed when the call came in: only the answer counts.
    match hand.task.call(kind, Duration::ZERO, now) {
        Ok(step) => Ok(Ok((step.answer, work(view)?))),
        Err(refused) => Ok(Err(refused)),
    }
}

/// Outcome of storing events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The events are stored.
    Next {
        /// Number that is expected next.
        next: u64,
        /// The answer of the machine.
        taken: Passed,
    },
    /// Events before them are missing.
    Gap {
        /// Number that is expected next.
        next: u64,
    },
}

/// Events of the agent, in order.
pub fn events(
    tx: &Tx<'_>,
    id: &TaskId,
    events: &[TaskEvent],
    lease: Duration,
    now: Millis,
) -> Decided<Recorded> {
    let mut hand = InHand::known(tx, id)?;
    let call = Call::Events { is_spin_up: news(&hand.row, events).all(is_spin_up) };
    let step = hand.task.call(call, lease, now);
    record(tx, hand, step, events, now)
}

/// The commit point of a task.
pub fn begin(
    tx: &Tx<'_>,
    id: &TaskId,
    request: &BeginRequest,
    lease: Duration,
    now: Millis,
) -> Decided<Recorded> {
    let mut hand = InHand::known(tx, id)?;
    let step = hand.task.begin(&request.agent, lease, now);
    record(tx, hand, step, &request.events, now)
}

fn news<'a>(row: &TaskRow, events: &'a [TaskEvent]) -> impl Iterator<Item = &'a TaskEvent> {
    let next = row.next_event;
    events.iter().filter(move |event| event.number >= next)
}

fn is_spin_up(event: &TaskEvent) -> bool {
    match event.kind {
        EventKind::StepStarted { step, .. } | EventKind::StepFinished { step, .. } => step == 0,
    }
}

fn record(
    tx: &Tx<'_>,
    mut hand: InHand,
    step: Result<Transition<Passed>, Denied>,
    events: &[TaskEvent],
    now: Millis,
) -> Decided<Recorded> {
    let Transition { answer: taken, then } = match step {
        Ok(step) => step,
        Err(refused) => return Ok(Err(refused)),
    };
    let (first, mut next) = (hand.first_event, hand.first_event);
    for event in news(&hand.row, events) {
        if event.number > next {
            return Ok(Ok(Recorded::Gap { next }));
        }
        next = next.max(event.number + 1);
    }
    for event in news(&hand.row, events) {
        steps::record(tx, &hand.row.id, event)?;
    }
    if taken.late {
        // The agent may say no more of a step than that it began.
        close_steps(tx, &hand.row, now)?;
    }
    hand.row.next_event = next;
    if next > first {
        tx.effect(Effect::Changed(hand.row.pipeline.clone()));
    }
    hand.keep(tx, then, now)?;
    Ok(Ok(Recorded::Next { next, taken }))
}

/// Takes the word of a runner about a record of its own. It binds nothing, and is taken as long as output is.
pub fn beside(
    tx: &Tx<'_>,
    id: &TaskId,
    record: u32,
    beside: &Beside,
    lease: Duration,
    now: Millis,
) -> Decided<Passed> {
    let mut hand = InHand::known(tx, id)?;
    let Transition { answer: taken, then } =
        match hand.task.call(Call::Events { is_spin_up: true }, lease, now) {
            Ok(step) => step,
            Err(refused) => return Ok(Err(refused)),
        };
    steps::record_beside(tx, id, record, beside)?;
    if taken.late {
        close_steps(tx, &hand.row, now)?;
    }
    tx.effect(Effect::Changed(hand.row.pipeline.clone()));
    hand.keep(tx, then, now)?;
    Ok(Ok(taken))
}

/// The outputs of a task that its agent has finished, as the disk has them.
#[derive(Clone, Debug, Default)]
pub struct FoundOutputs {
    /// Outputs that are not there, with the offset to send from.
    pub missing: Vec<(u32, u64)>,
    /// Outputs that nobody has whole any more, with the length of what is kept in their place.
    pub kept: Vec<(u32, u64)>,
    /// Outputs that are whole and small: they are kept as rows.
    pub small: Vec<SmallOutput>,
}

/// The end of a task by its agent. `outputs` is `None` where they were not looked at, because the call was to be refused as
/// the task was by then: one that has begun meanwhile has to say it again.
pub fn finish(
    tx: &Tx<'_>,
    id: &TaskId,
    request: &FinishRequest,
    outputs: Option<FoundOutputs>,
    lease: Duration,
    now: Millis,
) -> Decided<FinishAnswer> {
    let mut hand = InHand::known(tx, id)?;
    let mut message = request.message.as_deref().map(shortened);
    let next_event = hand.row.next_event;
    let has_all = outputs.as_ref().is_some_and(|outputs| outputs.missing.is_empty());
    let outputs = outputs.unwrap_or_default();
    let is_complete = next_event >= request.events && has_all;
    let unaccounted = if is_complete { steps::unaccounted(tx, id, &request.steps)? } else { Vec::new() };
    let is_late = |ended: &Millis| now.since(*ended) > TOLD_AT_ONCE;
    if let Some(why) =
        message.as_mut().filter(|_| is_complete && request.status == TaskStatus::InfrastructureFail)
        && let Some(ended) = steps::last_end(tx, id)?.filter(is_late)
    {
        *why = format!("{why}; the last of its steps had ended at {ended}");
    }
    let report = FinishReport {
        status: TaskState::from(request.status),
        message: message.as_deref(),
        is_complete,
        overlooked: unaccounted.first().map(overlooked),
    };
    match hand.task.finish(&report, lease, now) {
        Err(Transition { answer: refused, then }) => hand.keep(tx, then, now).map(|()| Err(refused)),
        Ok(Transition { answer: Finished::Before, .. }) => Ok(Ok(FinishAnswer::Confirmed)),
        Ok(Transition { answer: Finished::Incomplete, then }) => {
            hand.keep(tx, then, now)?;
            Ok(Ok(FinishAnswer::Incomplete { next_event, steps: outputs.missing }))
        }
        Ok(Transition { answer: Finished::Now, then }) => {
            steps::set_lengths(tx, id, &request.steps, &outputs.kept, &unaccounted)?;
            for output in &outputs.small {
                small_outputs::insert(tx, id, output)?;
            }
            hand.keep(tx, then, now)?;
            Ok(Ok(FinishAnswer::Confirmed))
        }
    }
}

fn overlooked(row: &LeftOutStep) -> Unaccounted<'_> {
    Unaccounted { step: row.step, name: &row.name, bytes: row.bytes }
}

/// The steps of a task have stopped, as its agent says before everything of it has arrived.
pub fn stopped(tx: &Tx<'_>, id: &TaskId, lease: Duration, now: Millis) -> Decided<Passed> {
    let mut hand = InHand::known(tx, id)?;
    match hand.task.stopped(lease, now) {
        Ok(step) => decided(tx, hand, Ok(step), now),
        Err(Transition { answer: refused, then }) => hand.keep(tx, then, now).map(|()| Err(refused)),
    }
}

/// A runner gives a task back that has not begun.
pub fn give_back(tx: &Tx<'_>, request: &GiveBack, now: Millis) -> Decided<GivenBack> {
    let mut hand = InHand::known(tx, &request.task_id)?;
    let message = request.message.as_deref().map(shortened);
    let returned = GivingBack {
        reason: request.reason,
        message: message.as_deref().unwrap_or("it did not say why"),
        pause: Duration::from_secs(request.pause_seconds.into()),
    };
    let step = hand.task.give_back(&returned, now);
    decided(tx, hand, step, now)
}

/// Refusal of a runner's word about a task that is not there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLost {
    /// There is no such task of its class.
    Unknown,
    /// The machine refused.
    Refused(Denied),
}

/// A runner of a class found a task agent gone.
pub fn lost(tx: &Tx<'_>, class: &str, request: &LostTask, now: Millis) -> Result<Result<(), NotLost>, Error> {
    let Some(mut hand) = InHand::find(tx, &request.id)?.filter(|hand| hand.row.resource_class == class)
    else {
        return Ok(Err(NotLost::Unknown));
    };
    match hand.task.lost(request.allocation.as_deref(), &shortened(&request.message), now) {
        Ok(then) => hand.keep(tx, then, now).map(Ok),
        Err(refused) => Ok(Err(NotLost::Refused(refused))),
    }
}

/// A runner says that the task could not be run (`task/event/fail` of the public API).
pub fn fail(tx: &Tx<'_>, id: &TaskId, allocation: Option<&str>, message: &str, now: Millis) -> Decided<()> {
    let mut hand = InHand::known(tx, id)?;
    let step = hand.task.failed(allocation, &shortened(message), now);
    decided(tx, hand, step, now)
}

/// Cuts what goes into a row and into the job's messages.
fn shortened(message: &str) -> String {
    let end = (0..=MESSAGE_BYTES.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
    match end.filter(|end| *end < message.len()) {
        Some(end) => format!("{} [...]", &message[..end]),
        None => message.to_owned(),
    }
}

/// A person wants a task to end.
pub fn cancel(tx: &Tx<'_>, row: TaskRow, now: Millis) -> Result<(), Error> {
    each(tx, [row], now, |task| task.cancel(now)).map(drop)
}

/// A person says that the agents of the job's tasks are gone. Returns how many fences that took away.
pub fn release_anyway(tx: &Tx<'_>, job: &JobId, now: Millis) -> Result<usize, Error> {
    each(tx, tasks::fenced_of_job(tx, job)?, now, Task::confirm_stopped)
}

/// A machine was started again: what its runner of the class held there is gone.
pub fn host_restarted(
    tx: &Tx<'_>,
    class: &str,
    machine_id: &str,
    boot_id: &str,
    told_by: &str,
    now: Millis,
) -> Result<(), Error> {
    let rows = tasks::of_earlier_boots(tx, class, machine_id, boot_id)?;
    each(tx, rows, now, |task| task.host_restarted(told_by, now)).map(drop)
}
