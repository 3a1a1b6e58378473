//! The built-in steps, from substituted YAML to actions.

use super::environment::{environment, shell};
use crate::config::language::{Language, Scope};
use crate::config::limits;
use crate::config::session::{NodeReader, Report, present};
use crate::config::values::{Data, Map, Node, Pos};
use crate::protocol::duration;
use crate::protocol::{CheckoutMethod, Run, Step, StepAction, When};
use std::rc::Rc;
use std::time::Duration;

const NO_OUTPUT_TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST_RERUN_DELAY_S: u64 = 600;

/// Title of a built-in step without `name`; that of `run` is its command.
pub(crate) fn default_title(action: &StepAction) -> &str {
    match action {
        StepAction::Run(run) => &run.command,
        StepAction::Checkout { .. } => "Checkout code",
        StepAction::StoreArtifacts { .. } => "Uploading artifacts",
        StepAction::StoreTestResults { .. } => "Uploading test results",
        StepAction::SaveCache { .. } => "Saving cache",
        StepAction::RestoreCache { .. } => "Restoring cache",
        StepAction::PersistToWorkspace { .. } => "Persisting to workspace",
        StepAction::AttachWorkspace { .. } => "Attaching workspace",
        StepAction::AddSshKeys { .. } => "Installing additional SSH keys",
        StepAction::SetupRemoteDocker => "Setting up remote Docker",
        StepAction::InstallSigningBundle => "Installing signing bundle",
    }
}

/// The capability that a step needs and no runner of this version has.
fn not_yet(action: &StepAction) -> Option<&'static str> {
    match action {
        StepAction::AddSshKeys { .. } => Some("SSH keys of projects"),
        _ => None,
    }
}

/// `when` of a built-in step without the key.
pub(crate) fn default_when(action: &StepAction) -> When {
    match action {
        StepAction::StoreArtifacts { .. } | StepAction::StoreTestResults { .. } => When::Always,
        _ => When::OnSuccess,
    }
}

/// Compiles one built-in step. `body` is what stands after the colon, not yet substituted.
pub(crate) fn builtin(
    language: &Language<'_>,
    name: &str,
    pos: Pos,
    body: Option<&Node>,
    scope: &Scope,
) -> Option<Step> {
    let builtins = Builtins { language, report: language.report, read: language.read };
    builtins.step(name, pos, body, scope)
}

struct Builtins<'c> {
    language: &'c Language<'c>,
    report: &'c Report,
    read: NodeReader<'c>,
}

impl Builtins<'_> {
    fn step(&self, name: &str, pos: Pos, body: Option<&Node>, scope: &Scope) -> Option<Step> {
        let what = format!("step `{name}`");
        let body = match body {
            Some(body) => Some(self.language.substitute(body, scope)?),
            None => None,
        };
        if name == "deploy" {
            self.report.warn(pos, "the step `deploy` is deprecated; it is run on the first parallel node only, use `run` with a condition");
        }
        if let ("run" | "deploy", Some(node)) = (name, &body) {
            if node.as_scalar().is_some() {
                let command = self.read.expect_text(node, "the command of `run`")?;
                return self.plain_run(command, node.pos, name == "deploy");
            }
        }
        let map = match &body {
            Some(body) => self.read.expect_map(body, &what)?.clone(),
            None => Rc::new(Map::default()),
        };
        let fields = Fields { map: &map, what: &what, pos };
        let mut allows_when = false;
        let action = match name {
            "run" | "deploy" => {
                allows_when = true;
                let mut run = self.run(&fields)?;
                run.first_node_only = name == "deploy";
                StepAction::Run(run)
            }
            "checkout" => self.checkout(&fields)?,
            "store_artifacts" => {
                allows_when = true;
                self.check_step_keys(&fields, &["path", "destination", "when", "name"]);
                let path = self.read.required_text(&map, "path", &what, pos)?.to_string();
                let destination = self.read.text(&map, "destination", &what)?.map(|text| text.to_string());
                StepAction::StoreArtifacts { path, destination: destination.filter(|text| !text.is_empty()) }
            }
            "store_test_results" => {
                allows_when = true;
                self.check_step_keys(&fields, &["path", "when", "name"]);
                StepAction::StoreTestResults {
                    path: self.read.required_text(&map, "path", &what, pos)?.to_string(),
                }
            }
            "save_cache" => {
                allows_when = true;
                self.check_step_keys(&fields, &["key", "paths", "when", "name"]);
                let key = self.read.required_text(&map, "key", &what, pos);
                let paths = self.paths(&fields);
                StepAction::SaveCache { key: key?.to_string(), paths: paths? }
            }
            "restore_cache" => {
                self.check_step_keys(&fields, &["key", "keys", "name"]);
                let mut keys: Vec<String> =
                    self.read.text(&map, "key", &what)?.iter().map(|k| k.to_string()).collect();
                if let Some(node) = present(&map, "keys") {
                    let texts = self.read.text_list(node, format_args!("`keys` of {what}"))?;
                    keys.extend(texts.iter().map(|k| k.to_string()));
                }
                if keys.is_empty() {
                    self.report.error(pos, format!("{what} needs `key` or `keys`"));
                    return None;
                }
                StepAction::RestoreCache { keys }
            }
            "persist_to_workspace" => {
                self.check_step_keys(&fields, &["root", "paths", "name"]);
                let root = self.read.required_text(&map, "root", &what, pos);
                let paths = self.paths(&fields);
                StepAction::PersistToWorkspace { root: root?.to_string(), paths: paths? }
            }
            "attach_workspace" => {
                self.check_step_keys(&fields, &["at", "name"]);
                StepAction::AttachWorkspace {
                    at: self.read.required_text(&map, "at", &what, pos)?.to_string(),
                }
            }
            "add_ssh_keys" => {
                self.check_step_keys(&fields, &["fingerprints", "name"]);
                let fingerprints = match present(&map, "fingerprints") {
                    Some(node) => self.read.text_list(node, format_args!("`fingerprints` of {what}"))?,
                    None => Vec::new(),
                };
                StepAction::AddSshKeys { fingerprints: fingerprints.iter().map(|f| f.to_string()).collect() }
            }
            "setup_remote_docker" => {
                self.check_step_keys(
                    &fields,
                    &["docker_layer_caching", "version", "prefer_same_region", "name"],
                );
                self.read.boolean(&map, "docker_layer_caching", &what)?;
                self.read.boolean(&map, "prefer_same_region", &what)?;
                self.report.warn(
                    pos,
                    "`setup_remote_docker` does nothing on a machine runner: use the Docker of the machine",
                );
                StepAction::SetupRemoteDocker
            }
            _ => {
                self.check_step_keys(&fields, &["name"]);
                self.report
                    .warn(pos, "`install_signing_bundle` needs the hosted service: the step will fail");
                StepAction::InstallSigningBundle
            }
        };
        if let Some(missing) = not_yet(&action) {
            self.report.warn(
                pos,
                format!(
                    "{what}: this version of the runner does not do {missing} yet: the step fails (in `runlet exec` your own are used)"
                ),
            );
        }
        let when = if allows_when { self.when(&fields, &action)? } else { default_when(&action) };
        let title = self.read.text(&map, "name", &what)?.filter(|name| !name.trim().is_empty());
        let name = title.map_or_else(|| default_title(&action).to_owned(), |title| title.to_string());
        Some(Step { name, when, action })
    }

    fn check_step_keys(&self, fields: &Fields<'_>, known: &[&str]) {
        debug_assert!(known.contains(&"name"), "every step can be named");
        self.read.check_keys(fields.map, fields.what, known, false);
    }

    fn plain_run(&self, command: Rc<str>, pos: Pos, first_node_only: bool) -> Option<Step> {
        let command = self.command(&command, pos)?;
        let run = Run {
            command,
            shell: None,
            environment: Default::default(),
            background: false,
            working_directory: None,
            no_output_timeout_ms: millis(NO_OUTPUT_TIMEOUT),
            max_auto_reruns: 0,
            auto_rerun_delay_ms: 0,
            first_node_only,
        };
        Some(Step { name: run.command.clone(), when: When::OnSuccess, action: StepAction::Run(run) })
    }

    fn command(&self, text: &str, pos: Pos) -> Option<String> {
        if text.trim().is_empty() {
            self.report.error(pos, "the command of a `run` step is empty");
            return None;
        }
        if text.contains('\0') {
            self.report.error(pos, "the command of a `run` step has a NUL character");
            return None;
        }
        Some(text.to_owned())
    }

    fn run(&self, fields: &Fields<'_>) -> Option<Run> {
        let Fields { map, what, pos } = *fields;
        self.check_step_keys(
            fields,
            &[
                "command",
                "shell",
                "environment",
                "background",
                "working_directory",
                "no_output_timeout",
                "when",
                "max_auto_reruns",
                "auto_rerun_delay",
                "name",
            ],
        );
        let before = self.report.errors();
        let command = match present(map, "command") {
            Some(node) => self
                .read
                .expect_text(node, format_args!("`command` of {what}"))
                .and_then(|text| self.command(&text, node.pos)),
            None => {
                self.report.error(pos, format!("{what} has no `command`"));
                None
            }
        };
        let shell = present(map, "shell").and_then(|node| shell(self.read, node, what));
        let environment = present(map, "environment").and_then(|node| environment(self.read, node, what));
        let background = self.read.boolean(map, "background", what);
        let working_directory = self.read.text(map, "working_directory", what).flatten();
        let no_output_timeout = self.timeout(map, what);
        let reruns = self.read.integer(map, "max_auto_reruns", what, (1, limits::AUTO_RERUNS)).flatten();
        let delay = self.rerun_delay(map, what);
        if let (Some(entry), true) =
            (map.entry("auto_rerun_delay"), present(map, "max_auto_reruns").is_none())
        {
            self.report.error(entry.key_pos, format!("`auto_rerun_delay` of {what} needs `max_auto_reruns`"));
        }
        if background == Some(true) && (reruns.is_some() || delay.is_some()) {
            self.report
                .error(pos, format!("{what} runs in the background and cannot be rerun automatically"));
        }
        if self.report.errors() > before {
            return None;
        }
        Some(Run {
            command: command?,
            shell,
            environment: environment.unwrap_or_default(),
            background: background?,
            working_directory: working_directory.map(|text| text.to_string()),
            no_output_timeout_ms: millis(no_output_timeout.unwrap_or(NO_OUTPUT_TIMEOUT)),
            max_auto_reruns: reruns.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            auto_rerun_delay_ms: millis(delay.unwrap_or_default()),
            first_node_only: false,
        })
    }

    fn timeout(&self, map: &Map, what: &str) -> Option<Duration> {
        let node = present(map, "no_output_timeout")?;
        let text = self.read.expect_text(node, format_args!("`no_output_timeout` of {what}"))?;
        // A number alone is seconds, as it was in the first version of configs.
        let seconds = text.parse().map(Duration::from_secs);
        match seconds.or_else(|_| duration::parse(&text)) {
            Ok(time) if !time.is_zero() => Some(time),
            Ok(_) => {
                self.report
                    .error(node.pos, format!("`no_output_timeout` of {what} must be longer than nothing"));
                None
            }
            Err(message) => {
                self.report.error(node.pos, format!("`no_output_timeout` of {what}: {message}"));
                None
            }
        }
    }

    /// `1m` to `10m`, or seconds from `1s`.
    fn rerun_delay(&self, map: &Map, what: &str) -> Option<Duration> {
        let node = present(map, "auto_rerun_delay")?;
        let text = self.read.expect_text(node, format_args!("`auto_rerun_delay` of {what}"))?;
        let whole = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            digits.parse::<u64>().ok().filter(|_| plain)
        };
        let minutes = text.strip_suffix('m').and_then(whole).map(|minutes| minutes.saturating_mul(60));
        let seconds = minutes.or_else(|| text.strip_suffix('s').and_then(whole));
        let delay = seconds.filter(|seconds| *seconds <= LONGEST_RERUN_DELAY_S);
        if delay.is_none() {
            self.report.error(
                node.pos,
                format!(
                    "`auto_rerun_delay` of {what} must be whole seconds or minutes up to `10m`, not `{text}`"
                ),
            );
        }
        delay.map(Duration::from_secs)
    }

    fn when(&self, fields: &Fields<'_>, action: &StepAction) -> Option<When> {
        let Some(node) = present(fields.map, "when") else { return Some(default_when(action)) };
        match node.as_str().map(|text| &**text) {
            Some("always") => Some(When::Always),
            Some("on_success") => Some(When::OnSuccess),
            Some("on_fail") => Some(When::OnFail),
            _ => {
                let found = node.describe();
                self.report.error(
                    node.pos,
                    format!(
                        "`when` of {} must be one of always, on_success, on_fail, not {found}",
                        fields.what
                    ),
                );
                None
            }
        }
    }

    fn paths(&self, fields: &Fields<'_>) -> Option<Vec<String>> {
        let what = fields.what;
        let Some(node) = present(fields.map, "paths") else {
            self.report.error(fields.pos, format!("{what} has no `paths`"));
            return None;
        };
        let is_empty = match &node.data {
            Data::Seq(seq) => seq.items.is_empty(),
            _ => node.as_str().is_none_or(|path| path.is_empty()),
        };
        if is_empty {
            let found = node.describe();
            let message = format!("`paths` of {what} must be a path or a list of at least one, not {found}");
            self.report.error(node.pos, message);
            return None;
        }
        let texts = self.read.text_list(node, format_args!("`paths` of {what}"))?;
        Some(texts.iter().map(|text| text.to_string()).collect())
    }

    fn checkout(&self, fields: &Fields<'_>) -> Option<StepAction> {
        let Fields { map, what, pos } = *fields;
        self.check_step_keys(fields, &["path", "method", "depth", "name"]);
        let path = self.read.text(map, "path", what)?.map_or_else(|| ".".to_owned(), |path| path.to_string());
        let depth = self.read.integer(map, "depth", what, (1, i64::from(u32::MAX)))?;
        let method = self.read.text(map, "method", what)?;
        let method_pos = map.get("method").map_or(pos, |node| node.pos);
        let method = match (method.as_deref().unwrap_or("blobless"), depth) {
            ("blobless", None) => CheckoutMethod::Blobless,
            ("full", None) => CheckoutMethod::Full,
            ("shallow", Some(depth)) => {
                CheckoutMethod::Shallow { depth: u32::try_from(depth).unwrap_or(u32::MAX) }
            }
            ("shallow", None) => {
                self.report.error(method_pos, format!("{what} with the method `shallow` needs `depth`"));
                return None;
            }
            ("blobless" | "full", Some(_)) => {
                self.report
                    .error(method_pos, format!("`depth` of {what} goes with the method `shallow` only"));
                return None;
            }
            (other, _) => {
                self.report.error(
                    method_pos,
                    format!("`method` of {what} must be one of blobless, full, shallow, not `{other}`"),
                );
                return None;
            }
        };
        Some(StepAction::Checkout { path, method })
    }
}

/// The map of a step with its name for messages.
#[derive(Clone, Copy)]
struct Fields<'m> {
    map: &'m Map,
    what: &'m str,
    pos: Pos,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
