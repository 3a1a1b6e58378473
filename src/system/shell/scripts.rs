//! Commands as files, for shells that take them so: text in, text out.

/// A kind of shell on Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellKind {
    /// `powershell.exe`, `pwsh.exe`.
    PowerShell,
    /// `cmd.exe`.
    Cmd,
    /// `bash.exe`, and whatever else is not known: it takes `-c`.
    Posix,
}

impl ShellKind {
    /// The kind of a program, by its name.
    pub(super) fn of(program: &str) -> Self {
        let name = program.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
        match name.strip_suffix(".exe").unwrap_or(&name) {
            "powershell" | "pwsh" => Self::PowerShell,
            "cmd" => Self::Cmd,
            _ => Self::Posix,
        }
    }

    /// Ending of a file that the shell runs.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::PowerShell => "ps1",
            Self::Cmd => "bat",
            Self::Posix => "sh",
        }
    }

    /// The file that does what a command says.
    ///
    /// PowerShell goes on after an error unless it is told otherwise, and ends well whatever the last program said. It takes a
    /// file for UTF-8 by the mark at its front. `cmd.exe` repeats each line before it does it, and finds labels by the ends of
    /// lines that it knows.
    pub(super) fn script(self, text: &str) -> String {
        match self {
            Self::PowerShell => {
                let exit = "if (Test-Path -LiteralPath variable:\\LASTEXITCODE) { exit $LASTEXITCODE }";
                format!("\u{feff}$ErrorActionPreference = 'Stop'\r\n{text}\r\n{exit}\r\n")
            }
            Self::Cmd => format!("@echo off\r\n{}\r\n", text.replace("\r\n", "\n").replace('\n', "\r\n")),
            Self::Posix => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_known_by_its_name() {
        for (program, kind) in [
            ("powershell.exe", ShellKind::PowerShell),
            (r"C:\Program Files\PowerShell\7\PWSH.EXE", ShellKind::PowerShell),
            ("cmd", ShellKind::Cmd),
            ("C:/Windows/System32/cmd.exe", ShellKind::Cmd),
            ("bash.exe", ShellKind::Posix),
            ("cmd.exe.exe", ShellKind::Posix),
        ] {
            assert_eq!(ShellKind::of(program), kind, "{program}");
        }
        let kinds = [ShellKind::PowerShell, ShellKind::Cmd, ShellKind::Posix];
        assert_eq!(kinds.map(ShellKind::ending), ["ps1", "bat", "sh"]);
    }

    #[test]
    fn a_command_becomes_a_file_that_its_shell_can_read() {
        assert_eq!(ShellKind::Cmd.script("a\nb\r\nc"), "@echo off\r\na\r\nb\r\nc\r\n");
        let script = ShellKind::PowerShell.script("a");
        assert!(script.starts_with("\u{feff}$Error") && script.contains("\r\na\r\nif ("), "{script}");
        assert_eq!(ShellKind::Posix.script("a\n"), "a\n");
    }
}
