//! The table of commands: name, function, help. What `--help` prints is also what suggestions, manual pages and
//! completions are made of.

use crate::outcome::{Failure, Outcome, exit};
use crate::system::suggest::nearest;
use std::ffi::OsString;

/// Text of `runlet --help`.
#[cfg(feature = "server")]
pub(super) const HELP: &str = include_str!("help.txt");
#[cfg(not(feature = "server"))]
pub(super) const HELP: &str = include_str!("help-runner.txt");

/// The help of the runner-only build, for its manual page.
#[cfg(feature = "server")]
pub(super) const HELP_OF_RUNNER: &str = include_str!("help-runner.txt");

/// A command of the program.
pub(super) struct Command {
    /// The first argument.
    pub(super) name: &'static str,
    /// Takes the arguments after it.
    pub(super) run: fn(Vec<OsString>) -> Outcome,
    /// The text of `--help`.
    pub(super) help: &'static str,
}

/// All commands, in the order of the help.
pub(super) const COMMANDS: &[Command] = &[
    #[cfg(feature = "server")]
    Command { name: "exec", run: crate::exec::command, help: crate::exec::HELP },
    #[cfg(feature = "server")]
    Command { name: "server", run: crate::server::command, help: crate::server::HELP },
    Command { name: "machine", run: crate::agent::command, help: crate::agent::HELP },
    Command { name: "doctor", run: crate::agent::doctor::command, help: crate::agent::doctor::HELP },
    Command { name: "status", run: crate::agent::status::command, help: crate::agent::status::HELP },
    Command { name: "task", run: crate::executor::command, help: crate::executor::HELP },
    #[cfg(feature = "kubernetes")]
    Command { name: "container", run: crate::container::command, help: crate::container::HELP },
    #[cfg(unix)]
    Command { name: "pod", run: crate::pod::command, help: crate::pod::HELP },
    #[cfg(not(unix))]
    Command { name: "pod", run: not_here, help: "`runlet pod` is for pods, whose systems are Linux\n" },
    Command { name: "tool", run: crate::tool::command, help: crate::tool::HELP },
    #[cfg(feature = "server")]
    Command { name: "config", run: super::config::command, help: super::config::HELP },
    #[cfg(feature = "server")]
    Command { name: "orb", run: super::orb::command, help: super::orb::HELP },
    #[cfg(feature = "server")]
    Command { name: "admin", run: crate::admin::command, help: crate::admin::HELP },
];

/// A command of other systems.
#[cfg(not(unix))]
fn not_here(_: Vec<OsString>) -> Outcome {
    Err(Failure::usage("`runlet pod` is for pods, whose systems are Linux: this is another one"))
}

/// The command of this name. The failure has the name that was meant, perhaps.
pub(super) fn find(name: &str) -> Result<&'static Command, Failure> {
    COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| {
        let known: Vec<&str> =
            COMMANDS.iter().map(|command| command.name).chain(["help", "version"]).collect();
        let hint = hint(name, &known);
        Failure::usage(format!("unknown command `{name}`{hint}; `runlet --help` lists the commands"))
    })
}

/// Runs a command. A mistyped option is answered with the one that was meant, perhaps.
pub(super) fn run(command: &Command, args: Vec<OsString>) -> Outcome {
    (command.run)(args).map_err(|mut failure| {
        let option =
            failure.message.split_once("invalid option '").and_then(|(_, rest)| rest.split('\'').next());
        if let Some(option) = option.filter(|_| failure.code == exit::USAGE) {
            failure.message += &hint(option, &options(command.help));
        }
        failure
    })
}

/// The long options that a help names, as often as it does.
pub(super) fn options(help: &'static str) -> Vec<&'static str> {
    let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 2 && word.starts_with("--")).collect()
}

fn hint(name: &str, known: &[&str]) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_help_are_its_long_words() {
        assert_eq!(options("  --a-b FILE, --c=X  (`--d`) -- - -e\n"), ["--a-b", "--c", "--d"]);
    }

    #[test]
    fn a_mistyped_word_is_answered_with_the_one_that_was_meant() {
        let unknown = find("machin").err().map(|failure| failure.message).unwrap_or_default();
        assert!(unknown.contains("`machin` (did you mean `machine`?)"), "{unknown}");
        let machine = COMMANDS.iter().find(|command| command.name == "machine");
        let failure = machine.and_then(|machine| run(machine, vec!["--chekc".into()]).err());
        let message = failure.map(|failure| failure.message).unwrap_or_default();
        assert_eq!(message, "invalid option '--chekc' (did you mean `--check`?)");
    }

    #[test]
    fn every_command_has_help_with_its_usage() {
        for command in COMMANDS {
            let names = [format!("Usage: runlet {}", command.name), "Usage: circleci-agent".to_owned()];
            assert!(names.iter().any(|name| command.help.contains(name)), "{}", command.name);
        }
    }
}
