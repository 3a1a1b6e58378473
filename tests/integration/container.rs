//! The container runner against a fake cluster: whole pipelines in pods that really run, and what goes wrong with them.

use crate::claims::{job, messages};
use crate::cluster::Cluster;
use crate::server::Server;
use crate::support::poll;
use crate::support::runner::RUNLET;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};

const CONFIG: &str = "version: 2.1
jobs:
  build:
    docker:
      - {image: 'cimg/base:1', environment: {OF_IMAGE: 'yes $(X)'}}
      - {image: 'redis:7', name: cache, command: sh -c 'echo the password is $PASS and that is all; sleep 600', environment: {PASS: hunter22}}
    resource_class: a/b
    steps: [{run: 'echo out of the image: $OF_IMAGE'}]
workflows: {w: {jobs: [build]}}
";

/// A runner. Killed with the value.
pub(crate) struct Agent(pub(crate) Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start(server: &Server, cluster: &Cluster, token: &str) -> Self {
        Self::start_as(server, cluster, token, "agent-1", &[])
    }

    pub(crate) fn start_as(
        server: &Server,
        cluster: &Cluster,
        token: &str,
        instance: &str,
        more: &[(&str, &str)],
    ) -> Self {
        let mut command = command(server, cluster, &format!("{{token: {token}}}"), instance);
        command.envs(more.iter().copied());
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    fn term(&self) {
        kill_process(Pid::from_raw(self.0.id() as i32).unwrap(), Signal::TERM).unwrap();
    }
}

/// The program under test; a person may measure another build of it.
pub(crate) fn program() -> String {
    std::env::var("RUNLET_PROGRAM").unwrap_or_else(|_| RUNLET.to_owned())
}

pub(crate) fn command(server: &Server, cluster: &Cluster, class: &str, instance: &str) -> Command {
    let file = cluster.folder.path().join(format!("{instance}.yaml"));
    let values = format!(
        "agent:\n  log: {{format: text, level: debug}}\n  gc: {{interval: 300ms}}\n  resourceClasses:\n    a/b: {class}\n"
    );
    std::fs::write(&file, values).unwrap();
    let mut command = Command::new(program());
    command.args(["container", "--config"]).arg(file);
    command
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", cluster.port.to_string());
    command.env("KUBE_ACCOUNT_DIRECTORY", cluster.folder.path().join("account"));
    command.env("RUNNER_API", server.client.url()).env("HEALTH_ADDRESS", "none").env("AGENT_NAME", "pods");
    command.env("KUBE_CONTAINER_AGENT_INSTANCE", instance).env("KUBE_RUNNER_INIT_IMAGE", "runlet:1");
    command
}

/// Waits until nothing of a task is left in the cluster.
pub(crate) fn empty(cluster: &Cluster) {
    poll("an empty cluster", || {
        let left: Vec<Value> = ["pods", "secrets"].iter().flat_map(|kind| cluster.objects(kind)).collect();
        if left.is_empty() { Ok(()) } else { Err(json!(left).to_string()) }
    });
}

/// The pod of a task, once it is there.
pub(crate) fn a_pod(cluster: &Cluster) -> Value {
    poll("a pod", || cluster.objects("pods").pop().ok_or_else(|| "none".to_owned()))
}

/// Has the image of the steps be refused by the node of a pod, for good.
fn refuse_image(cluster: &Cluster, pod: &Value) {
    let waiting = json!({ "reason": "InvalidImageName", "message": "couldn't parse image name" });
    let status = json!({ "name": "container-0", "state": { "waiting": waiting } });
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster.set_status(name, json!({ "phase": "Pending", "containerStatuses": [status] }));
}

pub(crate) fn until(server: &Server, pipeline: &str, status: &str) -> Value {
    poll(&format!("a job that is `{status}`"), || {
        let job = job(server, pipeline);
        if job["status"] == status { Ok(job) } else { Err(format!("{job} {}", messages(server, &job))) }
    })
}

/// The steps of the job as version 1.1 shows them: name, status, output.
fn steps(server: &Server, pipeline: &str) -> Vec<(String, String, String)> {
    let number = job(server, pipeline)["job_number"].as_u64().unwrap();
    let build = server.call("GET", &format!("/api/v1.1/project/gh/acme/hello/{number}"), None);
    let steps = build["steps"].as_array().unwrap().iter();
    let shown = steps.map(|step| {
        let action = &step["actions"][0];
        let path = action["output_url"]
            .as_str()
            .map(|url| url.strip_prefix(server.client.url()).unwrap_or(url).to_owned());
        let shown = path.map(|path| serde_json::from_slice::<Value>(&server.text(&path)).unwrap_or_default());
        let messages = shown.as_ref().and_then(Value::as_array).into_iter().flatten();
        let output = messages.filter_map(|part| part["message"].as_str()).collect();
        (
            step["name"].as_str().unwrap().to_owned(),
            action["status"].as_str().unwrap_or_default().to_owned(),
            output,
        )
    });
    shown.collect()
}

pub(crate) fn start() -> (Server, String) {
    let server = Server::start();
    server.project();
    let token = server.class_token("a/b");
    (server, token)
}

#[test]
fn what_a_service_prints_is_a_step_with_secrets_masked() {
    let (server, token) = start();
    let variable = json!({ "name": "SECRET", "value": "hunter22" });
    server.call("POST", "/api/v2/project/gh/acme/hello/envvar", Some(variable));
    let cluster = Cluster::start();
    let go = server.folder.path().join("go");
    let _agent = Agent::start(&server, &cluster, &token);
    let waiting = format!("until test -e {}; do sleep 0.05; done; echo out", go.display());
    let pipeline = server.trigger(&CONFIG.replace("echo out", &waiting));
    poll("the output of the service", || {
        let steps = steps(&server, &pipeline);
        let found = steps
            .iter()
            .any(|step| step.0 == "redis:7" && step.2 == "the password is **** and that is all\n");
        if found { Ok(()) } else { Err(format!("{steps:?}")) }
    });
    // The connection breaks: no line comes twice.
    cluster.cut();
    std::fs::write(&go, "").unwrap();
    until(&server, &pipeline, "success");
    let found = steps(&server, &pipeline).into_iter().find(|step| step.0 == "redis:7").unwrap();
    assert_eq!((found.1.as_str(), found.2.as_str()), ("success", "the password is **** and that is all\n"));
    empty(&cluster);
}

#[test]
fn a_job_runs_in_a_pod_and_nothing_is_left_of_it() {
    let (server, token) = start();
    let cluster = Cluster::start();
    let agent = Agent::start_as(&server, &cluster, &token, "agent-1", &[("KUBE_GC_INTERVAL", "1h")]);
    let pipeline = server.trigger(CONFIG);
    until(&server, &pipeline, "success");
    empty(&cluster);
    let steps = steps(&server, &pipeline);
    let find =
        |name: &str| steps.iter().find(|step| step.0.contains(name)).unwrap_or_else(|| panic!("{steps:?}"));
    assert!(find("echo").2.contains("out of the image: yes $(X)"), "{steps:?}");
    assert!(find("Spin up").2.contains("runner: pods"), "{steps:?}");
    let lifecycle = find("Task lifecycle");
    assert_eq!(lifecycle.1, "success", "{lifecycle:?}");
    assert!(
        lifecycle.2.contains("cimg/base:1, redis:7") && lifecycle.2.contains("running on node node-a"),
        "{lifecycle:?}"
    );
    // The calls of one task: two objects made, two deleted.
    let calls = cluster.calls();
    let writes: Vec<_> =
        calls.iter().filter(|call| !call.starts_with("GET") && !call.contains("accessreviews")).collect();
    assert_eq!(writes.len(), 4, "{calls:?}");
    agent.term();
    let mut agent = agent;
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
}

#[test]
fn what_the_api_server_does_wrong_costs_a_task_nothing() {
    let (server, token) = start();
    let cluster = Cluster::start();
    cluster.knobs(|knobs| {
        let (pods, secrets) = ("POST /api/v1/namespaces/ci/pods", "POST /api/v1/namespaces/ci/secrets");
        let hook = json!({ "kind": "Status", "message": "Internal error occurred: failed calling webhook \"h\"", "reason": "InternalError", "code": 500 });
        knobs.next = vec![
            (secrets.to_owned(), 429, "Too many requests, please try again later.\n".to_owned(), Some(1)),
            (secrets.to_owned(), 1, String::new(), None),
            (pods.to_owned(), 500, hook.to_string(), None),
            (pods.to_owned(), 0, String::new(), None),
            // The pod is made, and the answer is lost.
            (pods.to_owned(), 1, String::new(), None),
            ("DELETE".to_owned(), 504, "{\"metadata\":{}}".to_owned(), None),
        ];
    });
    let _agent = Agent::start(&server, &cluster, &token);
    // The token was rotated, and the watch has lost its history.
    let pipeline = server.trigger(&CONFIG.replace("echo", "sleep 2; echo"));
    until(&server, &pipeline, "running");
    std::fs::write(cluster.folder.path().join("account/token"), "rotated").unwrap();
    cluster.knobs(|knobs| knobs.token = Some("rotated".to_owned()));
    cluster.compact();
    cluster.cut();
    until(&server, &pipeline, "success");
    empty(&cluster);
    let made = cluster.calls().iter().filter(|call| *call == "POST /api/v1/namespaces/ci/pods").count();
    // Three that fail and one that finds the pod there, whose answer the cut may have taken.
    assert!((4..=5).contains(&made), "{:?}", cluster.calls());
}

#[test]
fn a_killed_agent_loses_nothing_and_another_one_goes_on() {
    let (server, token) = start();
    let cluster = Cluster::start();
    let go = server.folder.path().join("go");
    let config =
        CONFIG.replace("echo", &format!("until test -e {}; do sleep 0.05; done; echo", go.display()));
    let first = Agent::start_as(&server, &cluster, &token, "agent-1", &[]);
    let pipeline = server.trigger(&config);
    until(&server, &pipeline, "running");
    drop(first);
    // Another replica, which finds that the pod of the first one is gone.
    let _second = Agent::start_as(&server, &cluster, &token, "agent-2", &[]);
    std::fs::write(&go, "").unwrap();
    until(&server, &pipeline, "success");
    empty(&cluster);
}

#[test]
fn a_pod_that_is_gone_is_an_infrastructure_failure_and_a_refused_one_says_why() {
    let (server, token) = start();
    let cluster = Cluster::start();
    let _agent = Agent::start(&server, &cluster, &token);
    let pipeline = server.trigger(&CONFIG.replace("echo", "sleep 600; echo"));
    until(&server, &pipeline, "running");
    let name = cluster.objects("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.vanish(&name);
    let job = until(&server, &pipeline, "infrastructure_fail");
    let said = messages(&server, &job);
    assert!(said.contains("deleted by somebody else"), "{said}");
    empty(&cluster);

    // Kubernetes takes no image that ends in white space; the message is its own, and comes once.
    let pipeline = server.trigger(&CONFIG.replace("'redis:7'", "'redis:7 '"));
    let job = until(&server, &pipeline, "infrastructure_fail");
    let said = messages(&server, &job);
    assert!(
        said.contains("error creating task pod: Pod")
            && said.contains("spec.containers[1].image: Invalid value"),
        "{said}"
    );
    assert_eq!(said.matches("error creating task pod").count(), 1, "{said}");
    empty(&cluster);
}

#[test]
fn a_cancel_before_the_begin_deletes_the_pod() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    let _agent = Agent::start_as(&server, &cluster, &token, "agent-1", &[]);
    let pipeline = server.trigger(CONFIG);
    let pod = a_pod(&cluster);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        (container["name"].as_str(), pod["spec"]["restartPolicy"].as_str()),
        (Some("container-0"), Some("Never"))
    );
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    crate::claims::cancel(&server, &pipeline);
    until(&server, &pipeline, "canceled");
    empty(&cluster);
}

#[test]
fn what_hangs_is_told_in_the_job_and_what_cannot_heal_ends_it() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    cluster.knobs(|knobs| knobs.quota = Some(1));
    let _agent = Agent::start(&server, &cluster, &token);
    let pipeline = server.trigger(CONFIG);
    let pod = a_pod(&cluster);
    let name = pod["metadata"]["name"].as_str().unwrap();
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" });
    cluster.set_status(name, json!({ "phase": "Pending", "conditions": [condition] }));
    let lifecycle = |pipeline: &str, wanted: &str| {
        poll(wanted, || {
            let steps = steps(&server, pipeline);
            let found = steps.iter().any(|step| step.0 == "Task lifecycle" && step.2.contains(wanted));
            if found { Ok(()) } else { Err(format!("{steps:?}")) }
        });
    };
    lifecycle(&pipeline, "Unschedulable: 0/3 nodes are available");
    // A second task has no room, which is told as well and costs nobody an attempt.
    let second = server.trigger(CONFIG);
    lifecycle(&second, "exceeded quota");
    refuse_image(&cluster, &pod);
    let job = until(&server, &pipeline, "infrastructure_fail");
    let said = messages(&server, &job);
    assert!(said.contains("InvalidImageName: `cimg/base:1`: couldn't parse image name"), "{said}");
    poll("the pod to go", || if cluster.objects("pods").is_empty() { Ok(()) } else { Err(String::new()) });
}

#[test]
fn a_pod_that_is_kept_goes_when_it_is_old() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    let kept =
        |threshold| [("KUBE_DISABLE_POD_DELETION_ON_TASK_CLEANUP", "true"), ("KUBE_GC_THRESHOLD", threshold)];
    let agent = Agent::start_as(&server, &cluster, &token, "agent-1", &kept("5h5m"));
    let pipeline = server.trigger(CONFIG);
    let pod = a_pod(&cluster);
    refuse_image(&cluster, &pod);
    until(&server, &pipeline, "infrastructure_fail");
    poll(
        "its secret to go",
        || if cluster.objects("secrets").is_empty() { Ok(()) } else { Err(String::new()) },
    );
    assert_eq!(cluster.objects("pods").len(), 1);
    drop(agent);
    // The one that comes after finds it, and has nothing to do for it but this.
    let _agent = Agent::start_as(&server, &cluster, &token, "agent-1", &kept("1s"));
    empty(&cluster);
}

/// How many tasks; a person may ask for more.
pub(crate) fn many(usual: usize) -> usize {
    std::env::var("RUNLET_PODS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// A config whose only job runs a step in so many tasks.
pub(crate) fn config_of(tasks: usize, step: &str) -> String {
    format!(
        "version: 2.1\njobs: {{build: {{docker: [{{image: 'cimg/base:1'}}], resource_class: a/b, parallelism: {tasks}, steps: [{{run: '{step}'}}]}}}}\nworkflows: {{w: {{jobs: [build]}}}}\n"
    )
}

#[test]
fn many_tasks_at_once_cost_four_calls_each_and_one_watch() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    let tasks = many(40);
    // A sweep that looks while secrets go deletes them once more, which is harmless and a call.
    let more = [("MAX_CONCURRENT_TASKS", tasks.to_string()), ("KUBE_GC_INTERVAL", "1h".to_owned())];
    let more = more.each_ref().map(|(name, value)| (*name, value.as_str()));
    let agent = Agent::start_as(&server, &cluster, &token, "agent-1", &more);
    server.trigger(&config_of(tasks, "true"));
    poll("all pods", || {
        let pods = cluster.objects("pods").len();
        if pods == tasks { Ok(()) } else { Err(pods.to_string()) }
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.0.id())).unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    for pod in cluster.objects("pods") {
        cluster.set_status(pod["metadata"]["name"].as_str().unwrap(), json!({ "phase": "Succeeded" }));
    }
    empty(&cluster);
    let calls = cluster.calls();
    let count = |text: &str| calls.iter().filter(|call| call.contains(text)).count();
    let writes = count("POST /api/v1/namespaces/ci/") + count("DELETE");
    println!("{tasks} tasks: {memory}, {writes} writes, {} calls", calls.len());
    assert_eq!(writes, 4 * tasks);
    // Calls at a start and by the sweep do not grow with the tasks.
    assert_eq!(count("GET /api/v1/namespaces/ci/pods/"), 0, "{calls:?}");
}

#[test]
fn agents_that_are_killed_again_and_again_lose_no_task_and_run_none_twice() {
    let (server, token) = start();
    let cluster = Cluster::start();
    let tasks = many(8);
    let folder = server.folder.path().join("ran");
    std::fs::create_dir(&folder).unwrap();
    // Each task leaves a file, and another one if it runs twice.
    let step = format!("sleep 0.$RANDOM; mktemp {}/$CIRCLE_NODE_INDEX.XXXX", folder.display());
    let ran = || std::fs::read_dir(&folder).unwrap().count();
    let pipeline = server.trigger(&config_of(tasks, &step));
    let mut agents = 0;
    let mut agent: Option<Agent> = None;
    poll("all tasks", || {
        let ran = ran();
        // Agents start one after the other, each when some more tasks have run.
        if agent.is_none() || (ran < tasks && ran > agents * tasks / 4) {
            drop(agent.take());
            agents += 1;
            let room = [("MAX_CONCURRENT_TASKS", "4")];
            agent = Some(Agent::start_as(&server, &cluster, &token, &format!("agent-{agents}"), &room));
        }
        let job = job(&server, &pipeline);
        if job["status"] == "success" { Ok(()) } else { Err(format!("{ran} have run; {job}")) }
    });
    assert_eq!(ran(), tasks);
    assert!(agents > 1);
    empty(&cluster);
}

#[test]
fn check_names_the_right_that_is_missing_and_the_token_that_is_wrong() {
    let (server, token) = start();
    let cluster = Cluster::without_kubelet();
    let check = |class: &str| {
        let output = command(&server, &cluster, class, "agent-1").arg("--check").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = check(&format!("{{token: {token}}}"));
    assert!(code == Some(0) && said.contains("ok: token of `a/b`"), "{said}");
    let (code, said) = check("{token: wrong}");
    assert!(code == Some(1) && said.contains("`a/b`: the control plane does not know its token"), "{said}");
    let (code, said) = check("{}");
    assert!(code == Some(1) && said.contains("`a/b` has no token"), "{said}");
    cluster.knobs(|knobs| knobs.denied = vec!["delete secrets".to_owned()]);
    let (code, said) = check(&format!("{{token: {token}}}"));
    assert!(code == Some(1) && said.contains("lacks rights in the namespace `ci`: delete secrets"), "{said}");
    let (code, said) = check("{spec: {nodeSelecter: {}}}");
    assert!(code == Some(2) && said.contains("did you mean `nodeSelector`?"), "{said}");
}
