//! The calls of a task agent, answered as if everything were stored; and what they said.

use super::control_plane::{ControlPlane, Recorded};
use super::poll;
use serde_json::{Value, json};

/// The answer to a call that is not a claim.
pub(crate) fn answer(request: &Recorded) -> String {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let offset = || number(query, "offset") + request.body.len() as u64;
    let answer = match path.rsplit('/').next().unwrap_or_default() {
        "events" => {
            let last = request.json().as_array().and_then(|events| events.last()?["number"].as_u64());
            json!({ "next": last.map_or(0, |number| number + 1) })
        }
        "output" => json!({ "offset": offset() }),
        "heartbeat" => json!({ "cancel": false, "lease_seconds": 60 }),
        "finish" => json!({ "answer": "confirmed" }),
        _ => json!({}),
    };
    answer.to_string()
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

    /// What a step record printed.
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
