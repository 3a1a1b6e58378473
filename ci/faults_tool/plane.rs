//! The control plane under test: a process that is started, killed and started again, and what people ask of it.

use crate::line::Port;
use runlet::http::{Body, Client, Endpoint, Request};
use runlet::protocol::Secret;
use serde_json::{Value, json};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest that a start may take.
const START: Duration = Duration::from_secs(60);
/// Project of the pipelines.
pub(crate) const PROJECT: &str = "faults";
/// Project of those whose jobs a runner may refuse.
pub(crate) const DENIED: &str = "denied";

pub(crate) struct Plane {
    program: PathBuf,
    folder: PathBuf,
    /// Size of the file system of its own that holds its data.
    disk: Option<&'static str>,
    port: Port,
    client: Client,
    token: Secret,
    child: Mutex<Option<Child>>,
}

impl Plane {
    pub(crate) fn start(program: &Path, folder: &Path, disk: Option<&'static str>) -> Result<Self, String> {
        let port = Port::hold().map_err(|error| format!("failed to hold a port: {error}"))?;
        let url = format!("http://{}", port.address);
        let endpoint = Endpoint { url, ..Endpoint::default() };
        let client = Client::new(&endpoint).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(folder.join("data"))
            .map_err(|error| format!("failed to make a folder: {error}"))?;
        let mut plane = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            disk,
            port,
            client,
            token: Secret::new(""),
            child: Mutex::new(None),
        };
        plane.rise()?;
        let token = plane.data().join("admin-token");
        let began = Instant::now();
        plane.token = loop {
            match std::fs::read_to_string(&token) {
                Ok(text) if !text.is_empty() => break Secret::new(text),
                _ if began.elapsed() > START => return Err(format!("no token in `{}`", token.display())),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        for name in [PROJECT, DENIED] {
            plane.call("POST", "/api/v2/organization/gh/acme/project", Some(json!({ "name": name })))?;
        }
        Ok(plane)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// The data folder of the control plane, by a path that this process can open.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.folder.join("data");
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.disk, child.as_ref()) {
            (Some(_), Some(child)) => PathBuf::from(format!("/proc/{}/root{}", child.id(), data.display())),
            _ => data,
        }
    }

    /// Starts the process, and waits until it answers.
    fn rise(&self) -> Result<(), String> {
        let data = self.folder.join("data");
        let mut command = crate::host::on_disk(&self.program, self.disk.map(|size| (data.as_path(), size)));
        command.args(["server", "--listen", &self.port.address.to_string(), "--data"]).arg(&data);
        let log = File::options().create(true).append(true).open(self.folder.join("server.log"));
        let log = log.map_err(|error| format!("failed to open a log: {error}"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("failed to start the control plane: {error}"))?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let began = Instant::now();
        loop {
            let request =
                Request { method: "GET", path: "/live", token: None, body: Body::Empty, timeout: START };
            match self.client.send(&request) {
                Ok(answer) if answer.status == 200 => return Ok(()),
                _ if began.elapsed() > START => return Err("the control plane did not start".to_owned()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Ends the process without mercy.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn rise_again(&self) {
        if let Err(why) = self.rise() {
            eprintln!("faults: {why}");
        }
    }

    /// Makes a call of a person, again and again while no answer comes.
    pub(crate) fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, String> {
        let bytes = self.bytes(method, path, body)?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{method} {path}: {error}"))
    }

    pub(crate) fn bytes(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Vec<u8>, String> {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let body = bytes.as_deref().map_or(Body::Empty, Body::Json);
        let timeout = Duration::from_secs(60);
        let request = Request { method, path, token: Some(&self.token), body, timeout };
        let began = Instant::now();
        loop {
            match self.client.send(&request) {
                Ok(answer) if answer.status < 300 => return Ok(answer.body),
                Ok(answer)
                    if method != "GET"
                        || !matches!(answer.status, 500.. | 429)
                        || began.elapsed() > START =>
                {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    return Err(format!("{method} {path}: {} {body}", answer.status));
                }
                Err(error) if began.elapsed() > START => return Err(error.to_string()),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// A token for runners of a class, which is made.
    pub(crate) fn class(&self, class: &str) -> Result<String, String> {
        self.call("POST", "/api/v3/runner/resource", Some(json!({ "resource_class": class })))?;
        let body = json!({ "resource_class": class, "nickname": "faults" });
        let made = self.call("POST", "/api/v3/runner/token", Some(body))?;
        made["token"].as_str().map(str::to_owned).ok_or_else(|| format!("no token in {made}"))
    }

    /// Sets how long tasks of a class may be out of reach.
    pub(crate) fn budget(&self, class: &str, budget: &str) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(["admin", "resource-class", "set-budget", class, budget]);
        command.env("RUNLET_SERVER", self.client.url()).env("RUNLET_TOKEN", self.token.expose());
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("failed to set a budget: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs a config in a project; its pipeline.
    pub(crate) fn trigger(&self, project: &str, config: &str) -> Result<String, String> {
        let body = json!({ "config": { "content": config } });
        let created =
            self.call("POST", &format!("/api/v2/project/gh/acme/{project}/pipeline/run"), Some(body))?;
        created["id"].as_str().map(str::to_owned).ok_or_else(|| format!("no pipeline: {created}"))
    }

    /// Findings of `runlet server check` in its data.
    pub(crate) fn faults_of_data(&self) -> Option<String> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id);
        let mut command = match (self.disk, child) {
            // Only while its disk is there.
            (Some(_), Some(pid)) => {
                let mut command = Command::new("nsenter");
                command.args(["--user", "--mount", "--preserve-credentials", "--target", &pid.to_string()]);
                command.arg(&self.program);
                command
            }
            _ => Command::new(&self.program),
        };
        let output = command.args(["server", "check", "--data"]).arg(self.folder.join("data")).output();
        match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let (out, err) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                Some(format!("`runlet server check`: {}", format!("{out} {err}").replace('\n', "; ")))
            }
            Err(error) => Some(format!("failed to run `runlet server check`: {error}")),
        }
    }

    /// The jobs of a pipeline, when they have all ended.
    pub(crate) fn jobs(&self, pipeline: &str) -> Result<Option<Vec<Value>>, String> {
        let found = self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None)?;
        let Some(workflow) = found["items"].as_array().and_then(|items| items.first()) else {
            return Err(format!("pipeline {pipeline} has no workflow: {found}"));
        };
        if workflow["stopped_at"].is_null() {
            return Ok(None);
        }
        let id = workflow["id"].as_str().unwrap_or_default();
        let jobs = self.call("GET", &format!("/api/v2/workflow/{id}/job"), None)?;
        Ok(jobs["items"].as_array().cloned())
    }

    /// Cancels what has not ended of a pipeline. False when it had ended.
    pub(crate) fn cancel(&self, pipeline: &str) -> Result<bool, String> {
        let found = self.call("GET", &format!("/api/v2/pipeline/{pipeline}/workflow"), None)?;
        let workflow = &found["items"][0];
        if !workflow["stopped_at"].is_null() {
            return Ok(false);
        }
        let id = workflow["id"].as_str().ok_or_else(|| format!("pipeline {pipeline} has no workflow"))?;
        self.call("POST", &format!("/api/v2/workflow/{id}/cancel"), None).map(|_| true)
    }

    /// Output of a step of a job.
    pub(crate) fn output(&self, job: &Value, step: u32) -> Result<Vec<u8>, String> {
        let id = job["id"].as_str().unwrap_or_default();
        let path = format!("/api/v3/jobs/{id}/stdout?filter%5Bexecution%5D=0&filter%5Bstep_num%5D={step}");
        match self.bytes("GET", &path, None) {
            // A step that never began has no output.
            Err(why) if why.contains(": 404 ") => Ok(Vec::new()),
            result => result,
        }
    }

    pub(crate) fn url_path<'a>(&self, url: &'a str) -> &'a str {
        url.strip_prefix(self.client.url()).unwrap_or(url)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
    }
}
