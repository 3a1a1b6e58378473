//! Registry orbs from a folder or an archive: `namespace/orb@1.2.3.yml` in it. Lets sites without a way out
//! mirror the orbs they use.
//!
//! A file whose name has a part of a version, such as `namespace/orb@1.yml`, is what the registry had for that reference:
//! it serves this reference and no other, before whatever else fits. So a text that somebody put there is used, and one
//! more release beside it changes nothing for those who did not ask for it.

use super::archive;
use crate::config::{OrbError, OrbReference, OrbSource, OrbVersion, SOURCE_BYTES};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A folder of orbs.
#[derive(Clone, Debug)]
pub struct OrbFolder {
    folder: PathBuf,
}

impl OrbFolder {
    /// Uses a folder, or a file that is an archive; it is looked at when an orb is asked for.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, reference: &OrbReference, version: &OrbVersion) -> PathBuf {
        self.folder.join(&reference.namespace).join(format!("{}@{version}.yml", reference.name))
    }

    /// Names of the files of a namespace.
    fn names(&self, namespace: &str) -> Result<Vec<String>, String> {
        if self.folder.is_file() {
            let orbs = archive::read(&self.folder)?;
            let of_namespace = orbs
                .into_keys()
                .filter_map(|name| Some(name.strip_prefix(namespace)?.strip_prefix('/')?.to_owned()));
            return Ok(of_namespace.collect());
        }
        let folder = self.folder.join(namespace);
        match std::fs::read_dir(&folder) {
            Ok(entries) => {
                Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
            }
            // A site that names a folder which is not there is told so.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.folder.exists() => {
                Ok(Vec::new())
            }
            Err(error) => Err(format!("failed to list the folder of orbs `{}`: {error}", folder.display())),
        }
    }

    fn text(&self, reference: &OrbReference, version: &OrbVersion) -> Result<String, String> {
        if self.folder.is_file() {
            let name = format!("{}/{}@{version}.yml", reference.namespace, reference.name);
            let found = archive::read(&self.folder)?.remove(&name);
            return found.ok_or_else(|| format!("`{name}` is no longer in `{}`", self.folder.display()));
        }
        let path = self.path(reference, version);
        read(&path).map_err(|error| format!("failed to read the orb `{}`: {error}", path.display()))
    }

    /// Versions of an orb that are there, as the names of the files say.
    fn versions(&self, reference: &OrbReference) -> Result<Vec<OrbVersion>, String> {
        let prefix = format!("{}@", reference.name);
        let mut versions = Vec::new();
        for name in self.names(&reference.namespace)? {
            let version = name.strip_prefix(&prefix).and_then(|version| version.strip_suffix(".yml"));
            let full = version.map(|version| format!("{}/{}@{version}", reference.namespace, reference.name));
            if let Some(Ok(found)) = full.as_deref().map(OrbReference::parse) {
                versions.push(found.version);
            }
        }
        Ok(versions)
    }
}

impl OrbSource for OrbFolder {
    fn resolve(&self, text: &str) -> Result<(String, String), OrbError> {
        let reference = OrbReference::parse(text)?;
        let versions = self.versions(&reference)?;
        let newest = versions
            .iter()
            .filter_map(|version| match version {
                OrbVersion::Exact(a, b, c) => Some((*a, *b, *c)),
                _ => None,
            })
            .filter(|version| reference.version.accepts(*version))
            .max();
        let found = match versions.contains(&reference.version) {
            true => Some(reference.version.clone()),
            false => newest.map(|(a, b, c)| OrbVersion::Exact(a, b, c)),
        };
        let folder = self.folder.display();
        let Some(version) = found else {
            let mut known: Vec<String> = versions.iter().map(ToString::to_string).collect();
            known.sort();
            let known = if known.is_empty() {
                format!("there is no version of it in `{folder}`")
            } else {
                format!("versions in `{folder}`: {}", known.join(", "))
            };
            let place = match self.folder.is_file() {
                true => format!("a file `{text}.yml` and make the archive again, with `runlet orb pack`"),
                false => format!("`{}`", self.path(&reference, &reference.version).display()),
            };
            return Err(format!(
                "unknown orb '{text}': {known} (`circleci orb source {text}` prints its text: put it into {place})"
            )
            .into());
        };
        let exact = format!("{}/{}@{version}", reference.namespace, reference.name);
        let text = self.text(&reference, &version)?;
        Ok((exact, text))
    }

    fn place(&self, exact: &str) -> Option<String> {
        let reference = OrbReference::parse(exact).ok()?;
        Some(self.path(&reference, &reference.version).display().to_string())
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // A byte more than allowed, so that the compiler sees and names the limit.
    std::fs::File::open(path)?.take(SOURCE_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_fitting_version_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("acme")).unwrap();
        for version in ["1.2.3", "1.2.10", "1.3.0", "2.0.0", "dev:next"] {
            let path = folder.path().join(format!("acme/tools@{version}.yml"));
            std::fs::write(path, format!("description: {version}\n")).unwrap();
        }
        let orbs = OrbFolder::new(folder.path());
        for (wanted, exact) in [
            ("1.2.3", "1.2.3"),
            ("1.2", "1.2.10"),
            ("1", "1.3.0"),
            ("volatile", "2.0.0"),
            ("dev:next", "dev:next"),
        ] {
            let (reference, text) = orbs.resolve(&format!("acme/tools@{wanted}")).unwrap();
            assert_eq!(reference, format!("acme/tools@{exact}"));
            assert!(text.contains(exact));
        }
        // A part of a version is the name of what serves that reference, and no other.
        for version in ["1", "1.1", "3.1", "volatile"] {
            std::fs::write(folder.path().join(format!("acme/tools@{version}.yml")), version).unwrap();
        }
        for (wanted, exact) in [
            ("1", "1"),
            ("1.1", "1.1"),
            ("3.1", "3.1"),
            ("volatile", "volatile"),
            ("1.2", "1.2.10"),
            ("2", "2.0.0"),
        ] {
            let (reference, _) = orbs.resolve(&format!("acme/tools@{wanted}")).unwrap();
            assert_eq!(reference, format!("acme/tools@{exact}"));
            let place = folder.path().join(format!("acme/tools@{exact}.yml"));
            assert_eq!(orbs.place(&reference).as_deref(), place.to_str());
        }
        for missing in
            ["acme/tools@3.1.0", "acme/tools@3", "acme/tools@dev:other", "acme/other@1.0.0", "nobody/tools@1"]
        {
            let message = orbs.resolve(missing).unwrap_err().to_string();
            assert!(message.contains("unknown orb"), "{message}");
        }
    }
}
