//! The language corpus: every case under `tests/scenarios/config/` compiles to what it says.
//!
//! A file holds cases. A case is a title line `=== title`, lines of circumstances `@ key=value`
//! (`branch`, `tag`, `value.NAME`, `param.NAME`, `class`; `stand_ins.BRANCH` after the values; `text=bom` or
//! `text=crlf` for how the text is stored), the config, and what is expected:
//!
//! - `--- shows`: lines of the compiled config, in this order; `! text` must not be in any line;
//! - `--- processed`: the whole compiled config;
//! - `--- errors`, `--- warnings`: `line:column: message`, each message and no other.
//!
//! `RUNLET_BLESS=1` rewrites the last three where a case has them. Whoever does that reads the
//! difference against the rules: an expectation that repeats what the program does proves nothing.

use proptest::prelude::*;
use runlet::config::probe::{compile_text, without_names};
use runlet::config::{Compiled, Diagnostic, Diagnostics, Input, OrbSource, compile, stand_ins};
use runlet::orbs::OrbFolder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

struct Case {
    title: String,
    circumstances: Vec<String>,
    source: String,
    /// Name of the section and its text.
    expected: Vec<(String, String)>,
}

impl Case {
    /// The config as the compiler gets it.
    fn text(&self) -> String {
        let has = |circumstance: &str| self.circumstances.iter().any(|have| have == circumstance);
        match (has("text=bom"), has("text=crlf")) {
            (true, _) => format!("\u{feff}{}", self.source),
            (_, true) => self.source.replace('\n', "\r\n"),
            _ => self.source.clone(),
        }
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/config")
}

/// All cases by file, files in order of name.
fn corpus() -> Vec<(PathBuf, Vec<Case>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cases"))
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), cases(&std::fs::read_to_string(path).unwrap()))).collect()
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            let title = title.to_owned();
            cases.push(Case { title, circumstances: vec![], source: String::new(), expected: vec![] });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        if let (Some(circumstance), true) = (line.strip_prefix("@ "), case.source.is_empty()) {
            case.circumstances.push(circumstance.to_owned());
        } else if let Some(section) = line.strip_prefix("--- ") {
            assert!(
                ["shows", "processed", "errors", "warnings"].contains(&section),
                "unknown section `{section}` in `{}`",
                case.title
            );
            case.expected.push((section.to_owned(), String::new()));
        } else if let Some((_, section)) = case.expected.last_mut() {
            section.push_str(line);
            section.push('\n');
        } else {
            case.source.push_str(line);
            case.source.push('\n');
        }
    }
    for case in &mut cases {
        for (_, text) in &mut case.expected {
            *text = text.trim_end().to_owned() + "\n";
        }
    }
    cases
}

/// A text from a circumstance as the value it looks like.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

struct Circumstances {
    parameters: BTreeMap<String, Value>,
    values: BTreeMap<String, Value>,
    stand_ins: BTreeMap<String, Value>,
    class: Option<String>,
    orbs: OrbFolder,
}

impl Circumstances {
    fn of(case: &Case) -> Self {
        let mut this = Self {
            parameters: BTreeMap::new(),
            values: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
            class: None,
            orbs: OrbFolder::new(folder().join("orbs")),
        };
        for circumstance in &case.circumstances {
            let (key, text) = circumstance.split_once('=').unwrap();
            match key.split_once('.').unwrap_or((key, "")) {
                ("branch", _) => drop(this.values.insert("pipeline.git.branch".into(), text.into())),
                ("tag", _) => drop(this.values.insert("pipeline.git.tag".into(), text.into())),
                ("value", name) => drop(this.values.insert(format!("pipeline.{name}"), value(text))),
                ("param", name) => drop(this.parameters.insert(name.to_owned(), value(text))),
                ("text", _) => {}
                // Values are as without a pipeline; given values come before them.
                ("stand_ins", branch) => this.stand_ins = stand_ins(Some(branch), &this.values),
                ("class", _) => this.class = Some(text.to_owned()),
                _ => panic!("unknown circumstance `{circumstance}` in `{}`", case.title),
            }
        }
        this
    }

    fn compile(&self, source: &str) -> Result<Compiled, Diagnostics> {
        compile(&Input {
            source,
            file_name: "config.yml",
            parameters: &self.parameters,
            values: &self.values,
            stand_ins: &self.stand_ins,
            orbs: &self.orbs as &dyn OrbSource,
            default_resource_class: self.class.as_deref(),
        })
    }
}

fn messages(diagnostics: &[Diagnostic]) -> String {
    let line = |d: &Diagnostic| {
        let file = if d.file == "config.yml" { String::new() } else { format!("{}:", d.file) };
        format!("{file}{}:{}: {}\n", d.line, d.column, d.message)
    };
    let text: String = diagnostics.iter().map(line).collect();
    text.replace(&*folder().join("orbs").to_string_lossy(), "ORBS")
}

/// Text of a section as the compiler would have it.
fn actual(section: &str, result: &Result<Compiled, Diagnostics>) -> Option<String> {
    use runlet::config::Severity::{Error, Warning};
    let of = |all: &[Diagnostic], severity| {
        let some: Vec<_> = all.iter().filter(|d| d.severity == severity).cloned().collect();
        messages(&some)
    };
    match (section, result) {
        ("processed", Ok(compiled)) => Some(compiled.processed.clone()),
        ("warnings", Ok(compiled)) => Some(of(&compiled.warnings, Warning)),
        ("errors", Err(diagnostics)) => Some(of(&diagnostics.0, Error)),
        _ => None,
    }
}

/// Whether the lines stand in the text in this order, and none of those with `!` at all.
fn shows(processed: &str, wanted: &str) -> Result<(), String> {
    let mut lines = processed.lines().map(str::trim);
    for line in wanted.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(unwanted) = line.strip_prefix("! ") {
            if processed.lines().any(|line| format!(" {}", line.trim()).contains(&format!(" {unwanted}"))) {
                return Err(format!("`{unwanted}` is there"));
            }
        } else if !lines.any(|found| found == line) {
            return Err(format!("`{line}` is not there, or not after the line before it"));
        }
    }
    Ok(())
}

fn check(case: &Case) -> Result<(), String> {
    let circumstances = Circumstances::of(case);
    let result = circumstances.compile(&case.text());
    let outcome = match &result {
        Ok(compiled) => format!("{}\n{}", messages(&compiled.warnings), compiled.processed),
        Err(diagnostics) => messages(&diagnostics.0),
    };
    if case.expected.is_empty() {
        return Err(format!("nothing is expected; there is:\n{outcome}"));
    }
    for (section, expected) in &case.expected {
        if section == "shows" {
            let Ok(compiled) = &result else { return Err(format!("it does not compile:\n{outcome}")) };
            shows(&compiled.processed, expected).map_err(|message| format!("{message}:\n{outcome}"))?;
            continue;
        }
        match actual(section, &result) {
            Some(actual) if actual == *expected => {}
            Some(actual) => return Err(format!("expected {section}:\n{expected}\nfound:\n{actual}")),
            None => return Err(format!("expected {section}:\n{expected}\nfound:\n{outcome}")),
        }
    }
    let Ok(compiled) = &result else { return Ok(()) };
    let warned = case.expected.iter().any(|(section, _)| section == "warnings");
    if !warned && !compiled.warnings.is_empty() {
        return Err(format!("unexpected warnings:\n{}", messages(&compiled.warnings)));
    }
    // The compiled text is itself a config, and compiles to the same.
    let again = Circumstances { parameters: BTreeMap::new(), ..circumstances }.compile(&compiled.processed);
    match again {
        Ok(again) => {
            if again.processed != compiled.processed {
                return Err(format!(
                    "compiled again, it changes:\n{}\nto\n{}",
                    compiled.processed, again.processed
                ));
            }
            let is_same = without_names(again.workflows) == without_names(compiled.workflows.clone());
            if !is_same || again.setup != compiled.setup {
                return Err(format!("compiled again, the jobs change:\n{}", compiled.processed));
            }
        }
        Err(diagnostics) => {
            return Err(format!("compiled again, it fails:\n{diagnostics}\n{}", compiled.processed));
        }
    }
    Ok(())
}

#[test]
fn every_case_compiles_to_what_it_says() {
    if std::env::var_os("RUNLET_BLESS").is_some() {
        bless();
    }
    let mut count = 0;
    let mut failures = String::new();
    for (path, cases) in corpus() {
        for case in cases {
            count += 1;
            if let Err(message) = check(&case) {
                let file = path.file_name().unwrap().to_string_lossy().into_owned();
                failures += &format!("\n=== {file}: {}\n{message}", case.title);
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count >= 150, "only {count} cases were found");
}

/// The head of the acceptance cases says where each is tried; what it names is there.
#[test]
fn every_acceptance_case_is_tried_somewhere() {
    let text = std::fs::read_to_string(folder().join("acceptance.cases")).unwrap();
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let table: Vec<(usize, &str)> = head
        .filter_map(|line| line.trim_start_matches('#').trim_start().split_once(' '))
        .filter_map(|(number, places)| Some((number.parse().ok()?, places)))
        .collect();
    assert_eq!(table.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=44).collect::<Vec<_>>());
    let numbers: Vec<String> = cases(&text)
        .iter()
        .filter_map(|case| case.title.split_once(':').map(|(numbers, _)| numbers.to_owned()))
        .flat_map(|numbers| numbers.replace(" and ", ", ").split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (number, places) in table {
        let has_case = numbers.contains(&number.to_string());
        assert_eq!(has_case, places.contains("here"), "{number}: {places}");
        for place in places.split("; ") {
            match place.split_once(": ") {
                Some((run, _)) if run.starts_with("run/") => {
                    assert!(root.join("tests/scenarios").join(run).is_dir(), "{number}: {run}");
                }
                Some((file, test)) if file.ends_with(".rs") => {
                    let places =
                        [root.join("tests/integration").join(file), root.join("src/server").join(file)];
                    let source = places.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap();
                    assert!(source.contains(&format!("fn {test}()")), "{number}: {place}");
                }
                _ => {}
            }
        }
    }
}

fn bless() {
    for (path, cases) in corpus() {
        // Lines before the first case are kept.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.truncate(text.find("=== ").unwrap_or(0));
        for case in cases {
            let result = Circumstances::of(&case).compile(&case.text());
            text += &format!("=== {}\n", case.title);
            for circumstance in &case.circumstances {
                text += &format!("@ {circumstance}\n");
            }
            text += &case.source;
            for (section, expected) in &case.expected {
                let new = actual(section, &result).unwrap_or_else(|| expected.clone());
                text += &format!("--- {section}\n{}\n", new.trim_end());
            }
            text.push('\n');
        }
        std::fs::write(path, text).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Bytes of a config of the corpus removed, doubled or replaced: an answer, never a panic.
    #[test]
    fn a_damaged_config_gets_an_answer(
        pick in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, 0usize..FRAGMENTS.len()), 1..5),
    ) {
        let all: Vec<Case> = corpus().into_iter().flat_map(|(_, cases)| cases).collect();
        let mut text: Vec<char> = all[pick.index(all.len())].source.chars().collect();
        for (at, length, fragment) in damage {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, FRAGMENTS[fragment].chars());
        }
        let text: String = text.into_iter().collect();
        match compile_text(&text) {
            // More than a source may have.
            Ok(compiled) if compiled.processed.len() > 4 << 20 => {}
            Ok(compiled) => {
                let again = compile_text(&compiled.processed);
                let again = again.map(|again| without_names(again.workflows));
                prop_assert_eq!(again, Ok(without_names(compiled.workflows)));
            }
            Err(diagnostics) => {
                prop_assert!(diagnostics.0.iter().all(|d| d.line > 0 && d.column > 0 && !d.message.is_empty()));
                prop_assert!(!diagnostics.0.is_empty());
            }
        }
    }
}

const FRAGMENTS: &[&str] = &[
    "",
    "\n",
    " ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "*a",
    "&a ",
    "<<",
    ">>",
    "<< parameters.x >>",
    "\"",
    "'",
    "\\",
    "null",
    "true",
    "1",
    "1.5",
    "|",
    "#",
    "é",
    "<<: ",
    "steps",
    "when",
    "\t",
    "~",
    "pipeline.git.branch",
    "matrix",
    "requires: [j]",
];
