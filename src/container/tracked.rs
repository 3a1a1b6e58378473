//! A task of this runner with everything around its life: what is to be done for it, one thing after the other.

use super::judge::Verdict;
use super::life::{Act, TrackedTask};
use super::logs::ServiceContainer;
use super::plane::ClaimedTask;
use super::settings::ClassSettings;
use super::slots::Slot;
use super::story::Story;
use super::work::{Subject, WorkOrder};
use crate::executor::output::redactor::Secrets;
use crate::protocol::Secret;
use crate::protocol::limits::RECORDS_BESIDE;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A pod that has not started by then is asked about by its events, and again after as long.
const EVENTS_EVERY: Duration = Duration::from_secs(5);

/// A task of this runner.
pub(super) struct Tracked {
    pub(super) subject: Arc<Subject>,
    pub(super) life: TrackedTask,
    /// Kept until the pod is there.
    pub(super) claimed: Option<(ClassSettings, Box<ClaimedTask>)>,
    pub(super) claimed_at: Instant,
    pub(super) acts: VecDeque<Act>,
    /// Act of a worker, since when, and how often it was tried.
    pub(super) current: Option<(Doing, Instant, u32)>,
    /// Tried again from then on.
    pub(super) again_at: Option<Instant>,
    pub(super) verdict: Option<Verdict>,
    events_at: Instant,
    pub(super) story: Story,
    /// Services whose output is to be followed, until it is.
    pub(super) services: Vec<ServiceContainer>,
    /// Set when nobody wants that any more.
    pub(super) follows: Following,
    _slot: Slot,
}

/// Ends what follows the services of a task, with the value.
#[derive(Default)]
pub(super) struct Following(pub(super) Arc<AtomicBool>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The thing that a worker does for a task.
#[derive(Clone, PartialEq)]
pub(super) enum Doing {
    Act(Act),
    Say,
    Events,
}

/// Next act for a task.
pub(super) enum NextAct {
    /// No act, or one is being done.
    Nothing,
    /// An order for a worker.
    Work(WorkOrder),
    /// Forget the task: nothing is left of it.
    Forget,
}

impl Tracked {
    /// A task with nothing to do yet.
    pub(super) fn new(subject: Subject, life: TrackedTask, slot: Slot, story: Story, now: Instant) -> Self {
        Self {
            subject: Arc::new(subject),
            life,
            claimed: None,
            claimed_at: now,
            acts: VecDeque::new(),
            current: None,
            again_at: None,
            verdict: None,
            events_at: now + EVENTS_EVERY,
            story,
            services: Vec::new(),
            follows: Following::default(),
            _slot: slot,
        }
    }

    /// The next thing to do. What the job is told comes after what has to be done, and before the task is forgotten.
    pub(super) fn next(&mut self, now: Instant) -> NextAct {
        if self.again_at.is_some_and(|at| at > now) {
            return NextAct::Nothing;
        }
        let doing = match &self.current {
            Some(_) if self.again_at.is_none() => return NextAct::Nothing,
            Some((doing, _, _)) => doing.clone(),
            None => match self.acts.pop_front() {
                Some(Act::Forget) if self.story.is_unsaid() => {
                    self.acts.push_front(Act::Forget);
                    Doing::Say
                }
                Some(Act::Forget) => return NextAct::Forget,
                Some(act) => Doing::Act(act),
                None if self.story.is_unsaid() => Doing::Say,
                None if self.life.is_starting() && self.events_at <= now => {
                    self.events_at = now + EVENTS_EVERY;
                    Doing::Events
                }
                None => return NextAct::Nothing,
            },
        };
        self.again_at = None;
        let (since, tries) = self.current.take().map_or((now, 0), |(_, since, tries)| (since, tries));
        let job = match &doing {
            Doing::Act(Act::Create) => match &self.claimed {
                Some((class, claimed)) => WorkOrder::Create(class.clone(), claimed.clone()),
                None => WorkOrder::Act(Act::Create),
            },
            Doing::Act(act) => WorkOrder::Act(act.clone()),
            Doing::Events => WorkOrder::Events,
            Doing::Say => {
                let (offset, text, record) = self.story.unsaid();
                WorkOrder::Say { offset, text, record }
            }
        };
        self.current = Some((doing, since, tries));
        NextAct::Work(job)
    }
}

/// The services of a task, with what is to be masked in their output: what a task agent masks.
pub(super) fn services_of(task: &ClaimedTask) -> Vec<ServiceContainer> {
    let services = task.containers.iter().enumerate().skip(1);
    let services =
        services.filter_map(|(n, container)| Some((u32::try_from(n).ok()?, container.image.clone())));
    let services: Vec<_> = services.filter(|(n, _)| *n < RECORDS_BESIDE).collect();
    if services.is_empty() {
        return Vec::new();
    }
    let logins = task.containers.iter().filter_map(|container| container.login.as_ref());
    let mut further: Vec<Secret> = logins.map(|login| login.password.clone()).collect();
    further.extend(task.mask.iter().cloned());
    further.push(task.token.clone());
    let secrets = Secrets::new(&task.variables, &further);
    services.into_iter().map(|(n, image)| ServiceContainer { n, image, secrets: secrets.clone() }).collect()
}
