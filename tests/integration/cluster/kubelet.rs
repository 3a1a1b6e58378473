//! The kubelet: binds pods and starts their containers as processes of this host. The folder that the containers of a pod
//! share lies in a folder of the pod; paths below it are replaced in arguments and variables.

use super::Shared;
use crate::support::processes;
use crate::support::runner::RUNLET;
use base64::Engine;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHARED: &str = "/opt/circleci";
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn start(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        loop {
            let mut state = shared.lock();
            if state.over {
                return;
            }
            for pod in state.all("pods") {
                let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
                // A pod that has no containers of ours is another's: the pod of an agent, say.
                if pod["spec"]["initContainers"].is_null() || state.running.contains_key(&uid) {
                    continue;
                }
                state.running.insert(uid, false);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || Run::of(shared, pod).run());
            }
            drop(shared.changed.wait_timeout(state, Duration::from_millis(50)).unwrap());
        }
    });
}

struct Run {
    shared: Arc<Shared>,
    pod: Value,
    name: String,
    uid: String,
    folder: PathBuf,
}

impl Run {
    fn of(shared: Arc<Shared>, pod: Value) -> Self {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap().to_owned();
        let (name, uid) = (text("name"), text("uid"));
        let folder = shared.folder.join("pods").join(&uid);
        std::fs::create_dir_all(folder.join("home")).unwrap();
        Self { shared, pod, name, uid, folder }
    }

    fn run(&self) {
        self.change(|pod| pod["spec"]["nodeName"] = json!("node-a"));
        self.status("Pending", &[("runlet-init", waiting("PodInitializing"))], &[]);
        let is_installed = self.shared.lock().knobs.installs_once && self.link();
        for init in self.list("initContainers").into_iter().filter(|_| !is_installed) {
            let mut child = match self.start(&init) {
                Ok(child) => child,
                Err(why) => {
                    return self
                        .finish("Failed", vec![(name_of(&init), terminated(128, "StartError", &why))]);
                }
            };
            let code = child.wait().unwrap().code().unwrap_or(1);
            if code != 0 {
                return self.finish("Failed", vec![(name_of(&init), terminated(code, "Error", ""))]);
            }
        }
        if !is_installed && self.shared.lock().knobs.installs_once {
            self.keep();
        }
        if self.is_evicted() {
            return self.finish("Failed", Vec::new());
        }
        let mut states: Vec<(String, Value)> = Vec::new();
        let mut children: Vec<(String, Child)> = Vec::new();
        for container in self.list("containers") {
            let name = name_of(&container);
            match self.start(&container) {
                Ok(child) => {
                    self.shared.lock().processes.extend(Pid::from_raw(child.id() as i32));
                    children.push((name.clone(), child));
                    states.push((name, json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } })));
                }
                Err(why) => states.push((name, terminated(128, "StartError", &why))),
            }
            self.hook(&container);
        }
        self.say("Running", &states);
        let mut deadline = None;
        while children.iter().any(|(name, _)| name == "container-0") {
            let mut ended = Vec::new();
            children.retain_mut(|(name, child)| match child.try_wait().unwrap() {
                Some(status) => {
                    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                    ended.push((
                        name.clone(),
                        terminated(code, if code == 0 { "Completed" } else { "Error" }, ""),
                    ));
                    false
                }
                None => true,
            });
            if !ended.is_empty() {
                for (name, state) in ended {
                    states
                        .iter_mut()
                        .filter(|(known, _)| *known == name)
                        .for_each(|(_, known)| *known = state.clone());
                }
                self.say("Running", &states);
            }
            let (over, ends) = {
                let state = self.shared.lock();
                (state.over, state.running.get(&self.uid).copied().unwrap_or(true))
            };
            let is_gone =
                !self.shared.lock().all("pods").iter().any(|pod| pod["metadata"]["uid"] == self.uid.as_str());
            if over || is_gone || self.is_evicted() {
                end(&children);
            } else if ends && deadline.is_none() {
                deadline = Some(Instant::now() + Duration::from_secs(20));
                signal(&children, Signal::TERM);
            } else if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                end(&children);
            }
            std::thread::sleep(LOOK);
        }
        // The last process of a namespace takes the others with it; services are stopped.
        end(&children);
        for (name, mut child) in children {
            child.wait().unwrap();
            states
                .iter_mut()
                .filter(|(known, _)| *known == name)
                .for_each(|(_, state)| *state = terminated(137, "Error", ""));
        }
        let is_bad =
            states.iter().any(|(name, state)| name == "container-0" && state["terminated"]["exitCode"] != 0);
        self.finish(if is_bad { "Failed" } else { "Succeeded" }, states);
    }

    /// Gives the pod what another one has installed. False when none has.
    fn link(&self) -> bool {
        let (installed, own) = (self.shared.folder.join("installed"), self.folder.join("shared/bin"));
        let Ok(files) = std::fs::read_dir(&installed) else { return false };
        std::fs::create_dir_all(&own).unwrap();
        for file in files {
            let file = file.unwrap();
            std::fs::hard_link(file.path(), own.join(file.file_name())).unwrap();
        }
        true
    }

    /// Keeps what this pod has installed for others.
    fn keep(&self) {
        let (own, installed) = (self.folder.join("shared/bin"), self.shared.folder.join("installed"));
        // Several may be first; one of them is enough.
        let _ = std::fs::rename(&own, &installed).map(|()| self.link());
    }

    fn is_evicted(&self) -> bool {
        self.shared.lock().evicted.contains(&self.uid)
    }

    fn finish(&self, phase: &str, states: Vec<(String, Value)>) {
        if self.is_evicted() {
            let message = "The node was low on resource: memory.";
            let condition = json!({ "type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message });
            let status = json!({ "phase": "Failed", "reason": "Evicted", "message": message, "conditions": [condition] });
            self.change(|pod| pod["status"] = status);
        } else {
            self.say(phase, &states);
        }
        let mut state = self.shared.lock();
        if state.running.get(&self.uid) == Some(&true) {
            state.remove("pods", &self.name);
        }
        drop(state);
        self.shared.changed.notify_all();
        // The shared folder goes with its pod, but for what containers have printed.
        let _ = std::fs::remove_dir_all(self.folder.join("shared"));
    }

    fn say(&self, phase: &str, states: &[(String, Value)]) {
        let (inits, mains): (Vec<_>, Vec<_>) =
            states.iter().cloned().partition(|(name, _)| name == "runlet-init");
        let inits: Vec<_> = inits.iter().map(|(name, state)| (name.as_str(), state.clone())).collect();
        let mains: Vec<_> = mains.iter().map(|(name, state)| (name.as_str(), state.clone())).collect();
        self.status(phase, &inits, &mains);
    }

    fn status(&self, phase: &str, inits: &[(&str, Value)], mains: &[(&str, Value)]) {
        let list = |states: &[(&str, Value)]| -> Vec<Value> {
            states.iter().map(|(name, state)| json!({ "name": name, "state": state })).collect()
        };
        let status =
            json!({ "phase": phase, "initContainerStatuses": list(inits), "containerStatuses": list(mains) });
        self.change(|pod| pod["status"] = status);
    }

    /// Changes the pod, if it is still this one.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.shared.lock();
        if state.get("pods", &self.name).is_some_and(|pod| pod["metadata"]["uid"] == self.uid.as_str()) {
            state.change("pods", &self.name, change);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    fn list(&self, key: &str) -> Vec<Value> {
        self.pod["spec"][key].as_array().cloned().unwrap_or_default()
    }

    fn here(&self, text: &str) -> String {
        text.replace(SHARED, &self.folder.join("shared").to_string_lossy()).replace("$$(", "$(")
    }

    /// A root with nothing in it but what a runtime puts there, and the libraries of the program where it needs any.
    fn root(&self) -> PathBuf {
        let root = self.folder.join("root");
        for folder in ["opt/circleci", "proc", "dev", "etc"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("dev/null"), "").unwrap();
        std::fs::write(root.join("etc/hostname"), format!("{}\n", self.name)).unwrap();
        let libraries = Command::new("ldd").arg(RUNLET).output().unwrap().stdout;
        let libraries = String::from_utf8_lossy(&libraries).into_owned();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = root.join(library.trim_start_matches('/'));
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(library, place).unwrap();
        }
        root
    }

    /// Starts a container in a root of its own, as the first process of a namespace.
    fn start_in_root(&self, container: &Value) -> Result<Child, String> {
        let root = self.root();
        let mut command = private();
        let script = "mount --bind \"$2\" \"$1/opt/circleci\" && mount --bind /dev/null \"$1/dev/null\" && mount -t proc proc \"$1/proc\" || exit 126; root=$1; shift 2; exec chroot \"$root\" \"$@\"";
        command.args(["sh", "-c", script, "sh"]).arg(&root).arg(self.folder.join("shared"));
        for word in container["command"].as_array().into_iter().flatten() {
            command.arg(word.as_str().unwrap());
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/");
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), self.raw(variable)?);
        }
        let log = std::fs::File::create(self.folder.join(name_of(container))).unwrap();
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().map_err(|error| format!("exec: \"unshare\": {error}"))
    }

    fn start(&self, container: &Value) -> Result<Child, String> {
        if self.shared.lock().knobs.private_roots && name_of(container) != "runlet-init" {
            return self.start_in_root(container);
        }
        let words = |key: &str| -> Vec<String> {
            container[key]
                .as_array()
                .into_iter()
                .flatten()
                .map(|word| self.here(word.as_str().unwrap()))
                .collect()
        };
        let mut line = words("command");
        if line.is_empty() && name_of(container) == "runlet-init" {
            line.push(RUNLET.to_owned());
        }
        line.extend(words("args"));
        if line.is_empty() {
            line = vec!["sleep".to_owned(), "600".to_owned()];
        }
        let mut command = Command::new(&line[0]);
        let home = self.folder.join("home");
        command.args(&line[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &home).env("TMPDIR", &self.folder).current_dir(&home).process_group(0);
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), self.value(variable)?);
        }
        let log = std::fs::File::create(self.folder.join(name_of(container))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().map_err(|error| format!("exec: \"{}\": {error}", line[0]))
    }

    /// The value of a variable, out of its secret if it is there in time.
    fn value(&self, variable: &Value) -> Result<String, String> {
        self.raw(variable).map(|text| self.here(&text))
    }

    fn raw(&self, variable: &Value) -> Result<String, String> {
        let source = &variable["valueFrom"]["secretKeyRef"];
        let (Some(name), Some(key)) = (source["name"].as_str(), source["key"].as_str()) else {
            return Ok(variable["value"].as_str().unwrap_or_default().to_owned());
        };
        let secret =
            self.shared.lock().get("secrets", name).cloned().ok_or(format!("secret \"{name}\" not found"))?;
        let text =
            secret["data"][key].as_str().ok_or(format!("couldn't find key {key} in Secret ci/{name}"))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        Ok(String::from_utf8(bytes).unwrap())
    }

    fn hook(&self, container: &Value) {
        let Some(words) = container["lifecycle"]["postStart"]["exec"]["command"].as_array() else { return };
        let words: Vec<String> = words.iter().map(|word| self.here(word.as_str().unwrap())).collect();
        assert!(Command::new(&words[0]).args(&words[1..]).status().unwrap().success());
    }
}

/// A command in namespaces of its own, whose processes end with it.
fn private() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
    command
}

/// Whether this host lets its users have namespaces.
pub(super) fn has_private_roots() -> bool {
    let mut probe = private();
    probe.args(["sh", "-c", "mount -t proc proc /proc && mount --bind /dev/null /dev/null"]);
    let answer = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    answer.is_ok_and(|status| status.success())
}

fn signal(children: &[(String, Child)], signal: Signal) {
    for (_, child) in children {
        // A child may have ended a moment ago.
        let _ = Pid::from_raw(child.id() as i32).map(|pid| kill_process_group(pid, signal));
    }
}

fn end(children: &[(String, Child)]) {
    children.iter().filter_map(|(_, child)| Pid::from_raw(child.id() as i32)).for_each(end_all);
}

/// Ends the first process of a container and all that descend from it, as the end of a namespace of processes does.
pub(super) fn end_all(first: Pid) {
    // Held still, it reaps nobody and starts nothing meanwhile.
    let _ = kill_process_group(first, Signal::STOP);
    processes::end_below(first.as_raw_nonzero().get().unsigned_abs());
    let _ = kill_process_group(first, Signal::KILL);
}

fn name_of(container: &Value) -> String {
    container["name"].as_str().unwrap().to_owned()
}

fn waiting(reason: &str) -> Value {
    json!({ "waiting": { "reason": reason } })
}

fn terminated(code: i32, reason: &str, message: &str) -> Value {
    json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } })
}
