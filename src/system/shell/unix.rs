//! Shells of Unix, which take a command as an argument.

use crate::system::opening;
use std::io;
use std::path::Path;
use std::process::Command;

/// Linux refuses a single argument beyond 128 KiB; longer commands go through a file.
const LONGEST_ARGUMENT: usize = 100 * 1024;

/// Says that there is none.
pub const NO_SHELL: &str = "neither `/bin/bash` nor `/bin/sh` exists";

const BASH: &str = "/bin/bash";

/// The shell of jobs that name none.
pub fn default_shell() -> &'static str {
    if cfg!(target_os = "macos") {
        "/bin/bash --login -eo pipefail"
    } else if Path::new(BASH).exists() {
        "/bin/bash -eo pipefail"
    } else {
        "/bin/sh -eo pipefail"
    }
}

/// Whether a program of that kind is there.
pub fn is_there(program: &str) -> bool {
    Path::new(program).exists()
}

/// Gives a shell its command; `file` is for one that is too long. The shell has its other words already.
pub fn give(shell: &mut Command, text: &str, file: &Path) -> io::Result<()> {
    if text.len() > LONGEST_ARGUMENT {
        opening::write(file, text.as_bytes())?;
        shell.arg(file);
    } else {
        shell.arg("-c").arg(text);
    }
    Ok(())
}

/// Words of the shell for a command inside of a step: what steps have, where nothing else was asked for. Without bash it is
/// whatever the host has, which may not know `pipefail`.
pub fn inner_shell() -> &'static str {
    if Path::new(BASH).exists() { default_shell() } else { "/bin/sh -e" }
}

/// The command in that shell.
pub fn inner(text: &str) -> Command {
    let mut words = inner_shell().split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).arg("-c").arg(text);
    command
}
