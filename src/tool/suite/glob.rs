//! `tests glob`: the files that match patterns.

use crate::glob::{Dialect, find};
use crate::outcome::{self, Failure, Outcome};
use crate::tool::usage::usage;
use std::collections::BTreeMap;
use std::path::Path;

/// Most files of one pattern.
const MOST: usize = 1_000_000;

/// Prints the files of each pattern in turn, each file once.
pub(super) fn print(patterns: &[&str]) -> Outcome {
    let patterns = match patterns {
        ["--", rest @ ..] => rest,
        all => {
            if let Some(option) = all.iter().find(|pattern| pattern.starts_with("--")) {
                return Err(usage(format!(
                    "`tests glob` has no option `{option}`; a pattern that begins so comes after `--`"
                )));
            }
            all
        }
    };
    if patterns.is_empty() {
        return Err(usage("`tests glob` takes one or more patterns, quoted against the shell".to_owned()));
    }
    outcome::print(&found(Path::new("."), patterns)?)
}

fn found(root: &Path, patterns: &[&str]) -> Result<String, Failure> {
    // The kind of map that names are kept in as well: a set would be further code.
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut out = String::new();
    for pattern in patterns {
        for path in find(root, pattern, Dialect::Shell, MOST).map_err(Failure::new)? {
            if !seen.contains_key(path.as_str()) {
                out.push_str(&path);
                out.push('\n');
                seen.insert(path, String::new());
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_the_patterns_and_once() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let found = |patterns: &[&str]| found(root.path(), patterns).unwrap();
        assert_eq!(found(&["[bc]", "*", "nothing", "b"]), "b\nc\na\n");
        assert_eq!(found(&["nothing"]), "");
        assert!(print(&[]).unwrap_err().message.contains("quoted"));
        assert!(print(&["*", "--all"]).unwrap_err().message.contains("no option `--all`"));
    }
}
