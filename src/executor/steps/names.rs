//! Names under which files are stored: with the secrets in them masked, and so that of two that are equal then none
//! replaces the other.

use crate::executor::output::redactor::MASK;
use crate::executor::output::secrets::Secrets;
use std::collections::BTreeMap;
use std::path::Path;

/// The names that a task has stored files under.
#[derive(Debug, Default)]
pub(in crate::executor) struct StoredNames {
    /// Names with a mask in them, each with the name before it was masked.
    masked: BTreeMap<String, String>,
    /// Checksum and place of the artifact of a name.
    artifacts: BTreeMap<String, String>,
}

impl StoredNames {
    /// The name for a file: the same one each time that it is asked for.
    pub(super) fn of(&mut self, name: &str, secrets: &Secrets) -> String {
        let masked = secrets.mask(name);
        // Only a name that has the mask in it can be that of another file once its secrets are masked.
        if masked == name && !name.contains(MASK) {
            return masked;
        }
        let mut number = 1;
        loop {
            let numbered = if number == 1 { masked.clone() } else { numbered(&masked, number) };
            let holder = self.masked.entry(numbered.clone()).or_insert_with(|| name.to_owned());
            if holder.as_str() == name {
                return numbered;
            }
            number += 1;
        }
    }

    /// Notes that a file was stored as an artifact. The place of another file that it replaces, which had the same name and
    /// another content.
    pub(super) fn replaced(&mut self, name: &str, sha256: &str, path: &Path) -> Option<String> {
        let stored = format!("{sha256} {}", path.display());
        let before = self.artifacts.insert(name.to_owned(), stored)?;
        let (content, path) = before.split_once(' ')?;
        (content != sha256).then(|| path.to_owned())
    }
}

/// The name with a number before its extension.
fn numbered(name: &str, number: u32) -> String {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[file..].rfind('.').filter(|dot| *dot > 0).map_or(name.len(), |dot| file + dot);
    format!("{}-{number}{}", &name[..dot], &name[dot..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Secret;

    #[test]
    fn an_artifact_that_replaces_another_one_is_known_by_its_name_and_content() {
        let mut names = StoredNames::default();
        for (name, content, path, replaced) in [
            ("out.txt", "aa", "/w/a b/out.txt", None),
            ("a.txt", "aa", "/w/a.txt", None),
            ("out.txt", "aa", "/w/c/out.txt", None),
            ("out.txt", "bb", "/w/b/out.txt", Some("/w/c/out.txt")),
            ("out.txt", "cc", "/w/b/out.txt", Some("/w/b/out.txt")),
        ] {
            assert_eq!(names.replaced(name, content, Path::new(path)).as_deref(), replaced, "{path}");
        }
    }

    #[test]
    fn names_that_are_equal_when_they_are_masked_are_numbered() {
        let secrets = Secrets::new(&[], &[Secret::new("hunter22"), Secret::new("swordfish")]);
        let mut names = StoredNames::default();
        for (name, stored) in [
            ("a/hunter22.tar.gz", "a/****.tar.gz"),
            ("a/swordfish.tar.gz", "a/****.tar-2.gz"),
            ("hunter22/x.y/file", "****/x.y/file"),
            ("swordfish/x.y/file", "****/x.y/file-2"),
            ("plain", "plain"),
            ("plain", "plain"),
            ("a/swordfish.tar.gz", "a/****.tar-2.gz"),
            ("a/****.tar.gz", "a/****.tar-3.gz"),
            (".hunter22", ".****"),
            (".swordfish", ".****-2"),
            ("b/****", "b/****"),
            ("b/hunter22", "b/****-2"),
            ("b/****-2", "b/****-2-2"),
            ("b/****", "b/****"),
        ] {
            assert_eq!(names.of(name, &secrets), stored, "{name}");
        }
    }
}
