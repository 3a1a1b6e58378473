//! The options of `tests split` and `tests run`.

use crate::outcome::Failure;
use crate::protocol::duration;
use crate::tool::usage::usage;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Measure of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitBy {
    /// Every name weighs the same.
    Name,
    /// Bytes of the file of that name.
    Filesize,
    /// Time in an earlier run.
    Timings,
}

/// Kind of name in the timings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    Filename,
    Classname,
    Testname,
    /// Files or classes, whichever more of the names are.
    Autodetect,
}

/// Options of a command.
#[derive(Debug)]
pub(super) struct SuiteOptions {
    /// Number of this node, from 0; below `total`.
    pub(super) index: u32,
    pub(super) total: u32,
    pub(super) by: SplitBy,
    pub(super) kind: NameKind,
    /// Assumed time of names without timing.
    pub(super) time_default: Duration,
    pub(super) timings_file: Option<PathBuf>,
    pub(super) show_counts: bool,
    pub(super) verbose: bool,
    /// Names are read from it; `None` is standard input. Of `split` only.
    pub(super) file: Option<PathBuf>,
    /// Command, of `run` only.
    pub(super) command: String,
}

impl SuiteOptions {
    /// Reads the words after `split` or, with `runs`, after `run`.
    pub(super) fn parse(
        runs: bool,
        words: &[&str],
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        Self::read(runs, words, variable).map_err(usage)
    }

    fn read(runs: bool, words: &[&str], variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let mut options = Self {
            index: 0,
            total: 0,
            by: SplitBy::Name,
            kind: if runs { NameKind::Filename } else { NameKind::Autodetect },
            time_default: Duration::ZERO,
            timings_file: None,
            show_counts: false,
            verbose: false,
            file: None,
            command: String::new(),
        };
        let (mut index, mut total) = (None, None);
        let mut words = words.iter().copied();
        let mut only_files = false;
        while let Some(word) = words.next() {
            if !only_files && word == "--" {
                only_files = true;
                continue;
            }
            let word = if word == "-v" { "--verbose" } else { word };
            let Some(flag) = word.strip_prefix("--").filter(|_| !only_files) else {
                if runs {
                    return Err(format!(
                        "`tests run` takes no argument `{word}`: names come on standard input"
                    ));
                }
                if options.file.is_some() {
                    return Err(format!("`tests split` reads one file; `{word}` is a second one"));
                }
                options.file = Some(word.into());
                continue;
            };
            let (flag, attached) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (flag, None),
            };
            if matches!(flag, "show-counts" | "verbose") {
                let on = match attached {
                    None | Some("true") => true,
                    Some("false") => false,
                    Some(other) => return Err(format!("`--{flag}={other}` is neither true nor false")),
                };
                *(if flag == "verbose" { &mut options.verbose } else { &mut options.show_counts }) = on;
                continue;
            }
            let known = ["index", "total", "split-by", "timings-type", "time-default", "timings-file"];
            if !known.contains(&flag) && (flag != "command" || !runs) {
                let command = if runs { "run" } else { "split" };
                return Err(format!(
                    "`--{flag}` is not an option of `tests {command}`; `circleci-agent tests --help` lists them"
                ));
            }
            let text =
                attached.or_else(|| words.next()).ok_or_else(|| format!("`--{flag}` needs a value"))?;
            let unknown = |known: &str| format!("`--{flag}={text}` is not known (known: {known})");
            match flag {
                "index" => index = Some(number("--index", text)?),
                "total" => total = Some(number("--total", text)?),
                "split-by" => {
                    options.by = match text {
                        "name" => SplitBy::Name,
                        "filesize" => SplitBy::Filesize,
                        "timings" => SplitBy::Timings,
                        _ => return Err(unknown("name, filesize, timings")),
                    }
                }
                "timings-type" => {
                    options.kind = match text {
                        "filename" | "file" => NameKind::Filename,
                        "classname" => NameKind::Classname,
                        "testname" | "name" => NameKind::Testname,
                        "autodetect" => NameKind::Autodetect,
                        _ => return Err(unknown("filename, classname, testname, autodetect")),
                    }
                }
                "time-default" => {
                    options.time_default =
                        duration::parse(text).map_err(|why| format!("`--time-default`: {why}"))?;
                }
                "timings-file" => options.timings_file = Some(text.into()),
                _ => options.command = text.to_owned(),
            }
        }
        let of_node = |given: Option<u32>, option: &str, name: &str| match (given, variable(name)) {
            (Some(number), _) => Ok(number),
            (None, Some(text)) => number(name, &text.to_string_lossy()),
            (None, None) => {
                Err(format!("`{name}` is not set, so this is not a step of a job: give `{option}`"))
            }
        };
        options.index = of_node(index, "--index", "CIRCLE_NODE_INDEX")?;
        options.total = of_node(total, "--total", "CIRCLE_NODE_TOTAL")?;
        if options.index >= options.total {
            return Err(format!(
                "there is no node {} among {}: `--index` goes from 0 and is below `--total`, which is at least 1",
                options.index, options.total
            ));
        }
        if runs && options.command.trim().is_empty() {
            return Err(
                "`tests run` needs the command that runs the tests: `--command=\"xargs pytest\"`".to_owned()
            );
        }
        Ok(options)
    }
}

fn number(name: &str, text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("`{name}` is `{text}`, which is not a number from 0 on"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(runs: bool, words: &[&str]) -> Result<SuiteOptions, String> {
        let variable = |name: &str| match name {
            "CIRCLE_NODE_INDEX" => Some("1".into()),
            "CIRCLE_NODE_TOTAL" => Some("3".into()),
            _ => None,
        };
        SuiteOptions::read(runs, words, &variable)
    }

    #[test]
    fn options_come_attached_or_as_the_next_word() {
        let options = parse(false, &[]).unwrap();
        assert_eq!((options.index, options.total, options.by), (1, 3, SplitBy::Name));
        assert_eq!((options.kind, options.show_counts, options.file), (NameKind::Autodetect, false, None));

        let words = ["--index=0", "--total", "2", "--split-by", "timings", "--timings-type=file", "names"];
        let options = parse(false, &words).unwrap();
        assert_eq!((options.index, options.total, options.by), (0, 2, SplitBy::Timings));
        assert_eq!((options.kind, options.file), (NameKind::Filename, Some("names".into())));

        let words = ["--time-default=1m30s", "--timings-file", "t", "--show-counts", "-"];
        let options = parse(false, &words).unwrap();
        assert_eq!((options.time_default.as_secs(), options.timings_file), (90, Some("t".into())));
        assert_eq!((options.show_counts, options.file), (true, Some("-".into())));

        let options = parse(true, &["--command=xargs cat", "-v", "--show-counts=false"]).unwrap();
        assert_eq!((options.command.as_str(), options.kind), ("xargs cat", NameKind::Filename));
        assert!(options.verbose && !options.show_counts);
    }

    #[test]
    fn wrong_use_is_explained() {
        for (runs, words, part) in [
            (false, &["--index=3"][..], "no node 3 among 3"),
            (false, &["--total=0"], "at least 1"),
            (false, &["--index=-1"], "not a number"),
            (false, &["--split-by=size"], "known: name, filesize, timings"),
            (false, &["--timings-type", "x"], "autodetect"),
            (false, &["--time-default", "5"], "not a duration"),
            (false, &["a", "b"], "`b` is a second one"),
            (false, &["--command=x"], "not an option of `tests split`"),
            (false, &["--show-counts=maybe"], "neither true nor false"),
            (false, &["--total"], "--total"),
            (true, &[], "--command="),
            (true, &["--command=x", "names"], "standard input"),
        ] {
            let error = parse(runs, words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
        let error = SuiteOptions::read(false, &[], &|_| None).unwrap_err();
        assert!(error.contains("CIRCLE_NODE_INDEX") && error.contains("--index"), "{error}");
    }
}
