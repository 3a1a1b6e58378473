//! The `runlet` program: see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(runlet::cli::main())
}
