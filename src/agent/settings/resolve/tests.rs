#![expect(clippy::unwrap_used)]

use super::*;
use log::LevelFilter;
use std::path::Path;

const MINIMAL: &str = "api:\n  auth_token: abc\n  url: https://ci.example/\n";

fn host() -> Host {
    Host { name: "big iron".into(), home: Some("/home/ci".into()), ..Host::default() }
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let environment =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let sources = Sources::new(Some(("c.yaml", text)), &environment)?;
    resolve(&sources, &host(), &|path| {
        if path == Path::new("/token") { Ok("from-file\n".to_owned()) } else { Err("gone".to_owned()) }
    })
}

#[test]
fn a_token_and_an_address_are_all_that_is_needed() {
    let settings = with(MINIMAL, &[]).unwrap();
    assert_eq!(settings.token.expose(), "abc");
    assert_eq!(settings.endpoint.url, "https://ci.example");
    assert_eq!(settings.name, "big-iron");
    assert_eq!(settings.mode, Mode::Continuous);
    assert_eq!(settings.working_directory, Path::new("/home/ci/.local/share/runlet/workdir/big-iron"));
    assert_eq!(settings.task_agent_directory.as_deref(), Some(Path::new("/home/ci/.local/libexec/circleci")));
    assert_eq!(settings.state_directory.as_deref(), Some(Path::new("/home/ci/.local/state/runlet")));
    assert_eq!(settings.max_run_time, Duration::from_secs(18000));
    assert_eq!(settings.idle_timeout, None);
    assert!(!settings.drop_output_on_full_disk);
    assert!(!settings.cleanup_working_directory && !settings.use_home_ssh_dir_for_checkout_keys);
    assert_eq!(settings.logging, logging::LogOptions::default());
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn every_key_is_read_from_the_file() {
    let text = "
api: {auth_token: abc, url: 'https://ci.example/', ca_file: /ca.pem, client_certificate: /c.pem, client_key: ~/k.pem}
runner:
  name: a.b(c)-_1
  mode: single-task
  working_directory: /w/%s
  cleanup_working_directory: true
  drop_output_on_full_disk: true
  task_agent_directory: /agents
  cache_task_agent: yes
  command_prefix: [sudo, -niHu, me, --]
  use_home_ssh_dir_for_checkout_keys: true
  max_run_time: 1h30m
  idle_timeout: 10m
  ssh: {advertise_addr: 'h:54782'}
  state_directory: /state
  disable_auto_update: true
logging: {level: debug, format: json, file: /var/log/r.log}
";
    let settings = with(text, &[]).unwrap();
    assert_eq!(settings.endpoint.url, "https://ci.example");
    assert_eq!(settings.endpoint.ca_file, Some("/ca.pem".into()));
    assert_eq!(settings.endpoint.client_certificate, Some(("/c.pem".into(), "/home/ci/k.pem".into())));
    assert_eq!(settings.name, "a.b(c)-_1");
    assert_eq!(settings.mode, Mode::SingleTask);
    assert_eq!(settings.working_directory, Path::new("/w/%s"), "`%s` is literal");
    assert!(settings.drop_output_on_full_disk);
    assert!(settings.cleanup_working_directory && settings.use_home_ssh_dir_for_checkout_keys);
    assert_eq!(settings.task_agent_directory, Some("/agents".into()));
    assert_eq!(settings.command_prefix, ["sudo", "-niHu", "me", "--"]);
    assert_eq!(settings.max_run_time, Duration::from_secs(5400));
    assert_eq!(settings.idle_timeout, Some(Duration::from_secs(600)));
    assert_eq!(settings.ssh_advertise_addr.as_deref(), Some("h:54782"));
    assert_eq!(settings.state_directory, Some("/state".into()));
    assert_eq!(settings.logging.level, LevelFilter::Debug);
    assert_eq!(settings.logging.format, logging::Format::Json);
    assert_eq!(settings.logging.file, Some("/var/log/r.log".into()));
}

#[test]
fn a_variable_beats_the_file_and_the_launch_agents_variables_are_known() {
    let text = "api: {auth_token: file, url: 'https://ci'}\nrunner: {name: file, mode: single-task}\nlogging: {file: /x}\n";
    let settings = with(
        text,
        &[
            ("LAUNCH_AGENT_API_AUTH_TOKEN", "launch"),
            ("CIRCLECI_API_TOKEN", "image"),
            ("CIRCLECI_RUNNER_NAME", "variable"),
            ("LAUNCH_AGENT_RUNNER_NAME", "weaker"),
            ("CIRCLECI_RUNNER_MODE", ""),
            ("LAUNCH_AGENT_RUNNER_COMMAND_PREFIX", "sudo -u 'a b'"),
            ("USE_HOME_SSH_DIR_FOR_CHECKOUT_KEYS", "1"),
            ("CIRCLECI_RUNNER_LOGGING_FILE", "-"),
        ],
    )
    .unwrap();
    assert_eq!(settings.token.expose(), "launch");
    assert_eq!(settings.name, "variable");
    assert_eq!(settings.mode, Mode::SingleTask, "an empty variable is unset");
    assert_eq!(settings.command_prefix, ["sudo", "-u", "a b"]);
    assert!(settings.use_home_ssh_dir_for_checkout_keys);
    assert_eq!(settings.logging.file, None);
    let settings = with(
        "",
        &[
            ("CIRCLECI_API_TOKEN", "image"),
            ("CIRCLECI_RESOURCE_CLASS", "a/b"),
            ("LAUNCH_AGENT_API_URL", "https://ci"),
        ],
    )
    .unwrap();
    assert_eq!((settings.token.expose(), settings.warnings.len()), ("image", 0));
    assert_eq!(settings.resource_class.as_deref(), Some("a/b"));
}

#[test]
fn the_token_may_be_in_a_file_of_its_own() {
    let settings = with("api: {auth_token_file: /token, url: 'https://ci'}", &[]).unwrap();
    assert_eq!(settings.token.expose(), "from-file");
    let settings =
        with("api: {auth_token_file: /token, url: 'https://ci'}", &[("CIRCLECI_RUNNER_API_AUTH_TOKEN", "v")])
            .unwrap();
    assert_eq!(settings.token.expose(), "v");
    let settings = with(MINIMAL, &[("CIRCLECI_RUNNER_API_AUTH_TOKEN_FILE", "/token")]).unwrap();
    assert_eq!(settings.token.expose(), "from-file");
}

#[test]
fn errors_name_place_key_value_and_choices() {
    for (text, expected) in [
        ("api: {url: 'https://ci'}", "no resource class token: set `api.auth_token`"),
        (
            "api:\n  auth_token: << AUTH_TOKEN >>\n  url: https://ci\n",
            "c.yaml:2:3: `api.auth_token` is still the placeholder",
        ),
        ("api: {auth_token: 'a b', url: 'https://ci'}", "c.yaml:1:7: `api.auth_token` is not a token"),
        ("api: {auth_token: [a], url: 'https://ci'}", "c.yaml:1:7: `api.auth_token` is"),
        ("api: {auth_token: a, auth_token_file: /token, url: 'https://ci'}", "are both set"),
        ("api: {auth_token_file: /nowhere, url: 'https://ci'}", "cannot read `/nowhere`: gone"),
        ("api: {auth_token: a, url: ci.example}", "c.yaml:1:22: `api.url`: `ci.example` is not the address"),
        ("api: {auth_token: a, client_key: /k, url: 'https://ci'}", "`api.client_key` is set without"),
        (
            "api: {auth_token: a, url: 'https://ci'}\nrunner: {mode: once}",
            "c.yaml:2:10: `runner.mode` is `once`: expected `continuous` or `single-task`",
        ),
        (
            "api: {auth_token: a, url: 'https://ci'}\nrunner: {name: 'a b'}",
            "`runner.name` is `a b`: expected letters",
        ),
        (
            "api: {auth_token: a, url: 'https://ci'}\nrunner: {name: ''}",
            "`runner.name` is ``: expected 1 to 255",
        ),
        (
            "api: {auth_token: a, url: 'https://ci'}\nrunner: {working_directory: w}",
            "expected an absolute path",
        ),
        (
            "api: {auth_token: a, url: 'https://ci'}\nrunner: {working_directory: '~/w'}",
            "expected an absolute path",
        ),
        ("api: {auth_token: a, url: 'https://ci'}\nrunner: {max_run_time: 5}", "`5`: expected a duration"),
        ("api: {auth_token: a, url: 'https://ci'}\nrunner: {max_run_time: 0s}", "expected more than nothing"),
        (
            "api: {auth_token: a, url: 'https://ci'}\nrunner: {cleanup_working_directory: maybe}",
            "expected `true` or `false`",
        ),
        ("api: {auth_token: a, url: 'https://ci'}\nrunner: {command_prefix: ['']}", "names no program"),
        ("api: {auth_token: a, url: 'https://ci'}\nrunner: {name: [a, b]}", "expected a single value"),
        ("api: {auth_token: a, url: 'https://ci'}\nlogging: {level: loud}", "`loud`: expected `debug`"),
        ("api: {auth_token: a, url: 'https://ci'}\nlogging: {format: xml}", "`xml`: expected `color`"),
        ("api: {auth_token: a\n", "c.yaml:"),
    ] {
        let error = with(text, &[]).unwrap_err();
        assert!(error.contains(expected), "{text}\n  found:  {error}\n  wanted: {expected}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = with(MINIMAL, &[("CIRCLECI_RUNNER_MODE", "x")]).unwrap_err();
    assert!(error.starts_with("CIRCLECI_RUNNER_MODE is `x`"), "{error}");
}

#[test]
fn a_token_never_stands_in_an_error() {
    let error = with("api: {url: 'https://ci', auth_token: 'hunter2 hunter2'}", &[]).unwrap_err();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_place_and_the_nearest_key() {
    let text = "api: {auth_tokn: a, colour: red}\nname: x\nrunner:\n  max_run_time: 5\n  mode: once\n";
    let error = with(text, &[("CIRCLECI_RUNNER_IDLE_TIMEOUT", "soon"), ("CIRCLECI_RESOURCE_CLASS", "a")])
        .unwrap_err();
    let lines: Vec<_> = error.lines().collect();
    let expected = [
        "9 settings are wrong:",
        "  c.yaml:1:7: there is no setting `api.auth_tokn` (did you mean `api.auth_token`?)",
        "  c.yaml:1:21: there is no setting `api.colour`",
        "  c.yaml:2:1: there is no setting `name` (did you mean `runner.name`?)",
        "  no resource class token: set `api.auth_token`",
        "  `api.url` is not set: write the address of your control plane there",
        "  c.yaml:5:3: `runner.mode` is `once`: expected",
        "  c.yaml:4:3: `runner.max_run_time` is `5`: expected a duration",
        "  CIRCLECI_RUNNER_IDLE_TIMEOUT is `soon`: expected a duration",
        "  CIRCLECI_RESOURCE_CLASS: ",
    ];
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn what_a_host_has_to_spare_is_set_by_the_operator() {
    let text = format!(
        "{MINIMAL}runner:\n  max_load: 2.5\n  quiet_hours: ['22:00-06:00', '12:00-13:00']\n  min_free_disk: 10%\n  quota: {{memory: 2G, processes: 4000, cpu_weight: 50}}\nstatus: {{socket: /run/x.sock, mode: 660, group: ops, listen: '127.0.0.1:9101', textfile: /t/x.prom}}\n"
    );
    let settings = with(&text, &[]).unwrap();
    assert_eq!((settings.gates.max_load, settings.gates.quiet_hours.len()), (Some(250), 2));
    assert_eq!(settings.quotas.memory_bytes, Some(2 << 30));
    assert_eq!((settings.quotas.processes, settings.quotas.cpu_weight), (Some(4000), Some(50)));
    assert_eq!((settings.status.mode, settings.status.group.as_deref()), (0o660, Some("ops")));
    assert!(settings.status.listen.is_some_and(|address| address.port() == 9101));
    let error = with(&format!("{MINIMAL}runner:\n  quiet_hours: 22-6\n  quota:\n    memory: lots\n"), &[])
        .unwrap_err();
    assert!(error.contains("`runner.quiet_hours` is `22-6`: expected hours in UTC"), "{error}");
    assert!(
        error.contains("c.yaml:7:5: `runner.quota.memory` is `lots`: expected a size such as"),
        "{error}"
    );
}

#[test]
fn a_host_without_home_or_name_needs_more_settings() {
    let bare = |text: &str| {
        let sources = Sources::new(Some(("c", text)), &|_| None).unwrap();
        resolve(&sources, &Host::default(), &|_| Err(String::new()))
    };
    assert!(bare(MINIMAL).unwrap_err().contains("`runner.name` is not set"));
    let text = "api: {auth_token: a, url: 'https://ci'}\nrunner: {name: x}";
    assert!(bare(text).unwrap_err().contains("`runner.working_directory` is not set"));
    let settings =
        bare("api: {auth_token: a, url: 'https://ci'}\nrunner: {name: x, working_directory: /w/d}").unwrap();
    assert_eq!(settings.state_directory, Some("/w/.runlet".into()));
    assert_eq!(settings.task_agent_directory, None);
}

#[test]
fn the_packages_directory_is_the_default_where_it_exists() {
    let host = Host { package_directory: Some("/var/lib/circleci-runner".into()), ..host() };
    let settings =
        resolve(&Sources::new(Some(("c", MINIMAL)), &|_| None).unwrap(), &host, &|_| Err(String::new()))
            .unwrap();
    assert_eq!(settings.working_directory, Path::new("/var/lib/circleci-runner/workdir/big-iron"));
}

#[test]
fn rules_and_forms_are_lists_that_are_checked() {
    let text = format!(
        "{MINIMAL}runner:\n  allow_projects: [Acme/*, '*']\n  deny_branches: [main, 'x y']\n  mask_forms: [url]\n"
    );
    let forms = ("CIRCLECI_RUNNER_MASK_FORMS", "base64 json");
    let settings = with(&text, &[forms, ("CIRCLECI_RUNNER_DENY_PROJECTS", "a/b c/d")]).unwrap();
    assert_eq!(settings.rules.allow_projects, ["acme/*", "*"]);
    assert_eq!(settings.rules.deny_projects, ["a/b", "c/d"]);
    assert_eq!(settings.rules.deny_branches, ["main", "x y"]);
    assert_eq!(settings.mask_forms, ["base64", "json"]);
    for (line, error) in [
        ("deny_projects: [acme]", "c.yaml:5:3: `runner.deny_projects` is `[\"acme\"]`: expected projects as"),
        ("allow_projects: gh/a/b", "c.yaml:5:3: `runner.allow_projects` is `gh/a/b`: expected projects as"),
        ("allow_branches: ['']", "c.yaml:5:3: `runner.allow_branches` is `[\"\"]`: a branch is empty"),
        ("mask_forms: [hex]", "c.yaml:5:3: `runner.mask_forms` is `[\"hex\"]`: expected some of `base64`"),
    ] {
        let found = with(&format!("{MINIMAL}runner:\n  {line}\n"), &[]).unwrap_err();
        assert!(found.starts_with(error), "{found}");
    }
}

#[test]
fn a_service_manager_names_places_the_instance_and_a_token() {
    let host = Host {
        instance: Some("two".into()),
        service_directory: Some("/var/lib/runlet/two".into()),
        credential: Some("/token".into()),
        package_directory: Some("/var/lib/circleci-runner".into()),
        ..host()
    };
    let resolved = |text: &str| {
        let sources = Sources::new(Some(("c.yaml", text)), &|_| None).unwrap();
        resolve(&sources, &host, &|path| {
            if path == Path::new("/token") { Ok("from-manager\n".to_owned()) } else { Err("gone".to_owned()) }
        })
        .unwrap()
    };
    let settings = resolved("api: {url: 'https://ci.example'}\n");
    assert_eq!(settings.token.expose(), "from-manager");
    assert_eq!(settings.name, "big-iron-two");
    assert_eq!(settings.working_directory, Path::new("/var/lib/runlet/two/workdir"));
    assert_eq!(settings.state_directory.as_deref(), Some(Path::new("/var/lib/runlet/two/state")));
    // The operator's own word counts more.
    let settings = resolved(
        "api: {auth_token: abc, url: 'https://ci.example'}\nrunner: {name: mine, working_directory: /w}\n",
    );
    assert_eq!((settings.token.expose(), settings.name.as_str()), ("abc", "mine"));
    assert_eq!(settings.working_directory, Path::new("/w"));
}
