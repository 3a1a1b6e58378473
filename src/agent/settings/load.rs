//! The IO around the settings: the file, its permissions, the environment, the host.

use super::keys::AUTH_TOKEN_FILE;
use super::resolve::{Host, Settings, resolve};
use super::sources::Sources;
use crate::system::os;
use std::fs;
use std::path::{Path, PathBuf};

/// Read when no file is named and it exists.
pub(super) const DEFAULT_FILE: &str = "/etc/circleci-runner/circleci-runner-config.yaml";

/// The data directory of the packages.
const PACKAGE_DIRECTORY: &str = "/var/lib/circleci-runner";

/// Largest settings file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Loads the settings from `file` (or the default one when it exists) and the environment. The error
/// is for people: a line for each thing that is wrong.
pub fn load(file: Option<&Path>) -> Result<Settings, String> {
    with_sources(file, |_, settings| settings)
}

/// Loads as [`load`] does, and has `look` see where the values come from.
pub(super) fn with_sources<T>(
    file: Option<&Path>,
    look: impl FnOnce(&Sources<'_>, Settings) -> T,
) -> Result<T, String> {
    let default = PathBuf::from(DEFAULT_FILE);
    let path = match file {
        Some(path) => Some(path),
        None => default.exists().then_some(default.as_path()),
    };
    let text = path.map(read).transpose()?;
    let shown = path.map(|path| path.display().to_string()).unwrap_or_default();
    let given = text.as_deref().map(|text| (shown.as_str(), text));
    let environment = |name: &str| std::env::var(name).ok();
    let read_token = |path: &Path| fs::read_to_string(path).map_err(|error| error.to_string());
    // A service manager may name several, with colons between them.
    let directory = |name: &str| {
        let first = environment(name)?.split(':').next()?.to_owned();
        first.starts_with('/').then(|| PathBuf::from(first))
    };
    let host = Host {
        name: os::host_name(),
        home: environment(os::HOME).filter(|home| Path::new(home).is_absolute()),
        state_home: environment("XDG_STATE_HOME"),
        package_directory: Path::new(PACKAGE_DIRECTORY).is_dir().then(|| PACKAGE_DIRECTORY.into()),
        instance: environment("RUNLET_INSTANCE").filter(|name| !name.is_empty()),
        service_directory: directory("STATE_DIRECTORY"),
        credential: directory("CREDENTIALS_DIRECTORY")
            .map(|path| path.join("token"))
            .filter(|path| path.exists()),
    };
    let sources = Sources::new(given, &environment)?;
    let mut settings = resolve(&sources, &host, &read_token)?;
    settings.file = path.map(Path::to_owned);
    let holds_token = text.is_some_and(|text| text.contains(settings.token.expose()));
    let token_file = sources.get(AUTH_TOKEN_FILE).and_then(|given| given.text().ok().map(PathBuf::from));
    let files = path.filter(|_| holds_token).into_iter().chain(token_file.as_deref());
    for file in files.filter(|file| readable_by_others(file)) {
        settings.warnings.push(format!(
            "`{}` holds a token and can be read by everyone on this host; `chmod o-r` it",
            file.display()
        ));
    }
    Ok(look(&sources, settings))
}

fn read(path: &Path) -> Result<String, String> {
    let fail = |why: String| format!("cannot read the settings file `{}`: {why}", path.display());
    let length = fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(fail(format!("it has {length} bytes; is it the right file?")));
    }
    let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
    String::from_utf8(bytes)
        .map_err(|error| fail(format!("it is not UTF-8 text (byte {})", error.utf8_error().valid_up_to())))
}

fn readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| os::is_for_all(&metadata))
}
