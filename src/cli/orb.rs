//! `runlet orb pack`: orbs for sites without a way out.

use crate::orbs::{pack_orbs, pack_parts};
use crate::outcome::{Failure, Outcome, print};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use std::ffi::OsString;
use std::path::PathBuf;

/// `runlet orb --help`.
pub(super) const HELP: &str = "\
runlet orb: packs orbs, so that they can be used without the registry

Usage: runlet orb pack --output FILE PATH...
       runlet orb pack FOLDER

  With --output, makes an archive of orbs, which `--orbs FILE` of `exec`, `config` and `server` takes.
  PATH is a file NAMESPACE/ORB@VERSION.yml, or a folder with such files below it. VERSION is 1.2.3 or dev:LABEL;
  or 1.2, 1 or volatile: such a file serves this very reference, before every release that would do.

  Without, prints one orb made of its parts: FOLDER holds @orb.yml, and commands/NAME.yml, jobs/NAME.yml,
  executors/NAME.yml, examples/NAME.yml. `<<include(FILE)>>` stands for the text of a file of FOLDER.

  circleci/continuation and circleci/path-filtering are built in and need not be packed.
";

/// Runs the command with the arguments after `orb`.
pub(super) fn command(args: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut words, mut output): (Vec<OsString>, Option<PathBuf>) = (Vec::new(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return print(HELP),
            Long("output") | Short('o') => output = Some(PathBuf::from(parser.value()?)),
            Value(word) => words.push(word),
            _ => return Err(Failure::usage(format!("{}; see `runlet orb --help`", argument.unexpected()))),
        }
    }
    let mut words = words.into_iter();
    match words.next().map(|verb| verb.string()).transpose()?.as_deref() {
        Some("pack") => {}
        Some(verb) => {
            return Err(Failure::usage(format!(
                "unknown verb `orb {verb}` (known: pack); see `runlet orb --help`"
            )));
        }
        None => return print(HELP),
    }
    let paths: Vec<PathBuf> = words.map(PathBuf::from).collect();
    match (output, paths.as_slice()) {
        (_, []) => Err(Failure::usage("`runlet orb pack` needs the files to pack; see `runlet orb --help`")),
        (Some(output), paths) => {
            let packed = pack_orbs(paths, &output).map_err(Failure::new)?;
            let list: String = packed.iter().map(|name| format!("  {name}\n")).collect();
            let orbs = if packed.len() == 1 { "orb" } else { "orbs" };
            print(&format!("packed {} {orbs} into {}:\n{list}", packed.len(), output.display()))
        }
        (None, [folder]) if folder.join("@orb.yml").is_file() => {
            print(&pack_parts(folder).map_err(Failure::new)?)
        }
        (None, _) => Err(Failure::usage(
            "say where the archive goes (`--output FILE`), or name one folder that holds `@orb.yml`",
        )),
    }
}
