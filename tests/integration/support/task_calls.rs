//! The calls of a task agent, answered as a control plane does that stores everything; and what they said.

use super::control_plane::{ControlPlane, Recorded};
use super::poll;
use runlet::protocol::Task;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The tasks that were offered, as the control plane knows them.
#[derive(Default)]
pub(crate) struct Tasks(BTreeMap<String, Known>);

#[derive(Default)]
struct Known {
    allocation: String,
    token: String,
    /// The agent that has begun it.
    agent: Option<String>,
    /// The task has ended, or was given back. `true` when its output is still taken.
    ended: Option<bool>,
    cancelled: bool,
    events: u64,
    output: BTreeMap<String, u64>,
}

/// An answer: status, body, and news of the task.
pub(crate) type Answer = (u16, String, Option<&'static str>);

fn refuse(status: u16, code: &str, more: &Value) -> Answer {
    let mut refusal = json!({ "message": format!("the fake control plane says {code}"), "code": code });
    if let (Some(refusal), Some(more)) = (refusal.as_object_mut(), more.as_object()) {
        refusal.extend(more.clone());
    }
    (status, refusal.to_string(), None)
}

impl Tasks {
    /// A task was offered.
    pub(crate) fn offered(&mut self, task: &Task) {
        let known = Known {
            allocation: task.allocation.clone(),
            token: task.token.expose().to_owned(),
            ..Known::default()
        };
        self.0.insert(super::runner::without_suffix(task.id.as_str()), known);
    }

    /// Somebody cancels a task.
    pub(crate) fn cancel(&mut self, id: &str) {
        let task = self.0.get_mut(id).expect("a task that was offered");
        task.cancelled = true;
        if task.agent.is_none() {
            task.ended = Some(false);
        }
    }

    /// A task ends without its agent. With `late` its output is still taken.
    pub(crate) fn end(&mut self, id: &str, late: bool) {
        self.0.get_mut(id).expect("a task that was offered").ended = Some(late);
    }

    /// The answer to a call that is not a claim: what a control plane refuses, this one refuses.
    pub(crate) fn answer(&mut self, request: &Recorded) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let body = request.json();
        if path == "/api/v3/runner/unclaim" {
            let id = super::runner::without_suffix(body["task_id"].as_str().unwrap_or_default());
            return match self.0.get_mut(&id) {
                Some(task) if task.token != request.token => refuse(401, "unknown", &json!({})),
                None => refuse(401, "unknown", &json!({})),
                Some(task) if task.ended.is_some() => refuse(409, "task_ended", &json!({})),
                Some(task) if task.agent.is_some() => refuse(409, "begun", &json!({})),
                Some(task) => {
                    task.ended = Some(false);
                    (200, json!({ "outcome": "queued" }).to_string(), None)
                }
            };
        }
        let Some((id, call)) =
            path.strip_prefix("/api/v3/runner/tasks/").and_then(|rest| rest.split_once('/'))
        else {
            return (404, json!({ "message": "there is no such call" }).to_string(), None);
        };
        let Some(task) = self.0.get_mut(id) else {
            return (404, json!({ "message": "there is no such task" }).to_string(), None);
        };
        if call == "lost" {
            if body["allocation"].as_str().is_some_and(|allocation| allocation != task.allocation) {
                return refuse(409, "unknown", &json!({}));
            }
            task.ended.get_or_insert(true);
            return (200, "{}".to_owned(), None);
        }
        if call == "rest" {
            task.token = format!("token-of-the-rest-of-{id}");
            return (200, json!({ "token": task.token }).to_string(), None);
        }
        let (status, body, news) = task.call(request, call, query);
        (status, body, news.or(task.cancelled.then_some("cancel")))
    }
}

impl Known {
    fn call(&mut self, request: &Recorded, call: &str, query: &str) -> Answer {
        if self.token != request.token {
            return refuse(401, "unknown", &json!({}));
        }
        let output = call.strip_prefix("steps/").and_then(|rest| rest.strip_suffix("/output"));
        let is_said = call == "events" || output.is_some();
        let news = self.ended.map(|_| "ended");
        match self.ended {
            Some(true) if is_said => {}
            Some(late) => return refuse(409, "task_ended", &json!({ "late": late })),
            None => {}
        }
        let begun = self.agent.is_some();
        let early = matches!(call, "begin" | "heartbeat" | "events") || output == Some("0");
        if !begun && !early {
            return refuse(409, "not_begun", &json!({}));
        }
        let body = request.json();
        let answer = match (call, output) {
            ("begin", _) => {
                let agent = body["agent"].as_str().unwrap_or_default().to_owned();
                if self.agent.get_or_insert_with(|| agent.clone()) != &agent {
                    return refuse(409, "task_ended", &json!({}));
                }
                self.take_events(body["events"].as_array());
                json!({ "next": self.events, "lease_seconds": 60 })
            }
            ("events", _) => {
                let events = body.as_array();
                if !begun && events.is_some_and(|events| events.iter().any(|event| event["step"] != 0)) {
                    return refuse(409, "not_begun", &json!({}));
                }
                if !self.take_events(events) {
                    return refuse(409, "gap", &json!({ "offset": self.events }));
                }
                json!({ "next": self.events })
            }
            (_, Some(step)) => {
                let stored = self.output.entry(step.to_owned()).or_default();
                let offset = number(query, "offset");
                if offset > *stored {
                    return refuse(409, "gap", &json!({ "offset": *stored }));
                }
                *stored = (*stored).max(offset + request.body.len() as u64);
                json!({ "offset": *stored, "durable_to": *stored })
            }
            ("heartbeat", _) => json!({ "cancel": self.cancelled, "lease_seconds": 60 }),
            ("stopped", _) => {
                self.ended = self.cancelled.then_some(true);
                json!({ "cancel": self.cancelled, "lease_seconds": 60 })
            }
            ("finish", _) => {
                let missing = |step: &&Value| {
                    let stored = self.output.get(&step["step"].to_string()).copied().unwrap_or(0);
                    step["length"].as_u64() != Some(stored)
                };
                let steps: Vec<_> = body["steps"].as_array().into_iter().flatten().filter(missing).collect();
                assert!(steps.is_empty() && body["events"] == self.events, "finished too early: {body}");
                self.ended = Some(false);
                json!({ "answer": "confirmed" })
            }
            (upload, _) if upload.starts_with("uploads/") => json!({ "offset": number(query, "length") }),
            _ => json!({}),
        };
        (200, answer.to_string(), news)
    }

    /// False when there is a hole before them.
    fn take_events(&mut self, events: Option<&Vec<Value>>) -> bool {
        for event in events.into_iter().flatten() {
            match event["number"].as_u64() {
                Some(number) if number == self.events => self.events += 1,
                Some(number) if number > self.events => return false,
                _ => {}
            }
        }
        true
    }
}

fn number(query: &str, name: &str) -> u64 {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

impl ControlPlane {
    /// Waits for the end of a task: what was said with it.
    pub(crate) fn wait_finished(&self, id: &str) -> Value {
        self.wait_for(&format!("/tasks/{id}/finish")).json()
    }

    /// Waits for the end of a task or for its being reported lost.
    pub(crate) fn wait_over(&self, id: &str) -> Recorded {
        let ends = [format!("/tasks/{id}/finish"), format!("/tasks/{id}/lost")];
        poll("the end of the task", || {
            let requests = self.requests();
            let found = requests.iter().find(|request| ends.iter().any(|end| request.path.ends_with(end)));
            found
                .cloned()
                .ok_or_else(|| requests.iter().map(|r| format!("{} {}\n", r.method, r.path)).collect())
        })
    }

    /// The events of a task, each once, in order.
    pub(crate) fn events(&self, id: &str) -> Vec<Value> {
        let (events, begin) = (format!("/tasks/{id}/events"), format!("/tasks/{id}/begin"));
        let mut seen: BTreeMap<u64, Value> = BTreeMap::new();
        for request in self.requests() {
            let body = request.json();
            let list = match &request.path {
                path if path.ends_with(&events) => body.as_array(),
                path if path.ends_with(&begin) => body["events"].as_array(),
                _ => None,
            };
            for event in list.into_iter().flatten() {
                seen.insert(event["number"].as_u64().unwrap(), event.clone());
            }
        }
        seen.into_values().collect()
    }

    /// Output of a step record.
    pub(crate) fn output(&self, id: &str, record: u32) -> String {
        let call = format!("/tasks/{id}/steps/{record}/output?");
        let mut bytes = Vec::new();
        for request in self.requests().iter().filter(|request| request.path.contains(&call)) {
            let offset = number(request.path.split_once('?').unwrap_or_default().1, "offset");
            bytes.truncate(usize::try_from(offset).unwrap());
            bytes.extend(&request.body);
        }
        String::from_utf8(bytes).unwrap()
    }
}
