//! Text and variables in, checked settings out. No IO.

use super::file::FileValue;
use super::keys::{AUTH_TOKEN, AUTH_TOKEN_FILE};
use super::parts::{Quotas, Status};
use super::sources::{Given, Sources};
use super::value;
use crate::agent::gates::{Gates, Hours};
use crate::agent::rules::Rules;
use crate::http::Endpoint;
use crate::logging;
use crate::protocol::task_input::LocalSource;
use crate::protocol::{ResourceClass, Secret};
use std::path::PathBuf;
use std::time::Duration;

/// Placeholder that a package leaves where the token belongs.
const TOKEN_PLACEHOLDER: &str = "AUTH_TOKEN";

/// Forms in which secrets can be masked besides.
const MASK_FORMS: [&str; 3] = ["base64", "url", "json"];

/// Behaviour after a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Claim the next one.
    Continuous,
    /// Runs one task and exits.
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
    /// The folder in which a control plane of this host keeps output. No key of the file sets it.
    #[cfg(feature = "server")]
    pub output_directory: Option<PathBuf>,
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
    /// The class that the token is expected to be of: `CIRCLECI_RESOURCE_CLASS`.
    pub resource_class: Option<String>,
    /// `runner.max_load` and its like.
    pub gates: Gates,
    /// `runner.quota.*`.
    pub quotas: Quotas,
    /// `status.*`.
    pub status: Status,
    /// `logging.*`.
    pub logging: logging::LogOptions,
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
            #[cfg(feature = "server")]
            output_directory: None,
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
            resource_class: None,
            gates: Gates::default(),
            quotas: Quotas::default(),
            status: Status::default(),
            logging: logging::LogOptions::default(),
            warnings: Vec::new(),
            file: None,
        }
    }
}

/// Facts of the host that [`resolve`] needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Name of the host.
    pub name: String,
    /// Home of the user, from `HOME`.
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

/// Decides the settings. `read_token` reads the file of `api.auth_token_file`. The error tells all that is wrong, one
/// line each: place, key, value, choices.
pub(super) fn resolve(
    sources: &Sources<'_>,
    host: &Host,
    read_token: &dyn Fn(&std::path::Path) -> Result<String, String>,
) -> Result<Settings, String> {
    let home = host.home.as_deref();
    let path = |key| sources.read(key, |text| value::path(text, home));
    let flag = |key| sources.read(key, value::boolean).unwrap_or(false);
    let must = |found: Result<Option<String>, String>| {
        found.unwrap_or_else(|why| {
            sources.wrong(why);
            None
        })
    };

    let token = must(token(sources, host, read_token)).unwrap_or_default();
    let url = must(url(sources)).unwrap_or_default();
    let (certificate, key) = (path("api.client_certificate"), path("api.client_key"));
    let (given, other) = ("api.client_certificate", "api.client_key");
    for (given, other) in [(given, other), (other, given)] {
        if sources.get(given).is_some() && sources.get(other).is_none() {
            sources.wrong(format!("`{given}` is set without `{other}`"));
        }
    }
    let endpoint = Endpoint { url, ca_file: path("api.ca_file"), client_certificate: certificate.zip(key) };

    let mut name = sources.read("runner.name", value::name);
    if name.is_none() && sources.get("runner.name").is_none() {
        name = value::name_of_host(&host.full_name());
        if name.is_none() {
            sources.wrong(
                "`runner.name` is not set and this host has no name (or CIRCLECI_RUNNER_NAME)".to_owned(),
            );
        }
    }
    let name = name.unwrap_or_default();
    let mut working_directory = sources.read("runner.working_directory", value::absolute);
    if working_directory.is_none() && sources.get("runner.working_directory").is_none() {
        working_directory = default_working_directory(host, &name);
        if working_directory.is_none() {
            sources.wrong("`runner.working_directory` is not set, and without HOME there is no default (or CIRCLECI_RUNNER_WORK_DIR)".to_owned());
        }
    }
    let working_directory = working_directory.unwrap_or_default();
    let mode = sources.read("runner.mode", |text| match text {
        "continuous" => Ok(Mode::Continuous),
        "single-task" => Ok(Mode::SingleTask),
        _ => Err("expected `continuous` or `single-task`".to_owned()),
    });
    let max_run_time = sources.read("runner.max_run_time", |text| match value::duration(text)? {
        Duration::ZERO => Err("expected more than nothing".to_owned()),
        time => Ok(time),
    });
    let idle_timeout = sources.read("runner.idle_timeout", value::duration);
    let state_directory =
        path("runner.state_directory").or_else(|| default_state_directory(host, &working_directory));
    flag("runner.cache_task_agent");
    flag("runner.disable_auto_update");
    let log_file = sources.read("logging.file", |text| match text {
        "-" => Ok(None),
        _ => value::path(text, home).map(Some),
    });
    let mut settings = Settings::new(Secret::new(token), endpoint, name, working_directory);
    settings.ssh_advertise_addr = sources.read("runner.ssh.advertise_addr", value::host_and_port);
    if settings.ssh_advertise_addr.is_some() {
        settings.warnings.push(
            "`runner.ssh.advertise_addr` is set, but rerunning a job with SSH is not available".to_owned(),
        );
    }
    settings.resource_class = sources.variable("CIRCLECI_RESOURCE_CLASS");
    if let Some(Err(error)) = settings.resource_class.as_deref().map(ResourceClass::new) {
        sources.wrong(format!("CIRCLECI_RESOURCE_CLASS: {error}"));
    }
    settings.mode = mode.unwrap_or(settings.mode);
    settings.cleanup_working_directory = flag("runner.cleanup_working_directory");
    settings.drop_output_on_full_disk = flag("runner.drop_output_on_full_disk");
    settings.task_agent_directory = path("runner.task_agent_directory")
        .or_else(|| home.map(|home| PathBuf::from(home).join(".local/libexec/circleci")));
    settings.command_prefix = command_prefix(sources);
    settings.use_home_ssh_dir_for_checkout_keys = flag("runner.use_home_ssh_dir_for_checkout_keys");
    settings.max_run_time = max_run_time.unwrap_or(settings.max_run_time);
    // Zero is "not set", as in Go.
    settings.idle_timeout = idle_timeout.filter(|time| !time.is_zero());
    settings.state_directory = state_directory;
    settings.mask_forms = mask_forms(sources);
    settings.rules = Rules {
        allow_projects: projects(sources, "runner.allow_projects"),
        deny_projects: projects(sources, "runner.deny_projects"),
        allow_branches: branches(sources, "runner.allow_branches"),
        deny_branches: branches(sources, "runner.deny_branches"),
    };
    settings.gates = Gates {
        max_load: sources.read("runner.max_load", value::load),
        quiet_hours: quiet_hours(sources),
        min_free_disk: sources.read("runner.min_free_disk", value::room),
    };
    settings.quotas = Quotas {
        memory_bytes: sources.read("runner.quota.memory", value::size),
        processes: sources.read("runner.quota.processes", |text| value::number(text, u32::MAX.into())),
        cpu_weight: sources.read("runner.quota.cpu_weight", |text| value::number(text, 10_000)),
    };
    settings.status = Status {
        socket: path("status.socket"),
        mode: sources.read("status.mode", value::mode).unwrap_or(settings.status.mode),
        group: sources.read("status.group", |text| Ok(text.to_owned())),
        listen: sources.read("status.listen", value::listen),
        textfile: path("status.textfile"),
    };
    let logging = &mut settings.logging;
    logging.level = sources.read("logging.level", logging::parse_level).unwrap_or(logging.level);
    logging.format = sources.read("logging.format", logging::Format::parse).unwrap_or(logging.format);
    logging.file = log_file.flatten();
    match sources.problems() {
        None => Ok(settings),
        Some(problems) => Err(problems),
    }
}

/// The address of the control plane. There is no default: a token must not go to a host that nobody has named.
fn url(sources: &Sources<'_>) -> Result<Option<String>, String> {
    let Some(given) = sources.get("api.url") else {
        return Err("`api.url` is not set: write the address of your control plane there (or CIRCLECI_RUNNER_API_URL); there is no default, since the token goes to whoever answers".to_owned());
    };
    let url = given.text()?.trim_end_matches('/').to_owned();
    match crate::http::check_url(&url) {
        Ok(_) => Ok(Some(url)),
        Err(error) => Err(format!("{}{}: {error}", given.place, given.what)),
    }
}

fn token(
    sources: &Sources<'_>,
    host: &Host,
    read_token: &dyn Fn(&std::path::Path) -> Result<String, String>,
) -> Result<Option<String>, String> {
    let given = match (sources.get(AUTH_TOKEN), sources.get(AUTH_TOKEN_FILE)) {
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
                key: AUTH_TOKEN_FILE,
                value: FileValue::Text(path.to_string_lossy().into_owned()),
                place: String::new(),
                what: "the credential `token`".to_owned(),
                from_variable: true,
            }
        }
    };
    let (text, what) = if given.key == AUTH_TOKEN_FILE {
        let path = value::absolute(given.text()?).map_err(|why| given.wrong(&why))?;
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
    Ok(Some(text))
}

/// Patterns of projects, in lower case. A mistake in a rule is not to open what it should close.
fn projects(sources: &Sources<'_>, key: &'static str) -> Vec<String> {
    let is_good =
        |pattern: &String| pattern == "*" || pattern.split('/').filter(|part| !part.is_empty()).count() == 2;
    let patterns = sources.list(key, |patterns| match patterns.iter().all(is_good) {
        true => Ok(()),
        false => Err("expected projects as `ORGANIZATION/REPOSITORY`, with `*` for anything"),
    });
    patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect()
}

fn branches(sources: &Sources<'_>, key: &'static str) -> Vec<String> {
    sources.list(key, |patterns| match patterns.iter().any(String::is_empty) {
        true => Err("a branch is empty"),
        false => Ok(()),
    })
}

fn mask_forms(sources: &Sources<'_>) -> Vec<String> {
    let is_known = |form: &String| MASK_FORMS.contains(&form.as_str());
    sources.list("runner.mask_forms", |forms| match forms.iter().all(is_known) {
        true => Ok(()),
        false => Err("expected some of `base64`, `url`, `json`"),
    })
}

fn quiet_hours(sources: &Sources<'_>) -> Vec<Hours> {
    let hours = sources.list("runner.quiet_hours", |hours| {
        match hours.iter().all(|text| Hours::read(text).is_ok()) {
            true => Ok(()),
            false => Err("expected hours in UTC as `22:00-06:00`, or a list of them"),
        }
    });
    hours.iter().filter_map(|text| Hours::read(text).ok()).collect()
}

fn command_prefix(sources: &Sources<'_>) -> Vec<String> {
    sources.list("runner.command_prefix", |words| match words.first() {
        Some(program) if program.is_empty() => Err("its first word names no program"),
        _ if words.iter().any(|word| word.contains('\0')) => Err("a word has a zero byte"),
        _ => Ok(()),
    })
}

/// Runners of one host have working directories of their own.
fn default_working_directory(host: &Host, name: &str) -> Option<PathBuf> {
    if let Some(own) = &host.service_directory {
        return Some(own.join("workdir"));
    }
    let all = match &host.package_directory {
        Some(package) => package.join("workdir"),
        None => PathBuf::from(host.home.as_ref()?).join(".local/share/runlet/workdir"),
    };
    Some(all.join(name))
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
