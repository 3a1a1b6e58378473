//! Acts that git is in the middle of: a merge, a rebase and the like leave a tree that is no state of any branch, with
//! conflicts as a rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Most files with conflicts that are named.
const MOST_NAMED: usize = 5;

/// Files of git that stand for something that is not finished, what that is, and the command that gives it up.
const STATES: [(&str, &str, &str); 6] = [
    ("rebase-merge", "a rebase", "git rebase --abort"),
    ("rebase-apply/applying", "`git am`", "git am --abort"),
    ("rebase-apply", "a rebase", "git rebase --abort"),
    ("MERGE_HEAD", "a merge", "git merge --abort"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "git cherry-pick --abort"),
    ("REVERT_HEAD", "a revert", "git revert --abort"),
];

/// A sentence about the state of a working tree, whose own folder of git is `folder`, and which has conflicts in the files
/// `conflicts`. `None` where nothing is under way.
pub(super) fn note(folder: &Path, conflicts: &BTreeSet<Vec<u8>>) -> Option<String> {
    let state = STATES.iter().find(|(file, ..)| folder.join(file).symlink_metadata().is_ok());
    let mut named: Vec<String> = conflicts
        .iter()
        .take(MOST_NAMED)
        .map(|path| format!("`{}`", String::from_utf8_lossy(path)))
        .collect();
    if conflicts.len() > MOST_NAMED {
        named.push(format!("{} more", conflicts.len() - MOST_NAMED));
    }
    let named = named.join(", ");
    let state = state.map(|(file, what, end)| {
        let of = fs::read_to_string(folder.join(file).join("head-name")).unwrap_or_default();
        let of =
            of.trim().strip_prefix("refs/heads/").map(|branch| format!(" of `{branch}`")).unwrap_or_default();
        (
            format!("{what}{of} is not finished here"),
            format!(" (finish it first, or give it up with `{end}`)"),
        )
    });
    let (found, advice) = match (state, conflicts.is_empty()) {
        (Some((what, _)), true) => (what, String::new()),
        (Some((what, advice)), false) => (format!("{what}, with conflicts in {named}"), advice),
        (None, false) => (format!("there are conflicts in {named}"), String::new()),
        (None, true) => return None,
    };
    let marks = if conflicts.is_empty() { "" } else { ", marks of conflicts included" };
    Some(format!("{found}: jobs get the files as they are now{marks}, on top of HEAD{advice}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use crate::exec::example::{sh, snapshot};
    use crate::exec::snapshot::Name;

    /// Two branches that changed the same line.
    const CONFLICT: &str =
        "git init -qb main; echo one > a; git add .; git commit -qm one; git checkout -qb topic
        echo topic > a; git commit -qam topic; git checkout -q main; echo main > a; git commit -qam main";

    #[test]
    fn what_is_not_finished_is_named_with_its_conflicts() {
        let place = tempfile::tempdir().unwrap();
        sh(place.path(), &format!("mkdir whole; cd whole; {CONFLICT}"));
        let as_they_are = "jobs get the files as they are now, marks of conflicts included, on top of HEAD";
        for (act, said, end) in [
            ("git merge -q topic", "a merge is not finished here, with conflicts in `a`", "merge"),
            (
                "git checkout -q topic; git rebase -q main",
                "a rebase of `topic` is not finished here, with conflicts in `a`",
                "rebase",
            ),
            (
                "git cherry-pick topic",
                "a cherry-pick is not finished here, with conflicts in `a`",
                "cherry-pick",
            ),
            ("git revert --no-edit HEAD~", "", ""),
            ("git format-patch --stdout main..topic | git am -q", "", ""),
            (
                "echo stash > a; git stash -q; echo other > a; git commit -qam other; git stash pop -q",
                "there are conflicts in `a`",
                "",
            ),
        ] {
            sh(place.path(), "rm -rf x; cp -r whole x");
            let tree = place.path().join("x");
            sh(&tree, &format!("{act} > ../said 2>&1 || true"));
            let before = sh(&tree, "git status --porcelain; find .git -type f | sort | xargs cksum");
            let (_scratch, taken) = snapshot(&tree, &Name::Own);
            assert_eq!(
                sh(&tree, "git status --porcelain; find .git -type f | sort | xargs cksum"),
                before,
                "{act}"
            );
            let notes: Vec<_> =
                taken.notes.iter().filter(|note| !note.starts_with("HEAD is detached")).collect();
            if said.is_empty() {
                assert!(notes.iter().all(|note| note.contains("not finished")), "{act}: {notes:?}");
                continue;
            }
            let advice = match end {
                "" => String::new(),
                end => format!(" (finish it first, or give it up with `git {end} --abort`)"),
            };
            assert_eq!(notes, [&format!("{said}: {as_they_are}{advice}")], "{act}");
            assert!(
                sh(&taken.repository, &format!("git show {}:a", taken.revision)).contains("<<<<<<<"),
                "{act}"
            );
        }
        sh(
            place.path(),
            "rm -rf x; cp -r whole x; cd x; git merge -q topic || true; echo both > a; git add a",
        );
        let (_scratch, taken) = snapshot(&place.path().join("x"), &Name::Own);
        assert_eq!(
            taken.notes,
            ["a merge is not finished here: jobs get the files as they are now, on top of HEAD"]
        );
    }
}
