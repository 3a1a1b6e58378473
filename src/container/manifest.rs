//! From a claimed task to the objects of the cluster: its secrets and its pod. Values in, values out.
//!
//! ```text
//!  init  this program -> /opt/circleci/bin       shared folder of the pod (an emptyDir)
//!  container-0    `runlet pod run`: the image of the job, the task by the token in a variable out of the secret
//!  secondary-K    the services; a post-start hook leaves /opt/circleci/ready/K, which container-0 waits for
//! ```

use super::plane::ClaimedTask;
use super::services::choose;
use super::settings::{ClassSettings, ContainerSettings};
use crate::protocol::pod_task::{PodTask, SHARED, VARIABLE};
use crate::protocol::{Container, Words};
use crate::system::shell;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Label of all objects, as CircleCI's own agent has it, so that what people have written for that goes on working.
pub(super) const MANAGED: &str = "app.kubernetes.io/managed-by";
/// Value of that label on all objects of this runner.
pub(super) const MANAGER: &str = "circleci-container-agent";
/// Annotations that say whose an object is.
pub(super) const TASK: &str = "runlet.dev/task";
pub(super) const ALLOCATION: &str = "runlet.dev/allocation";
pub(super) const CLASS: &str = "runlet.dev/resource-class";
pub(super) const INSTANCE: &str = "runlet.dev/instance";
/// Key of the secret.
pub(super) const KEY: &str = "task";
/// Name of the container that runs the steps.
pub(super) const PRIMARY: &str = "container-0";
/// Name of the init container.
pub(super) const INIT: &str = "runlet-init";
/// Names of the volume that the containers share.
const VOLUME: &str = "runlet-shared";
/// Grace of a pod: what a task agent takes to stop its steps.
const GRACE_SECONDS: i64 = 45;
/// Time that a task takes to stop, and more: beyond that, the longest wait for its begin and the longest task, the node itself
/// makes an end.
const DEADLINE_MARGIN: Duration = Duration::from_secs(600);
/// A task waits for its begin as long as that, where nothing else is said.
const USUAL_BEGIN_SECONDS: u32 = 600;
/// Largest secret, in bytes.
const MOST_SECRET_BYTES: usize = 1024 * 1024;

/// Objects of a task.
#[derive(Clone, Debug)]
pub(super) struct TaskObjects {
    /// Name of the pod, and of its secret.
    pub(super) name: String,
    /// Secret that tells the pod of its task.
    pub(super) secret: Value,
    /// Logins of registries.
    pub(super) login: Option<Value>,
    /// Pod that runs the task.
    pub(super) pod: Value,
}

/// The name of the objects of a claim: another claim of the same task has another.
pub(super) fn name_of(task: &str, allocation: &str) -> String {
    let plain = |text: &str, most: usize| -> String {
        let kept = text
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        kept.take(most).collect::<String>().trim_matches('-').to_owned()
    };
    format!("ccita-{}-0-{}", plain(task, 40), plain(allocation, 8))
}

/// Name of the secret with logins.
pub(super) fn login_name(name: &str) -> String {
    format!("{name}-pull")
}

/// The name of the pod that a secret belongs to.
pub(super) fn pod_of(secret: &str) -> &str {
    secret.strip_suffix("-pull").unwrap_or(secret)
}

/// Makes the objects. The error is for the job: no pod can be made of this.
pub(super) fn objects(
    settings: &ContainerSettings,
    class: &ClassSettings,
    init_image: &str,
    task: &ClaimedTask,
    ca: Option<&str>,
) -> Result<TaskObjects, String> {
    let [primary, services @ ..] = task.containers.as_slice() else {
        return Err("the task names no container".to_owned());
    };
    let name = name_of(task.id.as_str(), &task.allocation);
    let waits = (1..=services.len()).map(ready_file).collect();
    let told = told(settings, task, primary, waits, ca)?;
    let template_metadata = class.template.get("metadata");
    let mut labels = as_map(template_metadata.and_then(|metadata| metadata.get("labels")));
    labels.insert(MANAGED.to_owned(), json!(MANAGER));
    let mut annotations = as_map(template_metadata.and_then(|metadata| metadata.get("annotations")));
    let known = [
        (TASK, task.id.as_str()),
        (ALLOCATION, &task.allocation),
        (CLASS, &class.name.to_string()),
        (INSTANCE, &settings.instance),
        ("runlet.dev/job", &task.job_name),
        ("runlet.dev/job-url", &task.job_url),
    ]
    .map(|(key, value)| (key.to_owned(), json!(value)));
    let own: Map<String, Value> = known.into_iter().collect();
    annotations.extend(own.clone());
    for (key, variable) in
        [("runlet.dev/branch", "CIRCLE_BRANCH"), ("runlet.dev/project", "CIRCLE_PROJECT_REPONAME")]
    {
        if let Some(value) = task.built_in.get(variable) {
            annotations.insert(key.to_owned(), json!(value));
        }
    }
    let mut spec = as_map(class.template.get("spec"));
    let mut containers = as_list(spec.remove("containers"));
    let template = if containers.is_empty() { Map::new() } else { as_map(Some(&containers.remove(0))) };
    let mut all = vec![Value::Object(first(&template, primary, settings, &name))];
    for (n, service) in services.iter().enumerate() {
        let chosen = choose(&class.services, &settings.services, &service.image);
        let base = chosen.as_ref().map_or_else(|| template.clone(), |chosen| as_map(Some(chosen.spec)));
        if let Some(chosen) = chosen {
            let key = format!("app.circleci.com/container-spec-secondary-{}", n + 1);
            annotations.insert(key, json!(chosen.reason.to_string()));
        }
        all.push(Value::Object(second(&base, service, n + 1)));
    }
    // Containers that the template has beside go on as they are.
    all.append(&mut containers);
    spec.insert("containers".to_owned(), Value::Array(all));
    let mut inits = vec![init(init_image, settings, &template)];
    inits.append(&mut as_list(spec.remove("initContainers")));
    spec.insert("initContainers".to_owned(), Value::Array(inits));
    push(&mut spec, "volumes", json!({ "name": VOLUME, "emptyDir": {} }));
    let aliases: Vec<&str> = services
        .iter()
        .filter_map(|service| service.name.as_deref())
        .filter(|name| is_host_name(name))
        .collect();
    if !aliases.is_empty() {
        // The containers of a pod share its network.
        push(&mut spec, "hostAliases", json!({ "ip": "127.0.0.1", "hostnames": aliases }));
    }
    let login = login(task, &name, &own);
    if login.is_some() {
        push(&mut spec, "imagePullSecrets", json!({ "name": login_name(&name) }));
    }
    spec.insert("restartPolicy".to_owned(), json!("Never"));
    let begin = Duration::from_secs(task.begin_seconds.max(USUAL_BEGIN_SECONDS).into());
    let deadline = (settings.max_run_time + begin + DEADLINE_MARGIN).as_secs();
    for (key, value) in [
        ("activeDeadlineSeconds", json!(deadline)),
        ("automountServiceAccountToken", json!(false)),
        ("enableServiceLinks", json!(false)),
        ("terminationGracePeriodSeconds", json!(GRACE_SECONDS)),
    ] {
        spec.entry(key).or_insert(value);
    }
    let metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
    let pod = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec });
    let secret = json!({ "kind": "Secret", "apiVersion": "v1", "type": "Opaque", "stringData": { KEY: told },
        "metadata": { "name": name, "labels": { MANAGED: MANAGER }, "annotations": own } });
    Ok(TaskObjects { name, secret, login, pod })
}

/// The document of the secret.
fn told(
    settings: &ContainerSettings,
    task: &ClaimedTask,
    primary: &Container,
    wait_for: Vec<PathBuf>,
    ca: Option<&str>,
) -> Result<String, String> {
    let mut entrypoint = words(primary.entrypoint.as_ref())?;
    entrypoint.extend(words(primary.command.as_ref())?);
    let told = PodTask {
        id: task.id.clone(),
        token: task.token.clone(),
        url: settings.endpoint.url.clone(),
        ca: ca.map(str::to_owned),
        runner_name: settings.name.clone(),
        runner_version: env!("CARGO_PKG_VERSION").to_owned(),
        max_run_time_ms: u64::try_from(settings.max_run_time.as_millis()).unwrap_or(u64::MAX),
        user: primary.user.clone().filter(|user| number_of(user).is_none()),
        entrypoint,
        wait_for,
        log_level: Some(settings.logging.level.as_str().to_ascii_lowercase()),
        mask_forms: Vec::new(),
    };
    let told =
        serde_json::to_string(&told).map_err(|error| format!("cannot write the task as JSON: {error}"))?;
    if told.len() > MOST_SECRET_BYTES {
        let why = format!(
            "the secret of the task would have {} bytes, a cluster takes {MOST_SECRET_BYTES}",
            told.len()
        );
        return Err(format!(
            "{why}: shorten the entry point, or the file of authorities of the control plane"
        ));
    }
    Ok(told)
}

/// The secret with the logins of the registries of this task.
fn login(task: &ClaimedTask, name: &str, annotations: &Map<String, Value>) -> Option<Value> {
    use base64::Engine;
    let mut auths = Map::new();
    for container in &task.containers {
        let Some(login) = &container.login else { continue };
        let (user, password) = (&login.username, login.password.expose());
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        auths.insert(
            registry_of(&container.image).to_owned(),
            json!({ "username": user, "password": password, "auth": both }),
        );
    }
    if auths.is_empty() {
        return None;
    }
    let config = json!({ "auths": auths }).to_string();
    Some(json!({ "kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config },
        "metadata": { "name": login_name(name), "labels": { MANAGED: MANAGER }, "annotations": annotations } }))
}

/// The registry of an image: the part before the first slash, where that looks like a host.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "https://index.docker.io/v1/",
    }
}

fn program() -> String {
    format!("{SHARED}/bin/runlet")
}

fn ready_file(n: usize) -> PathBuf {
    PathBuf::from(format!("{SHARED}/ready/{n}"))
}

fn mount() -> Value {
    json!({ "name": VOLUME, "mountPath": SHARED })
}

/// The init container: under the policy that the template is written for, but with no more than it needs.
fn init(image: &str, settings: &ContainerSettings, template: &Map<String, Value>) -> Value {
    let mut init = json!({ "name": INIT, "image": image, "args": ["pod", "install", format!("{SHARED}/bin")],
        "resources": settings.init_resources, "volumeMounts": [mount()] });
    let security = as_map(template.get("securityContext"));
    if !security.is_empty() && security.get("privileged") != Some(&json!(true)) {
        init["securityContext"] = Value::Object(security);
    }
    init
}

/// The container of the steps.
fn first(
    template: &Map<String, Value>,
    container: &Container,
    settings: &ContainerSettings,
    secret: &str,
) -> Map<String, Value> {
    let mut spec = common(template, container, PRIMARY);
    spec.insert("command".to_owned(), json!([program(), "pod", "run"]));
    for name in ["args", "workingDir"] {
        spec.remove(name);
    }
    let mut env: Vec<Value> =
        settings.proxy.iter().map(|(name, value)| json!({ "name": name, "value": literal(value) })).collect();
    env.append(&mut as_list(spec.remove("env")));
    env.push(json!({ "name": VARIABLE, "valueFrom": { "secretKeyRef": { "name": secret, "key": KEY } } }));
    spec.insert("env".to_owned(), Value::Array(env));
    // The last lines of a first process that failed say why.
    spec.entry("terminationMessagePolicy").or_insert(json!("FallbackToLogsOnError"));
    spec
}

/// The container of a service.
fn second(template: &Map<String, Value>, container: &Container, n: usize) -> Map<String, Value> {
    let mut spec = common(template, container, &format!("secondary-{n}"));
    for (key, given) in [("command", &container.entrypoint), ("args", &container.command)] {
        spec.remove(key);
        if let Ok(words) = words(given.as_ref()) {
            if !words.is_empty() {
                let words: Vec<String> = words.iter().map(|word| literal(word)).collect();
                spec.insert(key.to_owned(), json!(words));
            }
        }
    }
    let hook = json!({ "exec": { "command": [program(), "pod", "ready", ready_file(n)] } });
    let mut lifecycle = as_map(spec.get("lifecycle"));
    lifecycle.insert("postStart".to_owned(), hook);
    spec.insert("lifecycle".to_owned(), Value::Object(lifecycle));
    spec
}

fn common(template: &Map<String, Value>, container: &Container, name: &str) -> Map<String, Value> {
    let mut spec = template.clone();
    spec.insert("name".to_owned(), json!(name));
    spec.insert("image".to_owned(), json!(container.image));
    let mut env = as_list(spec.remove("env"));
    env.retain(|one| !one["name"].as_str().is_some_and(|name| container.environment.contains_key(name)));
    env.extend(
        container.environment.iter().map(|(name, value)| json!({ "name": name, "value": literal(value) })),
    );
    if !env.is_empty() {
        spec.insert("env".to_owned(), Value::Array(env));
    }
    push(&mut spec, "volumeMounts", mount());
    if let Some((user, group)) = container.user.as_deref().and_then(number_of) {
        let mut security = as_map(spec.get("securityContext"));
        security.insert("runAsUser".to_owned(), json!(user));
        if let Some(group) = group {
            security.insert("runAsGroup".to_owned(), json!(group));
        }
        spec.insert("securityContext".to_owned(), Value::Object(security));
    }
    spec
}

/// A user that is a number, and root, which is one everywhere; with its group.
fn number_of(user: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| if text == "root" { Some(0) } else { text.parse().ok() };
    match user.split_once(':') {
        Some((user, group)) => Some((number(user)?, Some(number(group)?))),
        None => Some((number(user)?, None)),
    }
}

/// Kubernetes replaces `$(NAME)` in variables and arguments.
fn literal(text: &str) -> String {
    text.replace("$(", "$$(")
}

/// The words of a command line, by the rules of a shell.
fn words(given: Option<&Words>) -> Result<Vec<String>, String> {
    match given {
        None => Ok(Vec::new()),
        Some(Words::List(list)) => Ok(list.clone()),
        Some(Words::Line(line)) => {
            shell::words(line).map_err(|quote| format!("`{line}` has an unclosed {quote}"))
        }
    }
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn as_map(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn as_list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn push(spec: &mut Map<String, Value>, key: &str, value: Value) {
    let mut list = as_list(spec.remove(key));
    list.push(value);
    spec.insert(key.to_owned(), Value::Array(list));
}

#[cfg(test)]
mod tests;
