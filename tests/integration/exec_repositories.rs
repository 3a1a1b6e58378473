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

/// A script in a clone whose origin has another branch, a tag, and a submodule beside itself.
fn cloned(place: &Path, script: &str) -> std::path::PathBuf {
    let origin = place.join("origin");
    for name in ["origin", "beside"] {
        let folder = place.join(name);
        fs::create_dir_all(folder.join(".circleci")).unwrap();
        git(&folder, "init -qb main");
        fs::write(folder.join(".circleci/config.yml"), config(script)).unwrap();
        git(&folder, "add .");
        git(&folder, "commit -qm first");
    }
    git(&origin, "-c protocol.file.allow=always submodule --quiet add ../beside sub");
    git(&origin, "commit -qm submodule");
    git(&origin, "tag -a v1 -m v1");
    git(&origin, "branch release/1.0");
    let clone = place.join("clone");
    git(place, &format!("clone -q {} {}", origin.display(), clone.display()));
    git(&clone, "switch -qc topic");
    fs::write(clone.join("mine"), "not committed\n").unwrap();
    clone
}

#[test]
fn jobs_see_the_real_history_and_the_real_origin() {
    let place = tempfile::tempdir().unwrap();
    let clone = cloned(
        place.path(),
        "git describe --tags\necho head $(git rev-parse --abbrev-ref origin/HEAD)\ntest \"$(git merge-base origin/main HEAD)\" = \"$(git rev-parse v1^{commit})\"\ngit diff --name-only origin/main...\ngit rev-parse --verify -q origin/release/1.0\ngit remote get-url origin\necho repository $CIRCLE_REPOSITORY_URL\ngit -c protocol.file.allow=always submodule --quiet update --init\ntest -e sub/.circleci/config.yml\ngit switch -q main\ngit push -q origin HEAD:refs/heads/pushed",
    );
    let origin = fs::canonicalize(place.path()).unwrap().join("origin");
    // People have called it otherwise, too.
    for name in ["origin", "upstream"] {
        if name != "origin" {
            git(&clone, &format!("remote rename origin {name}"));
        }
        exec(&clone, &[])
            .exits(0)
            .says("v1-1-g")
            .says("head origin/main\n")
            .says("mine\n")
            .says(&format!("\n{}\n", origin.display()))
            .says(&format!("repository {}\n", origin.display()));
    }
    // A push by a job stays here.
    assert_eq!(git(&origin, "branch --list pushed"), "");
    assert_eq!(git(&clone, "branch --list pushed"), "");
}

#[test]
fn submodules_of_a_repository_without_a_remote_are_found_beside_it() {
    let place = tempfile::tempdir().unwrap();
    let update = "git -c protocol.file.allow=always submodule --quiet update --init\ncat sub/mine";
    let clone = cloned(place.path(), update);
    fs::write(place.path().join("beside/mine"), "word-is-beside\n").unwrap();
    git(&place.path().join("beside"), "add mine");
    git(&place.path().join("beside"), "commit -qm mine");
    git(&clone, "-c protocol.file.allow=always submodule --quiet update --init --remote");
    git(&clone, "commit -qam submodule");
    git(&clone, "remote remove origin");
    git(&clone, "branch -D main");
    fs::remove_dir_all(place.path().join("origin")).unwrap();
    exec(&clone, &[]).exits(0).says("word-is-beside");
}

#[test]
fn submodules_come_at_commits_that_were_never_pushed_and_the_persons_stay_as_they_are() {
    let place = tempfile::tempdir().unwrap();
    let script = "git submodule --quiet update --init\ncat sub/mine\ngit -C sub remote get-url origin\ncd sub\ngit log --format=%s origin/main..\ngit commit -q --allow-empty -m job\ngit repack -qadfl\ngit gc -q --prune=now\ngit prune\ngit fsck\necho the-end";
    let clone = cloned(place.path(), script);
    git(&clone, "-c protocol.file.allow=always submodule --quiet update --init");
    fs::write(clone.join("sub/mine"), "word-is-mine\n").unwrap();
    git(&clone.join("sub"), "add mine");
    git(&clone.join("sub"), "commit -qm unpushed");
    // Nobody is left to fetch it from.
    fs::remove_dir_all(place.path().join("beside")).unwrap();
    let state = || {
        let mut files = Vec::new();
        let mut folders = vec![clone.join(".git/modules")];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push((fs::read(&path).unwrap(), path)),
                }
            }
        }
        files.sort();
        files
    };
    let before = state();
    let beside = fs::canonicalize(place.path()).unwrap().join("beside");
    let ran = exec(&clone, &[]).exits(0);
    let ran = ran.says("word-is-mine\n").says(&format!("{}\nunpushed\n", beside.display())).says("the-end\n");
    assert!(!ran.text.contains("note: the submodule"), "{}", ran.text);
    assert!(state() == before, "the submodule's repository must not change");
}

#[test]
fn repositories_of_all_kinds_run_and_stay_as_they_are() {
    let place = tempfile::tempdir().unwrap();
    let script = "git log -1 --format=%s; ls";
    let clone = cloned(place.path(), script);
    let clone = clone.as_path();
    // Settings of the person that would run programs or change files.
    let hooks = place.path().join("hooks");
    fs::create_dir(&hooks).unwrap();
    let ran = place.path().join("hook-ran");
    for hook in ["post-checkout", "post-index-change", "reference-transaction", "pre-push"] {
        fs::write(hooks.join(hook), format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(hooks.join(hook), mode).unwrap();
    }
    fs::write(
        place.path().join(".gitconfig"),
        format!(
            "[core]\nhooksPath = {}\nfsmonitor = true\nautocrlf = true\nsplitIndex = true\n[commit]\ngpgSign = true\n[submodule]\nrecurse = true\n[fetch]\nprune = true\nrecurseSubmodules = true\n[filter \"lfs\"]\nclean = false\nsmudge = false\nprocess = false\nrequired = true\n",
            hooks.display()
        ),
    )
    .unwrap();
    let run = |root: &Path, args: &[&str]| {
        let output =
            command(root, args).env("HOME", place.path()).env("GIT_DIR", "/nowhere").output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    };
    fs::write(clone.join(".gitattributes"), "*.big filter=lfs\n").unwrap();
    fs::write(clone.join("x.big"), "large\n").unwrap();
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"line\nfeed"[..], b"\xff\xfe", b" space ", b"-dash", b"UPPER", b"upper"] {
        fs::write(clone.join(std::ffi::OsStr::from_bytes(name)), "x\n").unwrap();
    }
    let said = run(clone, &[]);
    assert!(said.contains("x.big\n") && said.contains("UPPER\n") && said.contains("upper\n"), "{said}");
    assert!(!ran.exists(), "a hook has run");

    // A link to it, a second working tree, a detached HEAD, a damaged index, one without commits.
    let link = place.path().join("link");
    std::os::unix::fs::symlink(clone, &link).unwrap();
    assert!(run(&link, &[]).contains("upper\n"));
    git(clone, "worktree add -q ../tree main");
    let tree = place.path().join("tree");
    fs::write(tree.join("there"), "x").unwrap();
    assert!(run(&tree, &[]).contains("there\n"));
    git(&tree, "switch -q --detach v1");
    assert!(run(&tree, &[]).contains("HEAD is detached"));
    // Without a filter that names tags, a job is for branches.
    exec(&tree, &["--tag", "v1"]).exits(1).says("nothing ran");
    fs::write(clone.join(".git/index"), "damaged").unwrap();
    assert!(run(clone, &[]).contains("upper\n"));
    let empty = place.path().join("empty");
    fs::create_dir_all(empty.join(".circleci")).unwrap();
    fs::copy(clone.join(".circleci/config.yml"), empty.join(".circleci/config.yml")).unwrap();
    git(&empty, "init -qb main");
    // An inner repository without a commit cannot be recorded, and does not stop the rest. Here it has no files,
    // and what git would say of line ends is of no interest.
    fs::create_dir(empty.join("inner")).unwrap();
    git(&empty.join("inner"), "init -q");
    assert!(!run(&empty, &[]).contains("left out"));
    // A sparse one keeps what is not there.
    git(place.path(), "clone -q --sparse origin sparse");
    let sparse = place.path().join("sparse");
    git(&sparse, "sparse-checkout add .circleci");
    run(&sparse, &[]);
    // A repository that git refuses: its reason and ours.
    fs::write(empty.join(".git/HEAD"), "").unwrap();
    exec(&empty, &[]).exits(1).says("git refuses the repository in `").says("not a git repository");
}
