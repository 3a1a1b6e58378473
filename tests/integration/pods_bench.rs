//! Costs of a container runner: how long its tasks wait for it, and what it asks of the API server. The agents in the
//! pods are played here, so that nothing but the runner, the control plane and the fake cluster has work to do.
//!
//! By hand, with a build for speed: `ci/bench-pods`.

use crate::claims::call;
use crate::cluster::Cluster;
use crate::container::{Agent, config_of, empty, program};
use crate::server::Server;
use crate::support::poll;
use base64::Engine;
use runlet::protocol::Secret;
use runlet::protocol::pod_task::PodTask;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tasks of the rows: those of the published benchmark of CircleCI's own runner, and more than a runner has at once.
const ROWS: [usize; 5] = [20, 40, 64, 128, 300];

/// Measurements of a row.
#[derive(Default)]
struct Row {
    /// From the trigger to the begin, in milliseconds.
    queued: Vec<u64>,
    /// From the claim to the pod, in milliseconds.
    created: Vec<u64>,
    calls: usize,
    memory_kib: u64,
    processor_ms: u64,
    took: Duration,
}

/// The task of a pod, out of its secret.
fn told(cluster: &Cluster, pod: &str) -> PodTask {
    let secret =
        cluster.objects("secrets").into_iter().find(|secret| secret["metadata"]["name"] == pod).unwrap();
    let text = secret["data"]["task"].as_str().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

/// Plays the node and the agent of a pod: it starts after a while, begins the task, and finishes it.
fn play(server: &Server, cluster: &Cluster, pod: &str, delay: Duration, begun: &Mutex<Vec<Instant>>) {
    std::thread::sleep(delay);
    let running = json!({ "name": "container-0", "state": { "running": {} } });
    cluster.set_status(pod, json!({ "phase": "Running", "containerStatuses": [running] }));
    let task = told(cluster, pod);
    let say = |rest: &str, body: Value| {
        let (path, token) =
            (format!("/api/v3/runner/tasks/{}/{rest}", task.id), Secret::new(task.token.expose()));
        let (status, _, answer) = call(server, "POST", &path, &token, body.to_string().as_bytes());
        assert_eq!(status, 200, "{rest}: {answer}");
    };
    say("begin", json!({ "agent": "played", "events": [] }));
    begun.lock().unwrap().push(Instant::now());
    say("finish", json!({ "status": "success", "events": 0, "steps": [] }));
    let ended =
        json!({ "name": "container-0", "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } });
    cluster.set_status(pod, json!({ "phase": "Succeeded", "containerStatuses": [ended] }));
}

/// Memory in KiB and processor time in milliseconds of a process.
fn used(pid: u32) -> (u64, u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let memory = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let stat = read("stat");
    // User and system time are the 14th and 15th word; the name, which may have spaces, is the 2nd.
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    let ticks = number(11) + number(12);
    (memory, ticks * 10)
}

fn measure(tasks: usize, delay: Duration) -> Row {
    let mut command = Command::new(program());
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let server = Server::start_by(command, &[]);
    server.project();
    let token = server.class_token("a/b");
    let cluster = Cluster::without_kubelet();
    let log = cluster.folder.path().join("agent.log");
    let values = format!("{{token: {token}}}");
    let mut command = crate::container::command(&server, &cluster, &values, "agent-1");
    command.env("MAX_CONCURRENT_TASKS", tasks.to_string()).env("KUBE_GC_INTERVAL", "1h");
    command.env("O11Y_FORMAT", "json").env("O11Y_LEVEL", "info");
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let agent = Agent(command.spawn().unwrap());
    poll("the watch", || {
        let watches = cluster.calls().iter().filter(|call| *call == "GET /api/v1/namespaces/ci/pods").count();
        if watches > 2 { Ok(()) } else { Err(watches.to_string()) }
    });
    let (before, idle_ms) = (cluster.calls().len(), used(agent.0.id()).1);
    let started = Instant::now();
    let pipeline = server.trigger(&config_of(tasks, "true"));
    let (begun, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let mut row = Row::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut known = HashSet::new();
            while !over.load(Ordering::Relaxed) {
                for pod in cluster.objects("pods") {
                    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
                    if known.insert(name.clone()) {
                        let (server, cluster, begun) = (&server, &cluster, &begun);
                        scope.spawn(move || play(server, cluster, &name, delay, begun));
                    }
                }
                row.memory_kib = row.memory_kib.max(used(agent.0.id()).0);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        server.ended(&pipeline);
        empty(&cluster);
        over.store(true, Ordering::Relaxed);
    });
    row.took = started.elapsed();
    row.processor_ms = used(agent.0.id()).1 - idle_ms;
    row.calls = cluster.calls().len() - before;
    row.queued = begun.into_inner().unwrap().iter().map(|at| (*at - started).as_millis() as u64).collect();
    row.queued.sort_unstable();
    let text = std::fs::read_to_string(&log).unwrap();
    let lines = text.lines().filter(|line| line.contains("created the pod"));
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    row.created = lines
        .filter_map(|line| {
            line["milliseconds"].as_u64().or_else(|| line["milliseconds"].as_str()?.parse().ok())
        })
        .collect();
    row.created.sort_unstable();
    row
}

#[test]
#[ignore = "a benchmark: ci/bench-pods runs it"]
fn what_a_task_in_a_pod_costs() {
    println!("tasks  start  claim to pod ms   queue ms          all   calls   processor  memory");
    println!("           s    p50    max     p50  mean   max      s  a task  ms a task     KiB");
    for delay in [0, 1] {
        for tasks in ROWS {
            let row = measure(tasks, Duration::from_secs(delay));
            assert_eq!((row.queued.len(), row.created.len()), (tasks, tasks), "each once");
            let middle = |list: &[u64]| list[list.len() / 2];
            println!(
                "{tasks:>5} {delay:>6} {:>6} {:>6} {:>7} {:>5} {:>5} {:>6.1} {:>7.2} {:>10.1} {:>7}",
                middle(&row.created),
                row.created[tasks - 1],
                middle(&row.queued),
                row.queued.iter().sum::<u64>() / tasks as u64,
                row.queued[tasks - 1],
                row.took.as_secs_f64(),
                row.calls as f64 / tasks as f64,
                row.processor_ms as f64 / tasks as f64,
                row.memory_kib
            );
        }
    }
}
