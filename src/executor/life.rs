//! The agent's half of the life of a task. No IO: what happened comes in together with the time since the start
//! of the system, and what may be done comes out.
//!
//! ```text
//!  preparing --ready--> beginning --begun--> running ------- steps ended ------> delivering --told--> over
//!      |                    |                   |                                 ^    ^
//!      | given back         | refused           | no answer for the budget,       |    |
//!      v                    v                   | or ended there, late            |    | a day has passed:
//!    over                 over                  v                                 |    | over
//!                                            fenced ------- steps ended ----------+
//! ```
//!
//! No step runs before the beginning is acknowledged, and none behind the fence. What the steps have said goes on
//! its way all the same, for a day: a task that ended by silence still takes it.

use std::time::Duration;

/// Time that stopping the steps takes at most, from the fence to the end of the budget.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// How long output and events are delivered after the steps.
const DELIVERY: Duration = Duration::from_secs(24 * 3600);
/// How long the first answer of the control plane may take. Before it nothing shows that this process can reach it
/// at all: behind a prefix it may lack the certificates or the proxy that the runner has.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long a delivery goes on when the agent is told to stop. Less than the runner waits before it kills.
const HURRY: Duration = Duration::from_secs(20);

/// The times that the claim decides.
#[derive(Clone, Copy, Debug)]
pub struct LifeLimits {
    /// How long the task may be out of reach.
    pub budget: Duration,
    /// How long it may take to begin.
    pub begin: Duration,
}

/// Phase of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The host is made ready. Nothing binds.
    Preparing,
    /// The control plane is asked whether the steps may run.
    Beginning,
    /// The steps run.
    Running,
    /// No further step runs, and what runs is stopped.
    Fenced,
    /// The steps have ended; events, output and the end are on their way.
    Delivering,
    /// The agent sends nothing more.
    Over,
}

/// The life of one task.
#[derive(Clone, Debug)]
pub struct Life {
    phase: Phase,
    limits: LifeLimits,
    started: Duration,
    answered: Option<Duration>,
    /// A call for the beginning was on its way and no answer came: the task may have begun.
    may_have_begun: bool,
    deliver_until: Duration,
}

impl Life {
    /// A task that was just claimed.
    pub fn new(limits: LifeLimits, now: Duration) -> Self {
        Self {
            phase: Phase::Preparing,
            limits,
            started: now,
            answered: None,
            may_have_begun: false,
            deliver_until: Duration::MAX,
        }
    }

    /// The phase at this time.
    pub fn phase(&mut self, now: Duration) -> Phase {
        match self.phase {
            Phase::Running if now >= self.fence() => self.fenced(now),
            Phase::Fenced | Phase::Delivering if now >= self.deliver_until => self.phase = Phase::Over,
            _ => {}
        }
        self.phase
    }

    /// Whether a step may begin or go on.
    pub fn steps_may_run(&mut self, now: Duration) -> bool {
        self.phase(now) == Phase::Running
    }

    /// Whether calls for the task are worth making.
    pub fn is_over(&mut self, now: Duration) -> bool {
        self.phase(now) == Phase::Over
    }

    /// The control plane answered a call for this task, whatever it said.
    pub fn answered(&mut self, now: Duration) {
        // A fence that was reached stays: the steps are being stopped.
        self.phase(now);
        self.answered = Some(self.answered.map_or(now, |at| at.max(now)));
    }

    /// The host is ready: the control plane may be asked for the beginning.
    pub fn ready(&mut self) {
        if self.phase == Phase::Preparing {
            self.phase = Phase::Beginning;
        }
    }

    /// The beginning is acknowledged.
    pub fn begun(&mut self) {
        if self.phase == Phase::Beginning {
            self.phase = Phase::Running;
        }
    }

    /// A call for the beginning may have been heard, although no answer came. Whoever gives up now gives up a task
    /// that has begun, and nobody may begin it again.
    pub fn may_have_begun(&mut self) {
        self.may_have_begun = true;
    }

    /// Why to stop asking for the beginning, if there is a reason. A task that may have begun is out of reach like
    /// one that has, so the budget counts for it.
    pub fn begin_is_late(&self, now: Duration) -> Option<&'static str> {
        let waited = now.saturating_sub(self.started);
        let budget = if self.may_have_begun { self.limits.budget } else { Duration::ZERO };
        if waited >= self.limits.begin.max(budget) {
            return Some("the control plane did not let the task begin in time");
        }
        if self.answered.is_none()
            && !self.may_have_begun
            && waited >= FIRST_ANSWER.min(self.limits.begin / 2)
        {
            return Some("the control plane cannot be reached from the task agent");
        }
        None
    }

    /// The task has ended at the control plane. `late`: what its steps have said is still taken there.
    pub fn ended_there(&mut self, late: bool, now: Duration) {
        match self.phase(now) {
            Phase::Running if late => self.fenced(now),
            Phase::Fenced | Phase::Delivering if late => {}
            _ => self.phase = Phase::Over,
        }
    }

    /// All steps have ended.
    pub fn steps_ended(&mut self, now: Duration) {
        match self.phase(now) {
            Phase::Running => {
                self.phase = Phase::Delivering;
                self.deliver_until = now + DELIVERY;
            }
            Phase::Fenced => self.phase = Phase::Delivering,
            _ => {}
        }
    }

    /// The control plane has ended the task because it was cancelled, and the steps have ended: nobody waits for what they
    /// have said, and a runner that could do other work waits no longer for it than for an answer.
    pub fn cancelled_there(&mut self, now: Duration) {
        if self.phase(now) == Phase::Delivering {
            self.deliver_until = self.deliver_until.min(now + self.limits.budget);
        }
    }

    /// The agent is told to stop: a delivery is given a last moment.
    pub fn told_to_stop(&mut self, now: Duration) {
        if self.phase(now) == Phase::Delivering {
            self.deliver_until = self.deliver_until.min(now + HURRY);
        }
    }

    /// The outcome is reported, or given up.
    pub fn over(&mut self) {
        self.phase = Phase::Over;
    }

    /// When this changes by the clock alone, if it does.
    pub fn next_change(&self) -> Option<Duration> {
        match self.phase {
            Phase::Running => Some(self.fence()),
            Phase::Fenced | Phase::Delivering => Some(self.deliver_until),
            Phase::Preparing | Phase::Beginning | Phase::Over => None,
        }
    }

    /// How long the control plane has not answered.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.answered.unwrap_or(self.started))
    }

    /// The steps are stopped at this time unless an answer comes.
    fn fence(&self) -> Duration {
        let budget = self.limits.budget;
        // A budget that is hardly longer than stopping takes is shared.
        self.answered.unwrap_or(self.started) + budget.saturating_sub(STOP_GRACE.min(budget / 2))
    }

    fn fenced(&mut self, now: Duration) {
        self.phase = Phase::Fenced;
        self.deliver_until = now + DELIVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::seeded;
    use proptest::prelude::*;

    const LIMITS: LifeLimits =
        LifeLimits { budget: Duration::from_secs(900), begin: Duration::from_secs(600) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    fn running() -> Life {
        let mut life = Life::new(LIMITS, at(0));
        life.ready();
        life.answered(at(10));
        life.begun();
        life
    }

    #[test]
    fn steps_run_between_the_beginning_and_the_fence() {
        let mut life = Life::new(LIMITS, at(0));
        assert!(!life.steps_may_run(at(0)));
        life.begun();
        assert!(!life.steps_may_run(at(0)), "it was not asked for");
        let mut life = running();
        assert!(life.steps_may_run(at(10)));
        assert_eq!(life.next_change(), Some(at(880)));
        assert!(life.steps_may_run(at(879)));
        life.answered(at(879));
        assert!(life.steps_may_run(at(1748)));
        assert_eq!(life.phase(at(1749)), Phase::Fenced);
        life.answered(at(1750));
        assert!(!life.steps_may_run(at(1750)), "a fence stays");
        assert_eq!(life.silence(at(1760)), Duration::from_secs(10));
        // Nobody has looked at the clock between the fence and the answer.
        let mut life = running();
        life.answered(at(880));
        assert!(!life.steps_may_run(at(880)), "the answer came too late");
    }

    #[test]
    fn what_a_cancelled_task_has_said_is_delivered_for_its_budget() {
        let mut life = running();
        life.cancelled_there(at(15));
        assert_eq!(life.phase(at(20)), Phase::Running, "its steps are still to be stopped");
        life.steps_ended(at(20));
        life.cancelled_there(at(30));
        life.ended_there(true, at(30));
        assert_eq!(life.phase(at(929)), Phase::Delivering);
        assert_eq!(life.phase(at(930)), Phase::Over);
    }

    #[test]
    fn what_was_said_is_delivered_for_a_day() {
        let mut life = running();
        life.phase(at(880));
        life.steps_ended(at(890));
        assert_eq!(life.phase(at(890)), Phase::Delivering);
        assert!(!life.is_over(at(880 + 24 * 3600 - 1)));
        assert!(life.is_over(at(880 + 24 * 3600)));
        let mut life = running();
        life.steps_ended(at(100));
        life.told_to_stop(at(200));
        assert!(!life.is_over(at(219)) && life.is_over(at(220)));
    }

    #[test]
    fn a_task_that_ended_there_is_delivered_only_when_that_is_taken() {
        let mut life = running();
        life.ended_there(true, at(20));
        assert_eq!(life.phase(at(20)), Phase::Fenced);
        life.ended_there(false, at(30));
        assert!(life.is_over(at(30)));
        let mut life = Life::new(LIMITS, at(0));
        life.ready();
        life.ended_there(true, at(1));
        assert!(life.is_over(at(1)), "nothing was said yet");
    }

    #[test]
    fn a_beginning_is_not_waited_for_for_ever() {
        let mut life = Life::new(LIMITS, at(0));
        life.ready();
        assert_eq!(life.begin_is_late(at(19)), None);
        assert!(life.begin_is_late(at(20)).is_some_and(|why| why.contains("cannot be reached")));
        life.answered(at(19));
        assert_eq!(life.begin_is_late(at(599)), None);
        assert!(life.begin_is_late(at(600)).is_some_and(|why| why.contains("in time")));
    }

    #[test]
    fn a_beginning_that_may_have_been_heard_is_asked_for_as_long_as_the_task_may_be_out_of_reach() {
        let mut life = Life::new(LIMITS, at(0));
        life.ready();
        life.may_have_begun();
        assert_eq!(life.begin_is_late(at(899)), None);
        assert!(life.begin_is_late(at(900)).is_some());
        assert!(!life.steps_may_run(at(100)), "nobody has said so");
        life.answered(at(100));
        life.begun();
        assert!(life.steps_may_run(at(100)));
    }

    #[test]
    fn short_times_are_shared_and_words_that_come_again_change_nothing() {
        let limits = LifeLimits { budget: Duration::from_secs(40), begin: Duration::from_secs(10) };
        let mut life = Life::new(limits, at(0));
        life.ready();
        assert_eq!(life.begin_is_late(at(4)), None);
        assert!(life.begin_is_late(at(5)).is_some_and(|why| why.contains("cannot be reached")));
        life.answered(at(4));
        life.begun();
        life.ready();
        assert_eq!(life.next_change(), Some(at(24)), "stopping has the second half of the budget");
        // Answers of several threads come in any order.
        life.answered(at(20));
        life.answered(at(10));
        assert_eq!((life.silence(at(30)), life.phase(at(39))), (Duration::from_secs(10), Phase::Running));
        assert_eq!(life.phase(at(40)), Phase::Fenced);
        life.told_to_stop(at(41));
        assert_eq!(life.next_change(), Some(at(40) + DELIVERY), "the steps are being stopped already");
        assert!(life.clone().is_over(at(40) + DELIVERY), "steps that do not end are not waited for");
        life.steps_ended(at(50));
        life.told_to_stop(at(60));
        life.told_to_stop(at(70));
        assert_eq!(life.next_change(), Some(at(80)));
    }

    /// The control plane's half, as far as it matters here: it grants one beginning, and ends a task that it has
    /// not answered for a lease and the budget.
    struct Plane {
        begun: bool,
        answered: Option<Duration>,
        ended: Option<Duration>,
    }

    const LEASE: Duration = Duration::from_secs(60);

    #[derive(Clone, Debug)]
    enum Happens {
        Wait(u64),
        Ready,
        /// A call for the beginning; whether it arrives, and whether its answer does.
        Begin(bool, bool),
        /// Any other call; whether it arrives, and whether its answer does.
        Call(bool, bool),
        EndThere,
        /// An answer says that the task has ended and takes nothing any more.
        OverThere,
        /// An answer says that the cancelled task has ended with its steps.
        CancelledThere,
        StepsEnded,
        ToldToStop,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            6 => (1..500u64).prop_map(Happens::Wait),
            2 => Just(Happens::Ready),
            4 => (any::<bool>(), any::<bool>()).prop_map(|(there, back)| Happens::Begin(there, back)),
            8 => (any::<bool>(), any::<bool>()).prop_map(|(there, back)| Happens::Call(there, back)),
            2 => Just(Happens::EndThere),
            1 => Just(Happens::OverThere),
            2 => Just(Happens::CancelledThere),
            2 => Just(Happens::StepsEnded),
            2 => Just(Happens::ToldToStop),
        ]
    }

    #[test]
    fn no_step_runs_before_the_beginning_or_behind_the_fence() {
        seeded::check(&prop::collection::vec(happens(), 0..40), |story| {
            let mut now = at(0);
            let mut life = Life::new(LIMITS, now);
            let mut plane = Plane { begun: false, answered: None, ended: None };
            let (mut acknowledged, mut stopped, mut heard, mut asked) = (false, false, false, false);
            for event in story {
                let mut answer = |plane: &mut Plane, life: &mut Life, back: bool| {
                    // The task ends by the clock whatever arrives later.
                    if plane.begun && plane.answered.is_some_and(|at| now >= at + LEASE + LIMITS.budget) {
                        plane.ended.get_or_insert(now);
                    }
                    if plane.ended.is_none() {
                        plane.answered = Some(now);
                    }
                    if back {
                        heard = true;
                        life.answered(now);
                        if plane.ended.is_some() {
                            life.ended_there(true, now);
                        }
                    }
                };
                match event {
                    Happens::Wait(seconds) => now += Duration::from_secs(seconds),
                    Happens::Ready => life.ready(),
                    Happens::Begin(there, back) if life.phase(now) == Phase::Beginning => {
                        if there {
                            plane.begun |= plane.ended.is_none();
                            answer(&mut plane, &mut life, back);
                        }
                        if there && back && plane.ended.is_none() {
                            life.begun();
                            acknowledged = true;
                        } else if !(there && back) {
                            life.may_have_begun();
                            asked = true;
                        }
                    }
                    Happens::Call(true, back) if !life.is_over(now) => answer(&mut plane, &mut life, back),
                    Happens::EndThere => {
                        plane.ended.get_or_insert(now);
                    }
                    Happens::OverThere => {
                        plane.ended.get_or_insert(now);
                        life.ended_there(false, now);
                        prop_assert!(life.is_over(now), "what is not taken is not delivered");
                    }
                    Happens::CancelledThere => {
                        let before = life.phase(now);
                        life.cancelled_there(now);
                        prop_assert_eq!(life.phase(now), before, "it stops nothing");
                        let ends = life.next_change();
                        prop_assert!(
                            before != Phase::Delivering || ends.is_some_and(|at| at <= now + LIMITS.budget)
                        );
                    }
                    Happens::StepsEnded => life.steps_ended(now),
                    Happens::ToldToStop => life.told_to_stop(now),
                    Happens::Begin(..) | Happens::Call(..) => {}
                }
                let runs = life.steps_may_run(now);
                prop_assert!(!runs || acknowledged, "a step before the beginning");
                prop_assert!(!(runs && stopped), "a step after the steps were stopped");
                stopped |= matches!(life.phase(now), Phase::Fenced | Phase::Delivering | Phase::Over);
                if runs {
                    // A task that replaces this one begins after this.
                    let replaced = plane.answered.map(|at| at + LEASE + LIMITS.budget);
                    prop_assert!(
                        replaced.is_none_or(|at| now + STOP_GRACE <= at),
                        "it overlaps what replaces it"
                    );
                }
                let waited = now - at(0);
                let longest = if asked { LIMITS.begin.max(LIMITS.budget) } else { LIMITS.begin };
                let is_unheard = !heard && !asked && waited >= FIRST_ANSWER;
                prop_assert_eq!(life.begin_is_late(now).is_some(), waited >= longest || is_unheard);
                let changes = matches!(life.phase(now), Phase::Running | Phase::Fenced | Phase::Delivering);
                prop_assert_eq!(life.next_change().is_some(), changes);
            }
            Ok(())
        });
    }
}
