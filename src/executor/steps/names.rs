//! Names under which files are stored: with the secrets in them masked, and so that of two that are equal then none
//! replaces the other.

use crate::executor::output::redactor::MASK;
use crate::executor::output::secrets::Secrets;
use std::collections::BTreeMap;

/// The names of a task that were masked, and what they were.
#[derive(Debug, Default)]
pub(in crate::executor) struct StoredNames(BTreeMap<String, String>);

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
            let holder = self.0.entry(numbered.clone()).or_insert_with(|| name.to_owned());
            if holder.as_str() == name {
                return numbered;
            }
            number += 1;
        }
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
