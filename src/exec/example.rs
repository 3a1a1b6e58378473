//! Repositories for tests, and what is taken of them.

use super::snapshot::{Name, Purpose, Snapshot, take};
use std::path::Path;
use std::process::Command;

/// Runs a script in `directory` as a person whom git knows; returns what it said.
pub(super) fn sh(directory: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@t")])
        .envs([("GIT_COMMITTER_NAME", "t"), ("GIT_COMMITTER_EMAIL", "t@t")])
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Takes the tree at `root` as the branch or tag `name`, into a folder that goes with the first value.
pub(super) fn snapshot(root: &Path, name: &Name) -> (tempfile::TempDir, Snapshot) {
    let scratch = tempfile::tempdir().expect("a folder");
    let root = std::fs::canonicalize(root).expect("the tree");
    let purpose = Purpose { is_for_jobs: true, with_subject: true };
    let taken = take(&root, scratch.path(), name, purpose).expect("a snapshot");
    (scratch, taken)
}
