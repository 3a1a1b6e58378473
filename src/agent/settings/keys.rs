//! The keys of the settings file, and the variables that beat them.

/// A key of the file, and the variables that beat it, strongest first.
pub(super) struct SettingKey {
    pub(super) key: &'static str,
    pub(super) variables: &'static [&'static str],
}

const fn own(key: &'static str, variables: &'static [&'static str]) -> SettingKey {
    SettingKey { key, variables }
}

pub(super) const AUTH_TOKEN: &str = "api.auth_token";
pub(super) const AUTH_TOKEN_FILE: &str = "api.auth_token_file";

/// All keys. Variables that hold a token are never passed on to a task agent.
pub(super) const KEYS: &[SettingKey] = &[
    own(AUTH_TOKEN, &["CIRCLECI_RUNNER_API_AUTH_TOKEN", "LAUNCH_AGENT_API_AUTH_TOKEN", "CIRCLECI_API_TOKEN"]),
    own(AUTH_TOKEN_FILE, &["CIRCLECI_RUNNER_API_AUTH_TOKEN_FILE"]),
    own("api.url", &["CIRCLECI_RUNNER_API_URL", "LAUNCH_AGENT_API_URL"]),
    own("api.ca_file", &["CIRCLECI_RUNNER_API_CA_FILE"]),
    own("api.client_certificate", &["CIRCLECI_RUNNER_API_CLIENT_CERTIFICATE"]),
    own("api.client_key", &["CIRCLECI_RUNNER_API_CLIENT_KEY"]),
    own("runner.name", &["CIRCLECI_RUNNER_NAME", "LAUNCH_AGENT_RUNNER_NAME"]),
    own("runner.mode", &["CIRCLECI_RUNNER_MODE", "LAUNCH_AGENT_RUNNER_MODE"]),
    own("runner.working_directory", &["CIRCLECI_RUNNER_WORK_DIR", "LAUNCH_AGENT_RUNNER_WORK_DIR"]),
    own(
        "runner.cleanup_working_directory",
        &["CIRCLECI_RUNNER_CLEANUP_WORK_DIR", "LAUNCH_AGENT_RUNNER_CLEANUP_WORK_DIR"],
    ),
    own("runner.drop_output_on_full_disk", &["CIRCLECI_RUNNER_DROP_OUTPUT_ON_FULL_DISK"]),
    own("runner.task_agent_directory", &["CIRCLECI_RUNNER_TASK_AGENT_DIRECTORY"]),
    own("runner.cache_task_agent", &["CIRCLECI_RUNNER_CACHE_TASK_AGENT"]),
    own("runner.command_prefix", &["CIRCLECI_RUNNER_COMMAND_PREFIX", "LAUNCH_AGENT_RUNNER_COMMAND_PREFIX"]),
    own("runner.use_home_ssh_dir_for_checkout_keys", &["USE_HOME_SSH_DIR_FOR_CHECKOUT_KEYS"]),
    own("runner.max_run_time", &["CIRCLECI_RUNNER_MAX_RUN_TIME", "LAUNCH_AGENT_RUNNER_MAX_RUN_TIME"]),
    own("runner.idle_timeout", &["CIRCLECI_RUNNER_IDLE_TIMEOUT", "LAUNCH_AGENT_RUNNER_IDLE_TIMEOUT"]),
    own(
        "runner.ssh.advertise_addr",
        &["CIRCLECI_RUNNER_SSH_ADVERTISE_ADDR", "LAUNCH_AGENT_RUNNER_SSH_ADVERTISE_ADDR"],
    ),
    own("runner.state_directory", &["CIRCLECI_RUNNER_STATE_DIRECTORY"]),
    own("runner.allow_projects", &["CIRCLECI_RUNNER_ALLOW_PROJECTS"]),
    own("runner.deny_projects", &["CIRCLECI_RUNNER_DENY_PROJECTS"]),
    own("runner.allow_branches", &["CIRCLECI_RUNNER_ALLOW_BRANCHES"]),
    own("runner.deny_branches", &["CIRCLECI_RUNNER_DENY_BRANCHES"]),
    own("runner.mask_forms", &["CIRCLECI_RUNNER_MASK_FORMS"]),
    own("runner.max_load", &["CIRCLECI_RUNNER_MAX_LOAD"]),
    own("runner.quiet_hours", &["CIRCLECI_RUNNER_QUIET_HOURS"]),
    own("runner.min_free_disk", &["CIRCLECI_RUNNER_MIN_FREE_DISK"]),
    own("runner.quota.memory", &["CIRCLECI_RUNNER_QUOTA_MEMORY"]),
    own("runner.quota.processes", &["CIRCLECI_RUNNER_QUOTA_PROCESSES"]),
    own("runner.quota.cpu_weight", &["CIRCLECI_RUNNER_QUOTA_CPU_WEIGHT"]),
    own("status.socket", &["CIRCLECI_RUNNER_STATUS_SOCKET"]),
    own("status.mode", &["CIRCLECI_RUNNER_STATUS_MODE"]),
    own("status.group", &["CIRCLECI_RUNNER_STATUS_GROUP"]),
    own("status.listen", &["CIRCLECI_RUNNER_STATUS_LISTEN"]),
    own("status.textfile", &["CIRCLECI_RUNNER_STATUS_TEXTFILE"]),
    own("logging.level", &["CIRCLECI_RUNNER_LOGGING_LEVEL", "LAUNCH_AGENT_LOGGING_LEVEL"]),
    own("logging.format", &["CIRCLECI_RUNNER_LOGGING_FORMAT"]),
    own("logging.file", &["CIRCLECI_RUNNER_LOGGING_FILE", "LAUNCH_AGENT_LOGGING_FILE"]),
    // The launch agent's: accepted, without meaning since nothing updates itself.
    own("runner.disable_auto_update", &["LAUNCH_AGENT_RUNNER_DISABLE_AUTO_UPDATE"]),
];

/// The variables that a task agent must not see.
pub(in crate::agent) fn token_variables() -> impl Iterator<Item = &'static str> {
    let is_token = |key: &&SettingKey| matches!(key.key, AUTH_TOKEN | AUTH_TOKEN_FILE);
    KEYS.iter().filter(is_token).flat_map(|key| key.variables).copied()
}

/// The key that somebody meant who wrote this one: the same word in another section, or one with few letters changed.
pub(super) fn meant(key: &str) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same = KEYS.iter().find(|known| last(known.key) == last(key)).map(|known| known.key);
    same.or_else(|| {
        crate::system::suggest::nearest(key, &KEYS.iter().map(|known| known.key).collect::<Vec<_>>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_hold_a_token_are_known() {
        let names: Vec<_> = token_variables().collect();
        assert!(names.contains(&"CIRCLECI_API_TOKEN") && names.contains(&"LAUNCH_AGENT_API_AUTH_TOKEN"));
        assert!(names.contains(&"CIRCLECI_RUNNER_API_AUTH_TOKEN_FILE") && names.len() == 4, "{names:?}");
    }

    #[test]
    fn a_key_that_was_meant_is_found() {
        assert_eq!(meant("name"), Some("runner.name"));
        assert_eq!(meant("runner.working_dir"), Some("runner.working_directory"));
        assert_eq!(meant("runner.comand_prefix"), Some("runner.command_prefix"));
        assert_eq!(meant("colour"), None);
    }
}
