//! Submodules in a working directory that jobs use one after the other.

use crate::repositories::Work;
use crate::server::Server;
use serde_json::json;
use std::path::Path;
use std::process::Command;

#[test]
fn what_an_earlier_job_set_up_in_a_submodule_has_no_say() {
    let server = Server::start();
    server.project();
    let lib = server.folder.path().join("repositories/lib");
    let sh = |place: &Path, script: &str| {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(place).env("GIT_ALLOW_PROTOCOL", "file");
        for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
            command.env(name, "a");
        }
        assert!(command.status().unwrap().success(), "{script}");
    };
    std::fs::create_dir_all(&lib).unwrap();
    sh(&lib, "git init -qb main; echo 0 > x.txt; git add .; git commit -qm 0");
    let work = Work::new(server.folder.path());
    let tree = server.folder.path().join("repositories/work");
    sh(&tree, &format!("git submodule --quiet add --name libs/one 'file://{}' lib", lib.display()));
    work.commit("main", "first");
    server.register(&work.url());
    let token = server.class_token("acme/linux");
    let _runner = server.runner_that_keeps("r", &token);
    let place = server.folder.path().join("place");
    let directory = place.display().to_string();
    let marked = server.folder.path().join("marked");
    let hook = format!("printf '#!/bin/sh\\ntouch {}\\n'", marked.display());
    let update = json!([{ "run": "ls .git/modules/libs/one/hooks/post-checkout || true" }, "checkout", { "run":
        "GIT_ALLOW_PROTOCOL=file git submodule --quiet update --init; cat lib/x.txt; git -C lib status --short; \
         git -C lib config remote.origin.url; git -C lib config --local user.name || echo nobody" }]);
    server.said_by_steps("main", &directory, update.clone(), "success");
    for (count, left) in [
        format!("git config user.name left; {hook} > .git/modules/libs/one/hooks/post-checkout; chmod +x .git/modules/libs/one/hooks/*"),
        format!("mkdir hooks; {hook} > hooks/post-checkout; chmod +x hooks/*; git -C lib config core.hooksPath \"$PWD/hooks\""),
        "echo '*.txt filter=evil' > .git/modules/libs/one/info/attributes; git -C lib config filter.evil.smudge 'sed s/^/EVIL/'".to_owned(),
        format!("git -C lib config core.worktree '{}'", server.folder.path().display()),
        format!("git -C lib config core.fsmonitor 'touch {}'", marked.display()),
        "git -C lib config core.bare true; git -C lib config url.file:///nowhere/.insteadOf file:///".to_owned(),
        "rm -r lib".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        sh(&place, &format!("cd lib; git config user.name left; cd ..; mkdir -p .git/modules/libs/one/hooks .git/modules/libs/one/info; {left}"));
        let count = count + 1;
        sh(&lib, &format!("echo {count} > x.txt; git commit -qam {count}"));
        sh(&tree, "cd lib; git pull -q origin main; cd ..; git commit -qam next");
        let said = server.said_by_steps("main", &directory, update.clone(), "success");
        let origin = format!("file://{}\n", lib.display());
        assert!(said[2].contains(&format!("{count}\n{origin}")) && said[2].ends_with("nobody\n"), "{left}\n{said:?}");
        assert!(!said[0].contains("post-checkout\n") && !marked.exists(), "{left}\n{said:?}");
    }
}
