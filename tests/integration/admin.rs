//! `runlet admin` as people use it: arguments in, text and exit code out, against a real control plane.

use crate::repositories::Work;
use crate::server::{Server, runlet};
use crate::support::pki::Authority;
use crate::support::ports;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};

impl Server {
    /// A command that administers this server, with pipes.
    pub(crate) fn admin_command(&self, args: &[&str]) -> Command {
        let token = self.folder.path().join("data/admin-token");
        let mut command = runlet();
        command.arg("admin").args(args).arg("--server").arg(self.client.url()).arg("--token-file").arg(token);
        command.env_remove("RUNLET_SERVER").env_remove("RUNLET_TOKEN");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn admin_output(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = self.admin_command(args).spawn().unwrap();
        // A command that wants no input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs a command that has to succeed. Returns all that it prints.
    pub(crate) fn admin(&self, args: &[&str], stdin: &str) -> String {
        let output = self.admin_output(args, stdin);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {:?} {said}", output.status.code());
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn admin_fails(&self, args: &[&str], code: i32, why: &str) {
        let output = self.admin_output(args, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(code) && said.contains(why),
            "{args:?}: {:?} {said}",
            output.status.code()
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

pub(crate) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_job_runs_with_what_admin_made() {
    let server = Server::start();
    let work = Work::new(server.folder.path());
    work.commit("built", "the only one");
    server.admin(&["resource-class", "create", "acme/linux", "--description", "a class"], "");
    let token = server.admin(&["token", "create", "acme/linux", "--nickname", "lpar1"], "");
    let token = token.trim_end();
    assert!(token.starts_with("rlc_") && !token.contains(char::is_whitespace), "only the token: {token}");
    server.admin(&["project", "create", "github/acme/app", "--repository", &work.url()], "");
    let said = server.admin(
        &["pipeline", "trigger", "gh/acme/app", "--branch", "main", "--parameter", "fast=true", "--json"],
        "",
    );
    let _runner = server.runner("r", token);
    let jobs = server.ended(parsed(&said)["id"].as_str().unwrap());
    assert_eq!((&jobs[0]["name"], &jobs[0]["status"]), (&json!("built"), &json!("success")));
    assert_eq!(parsed(&said)["state"], "created");
    server.admin_fails(&["pipeline", "trigger", "gh/acme/app", "--branch", "none"], 4, "no branch `none`");
    let broken = server.folder.path().join("broken.yml").display().to_string();
    std::fs::write(&broken, "version: 2.1\njobs: {build: {stepz: []}}\n").unwrap();
    server.admin_fails(&["pipeline", "trigger", "gh/acme/app", "--config", &broken], 7, "has errors:\n");
    server.admin(&["project", "delete", "gh/acme/app"], "");
    assert_eq!(server.admin(&["project", "list"], ""), "there are none\n");
    let outputs = std::fs::read_dir(server.folder.path().join("data/output")).unwrap().count();
    assert_eq!(outputs, 0, "the output of its jobs is gone");
}

#[test]
fn classes_and_tokens_are_listed_and_deleted() {
    let server = Server::start();
    server.admin(&["resource-class", "create", "acme/linux"], "");
    server.admin_fails(&["resource-class", "create", "acme/linux"], 4, "exists already");
    server.admin_fails(&["resource-class", "create", "nonsense"], 4, "nonsense");
    let table = server.admin(&["resource-class", "list"], "");
    assert!(table.starts_with("RESOURCE CLASS  ID") && table.contains("\nacme/linux      "), "{table}");
    let made = parsed(&server.admin(&["token", "create", "acme/linux", "--nickname", "n", "--json"], ""));
    let listed = parsed(&server.admin(&["token", "list", "acme/linux", "--json"], ""));
    assert_eq!((&listed[0]["id"], &listed[0]["nickname"]), (&made["id"], &json!("n")));
    assert!(listed[0]["token"].is_null(), "a token is shown once");
    server.admin_fails(&["resource-class", "delete", "acme/linux"], 4, "tokens");
    server.admin_fails(&["token", "create", "acme/none"], 5, "acme/none");
    server.admin(&["token", "delete", made["id"].as_str().unwrap()], "");
    server.admin_fails(&["token", "delete", made["id"].as_str().unwrap()], 5, "no token");
    server.admin(&["token", "create", "acme/linux"], "");
    server.admin(&["resource-class", "delete", "acme/linux", "--force"], "");
    server.admin_fails(&["resource-class", "delete", "acme/linux"], 5, "no resource class `acme/linux`");
}

#[test]
fn variables_and_contexts_take_values_from_standard_input() {
    let server = Server::start();
    server.admin(&["project", "create", "gh/acme/app", "--default-branch", "trunk"], "");
    server.admin_fails(&["project", "create", "gh/acme/app"], 4, "exists already");
    let said = server.admin(&["variable", "set", "gh/acme/app", "TOKEN"], "hunter2-hunter2\n");
    assert_eq!(said, "set TOKEN of gh/acme/app (xxxxter2)\n");
    server.admin(&["variable", "set", "gh/acme/app", "KEY", "--exact"], "0123456789\n");
    let table = server.admin(&["variable", "list", "gh/acme/app"], "");
    assert!(table.contains("TOKEN  xxxxter2  ") && table.contains("KEY    xxxx789 "), "{table}");
    server.admin(&["variable", "delete", "gh/acme/app", "TOKEN"], "");
    server.admin_fails(&["variable", "delete", "gh/acme/app", "TOKEN"], 5, "no variable `TOKEN`");
    server.admin_fails(&["variable", "set", "gh/acme/app", "A", "value"], 2, "`value` is one word too many");
    server.admin_fails(&["variable", "list", "gh/acme/none"], 5, "gh/acme/none");

    let said =
        server.admin(&["project", "set-repository", "gh/acme/app", "https://example.com/acme/app.git"], "");
    assert!(said.contains("https://example.com/acme/app.git") && said.contains("trunk"), "{said}");
    server.admin_fails(&["project", "set-repository", "gh/acme/app"], 2, "needs a URL");
    server.admin_fails(&["project", "set-repository", "gh/acme/app", "/etc"], 4, "https://HOST/PATH");
    let table = server.admin(&["project", "list", "--organization", "github/acme"], "");
    assert!(table.contains("gh/acme/app  trunk           https://example.com/acme/app.git"), "{table}");

    server.admin(&["context", "create", "gh/acme", "deploy keys"], "");
    server.admin(&["context", "create", "gh/acme", "deploy"], "");
    server.admin_fails(&["context", "create", "gh/acme", "deploy"], 4, "already");
    assert_eq!(
        parsed(&server.admin(&["context", "list", "gh/acme", "--json"], "")).as_array().unwrap().len(),
        2
    );
    server.admin(&["context", "set", "gh/acme", "deploy", "PASSWORD"], "correct horse\n");
    server.admin(&["context", "restrict", "gh/acme", "deploy", "--project", "gh/acme/app"], "");
    server.admin(
        &["context", "restrict", "gh/acme", "deploy", "--rule", "pipeline.git.branch == \"main\""],
        "",
    );
    server.admin_fails(&["context", "restrict", "gh/acme", "deploy", "--rule", "=="], 4, "not a rule");
    server.admin_fails(&["context", "restrict", "gh/acme", "deploy"], 2, "needs one of");
    let table = server.admin(&["context", "show", "gh/acme", "deploy"], "");
    assert!(
        table.contains("xxxxorse") && table.contains("gh/acme/app") && table.contains("== \"main\""),
        "{table}"
    );
    let shown = parsed(&server.admin(&["context", "show", "gh/acme", "deploy", "--json"], ""));
    let restriction = shown[0]["restrictions"][0]["id"].as_str().unwrap();
    server.admin(&["context", "unrestrict", "gh/acme", "deploy", restriction], "");
    server.admin(&["context", "unset", "gh/acme", "deploy", "PASSWORD"], "");
    server.admin(&["context", "delete", "gh/acme", "deploy"], "");
    server.admin_fails(&["context", "show", "gh/acme", "deploy"], 5, "gh/acme has no context `deploy`");
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("private");
    let server = Server::start_tls(&authority, folder.path());
    let ca = folder.path().join("ca.pem").display().to_string();
    let output = server.admin_output(&["project", "list"], "");
    assert_eq!(output.status.code(), Some(1), "not trusted: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.admin(&["project", "list", "--ca-file", &ca], ""), "there are none\n");
}

#[test]
fn wrong_usage_and_wrong_tokens_are_explained() {
    let server = Server::start();
    server.admin_fails(&["moon", "list"], 2, "known: resource-class, token");
    server.admin_fails(&["project", "paint"], 2, "known: create, list");
    server.admin_fails(&["project", "list", "--force"], 2, "`--force` means nothing");
    server.admin_fails(&["project", "create", "app"], 2, "gh/acme/app");
    server.admin_fails(&["project", "list", "--token", "x"], 2, "do not belong on the command line");
    let mut command = runlet();
    command
        .args(["admin", "project", "list", "--server", server.client.url()])
        .env("RUNLET_TOKEN", "rlp_wrong");
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let nobody = ports::hold();
    let address = nobody.address().to_string();
    let mut command = runlet();
    command
        .args(["admin", "project", "list"])
        .env("RUNLET_SERVER", format!("http://{address}"))
        .env("RUNLET_TOKEN", "x");
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(&address), "{said}");
    let help = runlet().args(["admin", "project", "--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("context restrict"));
}
