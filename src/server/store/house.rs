//! The files of this room keep to what they say of themselves: statements spell no state, and each file's header names the
//! constructs in it that only SQLite knows.

use crate::protocol::TaskKind;
use crate::server::store::status::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A construct: how its code is found, and the word for it in headers.
const CONSTRUCTS: &[(&str, &str)] = &[
    ("INSERT OR IGNORE", "`INSERT OR IGNORE`"),
    ("INSERT OR REPLACE", "`INSERT OR REPLACE`"),
    ("json_each(", "`json_each`"),
    ("json_insert(", "`json_insert`"),
    ("json_extract(", "`json_extract`"),
    ("json_array(", "`json_array`"),
    ("json_array_length(", "`json_array_length`"),
    (" -> '$", "`->`"),
    (" ->> '$", "`->>`"),
    ("group_concat(", "`group_concat`"),
    ("total(", "`total`"),
    ("instr(", "`instr`"),
    ("last_insert_rowid", "`last_insert_rowid`"),
    ("LIMIT -1", "`LIMIT -1`"),
    ("INDEXED BY", "`INDEXED BY`"),
    (" IS ?", "`IS`"),
    ("integrity_check", "`integrity_check`"),
    ("foreign_key_check", "`foreign_key_check`"),
];

/// The scalar `max` and `min` have two values.
fn has_scalar(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}(")).any(|(at, _)| {
        let begins = code[..at].chars().next_back().is_some_and(|c| c == ' ' || c == '(');
        let inside = code[at + name.len() + 1..].split(')').next().unwrap_or_default();
        begins && inside.contains(", ") && (inside.contains("_ms") || inside.contains('?'))
    })
}

/// Flags are integers: those that a statement negates or compares.
fn has_flag(code: &str) -> bool {
    let compared = code.match_indices(" = ").any(|(at, _)| {
        let name =
            code[..at].rsplit(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
        let is_flag = name.starts_with("is_") || name == "takes_untrusted";
        is_flag && code[at + 3..].starts_with(['0', '1'])
    });
    compared || code.contains("NOT is_")
}

/// The files with statements: name, header, code without comments and tests.
#[expect(clippy::unwrap_used, reason = "a test without its sources should fail loudly")]
fn files() -> Vec<(String, String, String)> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/store");
    let mut files = Vec::new();
    for folder in ["", "tables", "read"] {
        for entry in fs::read_dir(room.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&room).unwrap().to_string_lossy().into_owned();
            // Tests, and the schema, whose words and constructs are those of a released version.
            let is_ours =
                !["house.rs", "plans.rs", "scene.rs", "schema.rs", "mod.rs"].contains(&name.as_str());
            if path.extension().is_none_or(|kind| kind != "rs") || !is_ours {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code = code.split("#[cfg(test)]\n#[expect").next().unwrap_or_default();
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            files.push((name, header.join("\n"), code.join("\n")));
        }
    }
    assert!(files.len() > 40, "{}", files.len());
    files
}

#[test]
fn headers_name_what_only_sqlite_knows_and_nothing_else() {
    let mut wrong = Vec::new();
    for (name, header, code) in files() {
        let has_scalar = has_scalar(&code, "max") || has_scalar(&code, "min");
        let found = CONSTRUCTS.iter().map(|(sign, word)| (*word, code.contains(sign)));
        let has_rowid = code.replace("last_insert_rowid", "").contains("rowid");
        let others = [
            ("`max` of two values", has_scalar),
            ("`rowid`", has_rowid),
            ("flags are integers", has_flag(&code)),
        ];
        for (word, is_used) in found.chain(others) {
            if is_used != header.contains(word) {
                let what = if is_used { "is used and not named" } else { "is named and not used" };
                wrong.push(format!("{name}: {word} {what} in its header"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statements_spell_no_state() {
    let mut words = BTreeSet::new();
    fn all<W: Word>(words: &mut BTreeSet<String>) {
        words.extend(W::ALL.iter().map(|word| word.literal().to_owned()));
    }
    all::<PipelineState>(&mut words);
    all::<WorkflowStatus>(&mut words);
    all::<JobStatus>(&mut words);
    all::<TaskState>(&mut words);
    all::<EndedBy>(&mut words);
    all::<StepState>(&mut words);
    all::<JobType>(&mut words);
    all::<TriggerType>(&mut words);
    all::<Forge>(&mut words);
    all::<Verdict>(&mut words);
    all::<EventState>(&mut words);
    all::<CallState>(&mut words);
    all::<ReportState>(&mut words);
    all::<DeliverySource>(&mut words);
    all::<RestrictionKind>(&mut words);
    all::<TestResult>(&mut words);
    all::<MessageKind>(&mut words);
    let kinds = [TaskKind::Machine, TaskKind::Container, TaskKind::Unknown];
    words.extend(kinds.map(|kind| format!("'{}'", Kind(kind).word())));
    let mut spelled = Vec::new();
    for (name, _, code) in files() {
        let found = words.iter().filter(|word| code.contains(word.as_str()));
        spelled.extend(found.map(|word| format!("{name} has {word}: bind the state, or take its `literal`")));
    }
    assert!(spelled.is_empty(), "{}", spelled.join("\n"));
}
