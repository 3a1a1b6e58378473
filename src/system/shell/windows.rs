//! Shells of Windows: PowerShell and `cmd.exe`, which take a command as a file, and `bash.exe`, which takes an argument.

use super::scripts::ShellKind;
use crate::system::opening;
use std::io;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Windows takes no command line beyond 32767 characters.
const LONGEST_ARGUMENT: usize = 16 * 1024;

/// Says that there is none.
pub const NO_SHELL: &str = "`powershell.exe` is not in any folder of PATH";

/// The shell of jobs that name none.
pub fn default_shell() -> &'static str {
    "powershell.exe -ExecutionPolicy Bypass"
}

/// Whether a program of that kind is there: by its path, or in a folder of PATH.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_file = |place: &Path| place.is_file() || place.with_added_extension("exe").is_file();
    is_file(Path::new(program)) || std::env::split_paths(&path).any(|folder| is_file(&folder.join(program)))
}

/// Gives a shell its command; `file`, with an ending of its own, is for those who take one. The shell has its other words
/// already.
pub fn give(shell: &mut Command, text: &str, file: &Path) -> io::Result<()> {
    let kind = ShellKind::of(&shell.get_program().to_string_lossy());
    if kind == ShellKind::Posix && text.len() <= LONGEST_ARGUMENT {
        shell.arg("-c").arg(text);
        return Ok(());
    }
    let file = file.with_extension(kind.ending());
    opening::write(&file, kind.script(text).as_bytes())?;
    match kind {
        ShellKind::PowerShell => shell.arg("-File").arg(file),
        ShellKind::Cmd => shell.arg("/d").arg("/c").arg(file),
        ShellKind::Posix => shell.arg(file),
    };
    Ok(())
}

/// Words of the shell for a command inside of a step.
pub fn inner_shell() -> &'static str {
    "cmd.exe /d /s /c"
}

/// The command in that shell, which takes away the outer quotes and nothing else.
pub fn inner(text: &str) -> Command {
    let mut command = Command::new("cmd.exe");
    command.raw_arg(format!("/d /s /c \"{text}\""));
    command
}
