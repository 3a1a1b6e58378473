//! Output of a step as the current command line of CircleCI follows it: it asks from where it is, again and
//! again, and stops at the first answer that says `X-Terminal: true`.

use crate::faults::{Rogue, until};
use crate::server::Server;
use crate::support::poll;
use runlet::http::Body;
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Asks once: the bytes from there on, and whether they are the last. `None` before the step has begun.
fn ask(server: &Server, job: &str, step: u32, from: usize) -> Option<(Vec<u8>, bool)> {
    let path = format!("/api/v3/jobs/{job}/stdout?filter[execution]=0&filter[step_num]={step}");
    let token = format!("Circle-Token: {}", server.token.expose());
    let got = server.curl(&path, &["-H", &token, "-H", &format!("Range: bytes={from}-")]);
    match got.status {
        200 | 206 => Some((got.body, got.headers.contains("x-terminal: true"))),
        404 => None,
        status => panic!("{path} from {from}: {status}"),
    }
}

/// Follows to the end, and counts the answers.
fn follow(server: &Server, job: &str, step: u32, answers: &AtomicUsize) -> Vec<u8> {
    let mut seen = Vec::new();
    poll("the end of the output", || {
        let Some((bytes, is_last)) = ask(server, job, step, seen.len()) else { return Err("nothing".into()) };
        answers.fetch_add(1, Ordering::Relaxed);
        seen.extend(bytes);
        if is_last { Ok(()) } else { Err(format!("{} bytes", seen.len())) }
    });
    seen
}

fn first_job(server: &Server, pipeline: &str) -> String {
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let workflow = workflows["items"][0]["id"].as_str().unwrap();
    let jobs = server.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
    jobs["items"][0]["id"].as_str().unwrap().to_owned()
}

const NUMBERS: u32 = 100_000;

#[test]
fn who_follows_a_step_reads_every_byte() {
    let server = Server::start();
    server.project();
    let steps = 6;
    let config = format!(
        "version: 2.1\njobs: {{build: {{machine: true, resource_class: a/b, steps: [{}]}}}}\nworkflows: {{w: {{jobs: [build]}}}}\n",
        vec![format!("{{run: seq 1 {NUMBERS}}}"); steps].join(", ")
    );
    let token = server.class_token("a/b");
    let pipeline = server.trigger(&config);
    let job = first_job(&server, &pipeline);
    let expected: String = (1..=NUMBERS).map(|n| format!("{n}\n")).collect();
    std::thread::scope(|scope| {
        let followers: Vec<_> = (1..=steps as u32)
            .map(|step| {
                scope.spawn({
                    let (server, job) = (&server, &job);
                    move || follow(server, job, step, &AtomicUsize::new(0))
                })
            })
            .collect();
        let _runner = server.runner("one", &token);
        for (step, follower) in followers.into_iter().enumerate() {
            let seen = follower.join().unwrap();
            assert_eq!(seen.len(), expected.len(), "step {}", step + 1);
            assert!(seen == expected.as_bytes(), "the output of step {} differs", step + 1);
        }
        server.ended(&pipeline);
    });
}

/// A runner tells the end of a step before its last output when that is much, or the line is slow.
#[test]
fn the_end_of_a_step_is_shown_after_its_last_byte() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(
        "version: 2.1\njobs: {build: {machine: true, resource_class: a/b, steps: [{run: 'true'}]}}\nworkflows: {w: {jobs: [build]}}\n",
    );
    let job = first_job(&server, &pipeline);
    let (status, task) = rogue.claim("n-1");
    assert_eq!(status, 200, "{task}");
    rogue.begin(&task);
    let token = Secret::new(task["token"].as_str().unwrap());
    let path = format!("/api/v3/runner/tasks/{}", task["id"].as_str().unwrap());
    let events = |events: Value| {
        let body = events.to_string();
        let sent = rogue.send("POST", &format!("{path}/events"), &token, Body::Json(body.as_bytes()));
        assert_eq!(sent.0, 200, "{}", sent.1);
    };
    let started = |number: u32, step: u32| {
        json!({ "number": number, "at_ms": 1, "event": "step_started", "step": step, "name": "s", "kind": "run",
            "attempt": 1, "max_auto_reruns": 0, "background": false })
    };
    let finished = |number: u32, step: u32, bytes: usize| json!({ "number": number, "at_ms": 1, "event": "step_finished", "step": step, "status": "success", "output_bytes": bytes });
    let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let send = |step: u32, from: usize, to: usize| {
        let path = format!("{path}/steps/{step}/output?offset={from}");
        assert_eq!(rogue.send("PATCH", &path, &token, Body::Bytes(&bytes[from..to])).0, 200);
    };

    events(json!([started(0, 0)]));
    send(0, 0, 65_536);
    assert_eq!(ask(&server, &job, 0, 65_536), Some((Vec::new(), false)), "it runs");
    events(json!([finished(1, 0, bytes.len())]));
    let answers = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&server, &job, 0, &answers));
        for from in (65_536..bytes.len()).step_by(300_000) {
            // The follower asks in between, and is answered.
            let before = answers.load(Ordering::Relaxed);
            poll("an answer to the follower", || {
                let is_answered = follower.is_finished() || answers.load(Ordering::Relaxed) > before + 1;
                if is_answered { Ok(()) } else { Err(format!("{from} bytes were sent")) }
            });
            let (_, is_last) = ask(&server, &job, 0, 0).unwrap();
            assert!(!is_last, "{from} of {} bytes have come", bytes.len());
            send(0, from, bytes.len().min(from + 300_000));
        }
        assert!(follower.join().unwrap() == bytes, "what was followed differs from what was sent");
    });
    // A watcher who comes later sees the end as well, wherever it begins.
    assert_eq!(ask(&server, &job, 0, bytes.len()), Some((Vec::new(), true)));
    assert_eq!(ask(&server, &job, 0, usize::MAX), Some((Vec::new(), true)));

    // A task that is over sends nothing more: what is missing will never come, and nobody waits for it.
    events(json!([started(2, 1), finished(3, 1, 10), started(4, 2)]));
    send(1, 0, 4);
    assert_eq!(ask(&server, &job, 1, 0), Some((bytes[..4].to_vec(), false)));
    let body = json!({ "id": task["id"], "allocation": task["allocation"], "message": "gone" });
    let (path, body) = (format!("{path}/lost"), body.to_string());
    assert_eq!(rogue.send("POST", &path, &rogue.class, Body::Json(body.as_bytes())).0, 200);
    assert_eq!(ask(&server, &job, 1, 0), Some((bytes[..4].to_vec(), true)));
    assert_eq!(ask(&server, &job, 2, 0), Some((Vec::new(), true)), "a step that the loss ended");
}

#[test]
fn a_step_tells_when_each_of_its_lines_came() {
    let server = Server::start();
    server.project();
    let _runner = server.runner("one", &server.class_token("a/b"));
    let go = server.folder.path().join("go");
    let pipeline = server.trigger(&until(&go));
    // The runner has read the first line by now; the second comes later by more than marks are apart.
    server.wait_output(&pipeline, 1, "begun");
    // While it runs the control plane tells when it arrived.
    let page = "/gh/acme/hello/jobs/1/log.txt?execution=0&step=1";
    let live = String::from_utf8(server.text(&format!("{page}&time=clock"))).unwrap();
    let (arrived, "begun\n") = live.split_once(' ').unwrap() else { panic!("{live}") };
    assert!(arrived.len() == "0000-00-00T00:00:00.000Z".len() && arrived.ends_with('Z'), "{live}");
    std::thread::sleep(Duration::from_millis(150));
    std::fs::write(&go, "").unwrap();
    let ended = server.ended(&pipeline);
    let stamped = format!(
        "/api/v3/jobs/{}/stdout?filter[execution]=0&filter[step_num]=1&timestamps=true",
        ended[0]["id"].as_str().unwrap()
    );
    let text = String::from_utf8(server.text(&stamped.replace('[', "%5B").replace(']', "%5D"))).unwrap();
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let [(first, "begun"), (second, "ended")] = lines[..] else { panic!("{text}") };
    let (start, stop) = (ended[0]["started_at"].as_str().unwrap(), ended[0]["stopped_at"].as_str().unwrap());
    // Times of one form are in the order of their texts.
    let shape = |time: &str| time.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(shape(first), "0000-00-00T00:00:00.000Z");
    assert!(start <= first && first < second && second <= stop, "{start} {text} {stop}");
    assert_eq!(server.text(&format!("{page}&time=clock")), text.as_bytes());
    assert_eq!(server.text(page), b"begun\nended\n");
}
