//! The arguments of `runlet exec`.

use super::env_file;
use super::snapshot::{Name, Named};
use crate::orbs::OrbSites;
use crate::outcome::Failure;
use crate::protocol::Secret;
use std::ffi::OsString;
use std::path::PathBuf;

/// Wishes of the person, from the arguments.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Folder with the repository, or one below it.
    pub path: PathBuf,
    /// Config file; `.circleci/config.yml` of `path` or of a folder above by default.
    pub config: Option<PathBuf>,
    /// Jobs that are run, with what they require; empty: all.
    pub jobs: Vec<String>,
    /// The one workflow that is run; without it all are.
    pub workflow: Option<String>,
    /// Approvals that are given.
    pub approve: Vec<String>,
    /// The branch or tag that the pipeline is of.
    pub name: Name,
    /// Files with variables of the project.
    pub env_files: Vec<PathBuf>,
    /// Variables of the project that go before those of the files.
    pub variables: Vec<(String, Secret)>,
    /// `name=value` pairs, split.
    pub parameters: Vec<(String, String)>,
    /// The folder for artifacts and test results; `.runlet` of `path` by default.
    pub artifacts: Option<PathBuf>,
    /// Number of jobs that run at the same time.
    pub concurrency: usize,
    /// Sources of orbs.
    pub orbs: OrbSites,
    /// Whether jobs find the caches of earlier runs, and those of this run are kept.
    pub caches: bool,
    /// Whether workflows and jobs are listed, and none is run.
    pub list: bool,
    /// Whether jobs that want containers or machines of the hosted service run on this host.
    pub on_host: bool,
    /// Whether lines are plain even on a terminal.
    pub plain: bool,
}

/// A command line, read.
#[derive(Clone, Debug)]
pub(super) enum CommandLine {
    /// A run, or a list.
    Run(Box<Options>),
    /// The text of `--help`.
    Help,
    /// To stay until standard input ends, and to clean the folder then: how `exec` starts its guard.
    Guard(PathBuf),
}

/// `runlet exec --help`.
pub const HELP: &str = "\
Run a repository's pipeline on this host, as its working tree is now.

Usage: runlet exec [PATH] [OPTIONS]

PATH is the folder that holds .circleci/config.yml, or one below it in the same repository (default:
this one). Uncommitted files take part, ignored files do not, and the repository itself is only read.
Jobs run as you, on this host, each with a temporary folder as its home: `~/project` is in there, and so
are the settings of your tools as copies, and links to what they keep (`~/.cargo`, `~/go`, `~/.ssh` and so on).
Nothing listens beyond loopback.

  --list                        list workflows and jobs, and why some do not run; run nothing
  --job NAME                    only this job and the jobs it requires (repeatable); `*` and `?` stand
                                for other characters, `test` is all jobs of the matrix `test`, or the
                                jobs of other names that `test` runs as
  --workflow NAME               only this workflow
  --approve NAME                give this approval (repeatable, `*` is every one); without it a
                                terminal is asked. It takes the names that --job takes;
                                both take WORKFLOW/NAME as well
  --branch NAME, --tag NAME     as if the working tree had been pushed as this branch or tag
  --pipeline-parameter K=V      set a pipeline parameter (repeatable)
  --env-file FILE               NAME=VALUE lines: variables of the project and of contexts; their
                                values are masked in the output (repeatable)
  -e, --env NAME=VALUE          one such variable, before those of files; without `=VALUE` it has the
                                value that it has here, which others do not see then (repeatable).
                                Built-in variables and `environment` of jobs and steps go before it
  --artifacts DIR               where artifacts and test results go (default: PATH/.runlet);
                                replaces those of an earlier run
  --no-cache                    begin without the caches of earlier runs, and keep none
  --concurrency N               jobs at the same time (default: the number of processors, at most 4)
  --config FILE                 another config file
  --orbs DIR                    folder or archive of orb files, `namespace/name@version.yml`; jobs
                                that want an orb which is not there do not run
  --allow-orb-url PREFIX        fetch orbs given by a URL that begins so: https://HOST/PATH (repeatable)
  --on-host                     run jobs that want containers, a Mac or a machine of the hosted service on
                                this host, without their images and services, with the variables of the
                                first image; else they do not run
  --plain                       plain lines: no colour, no progress line (also NO_COLOR, or a pipe)
  --help

Exit code: 0 when everything that was asked for ran and succeeded, 1 when something failed or did not
run, 2 for wrong arguments (also where a setup workflow does not go on to what was named, or what was
named does not run), 7 for an invalid config, 8 when nothing failed but a job could not run here,
130 when interrupted (129 when the terminal went away, 143 by TERM). Ctrl-C cancels the pipeline; a
second one kills what still runs.
";

impl Options {
    /// Parses the arguments.
    pub(super) fn parse(args: Vec<OsString>) -> Result<CommandLine, Failure> {
        use lexopt::prelude::*;
        let mut options = Self {
            path: PathBuf::from("."),
            config: None,
            jobs: Vec::new(),
            workflow: None,
            approve: Vec::new(),
            name: Name::Own,
            env_files: Vec::new(),
            variables: Vec::new(),
            parameters: Vec::new(),
            artifacts: None,
            concurrency: std::thread::available_parallelism().map_or(2, |n| n.get()).min(4),
            orbs: OrbSites::default(),
            caches: true,
            list: false,
            on_host: false,
            plain: false,
        };
        let mut path = None;
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("job") => options.jobs.push(parser.value()?.string()?),
                Long("workflow") => options.workflow = Some(parser.value()?.string()?),
                Long("approve") => options.approve.push(parser.value()?.string()?),
                Long(kind @ ("branch" | "tag")) => {
                    let is_tag = kind == "tag";
                    let name = parser.value()?.string()?;
                    if options.name != Name::Own {
                        return Err(Failure::usage(
                            "a pipeline is of one branch or one tag: give one of them",
                        ));
                    }
                    options.name = Name::Given(if is_tag { Named::Tag(name) } else { Named::Branch(name) });
                }
                Long("env-file") => options.env_files.push(parser.value()?.into()),
                Long("env") | Short('e') => {
                    options.variables.push(env_file::argument(parser.value()?).map_err(Failure::usage)?);
                }
                Long("pipeline-parameter") => {
                    let pair = parser.value()?.string()?;
                    let Some((name, value)) = pair.split_once('=') else {
                        return Err(Failure::usage(format!(
                            "`--pipeline-parameter {pair}` has no value (write it as `{pair}=VALUE`)"
                        )));
                    };
                    options.parameters.push((name.to_owned(), value.to_owned()));
                }
                Long("artifacts") => options.artifacts = Some(parser.value()?.into()),
                Long("concurrency") => {
                    let value = parser.value()?.string()?;
                    options.concurrency = match value.parse() {
                        Ok(n) if (1..=256).contains(&n) => n,
                        _ => {
                            return Err(Failure::usage(format!(
                                "`--concurrency {value}` is not a number from 1 to 256"
                            )));
                        }
                    };
                }
                Long("config") => options.config = Some(parser.value()?.into()),
                Long("orbs") => options.orbs.use_folder(parser.value()?.into()),
                Long("allow-orb-url") => {
                    options.orbs.allow(&parser.value()?.string()?).map_err(Failure::usage)?;
                }
                Long("no-cache") => options.caches = false,
                Long("list") => options.list = true,
                Long("on-host") => options.on_host = true,
                Long("plain") => options.plain = true,
                Long("guard") => return Ok(CommandLine::Guard(parser.value()?.into())),
                Long("help") | Short('h') => return Ok(CommandLine::Help),
                Value(value) if path.is_none() => path = Some(PathBuf::from(value)),
                _ => {
                    return Err(Failure::usage(format!(
                        "{}; see `runlet exec --help`",
                        argument.unexpected()
                    )));
                }
            }
        }
        if let Some(path) = path {
            options.path = path;
        }
        Ok(CommandLine::Run(Box::new(options)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<CommandLine, String> {
        Options::parse(args.iter().map(OsString::from).collect()).map_err(|failure| failure.message)
    }

    #[test]
    fn arguments_are_read_in_any_order() {
        let asked =
            parse(&["--job", "test", "dir", "--pipeline-parameter", "a=b=c", "--concurrency=3", "--tag=v1"]);
        let Ok(CommandLine::Run(options)) = asked else { unreachable!("these are valid: {asked:?}") };
        assert_eq!(options.path, PathBuf::from("dir"));
        assert_eq!(options.jobs, ["test"]);
        assert_eq!(options.parameters, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(options.concurrency, 3);
        assert_eq!(options.name, Name::Given(Named::Tag("v1".to_owned())));
    }

    #[test]
    fn wrong_arguments_are_explained() {
        let message = |args: &[&str]| parse(args).expect_err("must be refused");
        assert!(message(&["--pipeline-parameter", "x"]).contains("x=VALUE"));
        assert!(message(&["--concurrency", "0"]).contains("1 to 256"));
        assert!(message(&["--tag", "a", "--branch", "b"]).contains("one branch or one tag"));
        assert!(message(&["a", "b"]).contains("runlet exec --help"));
        assert!(matches!(parse(&["--help"]), Ok(CommandLine::Help)));
    }
}
