//! The files of this room keep to what they say of themselves: statements spell no state, and each file's header names the
//! constructs in it that only SQLite knows.

use crate::protocol::TaskKind;
use crate::server::store::forge_states::*;
use crate::server::store::read::StoredKind;
use crate::server::store::status::*;
use crate::server::store::words::Word;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The beginning of the sentence of a header.
const SAYS: &str = "Only SQLite:";

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
    ("BEGIN IMMEDIATE", "`BEGIN IMMEDIATE`"),
    ("integrity_check", "`integrity_check`"),
    ("foreign_key_check", "`foreign_key_check`"),
    ("page_count", "`page_count`"),
    ("page_size", "`page_size`"),
];

/// The scalar `max` and `min` have two values.
fn has_scalar(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}(")).any(|(at, _)| {
        let begins = code[..at].chars().next_back().is_some_and(|c| c == ' ' || c == '(');
        let inside = code[at + name.len() + 1..].split(')').next().unwrap_or_default();
        begins && inside.contains(", ") && (inside.contains("_ms") || inside.contains('?'))
    })
}

/// Flags are integers: those that a statement negates, compares, sets, or takes the largest of.
fn has_flag(code: &str) -> bool {
    let is_flag = |name: &str| name.starts_with("is_") || name == "takes_untrusted";
    let compared = code.match_indices(" = ").any(|(at, _)| {
        let name =
            code[..at].rsplit(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
        is_flag(name) && code[at + 3..].starts_with(['0', '1'])
    });
    let summed = arguments(code, &["sum", "max", "min", "total"]).iter().any(|argument| {
        let name = argument.rsplit('.').next().unwrap_or_default();
        is_flag(name) && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    });
    compared || summed || code.contains("NOT is_")
}

/// The texts between the parentheses of calls of functions in statements.
fn arguments<'a>(code: &'a str, functions: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in functions {
        for (at, call) in code.match_indices(&format!("{name}(")) {
            // A function of Rust follows a point, or has a longer name.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || "._:".contains(c)) {
                continue;
            }
            let inside = &code[at + call.len()..];
            let mut depth = 1;
            let end = inside.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            found.push(&inside[..end.unwrap_or(inside.len())]);
        }
    }
    found
}

/// Truth values are integers where they are added up, have 0 in their place, are compared with a value, or are a flag's.
fn has_truth(code: &str) -> bool {
    const COMPARES: [&str; 6] = [" = ", " <> ", " < ", " > ", " IN (", " OR "];
    let compares = |text: &str| COMPARES.iter().any(|sign| text.contains(sign));
    let summed = arguments(code, &["sum", "total", "coalesce"])
        .iter()
        .any(|argument| compares(argument) && !argument.contains("CASE ") && !argument.contains("SELECT "));
    let set = code.match_indices(" is_").any(|(at, _)| {
        let line = code[at..].lines().next().unwrap_or_default();
        let behind = line.trim_start().trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
        let value = behind.strip_prefix(" = ").and_then(|value| value.split(" WHERE ").next());
        // Rust ends its lines with a semicolon, or goes on with a block.
        let is_sql = !line.contains(['(', ';', '{', '&', '!']);
        is_sql && value.is_some_and(|value| !value.contains(',') && compares(value))
    });
    // A comparison in parentheses, not a list, a call or a query.
    let compared = code.match_indices(") = ?").any(|(at, _)| {
        let from = code[..at].rfind('(').unwrap_or_default();
        let is_call = code[..from].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        !is_call && compares(&code[from..at]) && !code[from..at].contains("SELECT ")
    });
    summed || set || compared
}

/// `IS` between two values, of which each may be absent.
fn has_is(code: &str) -> bool {
    code.match_indices(" IS ").any(|(at, is)| {
        let value = &code[at + is.len()..];
        value.strip_prefix("NOT ").unwrap_or(value).starts_with(|c: char| c == '?' || c.is_ascii_lowercase())
    })
}

/// A condition on groups that names a column of the result, and calls no function.
fn has_named_group(code: &str) -> bool {
    code.match_indices("HAVING ").any(|(at, having)| {
        let rest = code[at + having.len()..].trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
        !rest.starts_with('(')
    })
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
            ("`IS`", has_is(&code)),
            ("`HAVING`", has_named_group(&code)),
            ("flags are integers", has_flag(&code)),
            ("truth values are integers", has_truth(&code)),
        ];
        let said = header.split_once(SAYS).map_or("", |(_, said)| said);
        for (word, is_used) in found.chain(others) {
            if is_used != said.contains(word) {
                let what = if is_used { "is used and not named" } else { "is named and not used" };
                wrong.push(format!("{name}: {word} {what} in its header, behind `{SAYS}`"));
            }
        }
        // Files of tables and of views all say it, since most of them have something to say.
        let is_asked = name.contains('/') && !name.ends_with("mod.rs") || code.contains(".sql()");
        if header.matches(SAYS).count() != usize::from(is_asked || header.contains(SAYS)) {
            wrong
                .push(format!("{name}: its header has no sentence `{SAYS} ...` (`{SAYS} nothing.`), or two"));
        }
        if ["SQLite's own", "SQLite only"].iter().any(|form| header.contains(form)) {
            wrong.push(format!(
                "{name}: its header says in other words what stands behind `{SAYS}` elsewhere"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn json_is_read_where_damage_in_it_is_an_error() {
    let mut wrong = Vec::new();
    for (name, _, code) in files() {
        if name != "json.rs" && code.contains("serde_json::from_") {
            wrong.push(format!("{name}: read the column as `Json<_>`, or by `json_or_why`"));
        }
        for line in code.lines().filter(|line| line.contains("row.get") && line.contains("unwrap_or")) {
            // A value that is absent may have a default.
            if !line.contains("Option<") && !line.contains(".optional()") {
                wrong.push(format!("{name}: a default stands for what cannot be read: {}", line.trim()));
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
    all::<StoredKind>(&mut words);
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
