//! The environment of a step, and the words of a shell. Values in, values out.

use crate::protocol::{Run, Task};
use crate::system::os::{DEFAULT_PATH, PATH_SEPARATOR};
use crate::system::shell;
use std::collections::BTreeMap;
use std::path::Path;

/// Variables that the runner's own environment must not hand to users' steps: its settings and tokens, and whatever
/// a job is told by the control plane or not at all. Where the runner runs inside a job of another CI, that
/// job's branch, tag, pull request and tokens are none of this one's.
const PRIVATE_PREFIXES: [&str; 4] = ["CIRCLE_", "CIRCLECI_", "LAUNCH_AGENT_", "RUNLET_"];
/// Variables that git sets for hooks would lead every git of the job into the repository of the hook.
const PRIVATE_NAMES: [&str; 13] = [
    "CI",
    "CIRCLECI",
    "BASH_ENV",
    "USE_HOME_SSH_DIR_FOR_CHECKOUT_KEYS",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
];

/// Values that the agent itself adds.
pub struct Own<'a> {
    /// Private folder of the task.
    pub task_data: &'a Path,
    /// File that bash reads before each command.
    pub bash_env: &'a Path,
    /// Working directory of the job, as the config or the settings write it.
    pub working_directory: &'a str,
    /// Folder with `circleci-agent`, appended to `PATH`.
    pub tool_directory: Option<&'a Path>,
    /// Home directory of the job.
    pub home: &'a Path,
}

/// The environment of the steps of a task: the runner's own, project and context variables, built-ins,
/// the job's; each wins over those before it.
pub fn of_job(
    inherited: impl Iterator<Item = (String, String)>,
    task: &Task,
    own: &Own<'_>,
) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    // Inserted, not collected: that would bring a sort of its own into the small file.
    environment.extend(inherited.filter(|(name, _)| !is_private(name)));
    environment.insert("HOME".to_owned(), text(own.home));
    let path = environment.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    if let Some(tools) = own.tool_directory {
        path.push(PATH_SEPARATOR);
        path.push_str(&tools.to_string_lossy());
    }
    for variable in &task.variables {
        environment.insert(variable.name.clone(), variable.value.expose().to_owned());
    }
    environment.extend(task.built_in.clone());
    environment.extend(of_agent(task, own.working_directory));
    environment.insert("CIRCLE_INTERNAL_TASK_DATA".to_owned(), text(own.task_data));
    environment.insert("BASH_ENV".to_owned(), text(own.bash_env));
    environment.extend(task.job.environment.clone());
    environment
}

/// The built-in variables that the agent knows: they belong to cache keys, too.
pub fn of_agent(task: &Task, working_directory: &str) -> [(String, String); 3] {
    [
        ("CIRCLE_NODE_INDEX".to_owned(), task.node_index.to_string()),
        ("CIRCLE_NODE_TOTAL".to_owned(), task.node_total.to_string()),
        ("CIRCLE_WORKING_DIRECTORY".to_owned(), working_directory.to_owned()),
    ]
}

/// Adds the environment of one step.
pub fn of_step(job: &BTreeMap<String, String>, run: &Run) -> BTreeMap<String, String> {
    let mut environment = job.clone();
    environment.extend(run.environment.clone());
    environment
}

fn is_private(name: &str) -> bool {
    // By this name the runner finds processes that outlived their task.
    if name == "RUNLET_TASK_ID" {
        return false;
    }
    PRIVATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || PRIVATE_NAMES.contains(&name)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The words of a shell setting; at least one. The error is a sentence for people.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let words = shell::words(line).map_err(|quote| format!("the shell `{line}` has an unclosed {quote}"))?;
    if words.is_empty() { Err("the shell is empty".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Job, Secret, TaskId, Variable};

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn task() -> Task {
        Task {
            job: Job {
                environment: map(&[("FOO", "job"), ("ONLY_JOB", "$HOME/bin")]),
                ..Job::without_steps("a/b".into())
            },
            node_index: 1,
            node_total: 2,
            built_in: map(&[("CI", "true"), ("BAR", "built-in")]),
            variables: ["first", "ctx"]
                .map(|value| Variable { name: "BAZ".into(), value: Secret::new(value) })
                .into_iter()
                .chain([Variable { name: "BAR".into(), value: Secret::new("prj") }])
                .collect(),
            ..Task::without_steps(TaskId::new("1").expect("valid"), Secret::new("t"), "j".into())
        }
    }

    fn environment(inherited: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = Own {
            task_data: Path::new("/t"),
            bash_env: Path::new("/t/bash_env"),
            working_directory: "~/project",
            tool_directory: Some(Path::new("/tools")),
            home: Path::new("/home/ci"),
        };
        of_job(map(inherited).into_iter(), &task(), &own)
    }

    #[test]
    fn later_sources_win() {
        let job = environment(&[
            ("FOO", "host"),
            ("BAR", "host"),
            ("BAZ", "host"),
            ("KEPT", "host"),
            ("PATH", "/bin"),
        ]);
        let get = |name: &str| job.get(name).map(String::as_str);
        assert_eq!((get("FOO"), get("BAR"), get("BAZ")), (Some("job"), Some("built-in"), Some("ctx")));
        assert_eq!((get("KEPT"), get("ONLY_JOB")), (Some("host"), Some("$HOME/bin")));
        assert_eq!((get("PATH"), get("HOME")), (Some("/bin:/tools"), Some("/home/ci")));
        assert_eq!((get("CIRCLE_NODE_INDEX"), get("CIRCLE_NODE_TOTAL")), (Some("1"), Some("2")));
        assert_eq!(
            (get("BASH_ENV"), get("CIRCLE_WORKING_DIRECTORY")),
            (Some("/t/bash_env"), Some("~/project"))
        );
    }

    #[test]
    fn the_runners_own_settings_and_tokens_stay_with_it() {
        let names = [
            "CIRCLECI_RUNNER_API_AUTH_TOKEN",
            "LAUNCH_AGENT_API_AUTH_TOKEN",
            "CIRCLECI_API_TOKEN",
            "RUNLET_X",
            "USE_HOME_SSH_DIR_FOR_CHECKOUT_KEYS",
        ];
        let job = environment(&names.map(|name| (name, "secret")));
        assert!(!job.values().any(|value| value == "secret"), "{job:?}");
    }

    #[test]
    fn what_another_job_around_the_runner_is_told_stays_there() {
        let names = [
            "CI",
            "CIRCLECI",
            "BASH_ENV",
            "CIRCLE_TAG",
            "CIRCLE_OIDC_TOKEN",
            "CIRCLE_PR_NUMBER",
            "CIRCLE_PREVIOUS_BUILD_NUM",
            "CIRCLE_NODE_INDEX",
        ];
        let job = environment(&names.map(|name| (name, "other")));
        assert!(!job.values().any(|value| value == "other"), "{job:?}");
        // Others that begin alike are nobody's but the host's.
        let job = environment(&[("CIRCLES", "kept"), ("CIRCLECITY", "kept"), ("CI_HOST", "kept")]);
        assert_eq!(job.values().filter(|value| *value == "kept").count(), 3);
    }

    #[test]
    fn shells_are_split_like_a_shell_does() {
        let split = |line: &str| words(line);
        assert_eq!(
            split("/bin/bash -eo pipefail").as_deref(),
            Ok(&["/bin/bash", "-eo", "pipefail"].map(String::from)[..])
        );
        assert_eq!(
            split(r#"'a b' "c \" d" e\ f """#).as_deref(),
            Ok(&["a b", "c \" d", "e f", ""].map(String::from)[..])
        );
        assert!(split("'open").is_err() && split("sh \\").is_err() && split("  ").is_err());
    }
}
