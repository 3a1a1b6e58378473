//! A task as its agent has it: claim, begin, output, the end of its step, finish. No step runs.

use crate::caller::Caller;
use crate::plane::Plane;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The output of a step, as long as that of most.
const OUTPUT: &[u8] = b"hello from a step that says what it has done, as most of them do, in a line or two\n";
const OUTPUT_SHA256: &str = "9efba6a55b29d1e38732515be590370259c79b24b9d807c4e2b803b3f580d068";

/// Numbers nonces, so that none comes twice.
static NONCES: AtomicU64 = AtomicU64::new(0);

/// The body of a claim of a runner.
pub(crate) fn claim_of(runner: &str) -> String {
    let nonce = format!("{}-{}", std::process::id(), NONCES.fetch_add(1, Ordering::Relaxed));
    let machine = format!("{:0>32}", runner.len());
    json!({
        "name": runner, "hostname": runner, "version": "0.1.0", "os": "linux", "arch": "x86_64", "nonce": nonce,
        "machine_id": machine, "boot_id": machine, "takes": ["machine"],
    })
    .to_string()
}

/// A task that was claimed.
pub(crate) struct Claimed {
    id: String,
    token: String,
}

impl Claimed {
    pub(crate) fn of(answer: &crate::caller::Answer) -> Result<Self, String> {
        let task = answer.json()?;
        match (task["id"].as_str(), task["token"].as_str()) {
            (Some(id), Some(token)) => Ok(Self { id: id.to_owned(), token: token.to_owned() }),
            _ => Err(format!("a claim is answered with {task}")),
        }
    }

    /// Reports a claimed task: its beginning, its output and its end.
    pub(crate) fn run(&self, caller: &mut Caller) -> Result<(), String> {
        let path = format!("/api/v3/runner/tasks/{}", self.id);
        let mut call = |line: String, body: &[u8]| caller.call(&line, &self.token, body);
        let at = now_ms();
        let started = |number: u64, step: u32, name: &str| {
            json!({
                "number": number, "at_ms": at, "event": "step_started", "step": step, "name": name, "kind": "run",
                "attempt": 1, "max_auto_reruns": 0, "background": false,
            })
        };
        let finished = |number: u64, step: u32, bytes: usize| {
            json!({
                "number": number, "at_ms": at, "event": "step_finished", "step": step, "status": "success",
                "exit_code": 0, "output_bytes": bytes,
            })
        };
        let begin = json!({
            "agent": format!("{:0>32}", self.id.len()),
            "events": [started(0, 0, "Spin up environment"), finished(1, 0, 0), started(2, 1, "echo hello")],
        });
        call(format!("POST {path}/begin"), begin.to_string().as_bytes())?;
        call(format!("PATCH {path}/steps/1/output?offset=0"), OUTPUT)?;
        let events = json!([finished(3, 1, OUTPUT.len())]).to_string();
        call(format!("POST {path}/events"), events.as_bytes())?;
        let finish = json!({
            "status": "success", "events": 4,
            "steps": [{ "step": 1, "length": OUTPUT.len(), "sha256": OUTPUT_SHA256 }],
        });
        let answer = call(format!("POST {path}/finish"), finish.to_string().as_bytes())?.json()?;
        match answer["answer"].as_str() {
            Some("confirmed") => Ok(()),
            _ => Err(format!("a finish is answered with {answer}")),
        }
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// Runs tasks that wait in the queue, with so many runners at once. The time that each took, without its wait in the
/// queue; shortest first.
pub(crate) fn drain(plane: &Plane, tasks: u64, runners: u64) -> Result<Vec<Duration>, String> {
    let (left, times) = (AtomicU64::new(tasks), Mutex::new(Vec::new()));
    let run = |runner: u64| -> Result<(), String> {
        let mut caller = plane.caller()?;
        let name = format!("runner-{runner}");
        let mut own = Vec::new();
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let began = Instant::now();
            let claim = claim_of(&name);
            let answer =
                caller.call("POST /api/v3/runner/claim?wait=30", &plane.class_token, claim.as_bytes())?;
            if answer.status == 204 {
                return Err("a task that waits was not handed out".to_owned());
            }
            Claimed::of(&answer)?.run(&mut caller)?;
            own.push(began.elapsed());
        }
        times.lock().map_err(|_| "another runner failed")?.extend(own);
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..runners)
            .map(|runner| {
                scope.spawn({
                    let run = &run;
                    move || run(runner)
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a runner panicked".to_owned())?)
    })?;
    let mut times = times.into_inner().map_err(|_| "a runner failed")?;
    times.sort_unstable();
    Ok(times)
}
