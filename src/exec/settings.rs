//! Settings of the person's repository that decide how git reaches its origin: proxies, certificates, credentials, other
//! addresses. Jobs get these, in a file that goes with the run; what else the repository is set to stays its own.

use crate::system::git_files;
use std::path::Path;

/// Keys that may be of interest here or for the remotes, as a regular expression of `git config`.
pub(super) const KEYS: &str = r"^(remote|branch|url|http|credential|ssh|lfs)\.|^filter\..*\.(smudge|process)$|^core\.(sshcommand|askpass|gitproxy)$";
/// Values that git takes for paths.
const PATHS: [&str; 8] = [
    "sslcert",
    "sslkey",
    "sslcainfo",
    "sslcapath",
    "proxysslcert",
    "proxysslkey",
    "proxysslcainfo",
    "cookiefile",
];

/// Splits what `git config --null --show-scope` lists: all settings as it lists them without scopes, and those of the
/// repository itself. A setting without a value has no line break after its name.
pub(super) fn by_scope(listed: &str) -> (String, Vec<&str>) {
    let (mut all, mut own) = (String::new(), Vec::new());
    let mut parts = listed.split('\0');
    while let (Some(scope), Some(setting)) = (parts.next(), parts.next()) {
        all.push_str(setting);
        all.push('\0');
        if matches!(scope, "local" | "worktree") {
            own.push(setting);
        }
    }
    (all, own)
}

/// The text of a config with those of `own` that are for jobs; empty when there are none. `remote` is the name of the remote
/// that they know as their origin, `top` the folder in which relative paths of settings begin, and `home` the person's.
pub(super) fn text(own: &[&str], remote: &str, top: &Path, home: Option<&Path>) -> String {
    let mut text = String::new();
    for setting in own {
        let (name, value) = match setting.split_once('\n') {
            Some((name, value)) => (name, Some(value)),
            None => (*setting, None),
        };
        let Some((section, rest)) = name.split_once('.') else { continue };
        let (middle, key) = rest.rsplit_once('.').map_or((None, rest), |(middle, key)| (Some(middle), key));
        let is_kept = match section {
            "url" => matches!(key, "insteadof" | "pushinsteadof"),
            // The one is for reading, the other would be written to by jobs.
            "http" => key != "savecookies",
            "lfs" => key != "storage",
            "credential" | "ssh" | "core" => true,
            "remote" => middle == Some(remote) && matches!(key, "proxy" | "proxyauthmethod" | "lfsurl"),
            _ => false,
        };
        // A setting that is no text was read as other characters than it has.
        if !is_kept || setting.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        let middle = if section == "remote" { Some("origin") } else { middle };
        let middle = middle.map(|middle| format!(" {}", quoted(middle))).unwrap_or_default();
        text += &format!("[{section}{middle}]\n\t{key}");
        if let Some(value) = value {
            text += " = ";
            text += &match (section, key) {
                ("http", key) if PATHS.contains(&key) => quoted(&path(value, top, home)),
                ("core", "sshcommand") => quoted(&command(value, top)),
                _ => quoted(value),
            };
        }
        text.push('\n');
    }
    text
}

/// Writes such a text into a folder that is made for it, for this user alone.
pub(super) fn write(text: &str, folder: &Path) -> Result<(), String> {
    git_files::write(folder, [("config", text)]).map_err(|e| {
        format!(
            "failed to write the settings of git for jobs into `{}`: {e} (set TMPDIR to another folder)",
            folder.display()
        )
    })
}

/// A path as it is meant in the person's folders: jobs work in others.
fn path(value: &str, top: &Path, home: Option<&Path>) -> String {
    let whole = match value.strip_prefix("~/") {
        Some(rest) => home.map(|home| home.join(rest)),
        None => Some(top.join(value)).filter(|path| path.exists()),
    };
    whole.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| value.to_owned())
}

/// A command that names files of the person's tree by relative paths runs there: jobs may have them not, as those in
/// `.git`. Others run as they are.
fn command(value: &str, top: &Path) -> String {
    let mut words = value.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
    let is_there =
        |word: &str| word.contains('/') && !word.starts_with(['/', '~']) && top.join(word).exists();
    match top.to_str() {
        Some(top) if words.any(is_there) => format!("cd '{}' && {value}", top.replace('\'', r"'\''")),
        _ => value.to_owned(),
    }
}

/// A value, or the middle of a name, as the settings of git have it.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail loudly")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn settings_that_reach_the_origin_are_taken_from_the_repository_alone() {
        let listed = "global\0http.proxy\nno\0local\0http.https://h.example/.extraheader\nA: \"b\\c\"\0\
            worktree\0credential.helper\n\0local\0http.sslverify\0local\0core.gitproxy\nx\0local\0lfs.storage\nno\0\
            local\0remote.up.url\nno\0local\0remote.up.proxy\np\0local\0remote.other.proxy\nno\0local\0http.savecookies\nno\0\
            local\0url.https://t@h/.insteadof\na\nb\0local\0http.cookiefile\n\u{fffd}\0command\0lfs.url\nno\0";
        let (all, own) = by_scope(listed);
        assert!(all.starts_with("http.proxy\nno\0http.https"), "{all:?}");
        assert_eq!(
            text(&own, "up", Path::new("/no/such"), None),
            "[http \"https://h.example/\"]\n\textraheader = \"A: \\\"b\\\\c\\\"\"\n[credential]\n\thelper = \"\"\n\
             [http]\n\tsslverify\n[core]\n\tgitproxy = \"x\"\n[remote \"origin\"]\n\tproxy = \"p\"\n\
             [url \"https://t@h/\"]\n\tinsteadof = \"a\\nb\"\n"
        );
        assert_eq!(text(&[], "up", Path::new("/no/such"), None), "");
    }

    #[test]
    fn relative_paths_stay_those_of_the_persons_tree() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("it's");
        fs::create_dir_all(top.join(".git")).unwrap();
        fs::write(top.join(".git/ca"), "").unwrap();
        let home = Path::new("/home/p");
        let of = |value: &str| path(value, &top, Some(home));
        assert_eq!(of(".git/ca"), top.join(".git/ca").to_str().unwrap());
        assert_eq!(
            (of("~/ca"), of("/etc/ca"), of("ca")),
            ("/home/p/ca".into(), "/etc/ca".into(), "ca".into())
        );
        let moved = command("ssh -F '.git/ca'", &top);
        assert_eq!(moved, format!("cd '{}/it'\\''s' && ssh -F '.git/ca'", place.path().display()));
        for same in ["ssh -i ~/.ssh/key", "ssh -F .git/none -o A=b", "/usr/bin/ssh"] {
            assert_eq!(command(same, &top), same);
        }
    }
}
