//! Words and options of a command line. Every verb takes what it knows; what is left is an error.

use crate::outcome::Failure;
use crate::protocol::Secret;
use lexopt::prelude::*;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{IsTerminal, Read};

/// Options without a value.
const FLAGS: [&str; 16] = [
    "json",
    "force",
    "exact",
    "admin",
    "follow",
    "for-jobs",
    "unsafe-retries",
    "rotate-secret",
    "set-hook",
    "with-token",
    "with-secret",
    "with-key",
    "with-known-hosts",
    "new-key",
    "delete-token",
    "bearer",
];
/// Options with a value.
const VALUES: [&str; 30] = [
    "api",
    "budget",
    "branch",
    "ca-file",
    "changes",
    "config",
    "default-branch",
    "delete-key",
    "description",
    "forge",
    "group",
    "installation",
    "label",
    "limit",
    "name",
    "namespace",
    "nickname",
    "organization",
    "parameter",
    "poll",
    "project",
    "replay",
    "repository",
    "repository-id",
    "repository-name",
    "rule",
    "server",
    "tag",
    "user",
    "username",
];
/// Longest value that is read from standard input, in bytes; the API's own limit is lower and names itself.
const MOST_VALUE_BYTES: u64 = 1 << 20;

/// The arguments that no verb has taken yet.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// `project create` and the like, for messages.
    pub(super) command: String,
    words: VecDeque<String>,
    options: Vec<(String, String)>,
}

impl Arguments {
    /// Reads a command line; `None` when help is wanted.
    pub(super) fn parse(args: Vec<OsString>) -> Result<Option<Self>, Failure> {
        let mut arguments = Self::default();
        let mut parser = lexopt::Parser::from_args(args);
        let mut is_empty = true;
        while let Some(argument) = parser.next()? {
            is_empty = false;
            match argument {
                Long("help") | Short('h') => return Ok(None),
                Long(name) if FLAGS.contains(&name) => {
                    let name = name.to_owned();
                    arguments.options.push((name, String::new()));
                }
                Long(name) if VALUES.contains(&name) || name == "token-file" => {
                    let name = name.to_owned();
                    let value = parser.value()?.string()?;
                    arguments.options.push((name, value));
                }
                Value(word) => arguments.words.push_back(word.string()?),
                Long("token" | "value") => {
                    return Err(Failure::usage(
                        "secrets do not belong on the command line, where others can see them: the token comes from `--token-file` or RUNLET_TOKEN, values from standard input",
                    ));
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "{}; see `runlet admin --help`",
                        argument.unexpected()
                    )));
                }
            }
        }
        Ok(if is_empty { None } else { Some(arguments) })
    }

    /// Takes the next word, which must be there.
    pub(super) fn word(&mut self, what: &str) -> Result<String, Failure> {
        self.maybe_word().ok_or_else(|| {
            let command = if self.command.is_empty() { "" } else { " " };
            Failure::usage(format!(
                "`runlet admin{command}{}` needs {what}; see `runlet admin --help`",
                self.command
            ))
        })
    }

    /// Takes the next word.
    pub(super) fn maybe_word(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    /// Takes an option with a value; the last one given counts.
    pub(super) fn option(&mut self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    /// Takes an option that can be given several times.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.options).into_iter().partition(|(n, _)| n == name);
        self.options = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes an option without a value.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Checks that everything was taken.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let command = &self.command;
        if let Some(word) = self.words.front() {
            return Err(Failure::usage(format!(
                "`{word}` is one word too many for `runlet admin {command}`"
            )));
        }
        match self.options.first() {
            Some((name, _)) => {
                Err(Failure::usage(format!("`--{name}` means nothing to `runlet admin {command}`")))
            }
            None => Ok(()),
        }
    }

    /// Reads a secret from standard input, such as a token or a key: there is none without a visible character, and
    /// nothing is what a file or a variable holds that is not there.
    pub(super) fn secret_from_stdin(&mut self) -> Result<Secret, Failure> {
        let secret = self.value_from_stdin()?;
        match secret.expose().trim().is_empty() {
            true => Err(Failure::usage(format!(
                "standard input is empty: `runlet admin {}` reads a secret from it, as in `... < FILE`; nothing was changed",
                self.command
            ))),
            false => Ok(secret),
        }
    }

    /// Reads the value of a variable from standard input. One line end at its end is dropped unless `--exact`
    /// is given: `echo` and editors add it.
    pub(super) fn value_from_stdin(&mut self) -> Result<Secret, Failure> {
        let exact = self.flag("exact");
        self.finish()?;
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            eprintln!(
                "runlet: type the value, then Ctrl-D at the beginning of a line (it shows on the screen)"
            );
        }
        let mut bytes = Vec::new();
        stdin
            .lock()
            .take(MOST_VALUE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new(format!("failed to read the value from standard input: {e}")))?;
        if bytes.len() as u64 > MOST_VALUE_BYTES {
            return Err(Failure::usage(format!("the value has more than {MOST_VALUE_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| Failure::usage("the value is not UTF-8 text"))?;
        Ok(Secret::new(if exact { &text } else { without_line_end(&text) }))
    }
}

fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Arguments {
        Arguments::parse(args.iter().map(OsString::from).collect()).unwrap().unwrap()
    }

    #[test]
    fn what_is_not_taken_is_an_error() {
        let mut arguments =
            parsed(&["a", "--json", "b", "--branch=x", "--parameter", "k=v", "--parameter", "l=w"]);
        assert_eq!(
            (arguments.word("A").unwrap(), arguments.option("branch")),
            ("a".into(), Some("x".into()))
        );
        assert_eq!(arguments.all("parameter"), ["k=v", "l=w"]);
        assert!(arguments.finish().unwrap_err().message.contains("`b`"));
        assert_eq!(arguments.maybe_word(), Some("b".into()));
        assert!(arguments.finish().unwrap_err().message.contains("--json"));
        assert!(arguments.flag("json") && arguments.finish().is_ok());
        assert!(arguments.word("MORE").unwrap_err().message.contains("needs MORE"));
    }

    #[test]
    fn secrets_are_refused_as_arguments() {
        for option in ["--token=x", "--value=x"] {
            let error = Arguments::parse(vec![option.into()]).unwrap_err();
            assert!(error.message.contains("command line") && !error.message.contains('='));
        }
    }

    #[test]
    fn one_line_end_is_dropped() {
        for (text, value) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("", "")] {
            assert_eq!(without_line_end(text), value);
        }
    }
}
