//! Handing out a task: one transaction that finds, marks and describes it.

use crate::logging::record;
use crate::protocol::limits::CLAIM_BYTES;
use crate::protocol::{ClaimRequest, HeldTask, TaskId, TaskKind};
use crate::server::auth::ClassToken;
use crate::server::auth::token_hash;
use crate::server::engine::commit::task::{self, InHand};
use crate::server::engine::handout::{self, Description, Handed, Withheld};
use crate::server::engine::task::{
    BUDGET_MARGIN, Claim, ClaimedAgain, DEFAULT_BUDGET, Denied, LONGEST_BEGIN, Machine,
};
use crate::server::state::ServerSettings;
use crate::server::store::status::{MessageKind, TaskState};
use crate::server::store::tables::handout::described;
use crate::server::store::tables::tasks::Asking;
use crate::server::store::tables::{classes, fleet, instances, jobs, tasks};
use crate::server::store::{Effect, Error, Tx, new_id};
use crate::server::time::Millis;
use std::time::Duration;

/// A runner that asks for work.
#[derive(Clone, Debug)]
pub struct Claimer {
    /// The resource class token that it calls with.
    pub token: ClassToken,
    /// The runner's description of itself.
    pub request: ClaimRequest,
    /// The protocol version that it speaks.
    pub protocol: u32,
    /// The address that it calls from.
    pub ip: String,
}

/// The answer to a claim.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// The task that is handed out.
    Task(HandedOut),
    /// The nonce has got a task before, which has begun or ended since.
    Holds(HeldTask),
    /// No task for this runner.
    Nothing {
        /// The time from which this runner may claim a task that waits.
        again_at: Option<Millis>,
    },
}

/// A task that is handed out.
#[derive(Clone, Debug)]
pub struct HandedOut {
    /// The task in the form of the answer.
    pub described: Description,
    /// Id and allocation, as [`CLAIMED_HEADER`](crate::protocol::CLAIMED_HEADER) has them.
    pub claimed: String,
}

/// The oldest task of the class that waits, or the one that this claim was given before when the answer
/// was lost on the way.
pub fn claim(
    tx: &Tx<'_>,
    claimer: &Claimer,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Claimed, Error> {
    let (token, request) = (&claimer.token, &claimer.request);
    instances::seen(tx, &token.class_id, request, &claimer.ip, now)?;
    if let (Some(machine), Some(boot)) = (&request.machine_id, &request.boot_id) {
        task::host_restarted(tx, &token.class, machine, boot, &request.name, now)?;
    }
    if let Some(row) = tasks::find_by_nonce(tx, &token.id, &request.nonce)? {
        let mut hand = InHand::of(row)?;
        match hand.task.claim_again(settings.lease(), now) {
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
    tell_of_runners_with_one_name(tx, claimer)?;
    if fleet::is_paused(tx, &token.class_id, &request.name)? {
        return Ok(Claimed::Nothing { again_at: None });
    }
    let others = instances::has_others(tx, &token.class_id, &request.name, now)?;
    let asking = Asking { class: &token.class, runner: &request.name, others, takes: &request.takes, now };
    // A task that may not or cannot be handed out ends here; the next one is looked at.
    while let Some(row) = tasks::first_queued(tx, asking)? {
        let mut hand = InHand::of(row)?;
        let terms = classes::terms(tx, &token.class_id)?.unwrap_or_default();
        let machine = request.machine_id.clone().zip(request.boot_id.clone());
        let claim = Claim {
            allocation: new_id(),
            runner: request.name.clone(),
            machine: machine.map(|(id, boot)| Machine { id, boot }),
            protocol: claimer.protocol,
            budget: terms.budget_ms.map_or(DEFAULT_BUDGET, Duration::from_millis) + BUDGET_MARGIN,
            retries_unsafely: terms.unsafe_retries,
        };
        let begin = terms.begin_ms.map_or(LONGEST_BEGIN, Duration::from_millis);
        if let Err(why) = hand.task.claim(claim, others, settings.lease(), begin, now) {
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
fn tell_of_runners_with_one_name(tx: &Tx<'_>, claimer: &Claimer) -> Result<(), Error> {
    let name = &claimer.request.name;
    // A runner that starts containers runs many tasks under its name.
    if claimer.request.takes.contains(&TaskKind::Container) {
        return Ok(());
    }
    for row in tasks::begun_of_runner(tx, &claimer.token.class, name)? {
        let message = format!(
            "a runner named {name} asks for work while this task runs on one of that name: either two runners have the same name, or the task is lost and ends when it was not heard of for too long"
        );
        if jobs::add_message_once(tx, &row.job, MessageKind::Warning, &message)? {
            record!(Warn, runner = name.as_str(), task_id = row.id;
                "a runner asks for work while a task runs under its name"
            );
            tx.effect(Effect::Changed(row.pipeline));
        }
    }
    Ok(())
}

/// Describes a claimed task and writes the claim. Nothing where the task cannot be handed out and has ended.
fn hand_out(
    tx: &Tx<'_>,
    mut hand: InHand,
    claimer: &Claimer,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Option<HandedOut>, Error> {
    let found = described(tx, &hand.row.id)?;
    let (status, why) = match handout::variables(tx, &settings.sealer, &found)? {
        Ok(variables) => {
            let words = ["claim", hand.row.id.as_str(), claimer.token.id.as_str(), &claimer.request.nonce];
            let task_token = settings.sealer.task_token(&words);
            let claim = hand.task.claim_of().cloned();
            let claim = claim.ok_or_else(|| Error::Corrupt(format!("`{}` is not claimed", hand.row.id)))?;
            let (id, allocation) = (hand.row.id.clone(), claim.allocation);
            let claimed = format!("{id} {allocation}");
            let (token, budget, begin) = (task_token.clone(), claim.budget, hand.task.begin_left(now));
            let handed = Handed { id, token, allocation, variables, budget, begin };
            let in_containers = claimer.request.takes.contains(&TaskKind::Container);
            let described = handout::describe(tx, found, handed, in_containers, settings)?;
            if described.most_bytes() <= CLAIM_BYTES {
                hand.row.token_hash = Some(token_hash(&task_token));
                hand.row.nonce = Some(claimer.request.nonce.clone());
                hand.row.claimed_with = Some(claimer.token.id.clone());
                tx.effect(Effect::Claimed(now.since(hand.row.queued_at)));
                hand.write(tx, now)?;
                return Ok(Some(HandedOut { described, claimed }));
            }
            let why = format!(
                "the task cannot be handed out: its steps and variables have {} bytes as JSON, the limit is {CLAIM_BYTES}",
                described.text.len()
            );
            (TaskState::InfrastructureFail, why)
        }
        Err(why) => withheld(why),
    };
    record!(Warn, task_id = hand.row.id; "a task cannot be handed out: {why}");
    let then = hand.task.refuse(status, &why, now);
    hand.keep(tx, then, now)?;
    Ok(None)
}

/// The end of a task whose variables are withheld.
fn withheld(why: Withheld) -> (TaskState, String) {
    match why {
        Withheld::Unauthorized(why) => (TaskState::Failed, format!("unauthorized: {why}")),
        Withheld::Unusable(why) => (TaskState::InfrastructureFail, why),
    }
}

/// The task of this token once more, for an agent that was told no more than
/// the token. One whose variables are withheld by now ends, and that is the refusal.
pub fn fetch(
    tx: &Tx<'_>,
    id: &TaskId,
    token: String,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Result<Description, Denied>, Error> {
    let Some(mut hand) = InHand::find(tx, id)? else {
        return Err(Error::Corrupt(format!("the task `{id}` is gone")));
    };
    let claim = match hand.task.awaited(now) {
        Ok(claim) => claim.clone(),
        Err(refused) => return Ok(Err(refused)),
    };
    let found = described(tx, id)?;
    match handout::variables(tx, &settings.sealer, &found)? {
        Ok(variables) => {
            let (id, allocation, budget) = (id.clone(), claim.allocation, claim.budget);
            let handed =
                Handed { id, token, allocation, variables, budget, begin: hand.task.begin_left(now) };
            handout::describe(tx, found, handed, false, settings).map(Ok)
        }
        Err(why) => {
            let (status, why) = withheld(why);
            record!(Warn, task_id = id; "a task cannot be handed out: {why}");
            let then = hand.task.refuse(status, &why, now);
            let refused = hand.task.awaited(now).err();
            hand.keep(tx, then, now)?;
            refused.map(Err).ok_or_else(|| Error::Corrupt(format!("the task `{id}` was refused and waits")))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::engine::task::{NotClaimable, Task};
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::{Store, scene};
    use proptest::prelude::*;

    /// Whether a task can be claimed is said twice: by the machine, and by the statement that looks for one in a queue of
    /// thousands. A task that the statement finds and the machine refuses would be an error of every claim.
    #[test]
    fn the_queue_finds_what_the_machine_lets_a_runner_claim() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let id = store.write_blocking(|tx| {
            ensure_project(tx, "gh/acme/app", None, Millis(0))?;
            scene::insert_ended_task(tx)
        });
        let id = id.unwrap();
        let state = prop_oneof![4 => Just(TaskState::Queued), 1 => Just(TaskState::Retried)];
        let kind = prop_oneof![Just(TaskKind::Machine), Just(TaskKind::Container)];
        let takes = prop_oneof![
            Just(vec![TaskKind::Machine]),
            Just(vec![TaskKind::Container]),
            Just(vec![TaskKind::Machine, TaskKind::Container])
        ];
        let rare = || prop::bool::weighted(0.2);
        let avoid = prop::option::of((0..2u8, 8..12u64));
        let task = (state, rare(), rare(), avoid, kind);
        let runner = (any::<bool>(), takes, 8..12u64);
        proptest!(ProptestConfig::with_cases(1000), |((state, is_held, is_fenced, avoid, kind) in task, (others, takes, now) in runner)| {
            let (id, now) = (id.clone(), Millis(now));
            let check = store.write_blocking(move |tx| {
                let mut row = tasks::find(tx, &id)?.unwrap();
                (row.status, row.is_held, row.kind) = (state, is_held, kind);
                row.not_before = is_fenced.then_some(Millis(20));
                (row.avoid_runner, row.avoid_until) =
                    avoid.map(|(name, until)| (format!("runner-{name}"), Millis(until))).unzip();
                scene::set_waiting(tx, &row)?;
                let asking = Asking { class: &row.resource_class, runner: "runner-0", others, takes: &takes, now };
                let found = tasks::first_queued(tx, asking)?.is_some();
                let next = tasks::next_claimable_at(tx, asking)?;
                let said = Task::of(&row)?.claimable("runner-0", others, now);
                let is_taken = takes.contains(&kind);
                let later = match said {
                    Err(NotClaimable::Before(until)) if is_taken => Some(until),
                    _ => None,
                };
                Ok(((found, next), (said.is_ok() && is_taken, later)))
            });
            let (found, said) = check.unwrap();
            prop_assert_eq!(found, said);
        });
    }
}
