//! Patterns of file names, and the files that match them.
//!
//! Two dialects: what `circleci-agent tests glob` takes, and Go's `filepath.Match`, by which workspaces
//! name their files. `pattern` reads and compares, without IO; [`find`] walks. A folder is read once
//! whatever the pattern is, and only where the pattern can still match below it.

mod pattern;

pub use pattern::Dialect;

use pattern::{Alternatives, ComponentPattern};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Folders that are read for one pattern, at most.
const MOST_FOLDERS: usize = 1_000_000;

/// Position of a walk in a pattern: the alternative and the part that comes next.
type State = (usize, usize);

/// Paths below `root` that match `pattern`, in lexical order, each once, written as the pattern is: relative
/// to `root`, or from `/` when the pattern begins so. A path without any special character is looked up.
///
/// `**` does not follow links to folders, so circles do not matter; a written or matched name does. What
/// cannot be read holds nothing. Names that are not UTF-8 are left out, except that such a name is an error
/// in [`Dialect::Go`], where nothing may be lost.
///
/// # Errors
///
/// A sentence for people: the pattern is malformed or too long, or more than `most` paths match.
pub fn find(root: &Path, pattern: &str, dialect: Dialect, most: usize) -> Result<Vec<String>, String> {
    let alternatives = pattern::parse(pattern, dialect)?;
    let mut walk =
        Walk { root, alternatives: &alternatives, dialect, found: BTreeSet::new(), folders: Vec::new() };
    for (absolute, prefix) in [(false, ""), (true, "/")] {
        let mut states = Vec::new();
        for (index, one) in alternatives.iter().enumerate() {
            if one.absolute == absolute {
                states.push((index, 0));
            }
        }
        if !states.is_empty() {
            walk.folders.push((prefix.to_owned(), states));
        }
    }
    let mut read = 0;
    while let Some((prefix, states)) = walk.folders.pop() {
        read += 1;
        if read > MOST_FOLDERS {
            return Err(format!(
                "the pattern `{pattern}` leads through more than {MOST_FOLDERS} folders: write more of the path"
            ));
        }
        walk.folder(&prefix, states)?;
        if walk.found.len() > most {
            return Err(format!("the pattern `{pattern}` matches more than {most} paths: write more of it"));
        }
    }
    Ok(walk.found.into_iter().collect())
}

struct Walk<'a> {
    root: &'a Path,
    alternatives: &'a Alternatives,
    dialect: Dialect,
    found: BTreeSet<String>,
    /// Work that is left: the path with its last slash, as it is printed, and where the pattern is.
    folders: Vec<(String, Vec<State>)>,
}

impl Walk<'_> {
    fn part(&self, (alternative, at): State) -> Option<&ComponentPattern> {
        self.alternatives[alternative].parts.get(at)
    }

    /// Looks at one folder.
    fn folder(&mut self, prefix: &str, mut states: Vec<State>) -> Result<(), String> {
        // Every `**` may stand for no folder at all.
        let mut at = 0;
        while let Some(&state) = states.get(at) {
            if matches!(self.part(state), Some(ComponentPattern::Deep)) && !states.contains(&next(state)) {
                states.push(next(state));
            }
            at += 1;
        }
        // Names, where the pattern goes on if they exist, and what stays in force below them.
        let mut further: Vec<(String, Vec<State>, Vec<State>)> = Vec::new();
        let mut listed = false;
        for &state in &states {
            match self.part(state) {
                Some(ComponentPattern::Name(name)) => {
                    match further.iter_mut().find(|(other, ..)| other == name) {
                        Some((_, nexts, _)) => nexts.push(next(state)),
                        None => further.push((name.clone(), vec![next(state)], Vec::new())),
                    }
                }
                Some(ComponentPattern::Deep | ComponentPattern::Glob(_)) => listed = true,
                None => {}
            }
        }
        let folder = self.root.join(if prefix.is_empty() { "." } else { prefix });
        let entries = if listed { fs::read_dir(folder).ok() } else { None };
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let lossy = name.to_string_lossy();
            let (mut nexts, mut deeper) = (Vec::new(), Vec::new());
            let hidden = self.dialect == Dialect::Shell && lossy.starts_with('.');
            for &state in &states {
                match self.part(state) {
                    Some(ComponentPattern::Glob(glob)) if glob.matches(&lossy, hidden) => {
                        nexts.push(next(state))
                    }
                    Some(ComponentPattern::Deep) if !hidden => deeper.push(state),
                    _ => {}
                }
            }
            // `**` alone leads into folders only; that spares a look at most files of a tree.
            let leads = || entry.file_type().is_ok_and(|kind| kind.is_dir());
            if nexts.is_empty() && (deeper.is_empty() || !leads()) {
                continue;
            }
            match name.to_str() {
                Some(name) => further.push((name.to_owned(), nexts, deeper)),
                None if self.dialect == Dialect::Go => {
                    return Err(format!("the name of `{prefix}{lossy}` is not UTF-8: rename it"));
                }
                None => {}
            }
        }
        for (name, nexts, deeper) in further {
            self.entry(format!("{prefix}{name}"), nexts, deeper);
        }
        Ok(())
    }

    /// Looks at one path: `nexts` is where the pattern goes on when it exists, `deeper` what stays in force
    /// below it when it is a folder of its own.
    fn entry(&mut self, path: String, mut nexts: Vec<State>, deeper: Vec<State>) {
        let place = self.root.join(&path);
        let Ok(own) = fs::symlink_metadata(&place) else { return };
        // A link to nothing is a link; it is neither a file nor a folder.
        let target = if own.is_symlink() { fs::metadata(&place).ok() } else { Some(own.clone()) };
        let is_file = target.as_ref().is_some_and(fs::Metadata::is_file);
        let is_folder = target.as_ref().is_some_and(fs::Metadata::is_dir);
        let complete = |&state: &State| self.part(state).is_none();
        // A slash at the end asks for a folder.
        let good = |&(alternative, _): &State| match self.dialect {
            Dialect::Shell => is_file && !self.alternatives[alternative].folder,
            Dialect::Go => is_folder || !self.alternatives[alternative].folder,
        };
        let found = nexts.iter().any(|state| complete(state) && good(state));
        nexts.retain(|state| !complete(state));
        for state in deeper {
            if !own.is_symlink() && !nexts.contains(&state) {
                nexts.push(state);
            }
        }
        if is_folder && !nexts.is_empty() {
            self.folders.push((format!("{path}/"), nexts));
        }
        if found {
            self.found.insert(path);
        }
    }
}

fn next((alternative, at): State) -> State {
    (alternative, at + 1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its files should fail loudly")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    /// A tree of empty files; a name that ends in `/` is a folder, `a -> b` a link.
    fn tree(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let (name, target) = name.split_once(" -> ").map_or((*name, None), |(n, t)| (n, Some(t)));
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                Some(target) => symlink(target, path).unwrap(),
                None if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
                None => fs::write(path, "").unwrap(),
            }
        }
        root
    }

    const TREE: [&str; 14] = [
        "a.rb",
        "b.rb",
        "c.js",
        ".hidden.rb",
        "spec/a_spec.rb",
        "spec/deep/b_spec.rb",
        "spec/deep/er/c_spec.rb",
        "spec/.cache/d_spec.rb",
        "spec/deep/note.txt",
        "test/x{1}.py",
        "empty/",
        "to-spec -> spec",
        "to-file -> a.rb",
        "circle/self -> ../circle",
    ];

    fn shell(pattern: &str) -> String {
        let root = tree(&TREE);
        find(root.path(), pattern, Dialect::Shell, 100).unwrap().join(" ")
    }

    fn go(pattern: &str) -> Result<String, String> {
        let root = tree(&TREE);
        find(root.path(), pattern, Dialect::Go, 100).map(|found| found.join(" "))
    }

    #[test]
    fn files_are_found_as_a_shell_finds_them() {
        for (pattern, expected) in [
            ("*.rb", "a.rb b.rb"),
            (".*.rb", ".hidden.rb"),
            ("[ab].rb", "a.rb b.rb"),
            ("[!a].rb", "b.rb"),
            ("[^a].rb", "b.rb"),
            ("?.js", "c.js"),
            ("a.rb", "a.rb"),
            ("./a.rb", "./a.rb"),
            ("spec/../*.js", "spec/../c.js"),
            ("nothing", ""),
            ("nothing/*", ""),
            ("", ""),
            ("spec", ""),
            ("spec/", ""),
            ("*", "a.rb b.rb c.js to-file"),
            ("spec/*_spec.rb", "spec/a_spec.rb"),
            ("spec/**/*_spec.rb", "spec/a_spec.rb spec/deep/b_spec.rb spec/deep/er/c_spec.rb"),
            ("spec/**_spec.rb", "spec/a_spec.rb spec/deep/b_spec.rb spec/deep/er/c_spec.rb"),
            ("spec/de**b_spec.rb", "spec/deep/b_spec.rb"),
            ("spec/**", "spec/a_spec.rb spec/deep/b_spec.rb spec/deep/er/c_spec.rb spec/deep/note.txt"),
            ("**/note.*", "spec/deep/note.txt"),
            ("**/deep/**/c*", "spec/deep/er/c_spec.rb"),
            ("spec/.cache/*", "spec/.cache/d_spec.rb"),
            ("to-spec/*", "to-spec/a_spec.rb"),
            ("circle/*/*/self", ""),
            ("{a,b,z}.rb", "a.rb b.rb"),
            ("{spec/{a,q},{b,c}}{_spec.rb,.js}", "c.js spec/a_spec.rb"),
            ("{spec,test}/**/{b,x}*", "spec/deep/b_spec.rb test/x{1}.py"),
            ("test/x\\{1\\}.py", "test/x{1}.py"),
            ("test/x{1\\}.py", "test/x{1}.py"),
            ("[a", ""),
        ] {
            assert_eq!(shell(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn paths_are_found_as_go_finds_them() {
        for (pattern, expected) in [
            ("*", ".hidden.rb a.rb b.rb c.js circle empty spec test to-file to-spec"),
            (".", "."),
            ("spec", "spec"),
            ("spec/", "spec"),
            ("a.rb/", ""),
            ("spec/*", "spec/.cache spec/a_spec.rb spec/deep"),
            ("spec/**/b_spec.rb", "spec/deep/b_spec.rb"),
            ("spec/**/c_spec.rb", ""),
            ("[^a].rb", "b.rb"),
            ("[!a].rb", "a.rb"),
            ("test/x{1}.py", "test/x{1}.py"),
            ("{a,b}.rb", ""),
            ("\\a.rb", "a.rb"),
            ("nothing/at/all", ""),
        ] {
            assert_eq!(go(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        for pattern in ["[", "a/[]a]", "nowhere/[-a]", "[a-]", "x\\", "[a/b]"] {
            assert!(go(pattern).is_err_and(|e| e.contains("malformed")), "{pattern}");
        }
    }

    #[test]
    fn absolute_patterns_are_printed_as_written() {
        let root = tree(&["x/a", "x/b"]);
        let at = root.path().display();
        let found = find(Path::new("/nowhere"), &format!("{at}/*/{{a,b}}"), Dialect::Shell, 9).unwrap();
        assert_eq!(found, [format!("{at}/x/a"), format!("{at}/x/b")]);
    }

    #[test]
    fn there_is_a_limit() {
        let root = tree(&["a", "b", "c"]);
        assert_eq!(find(root.path(), "{*,*,?}", Dialect::Shell, 3).unwrap().len(), 3);
        let error = find(root.path(), "*", Dialect::Shell, 2).unwrap_err();
        assert!(error.contains("more than 2"), "{error}");
        assert!(find(root.path(), &"{a,b}".repeat(20), Dialect::Shell, 9).is_err());
    }

    #[test]
    fn circles_end() {
        let root = tree(&["d/f", "d/loop -> ../d", "d/up -> .."]);
        assert_eq!(find(root.path(), "**/f", Dialect::Shell, 9).unwrap(), ["d/f"]);
        assert_eq!(find(root.path(), "**/**/**/**/f", Dialect::Shell, 9).unwrap(), ["d/f"]);
    }

    #[test]
    fn names_that_are_not_text_are_left_out_or_told() {
        use std::os::unix::ffi::OsStrExt;
        let root = tree(&["a"]);
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        // Some file systems refuse such names.
        if fs::write(root.path().join(name), "").is_ok() {
            assert_eq!(find(root.path(), "*", Dialect::Shell, 9).unwrap(), ["a"]);
            assert!(find(root.path(), "*", Dialect::Go, 9).unwrap_err().contains("not UTF-8"));
            assert_eq!(find(root.path(), "a", Dialect::Go, 9).unwrap(), ["a"]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_pattern_what_is_found_is_there(pattern in "[ab./*?{},!^\\\\\\[\\]-]{0,16}") {
            let root = tree(&["a", "b/a", "b/b/a", ".a", "a.b", "b/up -> ..", "b/[a]", "{a,b}"]);
            if pattern.starts_with('/') || pattern.contains("..") || pattern.contains(",/") || pattern.contains("{/") {
                return Ok(());
            }
            if let Ok(found) = find(root.path(), &pattern, Dialect::Shell, 1000) {
                prop_assert!(found.is_sorted());
                for path in found {
                    prop_assert!(root.path().join(&path).is_file(), "{path}");
                }
            }
            let _ = find(root.path(), &pattern, Dialect::Go, 1000);
        }
    }
}
