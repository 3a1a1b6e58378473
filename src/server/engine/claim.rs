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

/// A look of one call at the queue: it looks again when something has come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The call has just come: its runner is there, and its machine has the start that it says.
    First,
    /// The call was made a while ago. Its runner may be gone by now, and its machine be started again.
    Again,
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
    /// No task for this call: its machine was started again since, so that nobody hears the answer.
    Outdated,
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
    look: Look,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Claimed, Error> {
    let (token, request) = (&claimer.token, &claimer.request);
    let machine = request.machine_id.as_ref().zip(request.boot_id.as_ref());
    match (look, machine) {
        // Two starts of a machine have no order but that in which calls come.
        (Look::First, machine) => {
            instances::seen(tx, &token.class_id, request, &claimer.ip, now)?;
            if let Some((machine, boot)) = machine {
                task::host_restarted(tx, &token.class, machine, boot, &request.name, now)?;
            }
        }
        (Look::Again, Some((machine, boot)))
            if instances::is_restarted(tx, &token.class_id, machine, boot)? =>
        {
            return Ok(Claimed::Outdated);
        }
        (Look::Again, _) => {}
    }
    if let Some(row) = tasks::find_by_nonce(tx, &token.id, &request.nonce)? {
        let mut hand = InHand::of(row)?;
        match hand.task.claim_again(settings.lease(), now) {
            ClaimedAgain::Again => {
                if let Ok(answer) = hand_out(tx, hand, claimer, settings, now)? {
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
    let asking = Asking { class: &token.class, runner: &request.name, takes: &request.takes, now };
    // A task that may not or cannot be handed out ends here; the next one is looked at.
    while let Some(row) = tasks::first_queued(tx, asking)? {
        let mut hand = InHand::of(row)?;
        let terms = classes::terms(tx, &token.class_id)?.unwrap_or_default();
        let others = instances::has_others(tx, &token.class_id, &request.name, hand.row.kind, now)?;
        let claim = Claim {
            allocation: new_id(),
            runner: request.name.clone(),
            machine: machine.map(|(id, boot)| Machine { id: id.clone(), boot: boot.clone() }),
            protocol: claimer.protocol,
            budget: terms.budget_ms.map_or(DEFAULT_BUDGET, Duration::from_millis) + BUDGET_MARGIN,
            retries_unsafely: terms.unsafe_retries,
        };
        let begin = terms.begin_ms.map_or(LONGEST_BEGIN, Duration::from_millis);
        if let Err(why) = hand.task.claim(claim, others, settings.lease(), begin, now) {
            return Err(Error::Corrupt(format!("the task `{}` stands in a queue: {why:?}", hand.row.id)));
        }
        if let Ok(answer) = hand_out(tx, hand, claimer, settings, now)? {
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

/// Describes a claimed task and writes the claim. The refusal of one that cannot be handed out, and has ended.
fn hand_out(
    tx: &Tx<'_>,
    hand: InHand,
    claimer: &Claimer,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Result<HandedOut, Denied>, Error> {
    let words = ["claim", hand.row.id.as_str(), claimer.token.id.as_str(), &claimer.request.nonce];
    let token = settings.sealer.task_token(&words);
    let in_containers = claimer.request.takes.contains(&TaskKind::Container);
    let (mut hand, described) = match describe_or_refuse(tx, hand, &token, in_containers, settings, now)? {
        Ok(described) => described,
        Err(refused) => return Ok(Err(refused)),
    };
    let allocation = hand.task.awaited(now).map(|claim| claim.allocation.as_str()).unwrap_or_default();
    let claimed = format!("{} {allocation}", hand.row.id);
    // A claim that is answered again has waited once.
    if hand.row.status == TaskState::Queued {
        tx.effect(Effect::Claimed(now.since(hand.row.queued_at)));
    }
    hand.row.token_hash = Some(token_hash(&token));
    hand.row.nonce = Some(claimer.request.nonce.clone());
    hand.row.claimed_with = Some(claimer.token.id.clone());
    hand.write(tx, now)?;
    Ok(Ok(HandedOut { described, claimed }))
}

/// A claimed task in the form of the answer to its claim, or to its agent that asks for it. One whose variables are
/// withheld, or whose answer would be too long, ends: that is the refusal.
fn describe_or_refuse(
    tx: &Tx<'_>,
    mut hand: InHand,
    token: &str,
    in_containers: bool,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Result<(InHand, Description), Denied>, Error> {
    let (allocation, budget) = match hand.task.awaited(now) {
        Ok(claim) => (claim.allocation.clone(), claim.budget),
        Err(refused) => return Ok(Err(refused)),
    };
    let found = described(tx, &hand.row.id)?;
    let (status, why) = match handout::variables(tx, &settings.sealer, &found)? {
        Ok(variables) => {
            let (id, token, begin) = (hand.row.id.clone(), token.to_owned(), hand.task.begin_left(now));
            let handed = Handed { id, token, allocation, variables, budget, begin };
            let described = handout::describe(tx, found, handed, in_containers, settings)?;
            if described.most_bytes() <= CLAIM_BYTES {
                return Ok(Ok((hand, described)));
            }
            let why = format!(
                "the task cannot be handed out: its steps and variables have {} bytes as JSON, the limit is {CLAIM_BYTES}",
                described.text.len()
            );
            (TaskState::InfrastructureFail, why)
        }
        Err(Withheld::Unauthorized(why)) => (TaskState::Failed, format!("unauthorized: {why}")),
        Err(Withheld::Unusable(why)) => (TaskState::InfrastructureFail, why),
    };
    let id = hand.row.id.clone();
    record!(Warn, task_id = id; "a task cannot be handed out: {why}");
    let then = hand.task.refuse(status, &why, now);
    let refused = hand.task.awaited(now).err();
    hand.keep(tx, then, now)?;
    refused.map(Err).ok_or_else(|| Error::Corrupt(format!("the task `{id}` was refused and waits")))
}

/// The task of this token once more, for an agent that was told no more than
/// the token.
pub fn fetch(
    tx: &Tx<'_>,
    id: &TaskId,
    token: &str,
    settings: &ServerSettings,
    now: Millis,
) -> Result<Result<Description, Denied>, Error> {
    let Some(hand) = InHand::find(tx, id)? else {
        return Err(Error::Corrupt(format!("the task `{id}` is gone")));
    };
    let described = describe_or_refuse(tx, hand, token, false, settings, now)?;
    Ok(described.map(|(_, described)| described))
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
            scene::insert_class(tx)?;
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
        let other = prop::option::of(prop_oneof![Just(TaskKind::Machine), Just(TaskKind::Container)]);
        let runner = (other, takes, 8..12u64);
        proptest!(ProptestConfig::with_cases(1000), |((state, is_held, is_fenced, avoid, kind) in task, (other, takes, now) in runner)| {
            let (id, now) = (id.clone(), Millis(now));
            let check = store.write_blocking(move |tx| {
                let mut row = tasks::find(tx, &id)?.unwrap();
                (row.status, row.is_held, row.kind) = (state, is_held, kind);
                row.not_before = is_fenced.then_some(Millis(20));
                (row.avoid_runner, row.avoid_until) =
                    avoid.map(|(name, until)| (format!("runner-{name}"), Millis(until))).unzip();
                scene::set_waiting(tx, &row)?;
                scene::remove_runners(tx)?;
                scene::insert_runner(tx, "runner-0", TaskKind::Machine, now)?;
                if let Some(takes) = other {
                    scene::insert_runner(tx, "runner-1", takes, now)?;
                }
                let class = classes::list_classes(tx)?.remove(0).id;
                let others = instances::has_others(tx, &class, "runner-0", kind, now)?;
                assert_eq!(others, other == Some(kind));
                let asking = Asking { class: &row.resource_class, runner: "runner-0", takes: &takes, now };
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
