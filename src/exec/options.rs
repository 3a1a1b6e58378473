//! The arguments of `runlet exec`.

use crate::orbs::OrbSites;
use crate::outcome::Failure;
use std::ffi::OsString;
use std::path::PathBuf;

/// Wishes of the person, from the arguments.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Folder with the repository.
    pub path: PathBuf,
    /// Config file; `.circleci/config.yml` of `path` by default.
    pub config: Option<PathBuf>,
    /// Only this job and what it requires.
    pub job: Option<String>,
    /// Only this workflow.
    pub workflow: Option<String>,
    /// `name=value` pairs, split.
    pub parameters: Vec<(String, String)>,
    /// The folder for artifacts and test results; `.runlet` of `path` by default.
    pub artifacts: Option<PathBuf>,
    /// Jobs at the same time.
    pub concurrency: usize,
    /// Sources of orbs.
    pub orbs: OrbSites,
    /// Jobs that want containers or machines of the hosted service run on this host.
    pub on_host: bool,
    /// Plain lines even on a terminal.
    pub plain: bool,
}

/// `runlet exec --help`.
pub(super) const HELP: &str = "\
Run a repository's pipeline on this host, as its working tree is now.

Usage: runlet exec [PATH] [OPTIONS]

PATH is the folder that holds .circleci/config.yml (default: this one). Uncommitted files take part,
ignored files do not, and the repository itself is only read. Jobs run as you, on this host, each in a
temporary folder, also where the config says `working_directory: ~/project`; commands that name such a
folder themselves reach the real one. Nothing listens beyond loopback.

  --job NAME                    only this job and the jobs it requires
  --workflow NAME               only this workflow
  --pipeline-parameter K=V      set a pipeline parameter (repeatable)
  --artifacts DIR               where artifacts and test results go (default: PATH/.runlet);
                                replaces those of an earlier run
  --concurrency N               jobs at the same time (default: the number of processors, at most 4)
  --config FILE                 another config file
  --orbs DIR                    folder or archive of orb files, `namespace/name@version.yml`
  --allow-orb-url PREFIX        fetch orbs given by a URL that begins so: https://HOST/PATH (repeatable)
  --on-host                     run jobs that want containers, a Mac or a machine of the hosted service on
                                this host, without their images and services; else they do not run
  --plain                       plain lines: no colour, no progress line (also NO_COLOR, or a pipe)
  --help

Exit code: 0 when every job succeeded, 1 when one failed, 2 for wrong arguments, 7 for an invalid
config, 8 when nothing failed but a job could not run here, 130 when interrupted. Ctrl-C cancels the pipeline; a second one stops at once.
";

impl Options {
    /// Parses the arguments; `None` asks for help.
    pub(super) fn parse(args: Vec<OsString>) -> Result<Option<Self>, Failure> {
        use lexopt::prelude::*;
        let mut options = Self {
            path: PathBuf::from("."),
            config: None,
            job: None,
            workflow: None,
            parameters: Vec::new(),
            artifacts: None,
            concurrency: std::thread::available_parallelism().map_or(2, |n| n.get()).min(4),
            orbs: OrbSites::default(),
            on_host: false,
            plain: false,
        };
        let mut path = None;
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("job") => options.job = Some(parser.value()?.string()?),
                Long("workflow") => options.workflow = Some(parser.value()?.string()?),
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
                Long("on-host") => options.on_host = true,
                Long("plain") => options.plain = true,
                Long("help") | Short('h') => return Ok(None),
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
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(args.iter().map(OsString::from).collect()).map_err(|failure| failure.message)
    }

    #[test]
    fn arguments_are_read_in_any_order() {
        let options = parse(&["--job", "test", "dir", "--pipeline-parameter", "a=b=c", "--concurrency=3"]);
        let options = options.ok().flatten().expect("these are valid");
        assert_eq!(options.path, PathBuf::from("dir"));
        assert_eq!(options.job.as_deref(), Some("test"));
        assert_eq!(options.parameters, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(options.concurrency, 3);
    }

    #[test]
    fn wrong_arguments_are_explained() {
        let message = |args: &[&str]| parse(args).expect_err("must be refused");
        assert!(message(&["--pipeline-parameter", "x"]).contains("x=VALUE"));
        assert!(message(&["--concurrency", "0"]).contains("1 to 256"));
        assert!(message(&["a", "b"]).contains("runlet exec --help"));
        assert!(parse(&["--help"]).is_ok_and(|options| options.is_none()));
    }
}
