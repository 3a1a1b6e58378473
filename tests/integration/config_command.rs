//! `runlet config` as its users meet it: what it prints, its codes, where orbs come from, and a standard output that is
//! full, which is the same for every command.

use crate::config::folder;
use serde_json::Value;

/// The program with arguments, given a text on standard input: exit code, stdout, stderr.
fn runlet(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_runlet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const GOOD: &str = "\
version: 2.1
orbs: {t: acme/tools@1.0}
parameters: {text: {type: string, default: x}, deep: {type: boolean, default: false}}
jobs:
  build:
    machine: true
    resource_class: a/b
    steps: [t/hello, {run: echo << pipeline.parameters.text >> << pipeline.parameters.deep >>}]
";

#[test]
fn validate_says_that_a_config_is_valid() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), GOOD).unwrap();
    let path = file.path().to_str().unwrap();
    let orbs = folder().join("orbs");
    let (code, out, err) = runlet(&["config", "validate", path, "--orbs", orbs.to_str().unwrap()], "");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("Config file at \"{path}\" is valid.\n"));
}

#[test]
fn validate_shows_the_line_and_a_caret_and_exits_with_seven() {
    let source =
        "version: 2.1\njobs:\n  build:\n    machine: true\n    resource_class: a/b\n    steps: [chekout]\n";
    let (code, out, err) = runlet(&["config", "validate", "-"], source);
    assert_eq!((code, out.as_str()), (Some(7), ""));
    assert_eq!(
        err,
        "error: Cannot find a definition for command named chekout, did you mean `checkout`? (known commands: \
         add_ssh_keys, attach_workspace, checkout, deploy, install_signing_bundle, persist_to_workspace, \
         restore_cache, run, save_cache, setup_remote_docker, store_artifacts, store_test_results)\n --> standard \
         input:6:13\n  |\n6 |     steps: [chekout]\n  |             ^\n  = in job `build`, used here (standard \
         input:3:3)\n"
    );
    // Control characters of a config do not move the cursor.
    let (code, _, err) = runlet(&["config", "validate", "-"], &source.replace("chekout", "\"x\\e[2J\\a\""));
    assert_eq!(code, Some(7));
    assert!(err.contains("command named x\u{fffd}[2J\u{fffd}") && !err.contains('\u{1b}'), "{err}");
}

#[test]
fn validate_prints_json_for_programs() {
    let (code, out, _) = runlet(&["config", "validate", "-", "--json"], "version: 2.1\njobs: {}\n");
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(7));
    assert_eq!(value["valid"], false);
    assert_eq!(value["diagnostics"][0]["severity"], "error");
    assert_eq!(value["diagnostics"][0]["line"], 2);
    assert_eq!(value["diagnostics"][0]["message"], "There are no workflows or build jobs in the config.");
}

#[test]
fn process_makes_up_what_every_pipeline_has() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    std::fs::write(folder.path().join(".git/HEAD"), "ref: refs/heads/topic/one\n").unwrap();
    let path = folder.path().join("config.yml");
    let source = "version: 2.1\njobs: {build: {machine: true, resource_class: a/b, parallelism: << pipeline.number >>, steps: [run: echo << pipeline.git.branch >>]}}\nworkflows: {w: {jobs: [build: {filters: {branches: {only: main}}}]}}\n";
    std::fs::write(&path, source).unwrap();
    let process = |more: &[&str]| {
        let arguments = [&["config", "process", path.to_str().unwrap()], more].concat();
        let (code, out, err) = runlet(&arguments, "");
        assert_eq!((code, err.as_str()), (Some(0), ""));
        out
    };
    assert!(process(&[]).contains("command: echo topic/one\n"));
    let given = process(&["--branch", "main", "--pipeline-value", "number=3"]);
    assert!(given.contains("parallelism: 3\n") && given.contains("command: echo main\n"), "{given}");
    assert!(!process(&["--branch", "dev"]).contains("echo"), "filters go by what is given");
}

#[test]
fn process_takes_parameters_by_their_declared_types() {
    let orbs = folder().join("orbs");
    let arguments = [
        "config",
        "process",
        "-",
        "--orbs",
        orbs.to_str().unwrap(),
        "--pipeline-parameter",
        "text=1.10",
        "--pipeline-parameter",
        "deep=true",
    ];
    let (code, out, err) = runlet(&arguments, GOOD);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("# Orb 'acme/tools@1.0' resolved to 'acme/tools@1.0.0'\nversion: 2\n"), "{out}");
    assert!(out.contains("command: echo 1.10 true\n"), "{out}");
    let (code, _, err) = runlet(&["config", "process", "-", "--pipeline-parameter", "deep=maybe"], GOOD);
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn json_is_printed_also_where_there_is_no_text() {
    let answer = |arguments: &[&str]| {
        let (code, out, err) = runlet(arguments, "");
        assert_eq!(err, "", "{arguments:?}");
        (code, serde_json::from_str::<Value>(&out).unwrap())
    };
    let (code, value) = answer(&["config", "validate", "/nowhere/config.yml", "--json"]);
    assert_eq!((code, &value["valid"]), (Some(1), &Value::Bool(false)));
    let message = value["diagnostics"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("failed to read the config `/nowhere/config.yml`: "), "{message}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"version: 2.1\nj\xc3\xb6bs: \xff\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (code, value) = answer(&["config", "process", path, "--json"]);
    assert_eq!((code, &value["valid"]), (Some(7), &Value::Bool(false)));
    let diagnostic = &value["diagnostics"][0];
    assert_eq!((&diagnostic["line"], &diagnostic["column"]), (&2.into(), &7.into()));
    let (code, out, err) = runlet(&["config", "validate", path], "");
    assert_eq!((code, out.as_str()), (Some(7), ""));
    assert!(err.contains("is not UTF-8 text (line 2, column 7)"), "{err}");
}

#[test]
fn files_that_cannot_be_read_and_wrong_usage_have_codes_of_their_own() {
    assert_eq!(runlet(&["config", "validate", "/nowhere/config.yml"], "").0, Some(1));
    assert_eq!(runlet(&["config", "check"], "").0, Some(2));
    assert_eq!(runlet(&["config"], "").0, Some(2));
    let (code, out, _) = runlet(&["config", "--help"], "");
    assert_eq!(code, Some(0));
    assert!(out.contains("--orbs DIR"));
}

/// Prints the compiled config to `output` and returns the exit code with standard error.
fn process_to(output: std::process::Stdio) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yml");
    let config = "{version: 2.1, jobs: {build: {machine: true, resource_class: a/b, steps: [checkout]}}}";
    std::fs::write(&file, config).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_runlet"))
        .args(["config", "process", file.to_str().unwrap()])
        .stdout(output)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_full_standard_output_is_an_error_and_a_closed_pipe_is_none() {
    if let Ok(full) = std::fs::File::options().write(true).open("/dev/full") {
        let (code, err) = process_to(full.into());
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("failed to write to standard output: No space left on device"), "{err}");
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    assert_eq!(process_to(writer.into()), (Some(0), String::new()));
}

#[test]
fn every_command_that_prints_fails_when_standard_output_is_full() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.txt"), "x").unwrap();
    std::fs::create_dir(folder.path().join("orb")).unwrap();
    std::fs::write(folder.path().join("orb/@orb.yml"), "version: 2.1\n").unwrap();
    let circleci = folder.path().join(".circleci");
    std::fs::create_dir(&circleci).unwrap();
    let config = "{version: 2.1, jobs: {build: {machine: true, resource_class: a/b, steps: [{run: 'true'}]}}, workflows: {w: {jobs: [build]}}}";
    std::fs::write(circleci.join("config.yml"), config).unwrap();
    for words in [
        "--help",
        "--version",
        "help",
        "help server",
        "help --man-pages",
        "help --completions bash",
        "config --help",
        "config validate",
        "config validate --json",
        "config process",
        "orb pack orb",
        "exec --help",
        "exec --list",
        "exec --plain",
        "server --help",
        "admin --help",
        "machine --help",
        "task --help",
        "doctor --help",
        "doctor --config none.yaml --json",
        "status --help",
        "container --help",
        "tool --help",
        "tool env subst x",
        "tool tests glob *.txt",
        "tool tests split --index=0 --total=1 x.txt",
    ] {
        let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runlet"));
        command.args(words.split(' ')).current_dir(folder.path()).env("TMPDIR", folder.path());
        command.env("XDG_CACHE_HOME", folder.path()).stdin(std::process::Stdio::null());
        let output = command.stdout(full).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && error.contains("failed to write to standard output"),
            "{words}: {:?} {error}",
            output.status
        );
    }
}

#[test]
fn orbs_are_fetched_from_allowed_addresses_only() {
    use crate::support::{control_plane::ControlPlane, pki};
    let authority = pki::Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    let orb = "commands:\n  greet:\n    steps: [{run: echo from the orb}]\n";
    server.answer("/orbs/tools.yml", 200, orb);
    let folder = tempfile::tempdir().unwrap();
    let (ca, config) = (folder.path().join("ca.pem"), folder.path().join("config.yml"));
    std::fs::write(&ca, &authority.pem).unwrap();
    let text = format!(
        "version: 2.1\norbs: {{tools: '{}/orbs/tools.yml'}}\njobs: {{build: {{machine: true, resource_class: a/b, steps: [tools/greet]}}}}\n",
        server.url()
    );
    std::fs::write(&config, text).unwrap();
    let process = |allowed: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runlet"));
        command.args(["config", "process"]).arg(&config).env("SSL_CERT_FILE", &ca);
        let output = command.args(["--allow-orb-url", allowed]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = process(&format!("{}/orbs/", server.url()));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("echo from the orb"), "{text}");
    let (code, text) = process(&format!("{}/other/", server.url()));
    assert!(code == Some(7) && text.contains("not below an allowed address"), "{text}");
    assert_eq!(process("https://example.com").0, Some(2));
    server.answer("/orbs/tools.yml", 404, "{}");
    let (code, text) = process(&format!("{}/orbs/", server.url()));
    assert!(code == Some(7) && text.contains("the server answered 404"), "{text}");
    // Nobody can tell whether the config is valid.
    server.answer("/orbs/tools.yml", 503, "{}");
    let (code, text) = process(&format!("{}/orbs/", server.url()));
    assert!(code == Some(1) && text.contains("the server answered 503"), "{text}");
}
