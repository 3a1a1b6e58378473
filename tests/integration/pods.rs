//! The program inside a pod, as a process of this host: it gets its task by the token alone.

use crate::claims::job;
use crate::containers::{CONFIG, claim};
use crate::faults::Rogue;
use crate::server::Server;
use crate::support::poll;
use crate::support::runner::RUNLET;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A task, and the first process of its pod.
fn pod(server: &Server, rogue: &Rogue, nonce: &str, more: Value) -> (Value, Command) {
    let (status, task) = claim(server, rogue, nonce, &["container"]);
    assert_eq!(status, 200, "{task}");
    let mut told = json!({ "id": task["id"], "token": task["token"], "url": server.client.url(), "runner_name": "pods",
        "runner_version": "1", "max_run_time_ms": 600_000 });
    told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut command = Command::new(RUNLET);
    command.args(["pod", "run"]).env("RUNLET_POD_TASK", told.to_string()).env("TMPDIR", server.folder.path());
    command.current_dir(server.folder.path()).env("HOME", server.folder.path()).stdout(Stdio::null());
    (task, command)
}

fn config(steps: &str) -> String {
    CONFIG.replace("steps: [{run: 'true'}]", &format!("working_directory: work\n    steps: {steps}"))
}

/// All output of a job.
fn output(server: &Server, pipeline: &str) -> String {
    let number = job(server, pipeline)["job_number"].as_u64().unwrap();
    let build = server.call("GET", &format!("/api/v1.1/project/gh/acme/hello/{number}"), None);
    let actions =
        build["steps"].as_array().unwrap().iter().flat_map(|step| step["actions"].as_array().unwrap());
    let urls = actions.filter_map(|action| action["output_url"].as_str());
    let path = |url: &str| url.strip_prefix(server.client.url()).unwrap_or(url).to_owned();
    urls.map(|url| String::from_utf8_lossy(&server.text(&path(url))).into_owned()).collect()
}

#[test]
fn a_pod_gets_its_task_by_the_token_waits_for_services_and_runs_it() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let pipeline = server.trigger(&config("[{run: 'env; echo out of the image: $OF_IMAGE'}]"));
    let ready = server.folder.path().join("ready/1");
    let (task, mut command) =
        pod(&server, &rogue, "n-1", json!({ "wait_for": [ready], "user": "nobody-there" }));
    let mut first = command.env("OF_IMAGE", "yes").spawn().unwrap();
    // The pod has asked for its task, and does not begin before the service has started.
    assert_eq!(job(&server, &pipeline)["status"], "queued");
    let touched = Command::new(RUNLET).args(["pod", "ready"]).arg(&ready).status().unwrap();
    assert!(touched.success());
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(job(&server, &pipeline)["status"], "success");
    let said = output(&server, &pipeline);
    assert!(said.contains("out of the image: yes") && said.contains("runner: pods"), "{said}");
    for secret in [task["token"].as_str().unwrap(), "RUNLET_POD_TASK"] {
        assert!(!said.contains(secret), "{said}");
    }

    // A restart of its container starts the pod again: the task is not its own any more.
    let again = command.status().unwrap();
    assert_eq!(again.code(), Some(0));
}

#[test]
fn what_a_killed_task_agent_has_left_is_sent_and_the_runner_hears_of_the_kill() {
    let server = Server::start();
    server.project();
    let rogue = Rogue::of(&server, "a/b");
    let agent = server.folder.path().join("agent");
    let kill = format!("[{{run: 'echo last $((40 + 2)); echo $PPID $$ > {}; sleep 600'}}]", agent.display());
    let pipeline = server.trigger(&config(&kill));
    let (task, mut command) = pod(&server, &rogue, "n-1", json!({}));
    let mut first = command.spawn().unwrap();
    let pids = poll("the step", || {
        let text = std::fs::read_to_string(&agent).map_err(|error| error.to_string())?;
        let pids: Vec<i32> = text.split_whitespace().flat_map(str::parse).collect();
        if pids.len() == 2 { Ok(pids) } else { Err(text) }
    });
    let kill = |pid: i32| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // Heard by the agent, in its spool or sent already: what is still in a pipe dies with its reader.
    poll("the last words", || {
        let found =
            Command::new("grep").args(["-rqa", "last 42"]).arg(server.folder.path()).status().unwrap();
        if found.success() { Ok(()) } else { Err(String::new()) }
    });
    kill(pids[0]);
    assert_eq!(first.wait().unwrap().code(), Some(1));
    // In a pod it ends with the first process.
    kill(pids[1]);
    assert!(output(&server, &pipeline).contains("last 42"));
    assert_eq!(job(&server, &pipeline)["status"], "running");
    let lost = json!({ "id": task["id"], "allocation": task["allocation"], "message": "OOMKilled" });
    let path = format!("/api/v3/runner/tasks/{}/lost", task["id"].as_str().unwrap());
    let (status, _, answer) =
        crate::claims::call(&server, "POST", &path, &rogue.class, lost.to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(job(&server, &pipeline)["status"], "infrastructure_fail");
}

#[test]
fn a_pod_that_cannot_get_its_task_says_so() {
    let run = |told: Option<&str>| {
        let mut command = Command::new(RUNLET);
        command.args(["pod", "run"]);
        told.map(|told| command.env("RUNLET_POD_TASK", told));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(None);
    assert!(code == Some(2) && said.contains("RUNLET_POD_TASK"), "{said}");
    let (code, said) = run(Some("{\"token\": \"hunter2\"}"));
    assert!(
        code == Some(2) && said.contains("not what a runner writes") && !said.contains("hunter2"),
        "{said}"
    );
}
