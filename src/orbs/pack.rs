//! `runlet orb pack`: an archive of orb files, or one orb from a folder of its parts.

use super::archive;
use crate::config::OrbReference;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes an archive of the orbs in folders and files; returns their names. A file is called
/// `NAMESPACE/ORB@VERSION.yml`, whatever is before that. The error is a sentence for people.
pub fn pack_orbs(from: &[PathBuf], to: &Path) -> Result<Vec<String>, String> {
    let mut orbs = BTreeMap::new();
    for path in from {
        gather(path, &mut orbs)?;
    }
    if orbs.is_empty() {
        return Err("there is no orb: a file of one is called `NAMESPACE/ORB@VERSION.yml`".to_owned());
    }
    let fail = |e: std::io::Error| format!("failed to write the archive of orbs `{}`: {e}", to.display());
    archive::write(fs::File::create(to).map_err(fail)?, &orbs).map_err(fail)?;
    Ok(orbs.into_keys().collect())
}

fn gather(path: &Path, orbs: &mut BTreeMap<String, String>) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("failed to read `{}`: {e}", path.display());
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path).map_err(fail)? {
            entries.push(entry.map_err(fail)?.path());
        }
        entries.sort();
        let wanted = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "yml");
        return entries.iter().filter(|path| wanted(path)).try_for_each(|path| gather(path, orbs));
    }
    let absolute = fs::canonicalize(path).map_err(fail)?;
    let part = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = part(&absolute).unwrap_or_default();
    let namespace = absolute.parent().and_then(part).unwrap_or_default();
    let reference = format!("{namespace}/{}", name.strip_suffix(".yml").unwrap_or(&name));
    OrbReference::parse(&reference).map_err(|why| format!("`{}`: {why}", path.display()))?;
    orbs.insert(format!("{reference}.yml"), fs::read_to_string(path).map_err(fail)?);
    Ok(())
}

/// Makes one orb of a folder that holds `@orb.yml` and its elements in files of their own, such as
/// `commands/install.yml`. `<<include(FILE)>>` as a whole value stands for the text of a file.
pub fn pack_parts(folder: &Path) -> Result<String, String> {
    let mut text = part(folder, &folder.join("@orb.yml"), "")?;
    for section in ["commands", "executors", "jobs", "examples"] {
        let place = folder.join(section);
        let Ok(entries) = fs::read_dir(&place) else { continue };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "yml" || e == "yaml"));
        files.sort();
        if files.is_empty() {
            continue;
        }
        if text.lines().any(|line| line.starts_with(&format!("{section}:"))) {
            return Err(format!(
                "`{}` stands in `@orb.yml` and as a folder: keep one of them",
                place.display()
            ));
        }
        text.push_str(&format!("{section}:\n"));
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            text.push_str(&format!("  {name}:\n{}", part(folder, &file, "    ")?));
        }
    }
    Ok(text)
}

/// The text of a file, indented, with its includes.
fn part(folder: &Path, file: &Path, indent: &str) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("failed to read `{}`: {e}", file.display()))?;
    let mut out = String::new();
    for line in text.lines().filter(|line| *line != "---") {
        let line = include(folder, file, line)?;
        let blank = if line.is_empty() { "" } else { indent };
        out.push_str(&format!("{blank}{line}\n"));
    }
    Ok(out)
}

/// A line whose value is an include has the file's text in its place, quoted.
fn include(folder: &Path, file: &Path, line: &str) -> Result<String, String> {
    let Some((before, rest)) = line.split_once("<<include(").or_else(|| line.split_once("<< include("))
    else {
        return Ok(line.to_owned());
    };
    let wrong =
        || format!("`{}`: `{}` is not `<<include(FILE)>>` as a whole value", file.display(), line.trim());
    let (name, after) = rest.split_once(')').ok_or_else(wrong)?;
    let is_whole = matches!(after.trim(), ">>" | ">>\"" | ">>'");
    let before = before.trim_end_matches(['"', '\'']);
    if !is_whole || !before.trim_end().ends_with([':', '-']) {
        return Err(wrong());
    }
    let path = folder.join(name.trim());
    let text = fs::read_to_string(&path).map_err(|e| {
        format!("`{}` includes `{}`, which cannot be read: {e}", file.display(), path.display())
    })?;
    // A text in JSON is one in YAML; what is a tag in YAML was written as one.
    let quoted = serde_json::to_string(&text).map_err(|e| e.to_string())?;
    Ok(format!("{before}{quoted}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::config::OrbSource;
    use crate::orbs::OrbSites;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn an_archive_serves_what_the_folder_served() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "mirror/acme/tools@1.2.3.yml", "description: old\n");
        write(folder.path(), "mirror/acme/tools@1.3.0.yml", "description: new\n");
        let archive = folder.path().join("orbs.tar.lz4");
        let packed = pack_orbs(&[folder.path().join("mirror")], &archive).unwrap();
        assert_eq!(packed, ["acme/tools@1.2.3.yml", "acme/tools@1.3.0.yml"]);
        let mut sites = OrbSites::default();
        sites.use_folder(archive);
        let (exact, text) = sites.resolve("acme/tools@1").unwrap();
        assert_eq!((exact.as_str(), text.as_str()), ("acme/tools@1.3.0", "description: new\n"));
        assert!(sites.resolve("acme/tools@2").unwrap_err().to_string().contains("versions in"));
        write(folder.path(), "mirror/acme/readme.yml", "x: y\n");
        let why = pack_orbs(&[folder.path().join("mirror")], &folder.path().join("x")).unwrap_err();
        assert!(why.contains("readme.yml") && why.contains("there is no version"), "{why}");
    }

    #[test]
    fn parts_make_an_orb() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "@orb.yml", "version: 2.1\ndescription: x\n");
        write(
            folder.path(),
            "commands/greet.yml",
            "steps:\n  - run:\n      command: <<include(scripts/greet.sh)>>\n",
        );
        write(folder.path(), "scripts/greet.sh", "echo \"hello\"\n");
        assert_eq!(
            pack_parts(folder.path()).unwrap(),
            "version: 2.1\ndescription: x\ncommands:\n  greet:\n    steps:\n      - run:\n          command: \"echo \\\"hello\\\"\\n\"\n"
        );
        write(folder.path(), "commands/bad.yml", "steps: [run: a <<include(x)>>]\n");
        assert!(pack_parts(folder.path()).unwrap_err().contains("as a whole value"));
    }
}
