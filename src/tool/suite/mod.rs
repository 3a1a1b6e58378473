//! `tests glob`, `tests split`, `tests run`: the tests of a job, shared among its parallel nodes.
//!
//! Nodes do not speak to each other: each computes all shares and takes its own. So whatever a share
//! depends on must be the same on all of them, and a node that cannot be sure of that stops rather than
//! leave tests out that no other node runs.

mod glob;
mod names;
mod options;
mod run;
mod speak;
mod split;
pub(crate) mod timings_source;
mod weights;

use super::usage::usage;
use crate::outcome::Outcome;
use options::SuiteOptions;

const HELP: &str = "\
Share the tests of a job among its parallel nodes.

Usage: circleci-agent tests glob PATTERN...
       circleci-agent tests split [OPTIONS] [FILE]
       circleci-agent tests run --command=COMMAND [OPTIONS]

glob prints the files that match: `*`, `?`, `[a-z]`, `{a,b}`, and `**` for any folders. Quote patterns
against the shell. split prints this node's share of the names in FILE or in standard input, one on each
line. run gives its share of the names in standard input to COMMAND, on one line of its standard input,
and does not run it when there is none. White space separates names.

  --index N              this node, from 0 (default: CIRCLE_NODE_INDEX)
  --total N              number of nodes (default: CIRCLE_NODE_TOTAL)
  --split-by WHAT        name, filesize or timings (default: name)
  --timings-type TYPE    what names are: filename, classname, testname, or autodetect
                         (default: autodetect; of run: filename)
  --time-default TIME    of names without timing, such as 10s (default: a millisecond)
  --timings-file FILE    timings to use in place of those of an earlier run, JSON:
                         {\"filename\": {NAME: SECONDS}, \"classname\": ..., \"testname\": ...}
  --show-counts          print the number of names to standard error
  -v, --verbose          say more on standard error
";

/// Runs `tests` with the words after it.
pub(super) fn command(words: &[&str]) -> Outcome {
    let variable = |name: &str| std::env::var_os(name);
    let options = words.iter().take_while(|word| **word != "--");
    if options.into_iter().any(|word| matches!(*word, "--help" | "-h")) {
        return crate::outcome::print(HELP);
    }
    match words {
        [] | ["help"] => crate::outcome::print(HELP),
        ["glob", patterns @ ..] => glob::print(patterns),
        ["split", rest @ ..] => split::print(&SuiteOptions::parse(false, rest, &variable)?, &variable),
        ["run", rest @ ..] => run::run(&SuiteOptions::parse(true, rest, &variable)?, &variable),
        [other, ..] => Err(usage(format!(
            "`{other}` is not a command of `tests` (known: glob, split, run); `circleci-agent tests --help` explains them"
        ))),
    }
}
