//! Text and variables in, checked settings out. No IO.

use super::file::{self, Entry, Value};
use super::value;
use crate::agent::rules::Rules;
use crate::http::Endpoint;
use crate::logging;
use crate::protocol::task_input::LocalSource;
use crate::protocol::{ResourceClass, Secret};
use std::path::PathBuf;
use std::time::Duration;

/// Address of the control plane when nothing says so.
pub const DEFAULT_URL: &str = "https://runner.circleci.com";

/// Placeholder that a package leaves where the token belongs.
const TOKEN_PLACEHOLDER: &str = "AUTH_TOKEN";

/// Forms in which secrets can be masked besides.
const MASK_FORMS: [&str; 3] = ["base64", "url", "json"];

/// Behaviour after a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Claim the next one.
    Continuous,
    /// Exit.
    SingleTask,
}

/// Checked settings. Paths are absolute.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Resource class token.
    pub token: Secret,
    /// `api.url` and trust.
    pub endpoint: Endpoint,
    /// `runner.name`.
    pub name: String,
    /// `runner.mode`.
    pub mode: Mode,
    /// `runner.working_directory`.
    pub working_directory: PathBuf,
    /// `runner.cleanup_working_directory`.
    pub cleanup_working_directory: bool,
    /// `runner.drop_output_on_full_disk`.
    pub drop_output_on_full_disk: bool,
    /// Jobs stay in the working directory, whatever their own `working_directory` says: for a runner on
    /// somebody's own machine, inside another program. No key of the file sets it.
    pub confine: bool,
    /// The repository that `checkout` takes commits from, whatever the task says. No key of the file sets it.
    pub local_source: Option<LocalSource>,
    /// `runner.task_agent_directory`; holds `circleci-agent` and `circleci`. `None`: there is no home.
    pub task_agent_directory: Option<PathBuf>,
    /// `runner.command_prefix`.
    pub command_prefix: Vec<String>,
    /// `runner.use_home_ssh_dir_for_checkout_keys`.
    pub use_home_ssh_dir_for_checkout_keys: bool,
    /// `runner.max_run_time`.
    pub max_run_time: Duration,
    /// `runner.idle_timeout`; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// `runner.ssh.advertise_addr`.
    pub ssh_advertise_addr: Option<String>,
    /// `runner.state_directory`: what survives a restart. `None`: nothing does.
    pub state_directory: Option<PathBuf>,
    /// `runner.mask_forms`: forms in which secrets are masked besides.
    pub mask_forms: Vec<String>,
    /// `runner.allow_projects` and its like.
    pub rules: Rules,
    /// Program started as task agent with the argument `task`; `None` is the running program.
    pub task_agent: Option<PathBuf>,
    /// The process belongs to this runner alone: it may become the reaper of its tasks' orphans and
    /// treat every child it did not start itself as one. False for a runner inside another program.
    pub owns_process: bool,
    /// `logging.*`.
    pub logging: logging::Options,
    /// Warnings for the operator, for the log once it is open.
    pub warnings: Vec<String>,
    /// The file that they were read from.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// The defaults, for a runner inside another program: it remembers nothing across restarts and
    /// does not touch processes that it did not start.
    pub fn new(token: Secret, endpoint: Endpoint, name: String, working_directory: PathBuf) -> Self {
        Self {
            token,
            endpoint,
            name,
            mode: Mode::Continuous,
            working_directory,
            cleanup_working_directory: false,
            drop_output_on_full_disk: false,
            confine: false,
            local_source: None,
            task_agent_directory: None,
            command_prefix: Vec::new(),
            use_home_ssh_dir_for_checkout_keys: false,
            max_run_time: Duration::from_secs(5 * 3600),
            idle_timeout: None,
            ssh_advertise_addr: None,
            state_directory: None,
            mask_forms: Vec::new(),
            rules: Rules::default(),
            task_agent: None,
            owns_process: false,
            logging: logging::Options::default(),
            warnings: Vec::new(),
            file: None,
        }
    }
}

/// Facts of the host that [`resolve`] needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Host name.
    pub name: String,
    /// `HOME`.
    pub home: Option<String>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<String>,
    /// The directory of the packages, when it exists.
    pub package_directory: Option<PathBuf>,
    /// `RUNLET_INSTANCE`: one of several services on this host.
    pub instance: Option<String>,
    /// `STATE_DIRECTORY`: made by the service manager for this service alone.
    pub service_directory: Option<PathBuf>,
    /// The token that the service manager has put into `CREDENTIALS_DIRECTORY`.
    pub credential: Option<PathBuf>,
}

impl Host {
    /// The name of the host, and of the service if there are several.
    fn full_name(&self) -> String {
        match &self.instance {
            Some(instance) => format!("{}-{instance}", self.name),
            None => self.name.clone(),
        }
    }
}

/// A key of the file, and the variables that beat it, strongest first.
struct Key {
    key: &'static str,
    variables: &'static [&'static str],
}

const AUTH_TOKEN: usize = 0;
const AUTH_TOKEN_FILE: usize = 1;

/// All keys. Variables that hold a token are never passed on to a task agent.
const KEYS: &[Key] = &[
    Key {
        key: "api.auth_token",
        variables: &["CIRCLECI_RUNNER_API_AUTH_TOKEN", "LAUNCH_AGENT_API_AUTH_TOKEN", "CIRCLECI_API_TOKEN"],
    },
    Key { key: "api.auth_token_file", variables: &["CIRCLECI_RUNNER_API_AUTH_TOKEN_FILE"] },
    Key { key: "api.url", variables: &["CIRCLECI_RUNNER_API_URL", "LAUNCH_AGENT_API_URL"] },
    Key { key: "api.ca_file", variables: &["CIRCLECI_RUNNER_API_CA_FILE"] },
    Key { key: "api.client_certificate", variables: &["CIRCLECI_RUNNER_API_CLIENT_CERTIFICATE"] },
    Key { key: "api.client_key", variables: &["CIRCLECI_RUNNER_API_CLIENT_KEY"] },
    Key { key: "runner.name", variables: &["CIRCLECI_RUNNER_NAME", "LAUNCH_AGENT_RUNNER_NAME"] },
    Key { key: "runner.mode", variables: &["CIRCLECI_RUNNER_MODE", "LAUNCH_AGENT_RUNNER_MODE"] },
    Key {
        key: "runner.working_directory",
        variables: &["CIRCLECI_RUNNER_WORK_DIR", "LAUNCH_AGENT_RUNNER_WORK_DIR"],
    },
    Key {
        key: "runner.cleanup_working_directory",
        variables: &["CIRCLECI_RUNNER_CLEANUP_WORK_DIR", "LAUNCH_AGENT_RUNNER_CLEANUP_WORK_DIR"],
    },
    Key { key: "runner.drop_output_on_full_disk", variables: &["CIRCLECI_RUNNER_DROP_OUTPUT_ON_FULL_DISK"] },
    Key { key: "runner.task_agent_directory", variables: &["CIRCLECI_RUNNER_TASK_AGENT_DIRECTORY"] },
    Key { key: "runner.cache_task_agent", variables: &["CIRCLECI_RUNNER_CACHE_TASK_AGENT"] },
    Key {
        key: "runner.command_prefix",
        variables: &["CIRCLECI_RUNNER_COMMAND_PREFIX", "LAUNCH_AGENT_RUNNER_COMMAND_PREFIX"],
    },
    Key {
        key: "runner.use_home_ssh_dir_for_checkout_keys",
        variables: &["USE_HOME_SSH_DIR_FOR_CHECKOUT_KEYS"],
    },
    Key {
        key: "runner.max_run_time",
        variables: &["CIRCLECI_RUNNER_MAX_RUN_TIME", "LAUNCH_AGENT_RUNNER_MAX_RUN_TIME"],
    },
    Key {
        key: "runner.idle_timeout",
        variables: &["CIRCLECI_RUNNER_IDLE_TIMEOUT", "LAUNCH_AGENT_RUNNER_IDLE_TIMEOUT"],
    },
    Key {
        key: "runner.ssh.advertise_addr",
        variables: &["CIRCLECI_RUNNER_SSH_ADVERTISE_ADDR", "LAUNCH_AGENT_RUNNER_SSH_ADVERTISE_ADDR"],
    },
    Key { key: "runner.state_directory", variables: &["CIRCLECI_RUNNER_STATE_DIRECTORY"] },
    Key { key: "runner.allow_projects", variables: &["CIRCLECI_RUNNER_ALLOW_PROJECTS"] },
    Key { key: "runner.deny_projects", variables: &["CIRCLECI_RUNNER_DENY_PROJECTS"] },
    Key { key: "runner.allow_branches", variables: &["CIRCLECI_RUNNER_ALLOW_BRANCHES"] },
    Key { key: "runner.deny_branches", variables: &["CIRCLECI_RUNNER_DENY_BRANCHES"] },
    Key { key: "runner.mask_forms", variables: &["CIRCLECI_RUNNER_MASK_FORMS"] },
    Key { key: "logging.level", variables: &["CIRCLECI_RUNNER_LOGGING_LEVEL", "LAUNCH_AGENT_LOGGING_LEVEL"] },
    Key { key: "logging.format", variables: &["CIRCLECI_RUNNER_LOGGING_FORMAT"] },
    Key { key: "logging.file", variables: &["CIRCLECI_RUNNER_LOGGING_FILE", "LAUNCH_AGENT_LOGGING_FILE"] },
    // The launch agent's: accepted, without meaning since nothing updates itself.
    Key { key: "runner.disable_auto_update", variables: &["LAUNCH_AGENT_RUNNER_DISABLE_AUTO_UPDATE"] },
];

/// The variables that a task agent must not see.
pub(in crate::agent) fn token_variables() -> impl Iterator<Item = &'static str> {
    KEYS[AUTH_TOKEN].variables.iter().chain(KEYS[AUTH_TOKEN_FILE].variables).copied()
}

/// A value and where it comes from.
struct Given {
    key: &'static str,
    value: Value,
    /// `FILE:LINE:COLUMN: ` or empty.
    place: String,
    /// The variable's name, or the key in backticks.
    what: String,
    from_variable: bool,
}

impl Given {
    fn wrong(&self, why: &str) -> String {
        let shown = match &self.value {
            Value::Null => "empty".to_owned(),
            Value::Text(_) if self.key == KEYS[AUTH_TOKEN].key => "not usable".to_owned(),
            Value::Text(text) => format!("`{}`", text.escape_debug()),
            Value::List(items) => format!("`{items:?}`"),
        };
        format!("{}{} is {shown}: {why}", self.place, self.what)
    }

    fn text(&self) -> Result<&str, String> {
        match &self.value {
            Value::Text(text) => Ok(text.trim()),
            _ => Err(self.wrong("expected a single value")),
        }
    }

    fn read<T>(&self, reader: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
        reader(self.text()?).map_err(|why| self.wrong(&why))
    }
}

struct Sources<'a> {
    /// Path of the file as the operator wrote it, and what is in it.
    file: Option<(&'a str, Vec<Entry>)>,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Sources<'_> {
    fn get(&self, wanted: &'static str) -> Option<Given> {
        let key = KEYS.iter().find(|key| key.key == wanted)?;
        let variable = key.variables.iter().find_map(|name| {
            let value = (self.environment)(name).filter(|value| !value.trim().is_empty())?;
            Some((*name, value))
        });
        if let Some((name, value)) = variable {
            return Some(Given {
                key: key.key,
                value: Value::Text(value),
                place: String::new(),
                what: name.to_owned(),
                from_variable: true,
            });
        }
        let (path, entries) = self.file.as_ref()?;
        let entry = entries.iter().find(|entry| entry.key == wanted && entry.value != Value::Null)?;
        Some(Given {
            key: key.key,
            value: entry.value.clone(),
            place: format!("{path}:{}:{}: ", entry.line, entry.column),
            what: format!("`{wanted}`"),
            from_variable: false,
        })
    }

    fn read<T>(
        &self,
        key: &'static str,
        reader: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.get(key).map(|given| given.read(reader)).transpose()
    }
}

/// Decides the settings. `file` is the path as the operator wrote it and its text; `read_token`
/// reads the file of `api.auth_token_file`. The error is one line: place, key, value, choices.
pub(super) fn resolve(
    file: Option<(&str, &str)>,
    environment: &dyn Fn(&str) -> Option<String>,
    host: &Host,
    read_token: &dyn Fn(&std::path::Path) -> Result<String, String>,
) -> Result<Settings, String> {
    let file = match file {
        None => None,
        Some((path, text)) => Some((path, file::parse(text).map_err(|error| format!("{path}:{error}"))?)),
    };
    let sources = Sources { file, environment };
    let mut warnings = Vec::new();
    unknown_keys(&sources, &mut warnings);
    let home = host.home.as_deref();
    let path = |key| sources.read(key, |text| value::path(text, home));
    let flag = |key| Ok::<_, String>(sources.read(key, value::boolean)?.unwrap_or(false));

    let token = token(&sources, host, read_token)?;
    let url = match sources.get("api.url") {
        None => DEFAULT_URL.to_owned(),
        Some(given) => {
            let url = given.text()?.trim_end_matches('/').to_owned();
            crate::http::check_url(&url)
                .map_err(|error| format!("{}{}: {error}", given.place, given.what))?;
            url
        }
    };
    let client_certificate = match (path("api.client_certificate")?, path("api.client_key")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err("`api.client_certificate` is set without `api.client_key`".to_owned()),
        (None, Some(_)) => return Err("`api.client_key` is set without `api.client_certificate`".to_owned()),
    };
    let endpoint = Endpoint { url, ca_file: path("api.ca_file")?, client_certificate };

    let name = sources.read("runner.name", value::name)?.or_else(|| value::name_of_host(&host.full_name()));
    let name = name.ok_or("`runner.name` is not set and this host has no name (or CIRCLECI_RUNNER_NAME)")?;
    let mode = sources.read("runner.mode", |text| match text {
        "continuous" => Ok(Mode::Continuous),
        "single-task" => Ok(Mode::SingleTask),
        _ => Err("expected `continuous` or `single-task`".to_owned()),
    })?;
    let max_run_time = sources.read("runner.max_run_time", |text| match value::duration(text)? {
        Duration::ZERO => Err("expected more than nothing".to_owned()),
        time => Ok(time),
    })?;
    let idle_timeout = sources.read("runner.idle_timeout", value::duration)?;
    let working_directory = match sources.read("runner.working_directory", value::absolute)? {
        Some(directory) => directory,
        None => default_working_directory(host)?,
    };
    let state_directory =
        path("runner.state_directory")?.or_else(|| default_state_directory(host, &working_directory));
    flag("runner.cache_task_agent")?;
    flag("runner.disable_auto_update")?;
    let ssh_advertise_addr = sources.read("runner.ssh.advertise_addr", value::host_and_port)?;
    if ssh_advertise_addr.is_some() {
        warnings.push(
            "`runner.ssh.advertise_addr` is set, but rerunning a job with SSH is not available".to_owned(),
        );
    }
    let log_file = sources.read("logging.file", |text| match text {
        "-" => Ok(None),
        _ => value::path(text, home).map(Some),
    })?;
    if let Some(class) = environment("CIRCLECI_RESOURCE_CLASS").filter(|class| !class.is_empty()) {
        if let Err(error) = ResourceClass::new(&class) {
            warnings.push(format!("CIRCLECI_RESOURCE_CLASS: {error}; the token decides the resource class"));
        }
    }
    let mut settings = Settings::new(token, endpoint, name, working_directory);
    settings.mode = mode.unwrap_or(settings.mode);
    settings.cleanup_working_directory = flag("runner.cleanup_working_directory")?;
    settings.drop_output_on_full_disk = flag("runner.drop_output_on_full_disk")?;
    settings.task_agent_directory = path("runner.task_agent_directory")?
        .or_else(|| home.map(|home| PathBuf::from(home).join(".local/libexec/circleci")));
    settings.command_prefix = command_prefix(&sources)?;
    settings.use_home_ssh_dir_for_checkout_keys = flag("runner.use_home_ssh_dir_for_checkout_keys")?;
    settings.max_run_time = max_run_time.unwrap_or(settings.max_run_time);
    // As in Go, where the zero value is "not set".
    settings.idle_timeout = idle_timeout.filter(|time| !time.is_zero());
    settings.ssh_advertise_addr = ssh_advertise_addr;
    settings.state_directory = state_directory;
    settings.mask_forms = mask_forms(&sources)?;
    settings.rules = Rules {
        allow_projects: projects(&sources, "runner.allow_projects")?,
        deny_projects: projects(&sources, "runner.deny_projects")?,
        allow_branches: branches(&sources, "runner.allow_branches")?,
        deny_branches: branches(&sources, "runner.deny_branches")?,
    };
    let logging = &mut settings.logging;
    logging.level = sources.read("logging.level", logging::parse_level)?.unwrap_or(logging.level);
    logging.format = sources.read("logging.format", logging::Format::parse)?.unwrap_or(logging.format);
    logging.file = log_file.flatten();
    settings.warnings = warnings;
    Ok(settings)
}

fn unknown_keys(sources: &Sources<'_>, warnings: &mut Vec<String>) {
    let Some((path, entries)) = &sources.file else { return };
    for entry in entries.iter().filter(|entry| !KEYS.iter().any(|key| key.key == entry.key)) {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let meant = KEYS.iter().find(|key| last(key.key) == last(&entry.key));
        let hint = meant.map_or_else(String::new, |key| format!(" (did you mean `{}`?)", key.key));
        warnings.push(format!(
            "{path}:{}:{}: unknown key `{}` is ignored{hint}",
            entry.line, entry.column, entry.key
        ));
    }
}

fn token(
    sources: &Sources<'_>,
    host: &Host,
    read_token: &dyn Fn(&std::path::Path) -> Result<String, String>,
) -> Result<Secret, String> {
    let given = match (sources.get(KEYS[AUTH_TOKEN].key), sources.get(KEYS[AUTH_TOKEN_FILE].key)) {
        (Some(token), Some(file)) if token.from_variable == file.from_variable => {
            return Err(format!(
                "{}{} and {} are both set: keep one of them",
                file.place, token.what, file.what
            ));
        }
        (Some(token), Some(file)) => {
            if token.from_variable {
                token
            } else {
                file
            }
        }
        (Some(given), None) | (None, Some(given)) => given,
        (None, None) => {
            let Some(path) = &host.credential else {
                return Err("no resource class token: set `api.auth_token`, `api.auth_token_file` or CIRCLECI_RUNNER_API_AUTH_TOKEN, or load a credential `token`".to_owned());
            };
            Given {
                key: KEYS[AUTH_TOKEN_FILE].key,
                value: Value::Text(path.to_string_lossy().into_owned()),
                place: String::new(),
                what: "the credential `token`".to_owned(),
                from_variable: true,
            }
        }
    };
    let (text, what) = if given.key == KEYS[AUTH_TOKEN_FILE].key {
        let path = given.read(value::absolute)?;
        let text = read_token(&path).map_err(|why| {
            format!("{}{}: cannot read `{}`: {why}", given.place, given.what, path.display())
        })?;
        (text.trim().to_owned(), format!("{}the token in `{}`", given.place, path.display()))
    } else {
        (given.text()?.to_owned(), format!("{}{}", given.place, given.what))
    };
    if text.starts_with("<<") && text.contains(TOKEN_PLACEHOLDER) {
        return Err(format!(
            "{what} is still the placeholder of the package: replace it with a resource class token of your control plane"
        ));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{what} is not a token: it is empty or has spaces or characters that no token has"
        ));
    }
    Ok(Secret::new(text))
}

/// Patterns of projects, in lower case. A mistake in a rule is not to open what it should close.
fn projects(sources: &Sources<'_>, key: &'static str) -> Result<Vec<String>, String> {
    let Some((patterns, given)) = list(sources, key)? else { return Ok(Vec::new()) };
    let is_good =
        |pattern: &String| pattern == "*" || pattern.split('/').filter(|part| !part.is_empty()).count() == 2;
    match patterns.iter().all(is_good) {
        true => Ok(patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect()),
        false => Err(given.wrong("expected projects as `ORGANIZATION/REPOSITORY`, with `*` for anything")),
    }
}

fn branches(sources: &Sources<'_>, key: &'static str) -> Result<Vec<String>, String> {
    let Some((patterns, given)) = list(sources, key)? else { return Ok(Vec::new()) };
    match patterns.iter().any(String::is_empty) {
        true => Err(given.wrong("a branch is empty")),
        false => Ok(patterns),
    }
}

fn mask_forms(sources: &Sources<'_>) -> Result<Vec<String>, String> {
    let Some((forms, given)) = list(sources, "runner.mask_forms")? else { return Ok(Vec::new()) };
    match forms.iter().all(|form| MASK_FORMS.contains(&form.as_str())) {
        true => Ok(forms),
        false => Err(given.wrong("expected some of `base64`, `url`, `json`")),
    }
}

fn list(sources: &Sources<'_>, key: &'static str) -> Result<Option<(Vec<String>, Given)>, String> {
    let Some(given) = sources.get(key) else { return Ok(None) };
    let items = match &given.value {
        Value::List(items) => items.clone(),
        Value::Text(text) => value::list(text).map_err(|why| given.wrong(&why))?,
        Value::Null => Vec::new(),
    };
    Ok(Some((items, given)))
}

fn command_prefix(sources: &Sources<'_>) -> Result<Vec<String>, String> {
    let Some((words, given)) = list(sources, "runner.command_prefix")? else { return Ok(Vec::new()) };
    match words.first() {
        Some(program) if program.is_empty() => Err(given.wrong("its first word names no program")),
        _ if words.iter().any(|word| word.contains('\0')) => Err(given.wrong("a word has a zero byte")),
        _ => Ok(words),
    }
}

fn default_working_directory(host: &Host) -> Result<PathBuf, String> {
    if let Some(directory) = host.service_directory.as_ref().or(host.package_directory.as_ref()) {
        return Ok(directory.join("workdir"));
    }
    match &host.home {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/runlet/workdir")),
        None => Err("`runner.working_directory` is not set, and without HOME there is no default (or CIRCLECI_RUNNER_WORK_DIR)".to_owned()),
    }
}

fn default_state_directory(host: &Host, working_directory: &std::path::Path) -> Option<PathBuf> {
    if let Some(directory) = &host.service_directory {
        return Some(directory.join("state"));
    }
    if let Some(state) = host.state_home.as_deref().filter(|state| state.starts_with('/')) {
        return Some(PathBuf::from(state).join("runlet"));
    }
    match &host.home {
        Some(home) => Some(PathBuf::from(home).join(".local/state/runlet")),
        None => working_directory.parent().map(|parent| parent.join(".runlet")),
    }
}

#[cfg(test)]
mod tests;
