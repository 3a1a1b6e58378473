//! The task as a runner hands it to the task agent (`runlet task`) on its standard input: one JSON document.
//!
//! `agent` builds it from its settings and a claim, `executor` reads it, and answers with lines of its own. It is not part of the wire
//! between hosts; both sides are the same program, so it has no version of its own. It carries the
//! task's token and secret variables and must never reach argv, the environment or a file.

use super::Task;
use super::finding::Finding;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Input of the task agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskInput {
    /// The control plane to report to.
    pub endpoint: TaskEndpoint,
    /// The runner's working directory, used when the job has none and as the base of a relative one.
    /// `None` is a directory of the task's own below the scratch directory.
    #[serde(default)]
    pub working_directory: Option<PathBuf>,
    /// Remove the working directory when the task has ended.
    #[serde(default)]
    pub cleanup_working_directory: bool,
    /// The working directory of the job is made below `working_directory`, wherever the job wants it, and
    /// `checkout` leaves what is outside alone.
    #[serde(default)]
    pub confine: bool,
    /// `checkout` takes commits from here, not from the address of the task, which is recorded as the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_source: Option<LocalSource>,
    /// The control plane is on this host and keeps output in this folder, in one with the name of the task, as files with
    /// the numbers of steps. The task agent writes it there, and sends none.
    #[cfg(feature = "server")]
    #[serde(default)]
    pub output_directory: Option<PathBuf>,
    /// `checkout` keeps its keys in `~/.ssh` rather than in the scratch directory.
    #[serde(default)]
    pub use_home_ssh_dir_for_checkout_keys: bool,
    /// The task is stopped as timed out after this long; 0 is no limit.
    #[serde(default)]
    pub max_run_time_ms: u64,
    /// Name of the runner, `runner.name`.
    pub runner_name: String,
    /// Version of the runner that claimed the task.
    pub runner_version: String,
    /// Appended to `PATH` of the steps; holds `circleci-agent` and `circleci`, links to this program.
    /// `None` makes a directory of that kind in the scratch directory.
    #[serde(default)]
    pub tool_directory: Option<PathBuf>,
    /// `error`, `warn`, `info`, `debug` or `trace`; `None` is `info`. The task agent's own log goes to
    /// standard error.
    #[serde(default)]
    pub log_level: Option<String>,
    /// `color`, `text`, `json` or `none`: how the task agent's own log is written; `None` is `text`.
    #[serde(default)]
    pub log_format: Option<String>,
    /// Forms in which secrets are masked besides: `base64`, `url`, `json`.
    #[serde(default)]
    pub mask_forms: Vec<String>,
    /// How long the runner pauses when this task cannot begin here, in seconds: the control plane is told.
    #[serde(default)]
    pub pause_seconds: u32,
    /// Output of a step that does not fit on the disk is dropped, rather than that the step waits.
    #[serde(default)]
    pub drop_output: bool,
    /// Only what another task agent of this task has left unsent is sent, and no step runs. Of the task only
    /// id, token and job name count.
    #[serde(default)]
    pub rest: bool,
    /// The claimed task.
    pub task: Task,
}

impl TaskInput {
    /// Extension of what the working directory of a confined job becomes when the job has ended, beside its place: whoever
    /// has the job confined removes it.
    pub const ASIDE: &str = "done";
}

/// A repository on this host that stands in for the origin. Its objects are used where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSource {
    /// The bare repository, absolute.
    pub repository: PathBuf,
    /// Some of its objects are at the origin only.
    pub is_partial: bool,
}

impl LocalSource {
    /// Prefix of references, in such a repository, to the commits that it hands out: a git that borrows its objects may
    /// take it that those are all there. Of the references beside other objects that it borrows this is not known.
    pub const KNOWN: &str = "refs/runlet/known/";

    /// The folder, inside of such a repository, of what git is told of the origin that it stands in for: in its file `config`,
    /// if there is any. It may hold secrets, so a checkout names it and does not copy it.
    pub fn settings(repository: &Path) -> PathBuf {
        repository.join("settings")
    }
}

/// A line that the task agent writes to its standard output, for the runner: `{"runlet_task": "begun"}`. Other lines
/// come of what wraps the task agent, and go to the runner's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The task has begun.
    Begun,
    /// The task cannot begin here; `message` says why. Exit code 0 after it: the task is given back already.
    Failed,
    /// All steps have ended; what they said is on its way to the control plane. `message` is how: `success`, `failed`.
    Ended,
    /// The task agent dies of a fault of its own; `message` is which.
    Words,
}

#[derive(Serialize, Deserialize)]
struct SaidLine {
    runlet_task: Said,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Said {
    /// The line, without its end.
    pub fn line(self, message: Option<&str>) -> String {
        let line = SaidLine { runlet_task: self, message: message.map(str::to_owned) };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Reads a line; `None` when something else wrote it.
    pub fn read(line: &str) -> Option<(Self, Option<String>)> {
        let said: SaidLine = super::json::read(line.as_bytes()).ok()?;
        Some((said.runlet_task, said.message))
    }
}

/// Address of the control plane and how it is trusted: the serialisable form of
/// [`http::Endpoint`](crate::http::Endpoint).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEndpoint {
    /// Base URL without a trailing slash.
    pub url: String,
    /// Further certificate authorities, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM; used together with its key.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
}

/// In place of a [`TaskInput`]: a look at the host with the eyes of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Working directory of the runner, as in [`TaskInput`].
    pub working_directory: PathBuf,
    /// Directory with the tools of the steps, as in [`TaskInput`].
    #[serde(default)]
    pub tool_directory: Option<PathBuf>,
}

/// The input of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeInput {
    /// Orders for the look.
    pub runlet_probe: Probe,
}

/// The line that a probe writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Findings of the look.
    pub runlet_probe: Vec<Finding>,
}

/// The input of a probe begins so.
pub const PROBE_BEGINS: &[u8] = b"{\"runlet_probe\":";

/// The exit code of a probe: one that nothing else gives by itself.
pub const PROBE_EXIT: u8 = 37;

/// Exit codes of `runlet task`.
pub mod task_exit {
    /// The outcome was confirmed, the task was given back, or the control plane had ended it.
    pub const REPORTED: u8 = 0;
    /// The outcome could not be reported; or the task has not begun and could not be given back.
    pub const NOT_REPORTED: u8 = 75;
}

#[cfg(test)]
mod tests {
    use super::Said;

    #[test]
    fn lines_of_the_task_agent_are_told_apart_from_others() {
        assert_eq!(Said::Begun.line(None), r#"{"runlet_task":"begun"}"#);
        let line = Said::Failed.line(Some("no space\nleft"));
        assert_eq!(Said::read(&line), Some((Said::Failed, Some("no space\nleft".to_owned()))));
        for other in ["", "welcome", "{}", r#"{"runlet_task":"made up"}"#] {
            assert_eq!(Said::read(other), None, "{other}");
        }
    }
}
