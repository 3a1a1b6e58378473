//! Every statement by which tasks are queued, claimed, run and ended is answered by an index, however many tasks are
//! stored: the database is asked how it would do it.

use crate::server::store::schema;
use rusqlite::Connection;

/// The tables whose statements run for every task.
const SOURCES: &[(&str, &str)] = &[
    ("classes", include_str!("tables/classes.rs")),
    ("contexts", include_str!("tables/contexts.rs")),
    ("fleet", include_str!("tables/fleet.rs")),
    ("handout", include_str!("tables/handout.rs")),
    ("instances", include_str!("tables/instances.rs")),
    ("jobs", include_str!("tables/jobs.rs")),
    ("keys", include_str!("tables/keys.rs")),
    ("progress", include_str!("tables/progress.rs")),
    ("serial", include_str!("tables/serial.rs")),
    ("small_outputs", include_str!("tables/small_outputs.rs")),
    ("steps", include_str!("tables/steps.rs")),
    ("tasks", include_str!("tables/tasks.rs")),
    ("trust", include_str!("tables/trust.rs")),
    ("variables", include_str!("tables/variables.rs")),
    ("workflows", include_str!("tables/workflows.rs")),
];

/// Tables that grow with every task and are kept.
const GROWING: &[&str] = &[
    "artifacts",
    "jobs",
    "pipeline_configs",
    "pipelines",
    "small_outputs",
    "steps",
    "tasks",
    "test_results",
    "workflows",
];

/// The texts in a source that are statements, or the end of one on tasks.
fn statements(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let constants: Vec<(&str, &str)> = ["COLUMNS", "SAME_IN_CHAIN", "CONTEXT"]
        .into_iter()
        .filter_map(|name| {
            let (_, rest) = code.split_once(&format!("const {name}: &str ="))?;
            Some((name, rest.split('"').nth(1)?))
        })
        .collect();
    // Comments have no quotes of their own in pairs: only code is looked at.
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    let texts = code.split('"').skip(1).step_by(2);
    let whole = texts.filter_map(|text| {
        let text = constants
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
        let word = text.split_whitespace().next()?;
        match word {
            "SELECT" | "UPDATE" | "DELETE" | "INSERT" => Some(text),
            "WHERE" | "INDEXED" => Some(format!("SELECT * FROM tasks {text}")),
            _ => None,
        }
    });
    whole.filter(|text| !text.contains('{')).collect()
}

/// Fails unless a statement is answered by the index of this name.
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
pub(super) fn assert_uses(sql: &str, index: &str) {
    let database = Connection::open_in_memory().unwrap();
    schema::migrate(&database).unwrap();
    let mut query = database.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let given = rusqlite::params_from_iter((0..query.parameter_count()).map(|_| "x"));
    let steps = query.query_map(given, |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<String> = steps.map(Result::unwrap).collect();
    let is_used = |step: &String| format!("{step} ").contains(&format!(" INDEX {index} "));
    assert!(plan.iter().any(is_used), "{sql}: {plan:?}");
}

#[test]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test without its database should fail loudly")]
fn no_statement_of_a_task_reads_all_that_is_stored() {
    let database = Connection::open_in_memory().unwrap();
    schema::migrate(&database).unwrap();
    let (mut seen, mut scans) = (0, Vec::new());
    for (name, source) in SOURCES {
        let statements = statements(source);
        assert!(!statements.is_empty(), "{name}");
        for sql in statements {
            let mut query = database
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap_or_else(|error| panic!("{name}: {error}: {sql}"));
            let count = query.parameter_count();
            let given = rusqlite::params_from_iter((0..count).map(|_| "x"));
            let plan = query.query_map(given, |row| row.get::<_, String>(3)).unwrap();
            for detail in plan.map(Result::unwrap) {
                // A detail such as `SCAN t` has the name that the statement gave the table.
                let Some(scanned) = detail.strip_prefix("SCAN ") else { continue };
                let scanned = scanned.split(' ').next().unwrap_or_default();
                // The indexes named here have only what has not ended.
                let is_partial =
                    ["tasks_fenced", "workflows_unfinished"].iter().any(|index| detail.contains(index));
                let tables = GROWING
                    .iter()
                    .filter(|table| **table == scanned || sql.contains(&format!("{table} {scanned}")));
                if tables.count() > 0 && !is_partial {
                    scans.push(format!("{name}: {detail}: {sql}"));
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 80, "only {seen} statements were found");
    assert!(scans.is_empty(), "{}", scans.join("\n"));
}
