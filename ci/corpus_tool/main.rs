//! Compiles the configs of a folder and groups what is refused; `ci/corpus` runs it.

mod stubs;

use runlet::config::{Compiled, Diagnostic, Diagnostics, Input, NoOrbs, Severity, compile, stand_ins};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stubs::Stubs;

/// Class of `machine` jobs that name none.
const CLASS: &str = "corpus/machine";
/// Files of a kind that are named.
const NAMED_FILES: usize = 6;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all_messages = arguments.iter().any(|argument| argument == "--files");
    let mut files = Vec::new();
    for folder in arguments.iter().filter(|argument| !argument.starts_with("--")) {
        find(Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut refusals = Kinds::default();
    let mut mistakes = Kinds::default();
    let mut changed = Kinds::default();
    let (mut accepted, mut refused) = (0, 0);
    for path in &files {
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                refused += 1;
                refusals.add(&format!("cannot be read: {error}"), &name);
                continue;
            }
        };
        let mut outcome = Outcome::default();
        for circumstances in Circumstances::all(&text) {
            outcome.add(&circumstances, &text, &name);
        }
        if outcome.errors.is_empty() {
            accepted += 1
        } else {
            refused += 1
        }
        for (of, kinds) in [
            (&outcome.errors, &mut refusals),
            (&outcome.mistakes, &mut mistakes),
            (&outcome.changed, &mut changed),
        ] {
            for message in of {
                kinds.add(message.split_once(": ").map_or(message, |(_, message)| message), &name);
                if all_messages {
                    println!("{name}:{message}");
                }
            }
        }
    }
    refusals.print("Refused");
    mistakes.print("Mistakes in elements that nothing uses (accepted)");
    changed.print("Compiled configs that the compiler refuses or changes");
    println!("{} configs: {accepted} accepted, {refused} refused", files.len());
    if changed.0.is_empty() { Ok(()) } else { std::process::exit(1) }
}

/// Collects the configs below a folder, or the file itself.
fn find(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "yml") {
            find(&path, files)?;
        }
    }
    Ok(())
}

/// Messages by kind: names and numbers of one file do not make a kind of their own.
#[derive(Default)]
struct Kinds(BTreeMap<String, Vec<String>>);

impl Kinds {
    fn add(&mut self, message: &str, file: &str) {
        let files = self.0.entry(kind(message)).or_default();
        if files.last().is_none_or(|last| last != file) {
            files.push(file.to_owned());
        }
    }

    fn print(&self, title: &str) {
        if self.0.is_empty() {
            return;
        }
        println!("{title}:");
        let mut kinds: Vec<_> = self.0.iter().collect();
        kinds.sort_by_key(|(_, files)| std::cmp::Reverse(files.len()));
        for (kind, files) in kinds {
            println!("{:>5}  {kind}", files.len());
            for file in files.iter().take(NAMED_FILES) {
                println!("       - {file}");
            }
        }
        println!();
    }
}

/// A message without what stands in backticks and parentheses.
fn kind(message: &str) -> String {
    let mut kind = String::new();
    for (index, part) in message.split('`').enumerate() {
        kind += if index % 2 == 0 { part } else { "`..`" };
    }
    match kind.find(" (") {
        Some(end) => kind[..end].to_owned(),
        None => kind,
    }
}

/// The branch or tag of a compilation, and the pipeline parameters that are given.
struct Circumstances {
    values: BTreeMap<String, Value>,
    parameters: BTreeMap<String, Value>,
}

impl Circumstances {
    /// A branch, a tag, and the branch with every boolean parameter turned round, so that workflows are
    /// seen that a push does not start.
    fn all(source: &str) -> [Self; 3] {
        let of = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), Value::from(value))]);
        let types = runlet::config::declared_types(source).unwrap_or_default();
        let booleans: Vec<String> = types
            .into_iter()
            .filter(|(_, declared)| declared.kind == "boolean")
            .map(|(name, _)| name)
            .collect();
        let branch = of("pipeline.git.branch", "main");
        let [one, other] = [true, false].map(|value| {
            let given = booleans.iter().map(|name| (name.clone(), Value::from(value))).collect();
            Self { values: branch.clone(), parameters: given }
        });
        let tag = of("pipeline.git.tag", "v1.2.3");
        [one, other, Self { values: tag, parameters: BTreeMap::new() }]
    }

    fn compile(&self, source: &str) -> Result<Compiled, Diagnostics> {
        let stand_ins = stand_ins(None, &self.values);
        let mut stubs = Stubs::default();
        loop {
            let result = compile(&Input {
                source,
                file_name: "config.yml",
                parameters: &self.parameters,
                values: &self.values,
                stand_ins: &stand_ins,
                orbs: &stubs,
                default_resource_class: Some(CLASS),
            });
            let messages = match &result {
                Ok(compiled) => &compiled.warnings,
                Err(diagnostics) => &diagnostics.0,
            };
            if !stubs.learn(messages) {
                return result;
            }
        }
    }

    /// Compiles a compiled config.
    fn again(&self, source: &str) -> Result<Compiled, Diagnostics> {
        let none = BTreeMap::new();
        compile(&Input {
            source,
            file_name: "processed.yml",
            parameters: &none,
            values: &self.values,
            stand_ins: &none,
            orbs: &NoOrbs,
            default_resource_class: Some(CLASS),
        })
    }
}

/// Messages about one config, each once, with its place before it.
#[derive(Default)]
struct Outcome {
    errors: Vec<String>,
    mistakes: Vec<String>,
    changed: Vec<String>,
}

impl Outcome {
    fn add(&mut self, circumstances: &Circumstances, source: &str, name: &str) {
        let line = |diagnostic: &Diagnostic| {
            format!("{}:{}: {}", diagnostic.line, diagnostic.column, diagnostic.message)
        };
        match circumstances.compile(source) {
            Err(diagnostics) => {
                let errors = diagnostics.0.iter().filter(|message| message.severity == Severity::Error);
                errors.map(line).for_each(|message| once(&mut self.errors, message));
            }
            Ok(compiled) => {
                let unused =
                    compiled.warnings.iter().filter(|warning| warning.message.contains("has a mistake"));
                unused.map(line).for_each(|message| once(&mut self.mistakes, message));
                match circumstances.again(&compiled.processed) {
                    Ok(again) if again.processed == compiled.processed => {}
                    Ok(_) => once(&mut self.changed, format!("{name}: comes out changed")),
                    Err(diagnostics) => once(&mut self.changed, format!("{name}: {diagnostics}")),
                }
            }
        }
    }
}

fn once(list: &mut Vec<String>, message: String) {
    if !list.contains(&message) {
        list.push(message);
    }
}
