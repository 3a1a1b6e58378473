//! The orbs that are built in, run by `runlet exec`; archives of orbs; what packs them.

use crate::server::runlet;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

/// Writes files below a folder.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = runlet();
    command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn path_filtering_sets_parameters_by_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let config = r##"version: 2.1
setup: true
orbs: {path-filtering: circleci/path-filtering@1.3.0}
workflows:
  setup:
    jobs:
      - path-filtering/filter:
          base-revision: $BASE
          config-path: next.yml
          exclude: files/no.*
          before_set_params_script: |
            git config user.name x; git config user.email x@y
            echo 'export BASE=main' >> "$BASH_ENV"
            mkdir files; touch files/a.rs files/nothing; git add files; git commit -qm two
          mapping: |
            # pattern, parameter, value
            files/.*\.rs code true
            files/nothing docs true
            files/a\.rs text "first"
            files/.* text "two \"words\" \\ é" next.yml
            files/ part true
            README number 7
"##;
    let next = r#"version: 2.1
parameters:
  code: {type: boolean, default: false}
  docs: {type: boolean, default: false}
  part: {type: boolean, default: false}
  number: {type: integer, default: 0}
  text: {type: string, default: none}
jobs:
  continued:
    machine: true
    steps: [run: echo 'code << pipeline.parameters.code >> docs << pipeline.parameters.docs >> part << pipeline.parameters.part >> number << pipeline.parameters.number >> text << pipeline.parameters.text >>']
workflows: {w: {jobs: [continued]}}
"#;
    write(folder.path(), &[("repository/.circleci/config.yml", config), ("repository/next.yml", next)]);
    let (code, said, complained) = run(folder.path(), &["exec", "repository"]);
    assert_eq!(code, 0, "{said}{complained}");
    // Jobs of two pipelines on one host do not write into each other's files.
    let (_, compiled, _) = run(folder.path(), &["config", "process", "repository/.circleci/config.yml"]);
    assert!(compiled.contains("CONFIG_LIST:") && !compiled.contains(": /tmp/"), "{compiled}");
    for line in [
        "changed: files/a.rs\n",
        r#"{"code": true, "text": "two \"words\" \\ é"}"#,
        "code true docs false part false number 0 text two \"words\" \\ é\n",
    ] {
        assert!(said.contains(line), "`{line}` is not in {said}");
    }
    assert!(!said.contains("changed: files/nothing"), "it is excluded: {said}");
}

#[test]
fn path_filtering_refuses_what_it_cannot_pass_on() {
    let folder = tempfile::tempdir().unwrap();
    let yq = folder.path().join("bin/yq");
    write(folder.path(), &[("repository/a.yml", ""), ("bin/yq", "#!/bin/sh\necho 'usage: yq [options]'\n")]);
    std::fs::set_permissions(&yq, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
    for (mapping, told) in [
        (r#"a.yml x "a"b"#, "is not: pattern, parameter, value (in a text, \\\" is a quote"),
        (r#"a.yml x "a \x""#, "is not: pattern, parameter, value"),
        (r#"a.yml x "open"#, "is not: pattern, parameter, value"),
        (
            "a.yml x true a.yml\n            a.yml y true b.yml",
            "merged by version 4 of yq from https://github.com/mikefarah/yq, which",
        ),
    ] {
        let config = format!(
            "version: 2.1
setup: true
orbs: {{path-filtering: circleci/path-filtering@1.3.0}}
workflows:
  setup:
    jobs:
      - path-filtering/filter:
          base-revision: main
          mapping: |
            {mapping}
"
        );
        write(folder.path(), &[("repository/.circleci/config.yml", &config)]);
        let mut command = runlet();
        command.args(["exec", "--plain", "repository"]).current_dir(folder.path()).env("PATH", &path);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((output.status.code(), said.contains(told)), (Some(1), true), "{mapping}: {said}");
    }
}

#[test]
fn continuation_gives_parameters_and_the_names_of_changed_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"version: 2.1
setup: true
orbs: {continuation: circleci/continuation@0.1.2}
jobs:
  generate:
    machine: true
    steps:
      - checkout
      - run: printf '%s\n' 'a b' c > changed
      - continuation/continue:
          configuration_path: next.yml
          parameters: '{"word": "said \"so\""}'
          parameter_for_files_changed: files
          files_changed: changed
workflows: {setup: {jobs: [generate]}}
"#;
    let next = r#"version: 2.1
parameters: {word: {type: string, default: none}, files: {type: string, default: none}}
jobs:
  continued: {machine: true, steps: [run: {command: 'echo "$WORD, $FILES"', environment: {WORD: << pipeline.parameters.word >>, FILES: << pipeline.parameters.files >>}}]}
workflows: {w: {jobs: [continued]}}
"#;
    write(folder.path(), &[("repository/.circleci/config.yml", config), ("repository/next.yml", next)]);
    let (code, said, complained) = run(folder.path(), &["exec", "repository"]);
    assert_eq!(code, 0, "{said}{complained}");
    assert!(said.contains("said \"so\", a b c\n"), "{said}");
}

#[test]
fn an_archive_serves_orbs_and_all_that_are_missing_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let orb = "commands: {greet: {steps: [run: echo hello]}}\n";
    let config = "version: 2.1
orbs: {tools: acme/tools@1, other: acme/other@2.0.0, third: acme/third@1.0.0}
jobs: {build: {machine: true, resource_class: a/b, steps: [tools/greet, other/x, third/y]}}
";
    write(folder.path(), &[("mirror/acme/tools@1.2.3.yml", orb), ("config.yml", config)]);
    let (code, said, _) = run(folder.path(), &["orb", "pack", "--output", "orbs.tar.lz4", "mirror"]);
    assert_eq!((code, said.contains("acme/tools@1.2.3.yml")), (0, true), "{said}");
    let (code, _, said) = run(folder.path(), &["config", "validate", "config.yml", "--orbs", "orbs.tar.lz4"]);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("2 orbs cannot be imported"), "{said}");
    assert!(said.contains("acme/other@2.0.0") && said.contains("acme/third@1.0.0"), "{said}");
    assert!(!said.contains("unknown orb 'acme/tools"), "{said}");
    write(folder.path(), &[("config.yml", &config.replace(", other/x, third/y", ""))]);
    write(
        folder.path(),
        &[
            ("mirror/acme/other@2.0.0.yml", "description: x\n"),
            ("mirror/acme/third@1.0.0.yml", "description: x\n"),
        ],
    );
    run(folder.path(), &["orb", "pack", "--output", "orbs.tar.lz4", "mirror"]);
    let (code, said, _) = run(folder.path(), &["config", "process", "config.yml", "--orbs", "orbs.tar.lz4"]);
    assert_eq!((code, said.contains("echo hello")), (0, true), "{said}");
}

#[test]
fn an_orb_that_is_missing_is_there_once_its_text_is_put_where_the_error_says() {
    let text = "commands: {greet: {steps: [run: echo hello]}}\n";
    for reference in
        ["acme/tool@1.2.3", "acme/tool@1.2", "acme/tool@1", "acme/tool@volatile", "acme/tool@dev:x"]
    {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 2.1
orbs: {{tool: {reference}}}
jobs: {{build: {{machine: true, steps: [tool/greet]}}}}
workflows: {{w: {{jobs: [build]}}}}
"
        );
        write(folder.path(), &[("r/.circleci/config.yml", &config), ("other/acme/other@1.0.0.yml", text)]);
        let given = |args: &[&str], orbs: &str| {
            let asked = run(folder.path(), &[args, &["--orbs", orbs]].concat());
            assert!(asked.0 != 7 || asked.2.contains("unknown orb"), "{reference}: {}", asked.2);
            asked
        };
        let validate = ["config", "validate", "r/.circleci/config.yml"];
        let process = ["config", "process", "r/.circleci/config.yml"];
        let exec = ["exec", "--plain", "--no-cache", "r"];
        // Without any orbs, `DIR` stands for a folder of one's own.
        let (code, _, said) = run(folder.path(), &validate);
        let place = format!("`DIR/{reference}.yml`");
        assert!(code == 7 && said.contains(&place) && said.contains("--orbs DIR"), "{said}");
        // In a folder without it, the file is named.
        let (_, _, said) = given(&validate, "other");
        assert!(said.contains(&format!("put it into `other/{reference}.yml`")), "{said}");
        write(
            folder.path(),
            &[(&format!("DIR/{reference}.yml"), text), (&format!("other/{reference}.yml"), text)],
        );
        run(folder.path(), &["orb", "pack", "--output", "without.tar.lz4", "other/acme/other@1.0.0.yml"]);
        let (_, _, said) = given(&validate, "without.tar.lz4");
        assert!(
            said.contains(&format!("put it into a file `{reference}.yml` and make the archive again")),
            "{said}"
        );
        let (code, said, complained) =
            run(folder.path(), &["orb", "pack", "--output", "orbs.tar.lz4", "DIR"]);
        assert!(code == 0 && said.contains(&format!("{reference}.yml")), "{said}{complained}");
        for orbs in ["DIR", "other", "orbs.tar.lz4"] {
            assert_eq!(given(&validate, orbs).0, 0, "{reference} in {orbs}");
            let (code, said, _) = given(&process, orbs);
            assert!(code == 0 && said.contains("echo hello"), "{reference} in {orbs}: {said}");
        }
        for orbs in ["DIR", "orbs.tar.lz4"] {
            let (code, said, complained) = given(&exec, orbs);
            assert!(code == 0 && said.contains("hello"), "{reference} in {orbs}: {said}{complained}");
        }
    }
}
