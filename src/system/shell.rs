//! The shell of this system.

/// The shell of jobs that name none.
pub fn default_shell(bash_exists: bool) -> &'static str {
    if cfg!(target_os = "macos") {
        "/bin/bash --login -eo pipefail"
    } else if bash_exists {
        "/bin/bash -eo pipefail"
    } else {
        "/bin/sh -eo pipefail"
    }
}
