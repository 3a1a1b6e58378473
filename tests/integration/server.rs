//! `runlet server` with real machine runners: what the terminal of `exec` does not show.

use crate::support::pki::Authority;
use crate::support::processes::{end, signal};
use crate::support::seen::Seen;
use crate::support::{DEADLINE, poll, poll_within};
use runlet::http::{Body, Client, Endpoint, Request};
use runlet::protocol::Secret;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A control plane with a person's token; stopped when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) client: Client,
    pub(crate) token: Secret,
    pub(crate) folder: tempfile::TempDir,
}

/// A machine runner; killed when dropped.
pub(crate) struct Runner(pub(crate) Child);

pub(crate) fn runlet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runlet"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Set for every runner, and so for task agents and steps: the folder of the test whose they are.
pub(crate) const MARK: &str = "MARK_OF_TEST";

/// How long an answer may take: a guard against waiting for ever.
pub(crate) const ANSWER: Duration = Duration::from_secs(240);

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], None)
    }

    /// With further arguments, and the authority to trust.
    pub(crate) fn start_with(args: &[&str], ca_file: Option<&str>) -> Self {
        Self::start_trusting(runlet(), args, ca_file)
    }

    /// Over TLS, with a certificate of this authority, which is in the file `ca.pem` of the folder afterwards.
    pub(crate) fn start_tls(authority: &Authority, folder: &Path) -> Self {
        let issued = authority.issue("127.0.0.1", |_| ());
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (certificate, key) = (write("server.pem", &issued.certificate), write("server.key", &issued.key));
        let ca_file = write("ca.pem", &authority.pem);
        let server = Self::start_with(&["--tls-cert", &certificate, "--tls-key", &key], Some(&ca_file));
        assert!(server.client.url().starts_with("https://"), "{}", server.client.url());
        server
    }

    /// By a command of its own, to which the arguments of the program are added.
    pub(crate) fn start_by(command: Command, args: &[&str]) -> Self {
        Self::start_trusting(command, args, None)
    }

    fn start_trusting(mut command: Command, args: &[&str], ca_file: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // By a relative path, as people write it.
        command.current_dir(folder.path().parent().unwrap()).arg("server").arg("--data");
        command.arg(Path::new(folder.path().file_name().unwrap()).join("data"));
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let url = first.rsplit(' ').next().unwrap().to_owned();
        // The rest of the greeting comes after the token was written.
        assert!(lines.next().unwrap().unwrap().contains("admin-token"));
        let token = Secret::new(std::fs::read_to_string(data.join("admin-token")).unwrap());
        let ca_file = ca_file.map(std::path::PathBuf::from);
        let client = Client::new(&Endpoint { url, ca_file, client_certificate: None }).unwrap();
        Self { child, client, token, folder }
    }

    /// Starts another one on the same data and address, in place of one that has ended.
    pub(crate) fn start_again(&mut self, listen: &str) {
        self.start_again_with(listen, &[]);
    }

    /// [`Server::start_again`] with further arguments.
    pub(crate) fn start_again_with(&mut self, listen: &str, args: &[&str]) {
        let mut command = runlet();
        command.arg("server").arg("--data").arg(self.folder.path().join("data")).args(["--listen", listen]);
        command.args(args);
        self.child = command.stdout(Stdio::null()).spawn().unwrap();
        poll("the control plane to be back", || {
            let (path, body) = ("/ready", Body::Empty);
            let request = Request { method: "GET", path, token: None, body, timeout: ANSWER };
            self.client.send(&request).map(drop).map_err(|error| error.to_string())
        });
    }

    pub(crate) fn call(&self, method: &'static str, path: &str, body: Option<Value>) -> Value {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
        let request = Request { method, path, token: Some(&self.token), body, timeout: ANSWER };
        self.client.json(&request).unwrap()
    }

    pub(crate) fn text(&self, path: &str) -> Vec<u8> {
        let (token, body) = (Some(&self.token), Body::Empty);
        let request = Request { method: "GET", path, token, body, timeout: ANSWER };
        let answer = self.client.send(&request).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        answer.body
    }

    /// The data folder.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The database, beside the control plane that has it open.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.data().join("runlet.db")).unwrap();
        database.busy_timeout(ANSWER).unwrap();
        database
    }

    pub(crate) fn class_token(&self, class: &str) -> String {
        self.call("POST", "/api/v3/runner/resource", Some(json!({ "resource_class": class })));
        let token = self.call(
            "POST",
            "/api/v3/runner/token",
            Some(json!({ "resource_class": class, "nickname": "t" })),
        );
        token["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn runner(&self, name: &str, token: &str) -> Runner {
        self.runner_at(name, token, self.client.url())
    }

    /// A runner that leaves the working directories of jobs as they are.
    pub(crate) fn runner_that_keeps(&self, name: &str, token: &str) -> Runner {
        self.start_runner(name, token, self.client.url(), false)
    }

    /// A runner that reaches the control plane by another way.
    pub(crate) fn runner_at(&self, name: &str, token: &str, url: &str) -> Runner {
        self.start_runner(name, token, url, true)
    }

    fn start_runner(&self, name: &str, token: &str, url: &str, cleans: bool) -> Runner {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let settings = folder.join("runner.yaml");
        let text = format!(
            "api:\n  url: {}\n  auth_token: {token}\nrunner:\n  name: {name}\n  working_directory: {dir}/work\n  state_directory: {dir}/state\n  task_agent_directory: {dir}/bin\n  cleanup_working_directory: {cleans}\n",
            url,
            dir = folder.display()
        );
        write_private(&settings, &text);
        let mut command = runlet();
        command.args(["machine", "--config"]).arg(&settings).env(MARK, self.folder.path());
        Runner(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn trigger(&self, config: &str) -> String {
        let body = json!({ "config": { "content": config } });
        let created = self.call("POST", "/api/v2/project/gh/acme/hello/pipeline/run", Some(body));
        assert_eq!(created["state"], "pending", "{created}");
        let pipeline =
            self.call("GET", &format!("/api/v2/pipeline/{}", created["id"].as_str().unwrap()), None);
        assert_eq!(pipeline["state"], "created", "{pipeline}");
        created["id"].as_str().unwrap().to_owned()
    }

    /// Waits for all workflows of a pipeline to end; their jobs, by name.
    pub(crate) fn ended(&self, pipeline: &str) -> Vec<Value> {
        self.ended_within(DEADLINE, pipeline)
    }

    /// Waits as [`Server::ended`] does, for a pipeline that has much before it.
    pub(crate) fn ended_within(&self, limit: Duration, pipeline: &str) -> Vec<Value> {
        poll_within(limit, "the end of the pipeline", || {
            let workflows = self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
            let items = workflows["items"].as_array().unwrap();
            if items.iter().all(|workflow| !workflow["stopped_at"].is_null()) {
                let jobs = |workflow: &Value| {
                    let path = format!("/api/v2/workflow/{}/job", workflow["id"].as_str().unwrap());
                    self.call("GET", &path, None)["items"].as_array().unwrap().clone()
                };
                return Ok(items.iter().flat_map(jobs).collect());
            }
            Err(workflows.to_string())
        })
    }

    /// Waits until the first job of a pipeline has written this in a step.
    pub(crate) fn wait_output(&self, pipeline: &str, step: u32, text: &str) {
        poll("the output of the step", || {
            let workflows = self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
            let path = format!("/api/v2/workflow/{}/job", workflows["items"][0]["id"].as_str().unwrap());
            let jobs = self.call("GET", &path, None);
            let id = jobs["items"][0]["id"].as_str().unwrap_or_default();
            let path =
                format!("/api/v3/jobs/{id}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D={step}");
            let (token, body) = (Some(&self.token), Body::Empty);
            let request = Request { method: "GET", path: &path, token, body, timeout: ANSWER };
            let answer = self.client.send(&request).unwrap();
            let output = String::from_utf8_lossy(&answer.body).into_owned();
            let is_there = answer.status == 200 && output.contains(text);
            if is_there { Ok(()) } else { Err(format!("{} {output} {jobs}", answer.status)) }
        });
    }
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Five jobs, each of which prints lines that the test can foretell.
pub(crate) fn config(lines: u32) -> String {
    let mut text = String::from("version: 2.1\njobs:\n");
    for name in ["a", "b", "c", "d", "e"] {
        text.push_str(&format!(
            "  {name}:\n    machine: true\n    resource_class: acme/linux\n    steps:\n      - run: seq -f '{name} %.0f' {lines}\n"
        ));
    }
    text.push_str("workflows:\n  w:\n    jobs:\n      - a\n      - b: {requires: [a]}\n      - c: {requires: [a]}\n      - d: {requires: [b, c]}\n      - e\n");
    text
}

pub(crate) fn expected(name: &str, lines: u32) -> String {
    (1..=lines).map(|n| format!("{name} {n}\n")).collect()
}

#[test]
fn who_watches_late_is_told_everything_in_order() {
    let server = Server::start();
    server.project();
    let _runner = server.runner("r", &server.class_token("acme/linux"));
    let pipeline = server.trigger(&config(3));
    server.ended(&pipeline);
    // A step of a job that nobody was told of would be noticed here.
    let seen = Seen::watch(&server, &pipeline);
    for name in ["a", "b", "c", "d", "e"] {
        let job = seen.job(name);
        let output = String::from_utf8(job.steps[1].output.clone()).unwrap();
        assert_eq!((job.status.as_str(), output), ("success", expected(name, 3)));
    }
}

#[test]
fn a_cancel_stops_what_runs() {
    let server = Server::start();
    server.project();
    let token = server.class_token("acme/linux");
    let _runner = server.runner("r", &token);
    let pipeline = server.trigger(
        "version: 2.1\njobs:\n  build:\n    machine: true\n    resource_class: acme/linux\n    steps:\n      - run: sleep 600\n      - run: {command: 'true', when: always}\n",
    );
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let workflow = workflows["items"][0]["id"].as_str().unwrap().to_owned();
    poll("the beginning of the job", || {
        let jobs = server.call("GET", &format!("/api/v2/workflow/{workflow}/job"), None);
        if jobs["items"][0]["status"] == "running" { Ok(()) } else { Err(jobs.to_string()) }
    });
    server.call("POST", &format!("/api/v2/workflow/{workflow}/cancel"), None);
    let jobs = server.ended(&pipeline);
    assert_eq!(jobs[0]["status"], "canceled");
}

#[test]
fn an_unknown_class_fails_the_job_and_says_so() {
    let server = Server::start();
    server.project();
    let pipeline = server.trigger(&config(1));
    let jobs = server.ended(&pipeline);
    let status = |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap()["status"].clone();
    assert_eq!((status("a"), status("d")), (json!("failed"), json!("not_run")));
}

#[test]
fn strangers_are_refused() {
    let server = Server::start();
    let stranger = Secret::new("rlp_wrong");
    for path in ["/api/v2/me", "/api/v3/runner/resource", "/api/v2/pipeline/x"] {
        let (token, body) = (Some(&stranger), Body::Empty);
        let request = Request { method: "GET", path, token, body, timeout: ANSWER };
        assert_eq!(server.client.send(&request).unwrap().status, 401, "{path}");
    }
    let second =
        runlet().arg("server").arg("--data").arg(server.folder.path().join("data")).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "a second control plane on the same data");
    let mut open = runlet();
    open.args(["server", "--data"]).arg(server.folder.path().join("other")).args(["--listen", "0.0.0.0:0"]);
    assert_eq!(
        open.stdin(Stdio::null()).output().unwrap().status.code(),
        Some(1),
        "plain HTTP on every address"
    );
}

const SETUP: &str = "\
version: 2.1
setup: true
parameters: {who: {type: string, default: nobody}}
jobs:
  plan:
    machine: true
    resource_class: a/b
    steps:
      - run: |
          cat > next.yml \\<<'END'
          version: 2.1
          parameters: {who: {type: string, default: nobody}, loud: {type: boolean, default: false}}
          jobs:
            greet:
              machine: true
              resource_class: a/b
              steps: [{run: 'echo hello \\<< pipeline.parameters.who >> \\<< pipeline.parameters.loud >>'}]
          workflows: {go: {jobs: [greet]}}
          END
          echo \"key $CIRCLE_CONTINUATION_KEY\"
          circleci-agent pipeline continue --parameters '{\"loud\": 7}' next.yml && exit 1
          circleci-agent pipeline continue --parameters '{\"loud\": true, \"who\": \"ada\"}' next.yml
          circleci-agent pipeline continue next.yml && exit 1
          exit 0
workflows: {plan: {jobs: [plan]}}
";

#[test]
fn a_setup_job_continues_its_pipeline_once() {
    let server = Server::start();
    server.project();
    let _runner = server.runner("one", &server.class_token("a/b"));
    let body = json!({ "config": { "content": SETUP } });
    let created = server.call("POST", "/api/v2/project/gh/acme/hello/pipeline/run", Some(body));
    let pipeline = created["id"].as_str().unwrap();
    let jobs = server.ended(pipeline);
    let names: Vec<_> = jobs.iter().map(|job| (job["name"].as_str().unwrap(), &job["status"])).collect();
    assert_eq!(names, [("plan", &json!("success")), ("greet", &json!("success"))], "{jobs:?}");
    let plan = server.output(&jobs[0], 1);
    assert!(plan.contains("`loud`") && plan.contains("continued already"), "{plan}");
    assert!(plan.contains("key ****") && !plan.contains("rlk_"), "{plan}");
    assert!(server.output(&jobs[1], 1).contains("hello ada true"));
    let stored = server.call("GET", &format!("/api/v2/pipeline/{pipeline}"), None);
    assert_eq!(stored["state"], "created");
}

#[test]
fn a_workflow_is_run_again_from_where_it_failed() {
    let server = Server::start();
    server.project();
    let _runner = server.runner("one", &server.class_token("a/b"));
    let flag = server.folder.path().join("flag");
    let config = format!(
        "version: 2.1\njobs:\n  build: {{machine: true, resource_class: a/b, steps: [{{run: date +%s%N}}]}}\n  test: {{machine: true, resource_class: a/b, steps: [{{run: 'test -e {}'}}]}}\nworkflows: {{w: {{jobs: [build, {{test: {{requires: [build]}}}}]}}}}\n",
        flag.display()
    );
    let pipeline = server.trigger(&config);
    let first = server.ended(&pipeline);
    assert_eq!(first[1]["status"], "failed");
    std::fs::write(&flag, "").unwrap();
    let workflows = server.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None);
    let workflow = workflows["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v2/workflow/{workflow}/rerun");
    let made = server.call("POST", &path, Some(json!({ "from_failed": true, "sparse_tree": false })));
    server.ended(&pipeline);
    let path = format!("/api/v2/workflow/{}/job", made["workflow_id"].as_str().unwrap());
    let again = server.call("GET", &path, None);
    assert_eq!(
        (&again["items"][0]["status"], &again["items"][1]["status"]),
        (&json!("success"), &json!("success"))
    );
    assert_eq!(again["items"][0]["job_number"], first[0]["job_number"], "the result was kept");
    assert_ne!(again["items"][1]["job_number"], first[1]["job_number"]);
    let path = format!("/api/v2/workflow/{workflow}/rerun");
    server.refused("POST", &path, Some(json!({ "enable_ssh": true })), 400, "SSH");
}

#[test]
fn configs_are_compiled_for_clients() {
    let server = Server::start();
    let anonymous = |path: &str, body: Option<Value>| {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
        let request = Request { method: "POST", path, token: None, body, timeout: ANSWER };
        let answer = server.client.send(&request).unwrap();
        (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap())
    };
    let config = "version: 2.1\nparameters: {who: {type: string, default: x}}\njobs:\n  build:\n    machine: true\n    resource_class: a/b\n    steps: [{run: echo << pipeline.parameters.who >> << pipeline.git.branch >>}]\n";
    let v2 = "/api/v2/compile-config-with-defaults";
    assert_eq!(anonymous(v2, None).0, 400, "the probe of a client");
    let options = json!({ "pipeline_parameters": { "who": "ada" }, "pipeline_values": { "pipeline.git.branch": "main" } });
    let (status, good) = anonymous(v2, Some(json!({ "config_yaml": config, "options": options })));
    assert_eq!((status, &good["valid"], &good["errors"]), (200, &json!(true), &Value::Null));
    assert!(good["output-yaml"].as_str().unwrap().contains("echo ada main"), "{good}");
    assert_eq!(good["source-yaml"], config);
    let (status, bad) =
        anonymous(v2, Some(json!({ "config_yaml": "version: 2.1\njobs: {build: {stepz: []}}\n" })));
    assert_eq!((status, &bad["valid"]), (200, &json!(false)));
    assert!(bad["errors"][0]["message"].as_str().unwrap().contains("config.yml:2:"), "{bad}");

    // Values that a pipeline would have are made up.
    let numbered = "version: 2.1\njobs:\n  build:\n    machine: true\n    resource_class: a/b\n    parallelism: << pipeline.number >>\n    steps: [{run: echo << pipeline.git.branch >>}]\n";
    let (status, good) = anonymous(v2, Some(json!({ "config_yaml": numbered })));
    assert_eq!((status, &good["valid"]), (200, &json!(true)), "{good}");
    assert!(good["output-yaml"].as_str().unwrap().contains("echo main"), "{good}");

    let v3 = "/api/v3/configs/compile";
    let request = |config: &str| json!({ "data": { "attributes": { "config": config, "pipeline_values": { "pipeline.git.branch": "main", "pipeline.parameters.who": "bob" } } } });
    let (status, good) = anonymous(v3, Some(request(config)));
    let attributes = &good["data"]["attributes"];
    assert_eq!((status, &attributes["outcome"]), (200, &json!("succeeded")));
    assert!(attributes["compiled_config"].as_str().unwrap().contains("echo bob main"), "{good}");
    let (status, bad) = anonymous(v3, Some(request("version: 2.1\njobs: {}\n")));
    assert_eq!((status, &bad["data"]["attributes"]["outcome"]), (200, &json!("failed")));
    assert!(bad["meta"]["messages"][0]["title"].as_str().is_some_and(|title| !title.is_empty()), "{bad}");
}

/// A config of one job `build` of the class `a/b`, which runs this command; it has no quote in it.
pub(crate) fn one_step(command: &str) -> String {
    format!(
        "version: 2.1\njobs: {{build: {{machine: true, resource_class: a/b, steps: [{{run: '{command}'}}]}}}}\nworkflows: {{w: {{jobs: [build]}}}}\n"
    )
}
