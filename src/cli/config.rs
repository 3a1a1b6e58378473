//! `runlet config validate` and `runlet config process`: the compiler on its own, for people and
//! editors. Reads the files; everything else is [`crate::config`].

use crate::config::{self, Compiled, Diagnostic, Diagnostics, Input, Severity};
use crate::orbs::OrbSites;
use crate::outcome::{Failure, Outcome, exit, print};
use crate::terminal::plain;
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;

/// `runlet config --help`.
pub(super) const HELP: &str = "\
runlet config: checks or compiles a config

Usage: runlet config validate [FILE] [OPTIONS]
       runlet config process [FILE] [OPTIONS]

  validate   says what is wrong with the config, or that it is valid
  process    prints the compiled config: commands, executors, matrices and conditions expanded

FILE is .circleci/config.yml unless given; `-` reads standard input.

Options:
  --orbs DIR                    folder or archive of orbs: DIR/namespace/orb@1.2.3.yml
  --allow-orb-url PREFIX        fetch orbs given by a URL that begins so: https://HOST/PATH (repeatable)
  --pipeline-parameter NAME=V   value of a pipeline parameter (repeatable)
  --pipeline-value NAME=V       pipeline value, such as pipeline.number=7 (repeatable); those that every
                                pipeline has are made up: number 1, the branch of the checkout or
                                main, github/example/project, ids and revision of zeros
  --branch NAME, --tag NAME     as if this branch or tag had been pushed; with neither, filters by
                                branch and tag keep every job
  --json                        prints the result as JSON
  --help                        prints this text

Exit codes: 0 valid, 7 not valid, 2 wrong usage, 1 the file cannot be read or an orb not be fetched.
";

const DEFAULT_FILE: &str = ".circleci/config.yml";
/// More than the compiler takes, so that it is the compiler that names the limit.
const MOST_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Validate,
    Process,
}

struct Arguments {
    verb: Verb,
    file: Option<String>,
    orbs: OrbSites,
    parameters: Vec<(String, String)>,
    values: BTreeMap<String, serde_json::Value>,
    json: bool,
}

/// Runs the command with the arguments after `config`.
pub fn command(args: Vec<OsString>) -> Outcome {
    let Some(arguments) = parse(args)? else { return print(HELP) };
    let file = arguments.file.as_deref().unwrap_or(DEFAULT_FILE);
    let shown = if file == "-" { "standard input" } else { file };
    let source = match read(file) {
        Ok(source) => source,
        Err(unreadable) => return unreadable.report(&arguments, shown),
    };
    let parameters = config::typed_parameters(&source, &arguments.parameters)
        .map_err(|wrong| Failure::usage(wrong.to_string()))?;
    let stand_ins = config::stand_ins(branch_around(file).as_deref(), &arguments.values);
    let result = config::compile(&Input {
        source: &source,
        file_name: shown,
        parameters: &parameters,
        values: &arguments.values,
        stand_ins: &stand_ins,
        orbs: &arguments.orbs,
        default_resource_class: None,
    });
    report(&arguments, shown, result)
}

/// The branch that is checked out where the file is, or here for standard input.
fn branch_around(file: &str) -> Option<String> {
    let start = if file == "-" { std::env::current_dir() } else { std::fs::canonicalize(file) }.ok()?;
    let git = start.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists())?;
    let small = |path: &Path| {
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(4096).read_to_string(&mut text).ok().map(|_| text)
    };
    // In a worktree, `.git` is a file that names the folder.
    let folder =
        if git.is_dir() { git } else { git.parent()?.join(small(&git)?.strip_prefix("gitdir:")?.trim()) };
    let branch = small(&folder.join("HEAD"))?.strip_prefix("ref: refs/heads/")?.trim().to_owned();
    (!branch.is_empty()).then_some(branch)
}

fn parse(args: Vec<OsString>) -> Result<Option<Arguments>, Failure> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut verb = None;
    let mut arguments = Arguments {
        verb: Verb::Validate,
        file: None,
        orbs: OrbSites::default(),
        parameters: Vec::new(),
        values: BTreeMap::new(),
        json: false,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("json") => arguments.json = true,
            Long("orbs") => arguments.orbs.use_folder(parser.value()?.into()),
            Long("allow-orb-url") => {
                arguments.orbs.allow(&parser.value()?.string()?).map_err(Failure::usage)?;
            }
            Long("pipeline-parameter") => arguments.parameters.push(pair(&parser.value()?.string()?)?),
            Long("pipeline-value") => {
                let (name, text) = pair(&parser.value()?.string()?)?;
                let name = if name.starts_with("pipeline.") { name } else { format!("pipeline.{name}") };
                // Text that reads like a number or a boolean is one.
                let value = serde_json::from_str(&text)
                    .ok()
                    .filter(|v: &serde_json::Value| v.is_i64() || v.is_boolean());
                arguments.values.insert(name, value.unwrap_or_else(|| text.into()));
            }
            Long("branch") => {
                arguments.values.insert("pipeline.git.branch".into(), parser.value()?.string()?.into());
            }
            Long("tag") => {
                arguments.values.insert("pipeline.git.tag".into(), parser.value()?.string()?.into());
            }
            Value(word) if verb.is_none() => {
                verb = Some(match word.to_str() {
                    Some("validate") => Verb::Validate,
                    Some("process") => Verb::Process,
                    _ => {
                        return Err(Failure::usage(format!(
                            "unknown command `config {}` (known commands: validate, process)",
                            word.to_string_lossy()
                        )));
                    }
                });
            }
            Value(file) if arguments.file.is_none() => arguments.file = Some(file.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    match verb {
        Some(verb) => Ok(Some(Arguments { verb, ..arguments })),
        None => Err(Failure::usage(
            "`runlet config` needs a command: validate or process (see `runlet config --help`)",
        )),
    }
}

fn pair(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("`{text}` is not NAME=VALUE"))),
    }
}

/// A file without a text to compile.
struct Unreadable {
    failure: Failure,
    /// Place in the file, from 1.
    line: usize,
    column: usize,
}

impl Unreadable {
    /// Reports the failure, as JSON where that was asked for.
    fn report(self, arguments: &Arguments, file: &str) -> Outcome {
        let Self { failure, line, column } = self;
        if !arguments.json {
            return Err(failure);
        }
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: file.to_owned(),
            line,
            column,
            message: failure.message,
            excerpt: String::new(),
            notes: Vec::new(),
            may_pass: false,
        };
        print(&(json(&[diagnostic], None, arguments.verb).to_string() + "\n"))?;
        Ok(failure.code)
    }
}

fn read(file: &str) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    let result = if file == "-" {
        std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes))
    };
    result.map_err(|error| {
        let failure = Failure::new(format!("failed to read the config `{file}`: {error}"));
        Unreadable { failure, line: 1, column: 1 }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let before = String::from_utf8_lossy(valid);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message =
            format!("the config `{file}` is not UTF-8 text (line {line}, column {column}): save it as UTF-8");
        Unreadable { failure: Failure { code: exit::INVALID_CONFIG, message }, line, column }
    })
}

fn report(arguments: &Arguments, file: &str, result: Result<Compiled, Diagnostics>) -> Outcome {
    let (diagnostics, compiled) = match &result {
        Ok(compiled) => (&compiled.warnings, Some(compiled)),
        Err(diagnostics) => (&diagnostics.0, None),
    };
    let code = match &result {
        Ok(_) => exit::OK,
        // A config that may compile the next time is not called invalid.
        Err(errors) if errors.may_pass() => exit::FAILED,
        Err(_) => exit::INVALID_CONFIG,
    };
    if arguments.json {
        print(&(json(diagnostics, compiled, arguments.verb).to_string() + "\n"))?;
        return Ok(code);
    }
    let mut text = String::new();
    for diagnostic in diagnostics {
        // Diagnostics quote the config, which others may have written.
        text += &plain(&diagnostic.render());
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    match compiled {
        Some(compiled) if arguments.verb == Verb::Process => print(&compiled.processed)?,
        Some(_) => print(&format!("Config file at \"{file}\" is valid.\n"))?,
        None => 0,
    };
    Ok(code)
}

fn json(diagnostics: &[Diagnostic], compiled: Option<&Compiled>, verb: Verb) -> serde_json::Value {
    let mut value = serde_json::json!({ "valid": compiled.is_some(), "diagnostics": diagnostics });
    if let (Some(compiled), Verb::Process) = (compiled, verb) {
        value["processed"] = compiled.processed.as_str().into();
        value["parameters"] = serde_json::json!(compiled.parameters);
        value["setup"] = compiled.setup.into();
        value["workflows"] = serde_json::json!(compiled.workflows);
    }
    value
}
