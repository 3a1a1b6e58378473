//! Schema versions: `user_version` counts the migrations that have been applied.

use crate::server::store::Error;
use rusqlite::Connection;

/// Each entry brings the schema from the version of its position to the next.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    // Jobs that ran out of time had a status of their own.
    "UPDATE jobs SET status = 'failed' WHERE status = 'timedout';",
    include_str!("archives.sql"),
    // Jobs that stored test results, in the order of their first ones; and for each job with several nodes
    // the one whose timings they share their tests by.
    "CREATE TABLE jobs_with_tests (
        seq        INTEGER PRIMARY KEY,
        project_id TEXT NOT NULL,
        name       TEXT NOT NULL,
        job_id     TEXT NOT NULL UNIQUE REFERENCES jobs (id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX jobs_with_tests_by_name ON jobs_with_tests (project_id, name, seq);
    INSERT INTO jobs_with_tests (project_id, name, job_id)
        SELECT j.project_id, j.name, j.id FROM (SELECT job_id, min(id) AS first FROM test_results GROUP BY job_id) t
        JOIN jobs j ON j.id = t.job_id ORDER BY t.first;
    ALTER TABLE jobs ADD COLUMN timings_of TEXT;",
    include_str!("claims.sql"),
    // Whether what the infrastructure ended after its begin runs again: wanted by the class, copied at the claim.
    "ALTER TABLE resource_classes ADD COLUMN unsafe_retries INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN retries_unsafely INTEGER NOT NULL DEFAULT 0;",
    include_str!("audit.sql"),
    include_str!("keeping.sql"),
    // The kind of runner that a task is for, and jobs that none may take.
    "ALTER TABLE jobs ADD COLUMN task_kind TEXT NOT NULL DEFAULT 'machine';
    ALTER TABLE jobs ADD COLUMN cannot_run_status TEXT;
    ALTER TABLE jobs ADD COLUMN cannot_run_message TEXT;
    ALTER TABLE tasks ADD COLUMN kind TEXT NOT NULL DEFAULT 'machine';",
    // The index serves the foreign key: without it every job that goes would have all files of test results read.
    "CREATE INDEX test_files_by_job ON test_files (job_id);",
    include_str!("sessions.sql"),
    include_str!("forge.sql"),
    // When the output of a step came: pairs of offset and Unix milliseconds, as JSON.
    "ALTER TABLE steps ADD COLUMN output_times TEXT;",
    // Runners and classes that get no tasks for a while, and how long tasks may wait.
    "ALTER TABLE resource_classes ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE resource_classes ADD COLUMN wait_limit_ms INTEGER;
    ALTER TABLE runner_instances ADD COLUMN is_paused INTEGER NOT NULL DEFAULT 0;",
    include_str!("reports.sql"),
    include_str!("hooks.sql"),
    include_str!("schedules.sql"),
    include_str!("small_outputs.sql"),
    // How long a claimed task may take to begin: pods wait for nodes.
    "ALTER TABLE resource_classes ADD COLUMN begin_limit_ms INTEGER;",
    include_str!("apps.sql"),
    // Deliveries of strangers, who push out of the list nothing but their own.
    "ALTER TABLE forge_deliveries ADD COLUMN is_strange INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX forge_deliveries_refused ON forge_deliveries (project_id, is_strange, seq) WHERE verdict = 'refused';",
    include_str!("tokens.sql"),
    // File and line of a failure, for people; the columns that clients know stay what reports have.
    "ALTER TABLE test_results ADD COLUMN place TEXT;",
    // Time since which somebody could claim a task: as far as is known, since it entered the queue. Of one that waits no
    // more nobody asks.
    "ALTER TABLE tasks ADD COLUMN waits_since_ms INTEGER NOT NULL DEFAULT 0;
    UPDATE tasks SET waits_since_ms = queued_at_ms WHERE status = 'queued';",
    // Author and committer of the commit of a pipeline, with times: JSON, for those who are told of it.
    "ALTER TABLE pipelines ADD COLUMN commit_facts TEXT;",
    // Whether a rerun was asked for whatever the runs before may be doing: it waits for no fence of theirs.
    "ALTER TABLE workflows ADD COLUMN is_forced INTEGER NOT NULL DEFAULT 0;",
    // How long a task may take to begin, copied from its class at the claim; and the start of its host that a runner was
    // seen with last, in its own claim or that of another runner there.
    "ALTER TABLE tasks ADD COLUMN begin_limit_ms INTEGER;
    UPDATE tasks SET begin_limit_ms = max(begin_until_ms - claimed_at_ms, 60000) WHERE status = 'claimed';
    ALTER TABLE runner_instances ADD COLUMN machine_id TEXT;
    ALTER TABLE runner_instances ADD COLUMN boot_id TEXT;
    CREATE INDEX runner_instances_by_machine ON runner_instances (resource_class_id, machine_id)
        WHERE machine_id IS NOT NULL;",
];

/// A version and its schema as one text. A new database begins with it: what the migrations up to there make of an
/// empty one takes four times as long, and each of them waits for the disk. Later migrations follow as ever; their
/// part is taken in by writing both anew.
const BASE: (usize, &str) = (23, include_str!("base.sql"));

/// The version of the schema that this program works with.
pub(super) fn newest() -> usize {
    MIGRATIONS.len()
}

/// The version of a database; 0 is an empty one.
pub(super) fn version(connection: &Connection) -> Result<usize, Error> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Brings the schema up to date; refuses a database that a newer version has written.
pub(super) fn migrate(connection: &Connection) -> Result<(), Error> {
    let mut version = version(connection)?;
    if version > MIGRATIONS.len() {
        return Err(Error::Corrupt(format!(
            "its schema has version {version}, and this program knows versions up to {}: \
             a newer `runlet` has written it, use that one",
            MIGRATIONS.len()
        )));
    }
    if version == 0 {
        version = BASE.0;
        apply(connection, BASE.1, version)?;
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        apply(connection, migration, index + 1)?;
    }
    Ok(())
}

/// Changes the schema and its version together, or neither.
fn apply(connection: &Connection, change: &str, version: usize) -> Result<(), Error> {
    let change = format!("BEGIN IMMEDIATE;\n{change}\nPRAGMA user_version = {version};\nCOMMIT;");
    Ok(connection.execute_batch(&change)?)
}

/// Makes an empty database of a version, as the program of that time did.
#[cfg(test)]
pub(super) fn build(connection: &Connection, version: usize) -> Result<(), Error> {
    for migration in &MIGRATIONS[..version] {
        connection.execute_batch(migration)?;
    }
    Ok(connection.pragma_update(None, "user_version", version)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_new_database_is_what_the_migrations_make() {
        let texts = |c: &Connection| -> Vec<(String, String, Option<String>)> {
            let mut query = c.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name").unwrap();
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            rows.unwrap().map(Result::unwrap).collect()
        };
        let (built, new) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        build(&built, BASE.0).unwrap();
        new.execute_batch(BASE.1).unwrap();
        assert_eq!(texts(&new), texts(&built));
        // Rows that a migration stores in an empty database would be missing in a new one.
        for (_, name, _) in texts(&built).iter().filter(|(kind, _, _)| kind == "table") {
            let count = format!("SELECT count(*) FROM \"{name}\"");
            assert_eq!(built.query_row(&count, [], |row| row.get::<_, u64>(0)).unwrap(), 0, "{name}");
        }
        let c = Connection::open_in_memory().unwrap();
        migrate(&c).unwrap();
        assert_eq!(version(&c).unwrap(), newest());
    }

    #[test]
    fn what_the_first_version_stored_is_brought_up_to_date() {
        let c = Connection::open_in_memory().unwrap();
        c.execute_batch(MIGRATIONS[0]).unwrap();
        c.pragma_update(None, "foreign_keys", false).unwrap();
        c.pragma_update(None, "user_version", 1).unwrap();
        let insert =
            "INSERT INTO jobs VALUES (?1, 'w', 'p', 'r', ?2, 'n', 'build', '{}', '[]', NULL, 1, ?1, NULL, 1,
            '[]', 0, NULL, 0, 0, 0, 0, NULL, NULL)";
        for (position, status) in ["timedout", "success"].into_iter().enumerate() {
            c.execute(insert, rusqlite::params![status, position]).unwrap();
        }
        for job in ["timedout", "success", "timedout", "long-gone"] {
            let insert =
                "INSERT INTO test_results VALUES (NULL, ?1, 't', 'p', 'n', '', NULL, '', 'success', 1, '')";
            c.execute(insert, [job]).unwrap();
        }
        migrate(&c).unwrap();
        let mut query = c.prepare("SELECT status FROM jobs ORDER BY position").unwrap();
        let statuses = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(statuses.collect::<Result<Vec<_>, _>>().unwrap(), ["failed", "success"]);
        let mut query = c.prepare("SELECT job_id FROM jobs_with_tests ORDER BY seq").unwrap();
        let jobs = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(jobs.collect::<Result<Vec<_>, _>>().unwrap(), ["timedout", "success"]);
        migrate(&c).unwrap();
    }

    #[test]
    fn what_waited_before_that_was_noted_has_waited_since_it_was_queued() {
        let c = Connection::open_in_memory().unwrap();
        const BEFORE_WAITS: usize = 23;
        build(&c, BEFORE_WAITS).unwrap();
        c.pragma_update(None, "foreign_keys", false).unwrap();
        let insert = "INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class, status,
            is_canceled, unclaims, next_event, queued_at_ms) VALUES ('t', 'j', 'p', 'r', 0, 1, 'a/b', 'queued', 0, 0, 0, 7)";
        c.execute(insert, []).unwrap();
        migrate(&c).unwrap();
        let since = c.query_row("SELECT waits_since_ms FROM tasks", [], |row| row.get::<_, u64>(0));
        assert_eq!(since.unwrap(), 7);
    }

    #[test]
    fn what_a_runner_held_without_an_event_is_claimed() {
        let c = Connection::open_in_memory().unwrap();
        const BEFORE_CLAIMS: usize = 4;
        build(&c, BEFORE_CLAIMS).unwrap();
        c.pragma_update(None, "foreign_keys", false).unwrap();
        for (id, status, started, stopped, finished) in [
            ("claimed", "running", None, None, 0),
            ("begun", "running", Some(8), None, 0),
            ("finished", "success", Some(8), Some(9), 1),
            ("lost", "infrastructure_fail", Some(8), Some(9), 0),
            ("back", "retried", None, Some(9), 0),
        ] {
            let insert = "INSERT INTO tasks (id, job_id, pipeline_id, project_id, node_index, attempt, resource_class,
                status, allocation, runner_name, lease_until_ms, claimed_at_ms, started_at_ms, stopped_at_ms, is_canceled,
                unclaims, next_event, is_finished, queued_at_ms)
                VALUES (?1, ?1, 'p', 'r', 0, 1, 'a/b', ?2, 'a', 'n', 70, 7, ?3, ?4, 0, 0, 0, ?5, 1)";
            c.execute(insert, rusqlite::params![id, status, started, stopped, finished]).unwrap();
        }
        migrate(&c).unwrap();
        let mut query = c
            .prepare("SELECT id || ' ' || status || ' ' || coalesce(ended_by, begin_until_ms || ' ' || begin_limit_ms, '-') FROM tasks ORDER BY seq")
            .unwrap();
        let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(
            rows.collect::<Result<Vec<_>, _>>().unwrap(),
            [
                "claimed claimed 600007 600000",
                "begun running -",
                "finished success finish",
                "lost infrastructure_fail lost",
                "back retried given_back"
            ]
        );
    }
}
