//! The loop of the container runner: one thread owns all tasks; claims, the watch, the sweep and the workers tell it what
//! happened, and it hands out what is to be done.

use super::api::{Pod, Seen, watch};
use super::claims::Claiming;
use super::judge::{Verdict, judge};
use super::life::{Act, Created, FULL_PAUSE, TrackedTask};
use super::logs;
use super::manifest::{ALLOCATION, CLASS, MANAGED, MANAGER, TASK, name_of, pod_of};
use super::nodes::{self, WatchedClass};
use super::plane::ClaimedTask;
use super::settings::ClassSettings;
use super::slots::{Slot, Slots};
use super::story::Story;
use super::sweep::{self, Found};
use super::tracked::{Doing, NextAct, Tracked, services_of};
use super::work::{Did, Subject, Tools, WorkOrder};
use crate::http::{Client, retry};
use crate::logging::record;
use crate::protocol::{Secret, TaskId, duration};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads that carry out what is to be done.
const WORKERS: usize = 8;
/// How often time passes for the tasks.
const TICK: Duration = Duration::from_millis(200);
/// Waits before something is tried again: first and longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// Acts that cannot be done for so long are left to the leases of the control plane and the sweep.
const PATIENCE: Duration = Duration::from_secs(600);
/// A pod may be made to wait for the API server this long.
const CREATE_PATIENCE: Duration = Duration::from_secs(120);
/// A pod that was deleted is gone after this long, unless its node is lost.
const LEAVING: Duration = Duration::from_secs(300);
/// The lease of a task that was found: until it is known, an ordinary one.
const FOUND_LEASE: Duration = Duration::from_secs(60);
/// Small threads: none goes deep.
const STACK: usize = 256 * 1024;

/// Event for the loop that owns the tasks.
pub(super) enum LoopEvent {
    /// A task was claimed.
    Claimed(usize, Box<ClaimedTask>, Slot),
    /// The watch has seen something.
    Seen(Seen),
    /// A worker is done.
    Did(String, Did),
    /// The sweep has found something.
    Found(Found),
    /// Signal to stop.
    Stop,
}

struct Work {
    subject: Arc<Subject>,
    job: WorkOrder,
}

/// Loop that owns all tasks.
pub(super) struct Runner {
    tools: Arc<Tools>,
    tasks: HashMap<String, Tracked>,
    /// Pods of failed tasks that stay for inspection.
    kept: HashSet<String>,
    /// Pods that were deleted and may be there for a while, since when.
    leaving: HashMap<String, Instant>,
    /// Tokens of the classes.
    classes: Vec<(ClassSettings, Secret)>,
    slots: Slots,
    stopping: Arc<AtomicBool>,
    claims: Vec<Arc<Client>>,
    events: Receiver<LoopEvent>,
    sender: Sender<LoopEvent>,
    work: Sender<Work>,
    stops: u32,
}

impl Runner {
    /// Starts the threads. The error says what could not be started.
    pub(super) fn start(
        tools: Tools,
        classes: Vec<(ClassSettings, Secret)>,
        signals: impl FnOnce(Sender<LoopEvent>) -> std::io::Result<()>,
    ) -> Result<Self, String> {
        let tools = Arc::new(tools);
        let (sender, events) = channel();
        let (work, jobs) = channel();
        let slots = Slots::new(tools.settings.max_concurrent_tasks);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..WORKERS {
            let (tools, jobs, sender) = (Arc::clone(&tools), Arc::clone(&jobs), sender.clone());
            spawn(&format!("worker {n}"), move || work_on(&tools, &jobs, &sender))?;
        }
        signals(sender.clone()).map_err(|error| format!("cannot listen for signals: {error}"))?;
        let stopping = Arc::new(AtomicBool::new(false));
        Ok(Self {
            tools,
            tasks: HashMap::new(),
            kept: HashSet::new(),
            leaving: HashMap::new(),
            classes,
            slots,
            stopping,
            claims: Vec::new(),
            events,
            sender,
            work,
            stops: 0,
        })
    }

    /// Takes over what was left behind, then claims; runs until it is told to stop and no task is left.
    pub(super) fn run(mut self) -> Result<(), String> {
        let label = format!("{MANAGED}={MANAGER}");
        let found = sweep::once(&self.tools, &mut sweep::Memory::default()).map_err(|fault| {
            format!(
                "cannot look for pods in the namespace `{}`: {fault}",
                self.tools.settings.cluster.namespace
            )
        })?;
        self.found(found);
        let (tools, sender) = (Arc::clone(&self.tools), self.sender.clone());
        spawn("watch", move || {
            watch(&tools.kube, &label, |seen| sender.send(LoopEvent::Seen(seen)).is_ok())
        })?;
        if let Some(gc) = self.tools.settings.gc {
            let (tools, sender) = (Arc::clone(&self.tools), self.sender.clone());
            spawn("sweep", move || {
                sweep::forever(&tools, gc.interval, |found| sender.send(LoopEvent::Found(found)).is_ok())
            })?;
        }
        let gates: Vec<_> = self.classes.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        if let Some(checker) = self.tools.settings.checker {
            let classes = self.classes.iter().zip(&gates);
            let mut classes: Vec<_> =
                classes.map(|((class, _), gate)| WatchedClass::new(class, Arc::clone(gate))).collect();
            // Before the first claim, which would wait for a task otherwise.
            nodes::once(&self.tools.kube, checker, &mut classes);
            let (tools, stopping) = (Arc::clone(&self.tools), Arc::clone(&self.stopping));
            spawn("nodes", move || nodes::forever(&tools.kube, checker, classes, &stopping))?;
        }
        for (n, (class, token)) in self.classes.iter().enumerate() {
            let client = self.tools.plane.sibling().map(Arc::new).map_err(|error| error.to_string())?;
            self.claims.push(Arc::clone(&client));
            let claiming = Claiming {
                token: token.clone(),
                client,
                slots: self.slots.clone(),
                stopping: Arc::clone(&self.stopping),
                is_closed: Arc::clone(&gates[n]),
            };
            let (tools, sender, name) =
                (Arc::clone(&self.tools), self.sender.clone(), class.name.to_string());
            spawn(&format!("claims {n}"), move || {
                claiming.run(&tools.settings, &name, |task, slot| {
                    // Nobody listens when the runner ends; the lease of the task lapses.
                    let _ = sender.send(LoopEvent::Claimed(n, task, slot));
                });
            })?;
        }
        let mut tick_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= tick_at {
                tick_at = now + TICK;
                self.tick(now);
            }
            match self.events.recv_timeout(tick_at.saturating_duration_since(Instant::now())) {
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("all threads of the runner have ended".to_owned());
                }
            }
            if self.stops > 1 || (self.stops == 1 && self.tasks.is_empty()) {
                self.tools.kube.close();
                match self.tasks.len() {
                    0 => record!(Info, api_calls = self.tools.kube.calls(); "stopped as asked"),
                    left => log::warn!(
                        "stopped with {left} tasks in pods: the next agent of this namespace goes on with them"
                    ),
                }
                return Ok(());
            }
        }
    }

    fn hear(&mut self, event: LoopEvent) {
        let now = Instant::now();
        match event {
            LoopEvent::Claimed(class, task, slot) => self.claimed(class, task, slot, now),
            LoopEvent::Seen(Seen::Pod(pod)) => self.seen(&pod, now),
            LoopEvent::Seen(Seen::Gone(pod)) => {
                self.leaving.remove(&pod.metadata.name);
                self.gone(&pod.metadata.name, &pod.metadata.uid, now);
            }
            LoopEvent::Seen(Seen::All(pods)) => {
                let there: HashMap<&str, &str> =
                    pods.iter().map(|pod| (pod.metadata.name.as_str(), pod.metadata.uid.as_str())).collect();
                let missing = self.tasks.iter().filter(|(name, _)| !there.contains_key(name.as_str()));
                let missing: Vec<_> =
                    missing.map(|(name, task)| (name.clone(), task.subject.uid())).collect();
                // A pod whose creation was not answered yet may be younger than the list.
                missing
                    .iter()
                    .filter(|(_, uid)| !uid.is_empty())
                    .for_each(|(name, uid)| self.gone(name, uid, now));
                self.kept.retain(|name| there.contains_key(name.as_str()));
                self.leaving.retain(|name, _| there.contains_key(name.as_str()));
                pods.iter().for_each(|pod| self.seen(pod, now));
            }
            LoopEvent::Seen(Seen::Away(why)) => {
                log::error!("cannot watch the pods, trying on quietly: {why}")
            }
            LoopEvent::Did(name, did) => self.did(&name, did, now),
            LoopEvent::Found(found) => self.found(found),
            LoopEvent::Stop => {
                self.stops += 1;
                if self.stops == 1 {
                    log::info!("draining: no further tasks; {} are in pods", self.tasks.len());
                    self.stopping.store(true, Ordering::Relaxed);
                    self.slots.close();
                    self.claims.iter().for_each(|client| client.close());
                }
            }
        }
    }

    fn claimed(&mut self, class: usize, task: Box<ClaimedTask>, slot: Slot, now: Instant) {
        let Some((class, token)) = self.classes.get(class).cloned() else { return };
        let name = name_of(task.id.as_str(), &task.allocation);
        record!(Info, task_id = task.id, job = task.job_name, pod = name; "claimed a task");
        let subject = Subject {
            name: name.clone(),
            id: task.id.clone(),
            token: Some(task.token.clone()),
            allocation: task.allocation.clone(),
            class_token: token,
            has_login: task.containers.iter().any(|container| container.login.is_some()),
            uid: Mutex::default(),
        };
        let lease = Duration::from_secs(u64::from(task.lease_seconds));
        let (life, acts) = TrackedTask::claimed(lease, self.tools.settings.keeps_pods, now);
        let mut story = Story::default();
        let images: Vec<_> = task.containers.iter().map(|container| container.image.as_str()).collect();
        story.tell(&format!(
            "pod {name} in namespace {}, claimed by {}",
            self.tools.settings.cluster.namespace, self.tools.settings.name
        ));
        story.tell(&format!("images: {}", images.join(", ")));
        let mut tracked = Tracked::new(subject, life, slot, story, now);
        tracked.services = services_of(&task);
        tracked.claimed = Some((class, task));
        tracked.acts.extend(acts);
        self.tasks.insert(name.clone(), tracked);
        self.next(&name, now);
    }

    /// Takes over pods that nobody looks after, and clears away what belongs to no pod.
    fn found(&mut self, found: Found) {
        let now = Instant::now();
        for (pod, token) in found.orphans {
            let meta = &pod.metadata;
            if self.leaves(&meta.name)
                || self.tasks.contains_key(&meta.name)
                || self.kept.contains(&meta.name)
            {
                continue;
            }
            let annotation = |key: &str| meta.annotations.get(key).cloned().unwrap_or_default();
            let class = annotation(CLASS);
            let Some((_, class_token)) =
                self.classes.iter().find(|(known, _)| known.name.to_string() == class)
            else {
                continue;
            };
            let Ok(id) = TaskId::new(annotation(TASK)) else { continue };
            record!(Info, task_id = id, pod = meta.name; "going on with a pod that an agent before has left");
            let subject = Subject {
                name: meta.name.clone(),
                id,
                token,
                allocation: annotation(ALLOCATION),
                class_token: class_token.clone(),
                has_login: true,
                uid: Mutex::new(meta.uid.clone()),
            };
            let life = TrackedTask::found(FOUND_LEASE, self.tools.settings.keeps_pods, now);
            let tracked = Tracked::new(subject, life, self.slots.force(), Story::of_another(), now);
            self.tasks.insert(meta.name.clone(), tracked);
            self.seen(&pod, now);
        }
        for pod in found.old {
            if !self.leaves(&pod.metadata.name) && !self.tasks.contains_key(&pod.metadata.name) {
                log::warn!(
                    "deleting the pod `{}`: it is older than `gc.threshold`, and no agent looks after it",
                    pod.metadata.name
                );
                self.clear(&pod.metadata.name, &pod.metadata.uid, Act::DeletePod { now: false });
            }
        }
        for secret in found.secrets {
            if !self.tasks.contains_key(pod_of(&secret)) {
                log::info!("deleting the secret `{secret}`, which belongs to no pod");
                self.clear(&secret, "", Act::DeleteSecrets);
            }
        }
    }

    /// Whether a pod was deleted just now. A node that does not end one is asked again in time, and then not asked any more.
    fn leaves(&self, name: &str) -> bool {
        self.leaving.get(name).is_some_and(|since| since.elapsed() < LEAVING)
    }

    /// Deletes something that belongs to no task, once: the next sweep finds what is left.
    fn clear(&self, name: &str, uid: &str, act: Act) {
        let Ok(id) = TaskId::new("none") else { return };
        let subject = Subject {
            name: name.to_owned(),
            id,
            token: None,
            allocation: String::new(),
            class_token: Secret::new(""),
            has_login: false,
            uid: Mutex::new(uid.to_owned()),
        };
        // Workers live as long as this.
        let _ = self.work.send(Work { subject: Arc::new(subject), job: WorkOrder::Act(act) });
    }

    fn seen(&mut self, pod: &Pod, now: Instant) {
        let Some(task) = self.tasks.get_mut(&pod.metadata.name) else { return };
        let uid = task.subject.uid();
        if uid.is_empty() {
            task.subject.is(&pod.metadata.uid);
        } else if uid != pod.metadata.uid {
            return;
        }
        let verdict = judge(pod);
        match &verdict {
            Verdict::Waits { what, .. } => task.story.tell_news(what),
            Verdict::Runs => task.story.tell_news(&format!("running on node {}", pod.spec.node_name)),
            Verdict::Done => {}
            Verdict::Broken(why) => task.story.tell_news(why),
        }
        if verdict == Verdict::Runs {
            for service in std::mem::take(&mut task.services) {
                let (tools, subject) = (Arc::clone(&self.tools), Arc::clone(&task.subject));
                let stop = Arc::clone(&task.follows.0);
                let started = spawn("service", move || logs::follow(&tools, &subject, &service, &stop));
                if let Err(why) = started {
                    record!(Warn, task_id = task.subject.id; "the output of a service is not followed: {why}");
                }
            }
        }
        let acts = task.life.seen(&verdict, pod.metadata.deletion_timestamp.is_some(), now);
        if !task.life.is_starting() {
            task.story.end(matches!(verdict, Verdict::Broken(_)));
        }
        task.verdict = Some(verdict);
        task.acts.extend(acts);
        let name = pod.metadata.name.clone();
        self.next(&name, now);
    }

    fn gone(&mut self, name: &str, uid: &str, now: Instant) {
        let Some(task) = self.tasks.get_mut(name).filter(|task| task.subject.uid() == uid) else { return };
        let acts = task.life.gone();
        task.acts.extend(acts);
        self.next(name, now);
    }

    fn tick(&mut self, now: Instant) {
        let names: Vec<String> = self.tasks.keys().cloned().collect();
        for name in names {
            if let Some(task) = self.tasks.get_mut(&name) {
                let acts = task.life.tick(task.verdict.as_ref(), now);
                for act in acts {
                    // Acts that wait for a worker are not asked for twice.
                    if !task.acts.contains(&act) {
                        task.acts.push_back(act);
                    }
                }
            }
            self.next(&name, now);
        }
    }

    /// Hands out the next thing to do for a task, if nothing is being done for it.
    fn next(&mut self, name: &str, now: Instant) {
        let Some(task) = self.tasks.get_mut(name) else { return };
        match task.next(now) {
            NextAct::Nothing => {}
            NextAct::Forget => {
                record!(Info, task_id = task.subject.id; "nothing is left of the task here");
                match task.life.keeps() {
                    true => drop(self.kept.insert(name.to_owned())),
                    false => drop(self.leaving.insert(name.to_owned(), now)),
                }
                self.tasks.remove(name);
            }
            NextAct::Work(job) => {
                let subject = Arc::clone(&task.subject);
                // Workers live as long as this.
                let _ = self.work.send(Work { subject, job });
            }
        }
    }

    fn did(&mut self, name: &str, did: Did, now: Instant) {
        let Some(task) = self.tasks.get_mut(name) else { return };
        let Some((doing, since, tries)) = task.current.take() else { return };
        let mut acts = Vec::new();
        match did {
            Did::Done => {}
            Did::Over => {
                if doing == Doing::Act(Act::Heartbeat) {
                    task.story
                        .tell_news("the task does not begin: it was cancelled, or its claim has lapsed");
                    acts = task.life.over();
                }
            }
            Did::Created(created) => {
                if created == Created::Yes {
                    record!(Info, task_id = task.subject.id, milliseconds = task.claimed_at.elapsed().as_millis(); "created the pod");
                    task.claimed = None;
                } else if let Created::Full(why)
                | Created::Refused(why)
                | Created::Leaving(why)
                | Created::Away(why) = &created
                {
                    task.story.tell_news(why);
                    record!(Warn, task_id = task.subject.id; "the pod cannot be created: {why}");
                }
                if matches!(created, Created::Full(_) | Created::Leaving(_)) {
                    self.slots.pause(now + FULL_PAUSE);
                }
                acts = task.life.created(created, now);
            }
            Did::LacksRight(why) => {
                log::error!(
                    "the account of this agent lacks a right, claims pause: {why} (`runlet container --check` lists what is missing)"
                );
                self.slots.pause(now + FULL_PAUSE);
                acts = task.life.created(Created::Refused(why), now);
            }
            Did::Said(stored) => task.story.said(stored),
            Did::Events(events) => {
                events.into_iter().for_each(|(key, text)| task.story.tell_event(key, &text))
            }
            Did::Again(why, after) => {
                let age = now.duration_since(since);
                match doing {
                    Doing::Act(Act::Create) if age > CREATE_PATIENCE => {
                        acts = task.life.created(Created::Away(why), now)
                    }
                    // The lease of the claim says what becomes of it.
                    Doing::Act(Act::Heartbeat) | Doing::Events => {}
                    Doing::Say if task.life.is_closing() && age > AGAIN.1 => task.story.said(None),
                    _ if age > PATIENCE => {
                        record!(Error, task_id = task.subject.id; "given up after {}: {why}", duration::format(age));
                    }
                    doing => {
                        record!(Debug, task_id = task.subject.id; "trying again: {why}");
                        let window = (AGAIN.0 * 2u32.pow(tries.min(6))).min(AGAIN.1);
                        task.again_at = Some(now + window.mul_f64(retry::random()).max(after.min(AGAIN.1)));
                        task.current = Some((doing, since, tries + 1));
                    }
                }
            }
        }
        task.acts.extend(acts);
        self.next(name, now);
    }
}

fn work_on(tools: &Tools, jobs: &Mutex<Receiver<Work>>, done: &Sender<LoopEvent>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { subject, job }) = next else { return };
        let did = tools.work(&subject, &job);
        if done.send(LoopEvent::Did(subject.name.clone(), did)).is_err() {
            return;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    thread.spawn(work).map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}
