//! Arguments -> one function per role -> exit code.
//!
//! Each role parses its own arguments with [`lexopt`] and returns an [`Outcome`]; the message of a
//! failure is printed once, here.

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
mod orb;

use crate::outcome::{Failure, Outcome, print};
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
    match first.to_str().unwrap_or_default() {
        "machine" => crate::agent::command(args),
        "doctor" => crate::agent::doctor::command(args),
        "status" => crate::agent::status::command(args),
        "task" => crate::executor::command(args),
        "tool" => crate::tool::command(args),
        #[cfg(feature = "server")]
        "server" => crate::server::command(args),
        #[cfg(feature = "server")]
        "exec" => crate::exec::command(args),
        "config" if args.first().is_some_and(|verb| verb == "show") => {
            args.remove(0);
            crate::agent::settings::show(args)
        }
        #[cfg(feature = "server")]
        "config" => config::command(args),
        #[cfg(feature = "server")]
        "orb" => orb::command(args),
        #[cfg(feature = "server")]
        "admin" => crate::admin::command(args),
        "--version" | "-V" | "version" => print(&version()),
        "--help" | "-h" | "help" => print(HELP),
        other => {
            Err(Failure::usage(format!("unknown command `{other}`; `runlet --help` lists the commands")))
        }
    }
}

fn version() -> String {
    format!("runlet {} ({} {})\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(feature = "server")]
const HELP: &str = include_str!("help.txt");
#[cfg(not(feature = "server"))]
const HELP: &str = include_str!("help-runner.txt");
