//! From the texts of file and variables to [`ContainerSettings`], with errors that name the path of what is wrong.

use super::schema::{Schema, describe, unknown};
use super::types::{Checker, ClassSettings, Cluster, ContainerSettings, Gc};
use super::yaml;
use crate::container::services::ServiceRules;
use crate::http::Endpoint;
use crate::logging::{self, Format};
use crate::protocol::limits::WORD_BYTES;
use crate::protocol::{ResourceClass, Secret, duration};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Folder in which a pod finds the means to talk to the API server.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Keys of `agent` that the runner reads, with the variable that wins.
const AGENT: [(&str, &str); 13] = [
    ("runnerAPI", "RUNNER_API"),
    ("name", "AGENT_NAME"),
    ("maxRunTime", "MAX_RUN_TIME"),
    ("maxConcurrentTasks", "MAX_CONCURRENT_TASKS"),
    ("gc.enabled", "KUBE_GC_ENABLED"),
    ("gc.threshold", "KUBE_GC_THRESHOLD"),
    ("gc.interval", "KUBE_GC_INTERVAL"),
    ("constraintChecker.enable", "CHECK_ENABLED"),
    ("constraintChecker.threshold", "CHECK_THRESHOLD"),
    ("constraintChecker.interval", "CHECK_INTERVAL"),
    ("log.level", "O11Y_LEVEL"),
    ("log.format", "O11Y_FORMAT"),
    ("ssh.enabled", "KUBE_SSH_IS_ENABLED"),
];
/// Keys of `agent` for the chart alone, and old names.
const CHART: [&str; 25] = [
    "replicaCount",
    "image",
    "pullSecrets",
    "matchLabels",
    "podAnnotations",
    "podSecurityContext",
    "containerSecurityContext",
    "forceUpdate",
    "environment",
    "livenessProbe",
    "readinessProbe",
    "resources",
    "nodeSelector",
    "tolerations",
    "affinity",
    "dnsConfig",
    "pdb",
    "terminationGracePeriodSeconds",
    "customSecret",
    "existingConfigMap",
    "autodetectPlatform",
    "loggingLevel",
    "kubeGCEnabled",
    "kubeGCThreshold",
    "caSecret",
];
/// Maps of `agent` that have been named by a path above, or are read here.
const MAPS: [&str; 6] = ["resourceClasses", "serviceContainers", "gc", "constraintChecker", "log", "ssh"];
/// Keys at the top of a values file beside `agent`, and of the config map of the chart.
const TOP: [&str; 11] = [
    "agent",
    "nameOverride",
    "fullnameOverride",
    "orchestrator",
    "logging",
    "serviceAccount",
    "rbac",
    "proxy",
    "resourceClasses",
    "serviceContainers",
    "runnerInitResources",
];
const CLASS: [&str; 5] = ["token", "metadata", "spec", "serviceContainers", "enableUnsafeRetries"];
const PROXIES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// Reads the settings: the file, if one is named or the chart's variable names one, and the variables.
pub(in crate::container) fn load(file: Option<&Path>) -> Result<ContainerSettings, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = file.map(Path::to_owned).or_else(|| variable("KUBE_TASK_POD_CONFIG").map(PathBuf::from));
    let values = match &named {
        None => Value::Null,
        Some(path) => {
            // The variable of the chart names a folder or a file without its ending.
            let path = if path.is_dir() { path.join("taskpods") } else { path.clone() };
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read the settings `{}`: {error}", path.display()))?;
            yaml::parse(&text).map_err(|why| format!("{}:{why}", path.display()))?
        }
    };
    resolve(&values, &variable).map_err(|why| match &named {
        Some(path) => format!("{}: {why}", path.display()),
        None => why,
    })
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

struct Reader<'a> {
    agent: Map<String, Value>,
    variable: Variables<'a>,
}

impl Reader<'_> {
    /// The value of a key below `agent`: the text of its variable, or that of the file.
    fn get(&self, key: &str) -> Option<(String, Value)> {
        let by_name = AGENT.iter().find(|(name, _)| *name == key).map(|(_, variable)| *variable);
        if let Some((name, text)) = by_name.and_then(|name| Some((name, (self.variable)(name)?))) {
            return Some((name.to_owned(), Value::String(text)));
        }
        let mut parts = key.split('.');
        let mut value = self.agent.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        (!value.is_null()).then(|| (format!("agent.{key}"), value.clone()))
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.get(key) {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some((path, other)) => Err(format!("`{path}` must be a text, not {}", describe(&other))),
        }
    }

    fn boolean(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some((_, Value::Bool(value))) => Ok(value),
            Some((_, Value::String(text)))
                if matches!(text.as_str(), "true" | "1" | "t" | "T" | "TRUE" | "True") =>
            {
                Ok(true)
            }
            Some((_, Value::String(text)))
                if matches!(text.as_str(), "false" | "0" | "f" | "F" | "FALSE" | "False") =>
            {
                Ok(false)
            }
            Some((path, other)) => Err(format!("`{path}` must be true or false, not {}", describe(&other))),
        }
    }

    fn number(&self, key: &str, default: u32) -> Result<u32, String> {
        let found = match self.get(key) {
            None => return Ok(default),
            Some(found) => found,
        };
        let number = match &found.1 {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        number
            .ok_or_else(|| format!("`{}` must be a whole number from 1, not {}", found.0, describe(&found.1)))
    }

    fn time(&self, key: &str, default: Duration) -> Result<Duration, String> {
        match self.get(key) {
            None => Ok(default),
            Some((path, value)) => {
                let time =
                    value.as_str().and_then(|text| duration::parse(text).ok()).filter(|time| !time.is_zero());
                time.ok_or_else(|| {
                    format!("`{path}` must be a time such as `5h` or `1m30s`, not {}", describe(&value))
                })
            }
        }
    }
}

fn map(value: Option<&Value>, path: &str) -> Result<Map<String, Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(other) => Err(format!("`{path}` must be a map, not {}", describe(other))),
    }
}

fn known<'a>(
    map: &Map<String, Value>,
    path: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), String> {
    match map.keys().find(|key| !names.clone().any(|name| name == *key)) {
        None => Ok(()),
        Some(key) => Err(unknown(key, path, names)),
    }
}

/// Makes settings of a values file (or the config map of the chart) and variables.
fn resolve(values: &Value, variable: Variables<'_>) -> Result<ContainerSettings, String> {
    let top = map(Some(values), "the file")?;
    known(&top, "", TOP.into_iter())?;
    let mut agent = map(top.get("agent"), "agent")?;
    for key in ["resourceClasses", "serviceContainers"] {
        if let Some(value) = top.get(key) {
            if agent.insert(key.to_owned(), value.clone()).is_some() {
                return Err(format!("`{key}` is given twice: below `agent` and at the top"));
            }
        }
    }
    let own = AGENT.into_iter().map(|(name, _)| name).filter(|name| !name.contains('.'));
    known(&agent, "agent", own.chain(CHART).chain(MAPS))?;
    for (old, new, inner) in [
        ("loggingLevel", "log", "level"),
        ("kubeGCEnabled", "gc", "enabled"),
        ("kubeGCThreshold", "gc", "threshold"),
    ] {
        if let Some(value) = agent.remove(old) {
            let mut there = map(agent.get(new), new)?;
            there.entry(inner).or_insert(value);
            agent.insert(new.to_owned(), Value::Object(there));
        }
    }
    for (name, inner) in [
        ("gc", &["enabled", "threshold", "interval"][..]),
        ("constraintChecker", &["enable", "threshold", "interval"]),
        ("log", &["level", "format"]),
    ] {
        let path = format!("agent.{name}");
        known(&map(agent.get(name), &path)?, &path, inner.iter().copied())?;
    }
    let reader = Reader { agent, variable };
    if reader.boolean("ssh.enabled", false)? {
        return Err(
            "`agent.ssh.enabled`: reruns with SSH are not available in this version; leave it out".to_owned()
        );
    }
    let mut warnings = Vec::new();
    let schema = Schema::new();
    let classes = classes(&reader, &schema, &mut warnings)?;
    let services = reader.agent.get("serviceContainers");
    let services = ServiceRules::read(services, "agent.serviceContainers", &|value, path| {
        schema.check("Container", value, path)
    })?;
    let instance = variable("KUBE_CONTAINER_AGENT_INSTANCE").or_else(|| variable("HOSTNAME"));
    let name =
        reader.text("name")?.or_else(|| instance.clone()).unwrap_or_else(|| "container-agent".to_owned());
    if name.len() > WORD_BYTES {
        return Err(format!(
            "`agent.name` has {} bytes, the control plane takes at most {WORD_BYTES}",
            name.len()
        ));
    }
    let max_run_time = reader.time("maxRunTime", Duration::from_secs(5 * 3600))?;
    let gc = Gc {
        threshold: reader.time("gc.threshold", Duration::from_secs(5 * 3600 + 300))?,
        interval: reader.time("gc.interval", Duration::from_secs(180))?,
    };
    let gc = reader.boolean("gc.enabled", true)?.then_some(gc);
    if gc.is_some_and(|gc| gc.threshold <= max_run_time) {
        warnings.push("`agent.gc.threshold` is not above `agent.maxRunTime`: pods of long tasks would be collected while they run; they are spared as long as this agent knows of them".to_owned());
    }
    let checker = Checker {
        threshold: reader.number("constraintChecker.threshold", 3)?,
        interval: reader.time("constraintChecker.interval", Duration::from_secs(15 * 60))?,
    };
    let checker = reader.boolean("constraintChecker.enable", false)?.then_some(checker);
    let level = reader.text("log.level")?.unwrap_or_else(|| "info".to_owned());
    let format = reader.text("log.format")?.unwrap_or_else(|| "json".to_owned());
    let logging = logging::LogOptions {
        level: logging::parse_level(&level)
            .map_err(|why| format!("`agent.log.level` is `{level}`: {why}"))?,
        format: Format::parse(&format).map_err(|why| format!("`agent.log.format` is `{format}`: {why}"))?,
        file: None,
    };
    let url = reader.text("runnerAPI")?.ok_or(
        "`agent.runnerAPI` (or the variable RUNNER_API) is missing: the address of your control plane",
    )?;
    let (init_image, init_resources) = init(&top, variable)?;
    let proxy = PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    Ok(ContainerSettings {
        name,
        endpoint: Endpoint {
            url,
            ca_file: variable("RUNNER_API_CA_FILE").map(PathBuf::from),
            client_certificate: None,
        },
        classes,
        services,
        max_concurrent_tasks: reader.number("maxConcurrentTasks", 20)? as usize,
        max_run_time,
        gc,
        checker,
        cluster: cluster(variable)?,
        instance: instance.unwrap_or_else(|| "container-agent".to_owned()),
        init_image,
        init_resources,
        keeps_pods: variable("KUBE_DISABLE_POD_DELETION_ON_TASK_CLEANUP")
            .is_some_and(|value| value == "true"),
        proxy: proxy.collect(),
        logging,
        health: Some(variable("HEALTH_ADDRESS").unwrap_or_else(|| "[::]:7623".to_owned()))
            .filter(|at| at != "none"),
        warnings,
    })
}

/// Image and resources of the init container.
fn init(top: &Map<String, Value>, variable: Variables<'_>) -> Result<(Option<String>, Value), String> {
    let orchestrator = map(top.get("orchestrator"), "orchestrator")?;
    let image = map(orchestrator.get("image"), "orchestrator.image")?;
    let part = |name: &str| image.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let named = part("repository").map(|repository| {
        let registry = part("registry").map_or_else(String::new, |registry| format!("{registry}/"));
        match (part("digest"), part("tag")) {
            (Some(digest), _) => {
                format!("{registry}{repository}@sha256:{}", digest.trim_start_matches("sha256:"))
            }
            (None, Some(tag)) => format!("{registry}{repository}:{tag}"),
            (None, None) => format!("{registry}{repository}"),
        }
    });
    let given = top.get("runnerInitResources").or_else(|| orchestrator.get("resources"));
    let given = given.filter(|value| value.as_object().is_some_and(|map| !map.is_empty()));
    let usual = json!({ "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "cpu": "50m", "memory": "64Mi" } });
    Ok((variable("KUBE_RUNNER_INIT_IMAGE").or(named), given.cloned().unwrap_or(usual)))
}

fn classes(
    reader: &Reader<'_>,
    schema: &Schema,
    warnings: &mut Vec<String>,
) -> Result<Vec<ClassSettings>, String> {
    let all = map(reader.agent.get("resourceClasses"), "agent.resourceClasses")?;
    let mut classes = Vec::new();
    for (name, value) in &all {
        let path = format!("agent.resourceClasses.{name}");
        // The chart writes a dot for the slash.
        let written = if name.contains('/') { name.clone() } else { name.replacen('.', "/", 1) };
        let class = ResourceClass::new(&written).map_err(|why| format!("`{path}`: {why}"))?;
        let given = map(Some(value), &path)?;
        known(&given, &path, CLASS.into_iter())?;
        let token = match given.get("token") {
            None | Some(Value::Null) => None,
            Some(Value::String(token)) => {
                Some(Secret::new(token.trim())).filter(|token| !token.expose().is_empty())
            }
            Some(_) => return Err(format!("`{path}.token` must be a text")),
        };
        let mut template = Map::new();
        for key in ["metadata", "spec"] {
            if let Some(value) = given.get(key).filter(|value| !value.is_null()) {
                template.insert(key.to_owned(), value.clone());
            }
        }
        let template = Value::Object(template);
        schema.check("PodTemplate", &template, &path)?;
        if given.get("enableUnsafeRetries").and_then(Value::as_bool) == Some(true) {
            warnings.push(format!("`{path}.enableUnsafeRetries`: unsafe retries are a property of the class at the control plane; switch them on there (`runlet admin`)"));
        }
        let services = format!("{path}.serviceContainers");
        let services = ServiceRules::read(given.get("serviceContainers"), &services, &|value, path| {
            schema.check("Container", value, path)
        })?;
        classes.push(ClassSettings { name: class, token, template, services });
    }
    if classes.is_empty() {
        return Err("`agent.resourceClasses` has no class: nothing can be claimed".to_owned());
    }
    Ok(classes)
}

fn cluster(variable: Variables<'_>) -> Result<Cluster, String> {
    let host = variable("KUBERNETES_SERVICE_HOST").ok_or(
        "KUBERNETES_SERVICE_HOST is not set: the container runner runs inside the cluster that it starts pods in",
    )?;
    let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    // An IPv6 address comes without its brackets.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let account = PathBuf::from(variable("KUBE_ACCOUNT_DIRECTORY").unwrap_or_else(|| ACCOUNT.to_owned()));
    let namespace = match variable("KUBE_NAMESPACE") {
        Some(namespace) => namespace,
        None => {
            let file = account.join("namespace");
            let text = std::fs::read_to_string(&file).map_err(|error| {
                format!("KUBE_NAMESPACE is not set, and `{}` cannot be read: {error}", file.display())
            })?;
            text.trim().to_owned()
        }
    };
    let token_file = account.join("token");
    if let Err(error) = std::fs::read_to_string(&token_file) {
        return Err(format!(
            "the token of the service account, `{}`, cannot be read: {error}",
            token_file.display()
        ));
    }
    let secrets = variable("KUBE_TOKEN_SECRETS").unwrap_or_default();
    let token_secrets =
        secrets.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Cluster {
        url: format!("https://{host}:{port}"),
        namespace,
        ca_file: account.join("ca.crt"),
        token_file,
        token_secrets,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot make a folder should fail loudly")]
mod tests {
    use super::*;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<ContainerSettings, String> {
        let account = tempfile::tempdir().unwrap();
        std::fs::write(account.path().join("token"), "t").unwrap();
        std::fs::write(account.path().join("namespace"), "ci\n").unwrap();
        let folder = account.path().to_string_lossy().into_owned();
        let usual = [
            ("KUBERNETES_SERVICE_HOST", "fd00::1"),
            ("KUBE_ACCOUNT_DIRECTORY", &*folder),
            ("RUNNER_API", "https://ci"),
        ];
        let find = |name: &str| {
            let mut all = variables.iter().chain(&usual);
            all.find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
                .filter(|value| !value.is_empty())
        };
        resolve(&yaml::parse(text).unwrap(), &find)
    }

    const VALUES: &str = "agent:\n  name: pods\n  maxConcurrentTasks: 7\n  replicaCount: 2\n  kubeGCThreshold: 6h\n  resourceClasses:\n    acme/linux:\n      token: t-1\n      spec: {nodeSelector: {disk: ssd}}\n    acme/big: {}\n";

    #[test]
    fn a_values_file_of_the_chart_is_read_as_it_is() {
        let settings = with(VALUES, &[("MAX_RUN_TIME", "1h"), ("AGENT_NAME", "other")]).unwrap();
        assert_eq!((settings.name.as_str(), settings.max_concurrent_tasks), ("other", 7));
        assert_eq!(settings.max_run_time, Duration::from_secs(3600));
        assert_eq!(settings.gc.unwrap().threshold, Duration::from_secs(6 * 3600));
        assert_eq!(settings.cluster.url, "https://[fd00::1]:443");
        assert_eq!(settings.cluster.namespace, "ci");
        assert_eq!(settings.checker, None);
        let checker = [("CHECK_ENABLED", "true"), ("CHECK_INTERVAL", "1m")];
        let settings_of_checker = with(VALUES, &checker).unwrap().checker;
        assert_eq!(settings_of_checker, Some(Checker { threshold: 3, interval: Duration::from_secs(60) }));
        let names: Vec<_> = settings.classes.iter().map(|class| class.name.to_string()).collect();
        assert_eq!(names, ["acme/big", "acme/linux"]);
        assert_eq!(settings.classes[1].template, json!({ "spec": { "nodeSelector": { "disk": "ssd" } } }));
        // The config map of the chart: no `agent`, and a dot for the slash.
        let settings =
            with("resourceClasses: {acme.linux: {}}\nrunnerInitResources: {limits: {cpu: 1}}\n", &[])
                .unwrap();
        assert_eq!(settings.classes[0].name.to_string(), "acme/linux");
        assert_eq!(settings.init_resources, json!({ "limits": { "cpu": 1 } }));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let class = |text: &str| format!("agent: {{resourceClasses: {{a/b: {text}}}}}\n");
        for (text, variables, why) in [
            ("agnet: {}\n".to_owned(), &[][..], "`agnet` is not known (did you mean `agent`?)"),
            (
                "agent: {maxConcurentTasks: 1}\n".to_owned(),
                &[],
                "`agent.maxConcurentTasks` is not known (did you mean `maxConcurrentTasks`?)",
            ),
            (
                "agent: {gc: {treshold: 1h}}\n".to_owned(),
                &[],
                "`agent.gc.treshold` is not known (did you mean `threshold`?)",
            ),
            (
                class("{spec: {nodeSelecter: {}}}"),
                &[],
                "`agent.resourceClasses.a/b.spec.nodeSelecter` is not known (did you mean `nodeSelector`?)",
            ),
            (
                class("{tokn: x}"),
                &[],
                "`agent.resourceClasses.a/b.tokn` is not known (did you mean `token`?)",
            ),
            (
                class("{}"),
                &[("MAX_RUN_TIME", "soon")],
                "`MAX_RUN_TIME` must be a time such as `5h` or `1m30s`, not the text `soon`",
            ),
            (
                class("{}"),
                &[("MAX_CONCURRENT_TASKS", "0")],
                "`MAX_CONCURRENT_TASKS` must be a whole number from 1, not the text `0`",
            ),
            (
                class("{serviceContainers: {pattern: {'a(b': {}}}}"),
                &[],
                "`agent.resourceClasses.a/b.serviceContainers.pattern.a(b` is not a regular expression",
            ),
            (
                class("{}"),
                &[("CHECK_THRESHOLD", "often")],
                "`CHECK_THRESHOLD` must be a whole number from 1, not the text `often`",
            ),
            (class("{}"), &[("KUBE_SSH_IS_ENABLED", "true")], "`agent.ssh.enabled`: reruns with SSH"),
            (class("{}"), &[("RUNNER_API", "")], "`agent.runnerAPI` (or the variable RUNNER_API) is missing"),
            (class("{}"), &[("KUBERNETES_SERVICE_HOST", "")], "KUBERNETES_SERVICE_HOST is not set"),
            (
                class("{}"),
                &[("KUBE_ACCOUNT_DIRECTORY", "/nowhere"), ("KUBE_NAMESPACE", "ci")],
                "`/nowhere/token`, cannot be read",
            ),
            ("agent: {}\n".to_owned(), &[], "`agent.resourceClasses` has no class"),
            ("agent: {resourceClasses: {plain: {}}}\n".to_owned(), &[], "`agent.resourceClasses.plain`: "),
        ] {
            let error = with(&text, variables).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
