//! `runlet exec` in repositories that are set up in ways of their own: jobs see the files as they are, reach the origin as
//! the person does, and the repository stays as it is.

use crate::exec::{command, exec, folder, git, steps};
use crate::hostile::has_strace;
use crate::support::emulated;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A config with one job that checks out and runs a script.
fn config(script: &str) -> String {
    steps(&format!("- checkout\n- run: |\n    {}", script.replace('\n', "\n    ")))
}

/// A repository with a script that jobs run, and a committed file `a`.
fn repository(script: &str) -> tempfile::TempDir {
    let folder = folder(&config(script));
    fs::write(folder.path().join("a"), "one\n").unwrap();
    git(folder.path(), "init -qb main");
    git(folder.path(), "add .");
    git(folder.path(), "commit -qm first");
    folder
}

/// Content and mode of every file of a folder.
fn state(folder: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let about = path.symlink_metadata().unwrap();
            match about.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = fs::read(&path).unwrap_or_default();
                    files.push((path, about.permissions().mode(), bytes));
                }
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_small_job_starts_few_programs_and_waits_for_no_disk() {
    // The calls of an emulator are not those of the program.
    if emulated() || !has_strace() {
        return;
    }
    let folder = folder(&steps("- run: echo hello"));
    let path = folder.path();
    // Of a file that is as young as the index git cannot tell whether it has changed since.
    let config = fs::File::options().write(true).open(path.join(".circleci/config.yml")).unwrap();
    config.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    git(path, "init -qb main");
    git(path, "add .");
    git(path, "commit -qm first");
    let places = tempfile::tempdir().unwrap();
    let trace = places.path().join("trace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=execve,fsync,fdatasync,sync_file_range,syncfs"]).arg("-o");
    traced.arg(&trace).arg(env!("CARGO_BIN_EXE_runlet")).arg("exec").arg(path);
    traced.env("XDG_CACHE_HOME", places.path()).env_remove("BASH_ENV");
    assert!(traced.output().unwrap().status.success());
    let text = fs::read_to_string(&trace).unwrap();
    let started = text.lines().filter(|line| line.contains("execve") && line.ends_with(" = 0")).count();
    // This program, the guard, and the task agent; `git rev-parse`, `for-each-ref`, `config` and `add`; the shell.
    assert_eq!(started, 3 + 4 + 1, "{text}");
    assert!(!text.contains("sync("), "{text}");
}

#[test]
fn settings_of_the_repository_reach_the_gits_of_jobs_and_go_with_the_run() {
    let word = format!("secret{}", std::process::id());
    let script = format!(
        "file=$(git config --local include.path)\necho mode $(stat -c %a \"$file\")\ngit fetch -q origin\ngit log -1 --format=%s origin/later\ngit config --get-all http.https://no.invalid/.extraheader | grep -c '^X: {masked}$'\ngit config lfs.url\ngit config remote.origin.proxy\ntest -s \"$(git config http.sslcainfo)\" && echo ca-is-there\ntest -z \"$(git config user.signingkey)\"\n(git fetch ssh://no.invalid/x 2>&1 || true) | grep called-as-ssh\ntest -z \"$(grep -r {masked} .git || true)\"\ntest -z \"$(env | grep {masked})\"\ntest -z \"$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -a {masked})\"\ngit submodule --quiet update --init\ncd sub\ngit fetch -q https://no.invalid/beside.git HEAD\necho sub-$(git log -1 --format=%s FETCH_HEAD)",
        masked = word.replace("secret", "[s]ecret"),
    );
    let place = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(place.path()).unwrap();
    for name in ["origin.git", "beside.git"] {
        let folder = place.join(name);
        fs::create_dir_all(folder.join(".circleci")).unwrap();
        fs::write(folder.join(".circleci/config.yml"), config(&script)).unwrap();
        git(&folder, "init -qb main");
        git(&folder, "add .");
        git(&folder, &format!("commit -qm {name}"));
    }
    let (origin, clone) = (place.join("origin.git"), place.join("clone"));
    git(&origin, "-c protocol.file.allow=always submodule --quiet add ../beside.git sub");
    git(&origin, "commit -qm submodule");
    git(&place, "clone -q origin.git clone");
    git(&clone, "-c protocol.file.allow=always submodule --quiet update --init");
    git(&origin, "switch -qc later");
    git(&origin, "commit -q --allow-empty -m word-is-later");
    let base = format!("url.file://{}/.insteadOf https://no.invalid/", place.display());
    git(&clone, "remote set-url origin https://no.invalid/origin.git");
    git(&clone, &format!("config {base}"));
    git(&clone.join("sub"), &format!("config {base}"));
    let git_to = |arguments: &[&str]| {
        assert!(Command::new("git").current_dir(&clone).args(arguments).status().unwrap().success());
    };
    git_to(&["config", "http.https://no.invalid/.extraHeader", &format!("X: {word}")]);
    git_to(&["config", "core.sshCommand", "sh .git/mine/ssh"]);
    git_to(&["config", "user.signingKey", "no"]);
    fs::create_dir(clone.join(".git/mine")).unwrap();
    fs::write(clone.join(".git/mine/ssh"), "echo called-as-ssh >&2; exit 1\n").unwrap();
    fs::write(clone.join(".git/mine/ca"), "certificate\n").unwrap();
    // Included, and of the working tree alone.
    fs::write(clone.join(".git/more"), "[lfs]\n\turl = https://lfs-is-elsewhere.invalid\n").unwrap();
    git(&clone, "config include.path more");
    git(&clone, "config http.sslCAInfo .git/mine/ca");
    git(&clone, "config extensions.worktreeConfig true");
    git(&clone, "config --worktree remote.origin.proxy proxy-is-mine");
    let before = state(&clone);

    let places = place.join("tmp");
    fs::create_dir(&places).unwrap();
    let output = command(&clone, &[]).env("TMPDIR", &places).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "mode 600\n",
        "word-is-later\n1\nhttps://lfs-is-elsewhere.invalid\nproxy-is-mine\nca-is-there\n",
        "called-as-ssh\n",
        "sub-beside.git\n",
    ] {
        assert!(said.contains(part), "missing {part:?} in {said}");
    }
    assert!(!said.contains(&word), "{said}");
    assert!(state(&clone) == before, "the repository must not change");
    assert_eq!(fs::read_dir(&places).unwrap().count(), 0);
}

#[test]
fn files_are_taken_as_they_are_where_git_would_pass_them_by() {
    // Outside of the part that a sparse working tree has.
    let sparse = repository("cat out/new out/old in/new");
    for name in ["in", "out"] {
        fs::create_dir(sparse.path().join(name)).unwrap();
        fs::write(sparse.path().join(name).join("old"), "word-is-old\n").unwrap();
    }
    git(sparse.path(), "add .");
    git(sparse.path(), "commit -qm folders");
    git(sparse.path(), "sparse-checkout set --cone --sparse-index in .circleci");
    fs::create_dir_all(sparse.path().join("out")).unwrap();
    for name in ["in", "out"] {
        fs::write(sparse.path().join(name).join("new"), format!("word-is-{name}\n")).unwrap();
    }
    exec(sparse.path(), &[]).exits(0).says("word-is-out\nword-is-old\nword-is-in\n").never_says("left out");
    // Names that differ by their case, and mixed line ends, against what the repository is set to.
    let odd = repository("cat File FILE mixed");
    git(odd.path(), "config core.ignoreCase true");
    git(odd.path(), "config core.autocrlf true");
    git(odd.path(), "config core.safecrlf true");
    for (name, text) in
        [("File", "word-is-small\n"), ("FILE", "word-is-big\n"), ("mixed", "word-is\r\nmixed\n")]
    {
        fs::write(odd.path().join(name), text).unwrap();
    }
    exec(odd.path(), &[]).exits(0).says("word-is-small\nword-is-big\nword-is\nmixed\n");
    // A path that git cannot look at is told.
    let deep = repository("cat a");
    let name = "d".repeat(200);
    let made = Command::new("sh")
        .current_dir(deep.path())
        .args(["-ec", &format!("for i in $(seq 25); do mkdir {name}; cd -P {name}; done; echo x > f")])
        .status();
    assert!(made.unwrap().success());
    exec(deep.path(), &[]).exits(0).says("some files are left out").says("could not open directory");
}

#[test]
fn a_commit_that_is_replaced_does_not_hide_what_the_files_are() {
    let folder = repository("cat a; git log --format=%s");
    let at = |text: &str, subject: &str| {
        fs::write(folder.path().join("a"), text).unwrap();
        git(folder.path(), &format!("commit -qam {subject}"));
        git(folder.path(), "rev-parse HEAD").trim().to_owned()
    };
    let other = at("word-is-other\n", "other");
    let real = at("word-is-real\n", "real");
    git(folder.path(), &format!("replace {real} {other}"));
    git(folder.path(), "reset -q --hard");
    assert_eq!(git(folder.path(), "status --porcelain"), "");
    exec(folder.path(), &[]).exits(0).says("word-is-other\nThe working tree").says("real\nother\nfirst\n");
}

#[test]
fn what_a_hook_has_in_its_environment_leads_no_git_elsewhere() {
    let folder = repository(
        "git status --porcelain; cat x.big; git commit -q --allow-empty -m job; git log -1 --format=%s",
    );
    fs::create_dir(folder.path().join(".git/lfs")).unwrap();
    fs::write(folder.path().join(".gitattributes"), "*.big filter=lfs\n").unwrap();
    fs::write(folder.path().join("x.big"), "word-is-big\n").unwrap();
    let before = state(folder.path());
    let mut command = command(folder.path(), &[]);
    for (name, value) in [
        ("GIT_DIR", "/nowhere"),
        ("GIT_INDEX_FILE", "/nowhere/index"),
        ("GIT_COMMON_DIR", "/nowhere"),
        ("GIT_QUARANTINE_PATH", "/nowhere"),
        ("GIT_NAMESPACE", "other"),
        ("GIT_LITERAL_PATHSPECS", "1"),
        ("GIT_CONFIG", "/nowhere/config"),
    ] {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("word-is-big\njob\n"), "{said}");
    assert!(state(folder.path()) == before, "the repository must not change");
}

#[test]
fn a_list_does_not_look_at_the_files() {
    let folder = repository("cat a");
    let ran = folder.path().join(".git/filter-ran");
    git(folder.path(), &format!("config filter.slow.clean {}", ran.display()));
    fs::write(&ran, format!("#!/bin/sh\ntouch {}.yes\ncat\n", ran.display())).unwrap();
    fs::set_permissions(&ran, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(folder.path().join(".gitattributes"), "*.slow filter=slow\n").unwrap();
    fs::write(folder.path().join("x.slow"), "x").unwrap();
    let before = state(folder.path());
    exec(folder.path(), &["--list"]).exits(0).says("  build\n");
    assert!(state(folder.path()) == before, "the filter has run");
    exec(folder.path(), &[]).exits(0);
    assert!(folder.path().join(".git/filter-ran.yes").exists());
}

#[test]
fn files_of_a_filter_that_only_the_repository_has_come_as_they_are() {
    let folder = repository("cat x.key y.key\ngit status --porcelain");
    git(folder.path(), "config filter.crypt.clean rev");
    git(folder.path(), "config filter.crypt.smudge rev");
    git(folder.path(), "config filter.crypt.required true");
    fs::write(folder.path().join(".gitattributes"), "*.key filter=crypt\n").unwrap();
    fs::write(folder.path().join("x.key"), "word-is-one\n").unwrap();
    git(folder.path(), "add .");
    git(folder.path(), "commit -qm keys");
    fs::write(folder.path().join("y.key"), "word-is-two\n").unwrap();
    assert_eq!(git(folder.path(), "cat-file blob HEAD:x.key"), "eno-si-drow");
    let before = state(folder.path());
    exec(folder.path(), &[]).exits(0).says("word-is-one\nword-is-two\n  ok");
    assert!(state(folder.path()) == before, "the repository must not change");
}

#[test]
fn a_bare_repository_is_named_as_such() {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("config.yml");
    fs::write(&config, steps("- run: never")).unwrap();
    git(place.path(), "init -q --bare x.git");
    // A folder with worktrees beside what they share.
    fs::create_dir(place.path().join("y")).unwrap();
    git(place.path(), "init -q --bare y/.bare");
    fs::write(place.path().join("y/.git"), "gitdir: ./.bare\n").unwrap();
    for name in ["x.git", "x.git/refs", "y"] {
        for args in [&[][..], &["--config", config.to_str().unwrap()], &["--list"]] {
            exec(&place.path().join(name), args)
                .exits(2)
                .says("is in a bare repository, which has no working tree")
                .never_says("failed to");
        }
    }
}

#[test]
fn a_merge_with_conflicts_is_named_and_runs_as_the_files_are() {
    let folder = repository("cat a");
    git(folder.path(), "checkout -qb topic");
    for (branch, text) in [("topic", "theirs\n"), ("main", "ours\n")] {
        git(folder.path(), &format!("checkout -q {branch}"));
        fs::write(folder.path().join("a"), text).unwrap();
        git(folder.path(), &format!("commit -qam {branch}"));
    }
    let merged =
        Command::new("git").current_dir(folder.path()).args(["merge", "-q", "topic"]).output().unwrap();
    assert!(!merged.status.success());
    let before = state(folder.path());
    exec(folder.path(), &[])
        .exits(0)
        .says("note: a merge is not finished here, with conflicts in `a`: jobs get the files as they are now")
        .says("<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> topic\n");
    assert!(state(folder.path()) == before, "the repository must not change");
}
