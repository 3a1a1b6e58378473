//! Arguments -> one function per role -> exit code.
//!
//! Each role parses its own arguments with [`lexopt`] and returns an [`Outcome`]; the message of a
//! failure is printed once, here.

mod commands;
#[cfg(feature = "server")]
mod completions;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
mod manual;
#[cfg(feature = "server")]
mod orb;

use crate::outcome::{Outcome, print};
use commands::HELP;
use std::ffi::OsString;
use std::io::Write;

/// Runs the program with the arguments of the process and returns its exit code.
pub fn main() -> u8 {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    match run(&program, args.collect()) {
        Ok(code) => code,
        Err(failure) => {
            // Nobody may be listening on stderr; there is nothing to do about that.
            let _ = writeln!(std::io::stderr(), "runlet: {}", failure.message);
            failure.code
        }
    }
}

fn run(program: &OsString, mut args: Vec<OsString>) -> Outcome {
    if crate::tool::is_called_as_tool(program) {
        return crate::tool::command(args);
    }
    let first = if args.is_empty() { OsString::from("--help") } else { args.remove(0) };
    match first.to_string_lossy().as_ref() {
        // In the runner-only build too, which has no other `config`.
        "config" if args.first().is_some_and(|verb| verb == "show") => {
            args.remove(0);
            crate::agent::settings::show(args)
        }
        "--version" | "-V" | "version" => print(&version()),
        "--help" | "-h" => print(HELP),
        "help" => help(args),
        name => {
            let command = commands::find(name)?;
            match args.first().and_then(|arg| arg.to_str()) {
                Some("--version" | "-V") => print(&version()),
                _ => commands::run(command, args),
            }
        }
    }
}

/// `runlet help COMMAND...`: as `runlet COMMAND... --help`.
fn help(mut args: Vec<OsString>) -> Outcome {
    if args.is_empty() {
        return print(HELP);
    }
    #[cfg(feature = "server")]
    if let Some(text) = written(&args)? {
        return print(&text);
    }
    let command = commands::find(&args.remove(0).to_string_lossy())?;
    if args.is_empty() {
        return print(command.help);
    }
    args.push("--help".into());
    commands::run(command, args)
}

/// Manual pages and completions for packages, made of the same texts.
#[cfg(feature = "server")]
fn written(args: &[OsString]) -> Result<Option<String>, crate::outcome::Failure> {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words[..] {
        ["--man-pages"] => Ok(Some(manual::pages(false))),
        ["--man-pages", "runner"] => Ok(Some(manual::pages(true))),
        ["--man", page] => manual::page(page).map(Some),
        ["--completions", shell] => completions::of(shell).map(Some),
        _ => Ok(None),
    }
}

fn version() -> String {
    format!("runlet {} ({} {})\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}
