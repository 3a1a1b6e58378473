//! The acts of tasks, carried out: each is one try, on one of a few threads. What fails and may pass comes back as such.

use super::api::{ClusterFault, Kube};
use super::life::{Act, Created};
use super::manifest::{self, ALLOCATION, login_name};
use super::plane::{self, ClaimedTask, Heard};
use super::settings::{ClassSettings, ContainerSettings};
use crate::http::{Client, Error};
use crate::logging::record;
use crate::protocol::{Beside, Secret, TaskId};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Connections and settings of the workers.
pub(super) struct Tools {
    pub(super) settings: ContainerSettings,
    pub(super) kube: Kube,
    /// Client for everything but claims.
    pub(super) plane: Client,
    /// Image of the init container.
    pub(super) init_image: String,
    /// Further authorities of the control plane, as PEM.
    pub(super) ca: Option<String>,
}

/// A task, as its acts need it.
pub(super) struct Subject {
    /// Name of its pod and secret.
    pub(super) name: String,
    pub(super) id: TaskId,
    /// Unknown of a task whose secret is gone.
    pub(super) token: Option<Secret>,
    pub(super) allocation: String,
    pub(super) class_token: Secret,
    /// Whether it has a secret of logins.
    pub(super) has_login: bool,
    /// Uid of the pod, once it is there.
    pub(super) uid: Mutex<String>,
}

impl Subject {
    pub(super) fn uid(&self) -> String {
        self.uid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is(&self, uid: &str) {
        uid.clone_into(&mut self.uid.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Order to a worker.
pub(super) enum WorkOrder {
    Act(Act),
    /// Create, with what is needed for that.
    Create(ClassSettings, Box<ClaimedTask>),
    /// Write into the job log at an offset, and say what became of the record.
    Say {
        offset: u64,
        text: String,
        record: Option<Beside>,
    },
    /// Look for events about the pod.
    Events,
}

/// Outcome of an order.
pub(super) enum Did {
    /// The order is done.
    Done,
    /// The task is not this runner's any more.
    Over,
    /// The order failed, and may succeed later; a sentence for people, and how long to wait at least.
    Again(String, Duration),
    /// Outcome of a creation.
    Created(Created),
    /// The account lacks a right; said of a creation, which was refused for it.
    LacksRight(String),
    /// Bytes of the log that are stored; `None` when the control plane takes no more.
    Said(Option<u64>),
    /// Events, each with a key that changes when it is repeated.
    Events(Vec<(String, String)>),
}

impl Tools {
    /// Carries out an order, and says what came of it.
    pub(super) fn work(&self, subject: &Subject, job: &WorkOrder) -> Did {
        match job {
            WorkOrder::Create(class, task) => self.create(subject, class, task),
            WorkOrder::Act(act) => self.act(subject, act),
            WorkOrder::Say { offset, text, record } => self.say(subject, *offset, text, record.as_ref()),
            WorkOrder::Events => self.events(subject),
        }
    }

    fn act(&self, subject: &Subject, act: &Act) -> Did {
        let heard = match act {
            Act::Create | Act::Forget => return Did::Done,
            Act::Heartbeat => match &subject.token {
                None => return Did::Done,
                Some(token) => plane::heartbeat(&self.plane, &subject.id, token),
            },
            Act::GiveBack(why) => match &subject.token {
                Some(token) => match plane::give_back(&self.plane, &subject.id, token, why, Duration::ZERO) {
                    // The task may have begun after all, in a pod whose creation was not answered.
                    Ok(Heard::Over) => self.lost(subject, why),
                    heard => heard,
                },
                None => self.lost(subject, why),
            },
            Act::Fail(why) => match &subject.token {
                Some(token) => plane::fail(&self.plane, token, &subject.allocation, why),
                None => self.lost(subject, why),
            },
            Act::Lost(why) => self.lost(subject, why),
            Act::DeletePod { now } => return done(self.kube.delete_pod(&subject.name, &subject.uid(), *now)),
            Act::DeleteSecrets => {
                let second = if subject.has_login {
                    self.kube.delete_secret(&login_name(&subject.name))
                } else {
                    Ok(())
                };
                return done(second.and_then(|()| self.kube.delete_secret(&subject.name)));
            }
        };
        match heard {
            Ok(Heard::Yes) => Did::Done,
            Ok(Heard::Over) => Did::Over,
            Err(error) if error.is_retryable() => Did::Again(error.to_string(), Duration::ZERO),
            Err(error) => {
                record!(Error, task_id = subject.id; "the control plane refuses a report: {error}");
                Did::Done
            }
        }
    }

    fn lost(&self, subject: &Subject, why: &str) -> Result<Heard, Error> {
        record!(Warn, task_id = subject.id; "the pod of the task is lost: {why}");
        plane::lost(&self.plane, &subject.class_token, &subject.id, &subject.allocation, why)
    }

    fn create(&self, subject: &Subject, class: &ClassSettings, task: &ClaimedTask) -> Did {
        let objects =
            match manifest::objects(&self.settings, class, &self.init_image, task, self.ca.as_deref()) {
                Ok(objects) => objects,
                Err(why) => return Did::Created(Created::Refused(why)),
            };
        let secrets = objects.login.iter().chain([&objects.secret]);
        for secret in secrets {
            match self.kube.create_secret(secret) {
                // The secret was created before, and the answer was lost.
                Err(fault) if fault.already_exists() => {}
                Err(fault) => return refused(&fault),
                Ok(_) => {}
            }
        }
        let pod = match self.kube.create_pod(&objects.pod) {
            Err(fault) if fault.already_exists() => self.kube.pod(&objects.name),
            pod => pod,
        };
        match pod {
            Ok(pod) if pod.metadata.annotations.get(ALLOCATION) != Some(&subject.allocation) => {
                Did::Created(Created::Refused(format!("there is another pod of the name `{}`", objects.name)))
            }
            Ok(pod) => {
                subject.is(&pod.metadata.uid);
                Did::Created(Created::Yes)
            }
            Err(fault) => refused(&fault),
        }
    }

    fn say(&self, subject: &Subject, offset: u64, text: &str, record: Option<&Beside>) -> Did {
        let Some(token) = &subject.token else { return Did::Said(None) };
        if let Some(record) = record {
            match plane::beside(&self.plane, &subject.id, token, 0, record) {
                Ok(Heard::Yes) => {}
                Ok(Heard::Over) => return Did::Said(None),
                Err(error) => return Did::Again(error.to_string(), Duration::ZERO),
            }
        }
        match plane::output(&self.plane, &subject.id, token, 0, offset, text.as_bytes()) {
            Ok(stored) => Did::Said(stored),
            Err(error) => Did::Again(error.to_string(), Duration::ZERO),
        }
    }

    fn events(&self, subject: &Subject) -> Did {
        let uid = subject.uid();
        if uid.is_empty() {
            return Did::Events(Vec::new());
        }
        match self.kube.events(&uid) {
            Ok(list) => {
                let mut seen = HashSet::new();
                let events = list.items.into_iter().map(|event| {
                    (
                        format!("{}/{}", event.metadata.uid, event.metadata.resource_version),
                        format!("{} {}: {}", event.kind, event.reason, event.message.trim()),
                    )
                });
                Did::Events(events.filter(|(key, _)| seen.insert(key.clone())).collect())
            }
            // Events only explain, so that a task goes on without them.
            Err(fault) => {
                record!(Debug, task_id = subject.id; "no events about the pod: {fault}");
                Did::Events(Vec::new())
            }
        }
    }
}

fn refused(fault: &ClusterFault) -> Did {
    match fault {
        _ if fault.is_passing() => again(fault),
        _ if fault.is_leaving() => Did::Created(Created::Leaving(fault.to_string())),
        _ if fault.is_full() => Did::Created(Created::Full(fault.to_string())),
        _ if fault.lacks_right() || fault.status() == Some(401) => Did::LacksRight(fault.to_string()),
        _ => Did::Created(Created::Refused(fault.to_string())),
    }
}

fn again(fault: &ClusterFault) -> Did {
    Did::Again(fault.to_string(), fault.retry_after().unwrap_or_default())
}

fn done(result: Result<(), ClusterFault>) -> Did {
    match result {
        Ok(()) => Did::Done,
        Err(fault) => again(&fault),
    }
}
