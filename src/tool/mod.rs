//! The in-job commands: what steps call as `circleci-agent` or `circleci`, also `runlet tool ...`.
//!
//! The program finds out by the name it was called by (`cli`). Links of these names lie in a folder
//! that the task agent appends to the `PATH` of steps, last, so that a command of the same name which
//! is installed on the host wins. A command that this version does not have fails and says so.

pub(crate) mod continuation;
pub(crate) mod halt;
pub(crate) mod secret;
pub mod subst;
pub(crate) mod suite;
mod usage;

use crate::outcome::{Failure, Outcome, exit, print_bytes};
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use usage::usage;

/// Names under which the program is these commands.
pub const NAMES: [&str; 2] = ["circleci-agent", "circleci"];

/// Longest text that `env subst` reads, in bytes.
const LONGEST_INPUT: u64 = 64 * 1024 * 1024;

/// `runlet tool --help`.
pub const HELP: &str = "\
Commands for use inside the steps of a job.

Usage: circleci-agent COMMAND

  step halt            end the job after this step, as a success (also: task halt)
  pipeline continue [--parameters JSON|FILE] CONFIG
                       go on with this config, in a job of a setup workflow
  secret add           mask the value that is read from standard input in all that the job prints from now on
  env subst [TEXT]     replace $NAME and ${NAME} in TEXT, or in standard input
  tests glob PATTERN...
                       print the files that match; ** is any folders
  tests split [OPTIONS] [FILE]
                       print this parallel node's share of the names in FILE, or in standard input
  tests run --command=COMMAND [OPTIONS]
                       give this node's share to COMMAND (`circleci-agent tests --help`)
  version [--short]    print the version
";

/// Whether the program was called by one of [`NAMES`].
pub fn is_called_as_tool(program: &std::ffi::OsStr) -> bool {
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    let name = name.map(|name| name.strip_suffix(std::env::consts::EXE_SUFFIX).unwrap_or(name));
    name.is_some_and(|name| NAMES.contains(&name))
}

/// Runs the command in `args`, the words after the program's name.
pub fn command(args: Vec<OsString>) -> Outcome {
    let words: Vec<String> = args
        .into_iter()
        .map(|arg| {
            arg.into_string().map_err(|arg| usage(format!("`{}` is not UTF-8", arg.to_string_lossy())))
        })
        .collect::<Result<_, _>>()?;
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.drain(..words.iter().take_while(|word| **word == "--verbose").count());
    // These have an option of that name.
    if words.first() != Some(&"tests") {
        words.retain(|word| *word != "--verbose");
    }
    match words.as_slice() {
        [] | ["help" | "--help" | "-h", ..] => crate::outcome::print(HELP),
        ["version", "--short"] => crate::outcome::print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        ["version" | "--version" | "-v"] => crate::outcome::print(&format!(
            "circleci-agent {} (runlet, {} {})\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        )),
        ["step" | "task", "halt"] => halt::halt(|name| std::env::var_os(name)).map_err(Failure::new),
        ["secret", "add"] => {
            secret::add(&mut std::io::stdin(), |name| std::env::var_os(name)).map_err(Failure::new)
        }
        ["env", "subst", rest @ ..] => substitute(rest),
        ["pipeline", "continue", rest @ ..] => go_on(rest),
        ["tests", rest @ ..] => suite::command(rest),
        ["step" | "task" | "env" | "pipeline" | "secret", rest @ ..] => Err(usage(format!(
            "`{}` is not a command of `{}`; `circleci-agent --help` lists the commands",
            rest.first().unwrap_or(&""),
            words[0]
        ))),
        // Deploy jobs do this last: what they have deployed stays, and is not to be told as failed.
        ["run", "release", ..] => {
            crate::outcome::print("deploy markers are not kept here: nothing was recorded\n")
        }
        [known @ ("run" | "testsuite" | "cache" | "workspace"), ..] => Err(Failure::new(format!(
            "`circleci-agent {known}` is not available in this version of the runner ({})",
            env!("CARGO_PKG_VERSION")
        ))),
        [known @ ("config" | "orb" | "runner" | "local" | "context"), ..] => Err(usage(format!(
            "`{known}` belongs to the CircleCI command line that people install; the runner only has the commands for use inside a job (`circleci-agent --help`)"
        ))),
        [other, ..] => {
            Err(usage(format!("unknown command `{other}`; `circleci-agent --help` lists the commands")))
        }
    }
}

fn go_on(args: &[&str]) -> Outcome {
    let (config, parameters) = match args {
        [config] => (config, None),
        ["--parameters", parameters, config] | [config, "--parameters", parameters] => {
            (config, Some(*parameters))
        }
        _ => {
            return Err(usage(
                "`pipeline continue` takes the file of a config, or `-`, and `--parameters`".to_owned(),
            ));
        }
    };
    continuation::go_on(config, parameters, |name| std::env::var_os(name)).map_err(Failure::new)?;
    Ok(exit::OK)
}

fn substitute(args: &[&str]) -> Outcome {
    let text = match args {
        [] => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().take(LONGEST_INPUT + 1).read_to_end(&mut bytes);
            read.map_err(|e| Failure::new(format!("failed to read standard input: {e}")))?;
            if bytes.len() as u64 > LONGEST_INPUT {
                return Err(Failure::new(format!("standard input is longer than {LONGEST_INPUT} bytes")));
            }
            bytes
        }
        [text] => text.as_bytes().to_vec(),
        _ => return Err(usage("`env subst` takes one text; quote it against the shell".to_owned())),
    };
    let mut out = subst::substitute(&text, &|name| {
        std::env::var_os(name).map(crate::system::os::OsStringExt::into_vec)
    })
    .map_err(Failure::new)?;
    if !args.is_empty() {
        out.push(b'\n');
    }
    print_bytes(&out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Outcome {
        command(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_name_decides() {
        assert!(is_called_as_tool("/x/circleci-agent".as_ref()) && is_called_as_tool("circleci".as_ref()));
        assert!(!is_called_as_tool("/x/circleci-agent/runlet".as_ref()) && !is_called_as_tool("".as_ref()));
    }

    #[test]
    fn what_is_missing_is_refused_clearly() {
        for (words, part) in [
            (&["testsuite", "run"][..], "not available in this version"),
            (&["tests", "merge"], "known: glob, split, run"),
            (&["tests", "glob"], "takes one or more patterns"),
            (&["--verbose", "tests", "split", "--index=2", "--total=2"], "no node 2 among 2"),
            (&["config", "process"], "people install"),
            (&["step", "stop"], "not a command of `step`"),
            (&["secret", "list"], "`list` is not a command of `secret`"),
            (&["nonsense"], "unknown command `nonsense`"),
            (&["env", "subst", "a", "b"], "quote it"),
        ] {
            let failure = run(words).unwrap_err();
            assert!(failure.message.contains(part), "{}", failure.message);
            assert_eq!(failure.code, exit::FAILED);
        }
    }
}
