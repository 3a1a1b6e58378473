//! Two replicas of the container runner against a fake cluster in which everything breaks by dice: every task runs to an
//! end, none runs twice, and nothing is left of them.

use crate::cluster::Cluster;
use crate::container::{Agent, many, start};
use crate::server::Server;
use crate::support::poll_within;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

/// Jobs of a pipeline.
const JOBS: usize = 50;
/// Time in which everything has ended, on any machine: a task whose agent was killed between its claim and
/// its pod waits for the end of its lease.
const LIMIT: Duration = Duration::from_secs(3600);

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    /// A number of `0..sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A replica: an agent, and the name of its own pod in the cluster.
struct Replica {
    agent: Agent,
    instance: String,
}

struct Chaos<'a> {
    server: &'a Server,
    cluster: &'a Cluster,
    token: &'a str,
    dice: Dice,
    replicas: Vec<Replica>,
    started: usize,
    /// How often each fault was there.
    faults: BTreeMap<&'static str, u64>,
}

impl Chaos<'_> {
    fn start_replica(&mut self) {
        self.started += 1;
        let instance = format!("agent-{}", self.started);
        let spec = json!({ "containers": [{ "name": "agent", "image": "runlet:1" }] });
        let pod = json!({ "metadata": { "name": instance }, "spec": spec, "status": { "phase": "Running" } });
        self.cluster.put("pods", pod);
        let room = [("MAX_CONCURRENT_TASKS", "8")];
        let agent = Agent::start_as(self.server, self.cluster, self.token, &instance, &room);
        self.replicas.push(Replica { agent, instance });
    }

    /// Kills an agent; a new one of another name comes, as a Deployment makes it.
    fn kill_replica(&mut self) {
        let at = self.dice.roll(self.replicas.len() as u64) as usize;
        let Replica { agent, instance } = self.replicas.remove(at);
        drop(agent);
        self.cluster.vanish(&instance);
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn next_answer(&self, call: &str, status: u16, body: &str, after: Option<u32>) {
        let answer = (call.to_owned(), status, body.to_owned(), after);
        self.cluster.knobs(|knobs| knobs.next.push(answer));
    }

    /// Has one thing go wrong, by the dice.
    fn strike(&mut self) {
        const PODS: &str = "POST /api/v1/namespaces/ci/pods";
        const SECRETS: &str = "POST /api/v1/namespaces/ci/secrets";
        match self.dice.roll(10) {
            0 => {
                self.kill_replica();
                self.start_replica();
                self.count("one agent killed");
            }
            1 => {
                self.kill_replica();
                self.kill_replica();
                self.start_replica();
                self.start_replica();
                self.count("both agents killed");
            }
            2 => {
                self.cluster.compact();
                self.cluster.cut();
                self.count("watch expired (410)");
            }
            3 => {
                let call = [PODS, SECRETS, "DELETE"][self.dice.roll(3) as usize];
                self.next_answer(call, 1, "", None);
                self.count("answer lost, then a conflict");
            }
            4 => {
                let call = [PODS, SECRETS, "DELETE"][self.dice.roll(3) as usize];
                self.next_answer(call, 0, "", None);
                self.count("connection cut");
            }
            5 => {
                self.next_answer(PODS, 429, "Too many requests, please try again later.\n", Some(1));
                self.count("429 with Retry-After");
            }
            6 => {
                let hook = json!({ "kind": "Status", "reason": "InternalError", "code": 500,
                    "message": "Internal error occurred: failed calling webhook \"h\"" });
                self.next_answer(PODS, 500, &hook.to_string(), None);
                self.count("webhook fails");
            }
            7 => {
                let pods: Vec<Value> = managed(self.cluster, "pods");
                let alive: Vec<&Value> = pods
                    .iter()
                    .filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
                    .collect();
                if !alive.is_empty() {
                    self.cluster.evict(alive[self.dice.roll(alive.len() as u64) as usize]);
                    self.count("pod evicted");
                }
            }
            8 => {
                self.cluster.knobs(|knobs| knobs.away = true);
                self.cluster.cut();
                std::thread::sleep(Duration::from_millis(200 + self.dice.roll(1500)));
                self.cluster.knobs(|knobs| knobs.away = false);
                self.count("API server away");
            }
            _ => {
                self.cluster.cut();
                self.count("all connections cut");
            }
        }
    }
}

/// Objects of tasks.
fn managed(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let label = |object: &Value| {
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "circleci-container-agent"
    };
    cluster.objects(kind).into_iter().filter(label).collect()
}

fn config(folder: &Path) -> String {
    let numbers: Vec<String> = (0..JOBS).map(|n| n.to_string()).collect();
    let step = format!("sleep 0.$RANDOM; mktemp {}/$CIRCLE_WORKFLOW_ID.$CIRCLE_JOB.XXXXXX", folder.display());
    format!(
        "version: 2.1\njobs: {{build: {{parameters: {{n: {{type: integer}}}}, docker: [{{image: 'cimg/base:1'}}], resource_class: a/b, steps: [{{run: '{step}'}}]}}}}\nworkflows: {{w: {{jobs: [{{build: {{matrix: {{parameters: {{n: [{}]}}}}}}}}]}}}}\n",
        numbers.join(", ")
    )
}

/// How often each job has run, as `WORKFLOW.JOB`.
fn runs(folder: &Path) -> HashMap<String, u32> {
    let mut runs = HashMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        *runs.entry(name.rsplit_once('.').unwrap().0.to_owned()).or_default() += 1;
    }
    runs
}

/// Jobs of all pipelines that have ended, as `WORKFLOW.JOB` with their status; nothing while one goes on.
fn ended(server: &Server, pipelines: &[String]) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    for pipeline in pipelines {
        let found = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
        for workflow in found["items"].as_array().unwrap() {
            if workflow["stopped_at"].is_null() {
                return None;
            }
            let id = workflow["id"].as_str().unwrap();
            let jobs = server.call("GET", &format!("/api/v2/workflow/{id}/job"), None);
            all.extend(jobs["items"].as_array().unwrap().iter().map(|job| {
                let text = |key: &str| job[key].as_str().unwrap().to_owned();
                (format!("{id}.{}", text("name")), text("status"))
            }));
        }
    }
    Some(all)
}

/// The check in CI is a hundred tasks, `ci/faults --pods` are a thousand. Real agents run in the pods: some seconds.
#[test]
fn no_task_is_lost_or_runs_twice_whatever_happens_to_agents_pods_and_the_api_server() {
    let tasks = many(100);
    let seed = std::env::var("RUNLET_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (server, token) = start();
    let cluster = Cluster::start();
    cluster.knobs(|knobs| knobs.installs_once = true);
    let folder = server.folder.path().join("ran");
    std::fs::create_dir(&folder).unwrap();
    let started = Instant::now();
    let pipelines: Vec<String> =
        (0..tasks.div_ceil(JOBS)).map(|_| server.trigger(&config(&folder))).collect();
    let (dice, faults) = (Dice(seed), BTreeMap::new());
    let (replicas, token) = (Vec::new(), token.as_str());
    let mut chaos = Chaos { server: &server, cluster: &cluster, token, dice, replicas, started: 0, faults };
    chaos.start_replica();
    chaos.start_replica();
    // A fault for every few tasks that have run, and now and then while none does.
    let (mut next, mut struck) = (0, Instant::now());
    let jobs = poll_within(LIMIT, "the end of all jobs", || {
        let ran = std::fs::read_dir(&folder).unwrap().count();
        if ran >= next || struck.elapsed() > Duration::from_secs(3) {
            chaos.strike();
            (next, struck) = (ran + 1 + chaos.dice.roll(4) as usize, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(100));
        let state = || format!("{ran} have run; {:?}", chaos.faults);
        if ran < tasks / 2 { Err(state()) } else { ended(&server, &pipelines).ok_or_else(state) }
    });
    cluster.knobs(|knobs| knobs.next.clear());
    let took = started.elapsed();
    let left = poll_within(LIMIT, "the end of all pods and secrets", || {
        let left = [managed(&cluster, "pods").len(), managed(&cluster, "secrets").len()];
        if left == [0, 0] { Ok(left) } else { Err(format!("{left:?}")) }
    });
    let runs = runs(&folder);
    let ran = |job: &str| runs.get(job).copied().unwrap_or_default();
    let of = |status: &str| jobs.iter().filter(|(_, found)| found == status).count();
    let (success, declared) = (of("success"), of("infrastructure_fail"));
    let lost: Vec<_> = jobs.iter().filter(|(job, status)| status == "success" && ran(job) == 0).collect();
    let twice: Vec<_> = runs.iter().filter(|(_, times)| **times > 1).collect();
    println!("seed {seed}, {tasks} tasks in {} s, {} agents", took.as_secs(), chaos.started);
    chaos.faults.iter().for_each(|(fault, times)| println!("{times:>6} {fault}"));
    println!(
        "{success} ended well, {declared} were declared as failures of the infrastructure, {} were lost, {} ran twice, {} pods and {} secrets are left",
        lost.len(),
        twice.len(),
        left[0],
        left[1]
    );
    assert_eq!(jobs.len(), pipelines.len() * JOBS);
    assert!(lost.is_empty() && twice.is_empty(), "lost: {lost:?}; twice: {twice:?}");
    assert_eq!(success + declared, jobs.len(), "{jobs:?}");
    // A job that had begun when its node ended it is said to have failed, and no other is.
    let evicted = chaos.faults.get("pod evicted").copied().unwrap_or_default();
    assert!(declared as u64 <= evicted, "{declared} failures of {evicted} evictions");
}
