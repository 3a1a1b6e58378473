//! The life of a task, from the claim until nothing is left of it: a machine without IO, with time passed in.
//!
//! ```text
//!  creating --created--> starting --container runs--> running --container ends--+
//!     |  ^                  |                            |                      v
//!     |  +--quota: later    +-- trouble, cancelled ------+-- deleted, lost --> closing --> gone
//!     +-- refused ------------------------------------------------------------^
//! ```
//!
//! The agent in the pod answers for the task from its begin on; whoever restarts this runner goes on in `starting` or
//! `running` by what the pod says.

use super::judge::{Trouble, Verdict};
use std::time::{Duration, Instant};

/// A quota without room is asked again after this long; claims pause as long, also where the account lacks a right.
pub(super) const FULL_PAUSE: Duration = Duration::from_secs(30);
/// The longest that a quota may lack room before its task is given back.
const FULL_PATIENCE: Duration = Duration::from_secs(300);
/// A pod that somebody deletes is gone after this long, or its node is.
const DELETED_PATIENCE: Duration = Duration::from_secs(120);

/// Act for a task. One at a time is done for each, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Make secrets and pod.
    Create,
    /// Keep the claim.
    Heartbeat,
    /// Give the task back: it has not begun.
    GiveBack(String),
    /// End the task for good: the job is wrong.
    Fail(String),
    /// Say that the pod is gone; before the begin it gives the task back.
    Lost(String),
    /// Delete the pod; `now` does not wait for its node.
    DeletePod {
        /// Whether its node is not asked.
        now: bool,
    },
    /// Delete the secrets.
    DeleteSecrets,
    /// Free the slot: nothing is left of the task.
    Forget,
}

/// Outcome of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// The pod is there.
    Yes,
    /// A quota has no room.
    Full(String),
    /// Kubernetes refuses it, or nothing can be made of the job.
    Refused(String),
    /// The API server could not be reached for long.
    Away(String),
    /// The namespace is being deleted.
    Leaving(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Creating { full_since: Option<Instant>, again_at: Option<Instant> },
    Starting { trouble: Option<(String, Instant)> },
    Running,
    Closing,
}

/// A task of this runner.
#[derive(Clone, Debug)]
pub(super) struct TrackedTask {
    state: State,
    heartbeat_every: Duration,
    heartbeat_at: Instant,
    /// Somebody else deletes the pod, seen first then.
    deleted_at: Option<Instant>,
    keeps_failed: bool,
    failed: bool,
}

impl TrackedTask {
    /// A task that was just claimed, with the first thing to do.
    pub(super) fn claimed(lease: Duration, keeps_failed: bool, now: Instant) -> (Self, Vec<Act>) {
        let state = State::Creating { full_since: None, again_at: None };
        (Self::of(state, lease, keeps_failed, now), vec![Act::Create])
    }

    /// A task whose pod was found.
    pub(super) fn found(lease: Duration, keeps_failed: bool, now: Instant) -> Self {
        let mut life = Self::of(State::Starting { trouble: None }, lease, keeps_failed, now);
        life.heartbeat_at = now;
        life
    }

    fn of(state: State, lease: Duration, keeps_failed: bool, now: Instant) -> Self {
        let heartbeat_every = (lease / 3).max(Duration::from_millis(100));
        Self {
            state,
            heartbeat_every,
            heartbeat_at: now + heartbeat_every,
            deleted_at: None,
            keeps_failed,
            failed: false,
        }
    }

    /// Whether the end has been decided.
    pub(super) fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// Whether its pod has not started yet.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state, State::Creating { .. } | State::Starting { .. })
    }

    /// Whether its pod stays.
    pub(super) fn keeps(&self) -> bool {
        self.keeps_failed && self.failed
    }

    /// The creation was tried.
    pub(super) fn created(&mut self, created: Created, now: Instant) -> Vec<Act> {
        let State::Creating { full_since, .. } = &self.state else { return Vec::new() };
        match created {
            Created::Yes => {
                self.state = State::Starting { trouble: None };
                Vec::new()
            }
            Created::Full(why) => {
                let since = full_since.unwrap_or(now);
                if now.duration_since(since) >= FULL_PATIENCE {
                    return self
                        .close(Some(Act::GiveBack(format!("the cluster has no room for the pod: {why}"))));
                }
                self.state = State::Creating { full_since: Some(since), again_at: Some(now + FULL_PAUSE) };
                Vec::new()
            }
            Created::Refused(why) => self.close(Some(Act::Fail(format!(
                "could not start task containers: error creating task pod: {why}"
            )))),
            Created::Leaving(why) => {
                self.close(Some(Act::GiveBack(format!("the namespace of the pods goes: {why}"))))
            }
            Created::Away(why) => self.close(Some(Act::GiveBack(format!(
                "the API server of the cluster cannot be reached: {why}"
            )))),
        }
    }

    /// The pod was seen. `is_deleted` tells that somebody wants it gone.
    pub(super) fn seen(&mut self, verdict: &Verdict, is_deleted: bool, now: Instant) -> Vec<Act> {
        if matches!(self.state, State::Closing) {
            return Vec::new();
        }
        if is_deleted {
            self.deleted_at.get_or_insert(now);
        }
        match verdict {
            Verdict::Done => self.close(None),
            Verdict::Broken(why) => self.close(Some(Act::Lost(why.clone()))),
            Verdict::Runs => {
                self.state = State::Running;
                Vec::new()
            }
            // A task that runs does not go back: the agent in the pod answers for it.
            Verdict::Waits { .. } if self.state == State::Running => Vec::new(),
            Verdict::Waits { trouble, .. } => {
                // The creation may not have been answered yet.
                let known = match &self.state {
                    State::Starting { trouble } => trouble.clone(),
                    _ => None,
                };
                self.wait(trouble.as_ref(), known, now)
            }
        }
    }

    fn wait(
        &mut self,
        trouble: Option<&Trouble>,
        known: Option<(String, Instant)>,
        now: Instant,
    ) -> Vec<Act> {
        let Some(trouble) = trouble else {
            self.state = State::Starting { trouble: None };
            return Vec::new();
        };
        // A pull that is tried again and again flips between two words for one trouble.
        let since = known.map_or(now, |(_, since)| since);
        if now.duration_since(since) < trouble.patience {
            self.state = State::Starting { trouble: Some((trouble.reason.clone(), since)) };
            return Vec::new();
        }
        let why = format!("could not start task containers: {}: {}", trouble.reason, trouble.message);
        self.close(Some(if trouble.is_final { Act::Fail(why) } else { Act::Lost(why) }))
    }

    /// The pod is gone, and not by us.
    pub(super) fn gone(&mut self) -> Vec<Act> {
        match self.state {
            // A list that is older than the pod does not have it.
            State::Creating { .. } | State::Closing => Vec::new(),
            State::Starting { .. } | State::Running => {
                self.close(Some(Act::Lost("the pod of the task was deleted by somebody else".to_owned())))
            }
        }
    }

    /// The claim is not this runner's any more: it was cancelled, or has lapsed.
    pub(super) fn over(&mut self) -> Vec<Act> {
        match self.state {
            State::Closing | State::Running => Vec::new(),
            _ => self.close(None),
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, verdict: Option<&Verdict>, now: Instant) -> Vec<Act> {
        if let Some(at) = self.deleted_at {
            if !self.is_closing() && now.duration_since(at) >= DELETED_PATIENCE {
                let mut acts = self.close(Some(Act::Lost(
                    "the pod of the task was deleted, and its node does not answer".to_owned(),
                )));
                for act in &mut acts {
                    if let Act::DeletePod { now } = act {
                        *now = true;
                    }
                }
                return acts;
            }
        }
        let mut acts = match (&mut self.state, verdict) {
            (State::Creating { again_at, .. }, _) if again_at.is_some_and(|at| at <= now) => {
                *again_at = None;
                vec![Act::Create]
            }
            // The patience with a trouble runs out without news.
            (State::Starting { trouble: Some(_) }, Some(verdict)) => {
                let verdict = verdict.clone();
                self.seen(&verdict, false, now)
            }
            _ => Vec::new(),
        };
        if self.is_starting() && self.heartbeat_at <= now {
            self.heartbeat_at = now + self.heartbeat_every;
            acts.push(Act::Heartbeat);
        }
        acts
    }

    fn close(&mut self, report: Option<Act>) -> Vec<Act> {
        self.failed = report.is_some();
        self.state = State::Closing;
        let mut acts: Vec<Act> = report.into_iter().collect();
        if !self.keeps() {
            acts.push(Act::DeletePod { now: false });
        }
        acts.extend([Act::DeleteSecrets, Act::Forget]);
        acts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);
    const CLEAN: [Act; 3] = [Act::DeletePod { now: false }, Act::DeleteSecrets, Act::Forget];

    fn waits(reason: Option<(&str, u64, bool)>) -> Verdict {
        let trouble = reason.map(|(reason, seconds, is_final)| Trouble {
            reason: reason.to_owned(),
            message: "m".to_owned(),
            patience: Duration::from_secs(seconds),
            is_final,
        });
        Verdict::Waits { what: String::new(), trouble }
    }

    fn then_clean(first: Act) -> Vec<Act> {
        [first].into_iter().chain(CLEAN).collect()
    }

    #[test]
    fn a_task_that_ends_well_needs_no_word_of_this_runner() {
        let now = Instant::now();
        let (mut life, acts) = TrackedTask::claimed(LEASE, false, now);
        assert_eq!(acts, [Act::Create]);
        assert_eq!(life.created(Created::Yes, now), []);
        assert_eq!(life.tick(None, now + LEASE / 3), [Act::Heartbeat]);
        assert_eq!(life.seen(&Verdict::Runs, false, now), []);
        // From then on the agent in the pod speaks for the task.
        assert_eq!(life.tick(None, now + LEASE * 3), []);
        assert_eq!(life.over(), []);
        // A node that starts anew may take back for a while what it has told.
        assert_eq!(life.seen(&waits(None), false, now), []);
        assert_eq!(life.tick(None, now + LEASE * 3), []);
        assert_eq!(life.over(), []);
        assert_eq!(life.seen(&Verdict::Done, false, now), CLEAN);
        assert_eq!(life.seen(&Verdict::Done, false, now), []);
        assert_eq!(life.gone(), []);
    }

    #[test]
    fn a_fast_pod_may_be_done_before_its_creation_is_answered() {
        let now = Instant::now();
        let (mut life, _) = TrackedTask::claimed(LEASE, false, now);
        assert_eq!(life.seen(&Verdict::Done, false, now), CLEAN);
        assert_eq!(life.created(Created::Yes, now), []);
    }

    #[test]
    fn a_full_quota_is_waited_for_and_a_refusal_is_not() {
        let now = Instant::now();
        let (mut life, _) = TrackedTask::claimed(LEASE, false, now);
        let full = || Created::Full("q".to_owned());
        assert_eq!(life.created(full(), now), []);
        assert_eq!(life.tick(None, now + FULL_PAUSE), [Act::Create, Act::Heartbeat]);
        let late = now + FULL_PATIENCE;
        assert_eq!(
            life.created(full(), late)[0],
            Act::GiveBack("the cluster has no room for the pod: q".to_owned())
        );
        let (mut life, _) = TrackedTask::claimed(LEASE, false, now);
        let why = "the namespace of the pods goes: x".to_owned();
        let leaving = life.created(Created::Leaving("x".to_owned()), now);
        assert_eq!(leaving, then_clean(Act::GiveBack(why)));
        let (mut life, _) = TrackedTask::claimed(LEASE, false, now);
        let why = "could not start task containers: error creating task pod: no".to_owned();
        assert_eq!(life.created(Created::Refused("no".to_owned()), now), then_clean(Act::Fail(why)));
    }

    #[test]
    fn trouble_may_heal_and_ends_the_task_when_it_does_not() {
        let now = Instant::now();
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        let start = || {
            let (mut life, _) = TrackedTask::claimed(LEASE, false, now);
            life.created(Created::Yes, now);
            life
        };
        let mut life = start();
        let (pull, back_off) =
            (waits(Some(("ErrImagePull", 180, true))), waits(Some(("ImagePullBackOff", 180, true))));
        assert_eq!(life.seen(&pull, false, now), []);
        assert_eq!(life.seen(&waits(None), false, later(100)), []);
        assert_eq!(life.seen(&pull, false, later(101)), []);
        assert_eq!(life.seen(&back_off, false, later(200)), []);
        let acts = life.tick(Some(&back_off), later(281));
        assert_eq!(
            acts,
            then_clean(Act::Fail("could not start task containers: ImagePullBackOff: m".to_owned()))
        );
        let mut life = start();
        assert!(matches!(
            life.seen(&waits(Some(("InvalidImageName", 0, true))), false, now)[0],
            Act::Fail(_)
        ));
    }

    #[test]
    fn a_pod_that_disappears_is_no_success() {
        let now = Instant::now();
        let (mut life, _) = TrackedTask::claimed(LEASE, false, now);
        // A list that is older than the pod.
        assert_eq!(life.gone(), []);
        life.created(Created::Yes, now);
        life.seen(&Verdict::Runs, false, now);
        assert!(matches!(life.gone()[0], Act::Lost(_)));

        let mut life = TrackedTask::found(LEASE, false, now);
        life.seen(&Verdict::Runs, true, now);
        assert_eq!(life.tick(None, now + DELETED_PATIENCE - LEASE), []);
        let acts = life.tick(None, now + DELETED_PATIENCE);
        assert!(matches!(acts[0], Act::Lost(_)) && acts[1] == Act::DeletePod { now: true }, "{acts:?}");
    }

    #[test]
    fn a_cancel_before_the_begin_deletes_and_a_failed_pod_may_be_kept() {
        let now = Instant::now();
        let (mut life, _) = TrackedTask::claimed(LEASE, true, now);
        assert_eq!(life.over(), CLEAN);
        let mut life = TrackedTask::found(LEASE, true, now);
        let acts = life.seen(&Verdict::Broken("x".to_owned()), false, now);
        assert_eq!(acts, [Act::Lost("x".to_owned()), Act::DeleteSecrets, Act::Forget]);
    }
}
