//! Schema versions: `user_version` counts the migrations that have been applied.

use super::Error;
use rusqlite::Connection;

/// Each entry brings the schema from the version of its position to the next.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// Brings the schema up to date; refuses a database that a newer version has written.
pub(super) fn migrate(connection: &Connection) -> Result<(), Error> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(Error::Corrupt(format!(
            "its schema has version {version}, and this program knows versions up to {}: \
             a newer `runlet` has written it, use that one",
            MIGRATIONS.len()
        )));
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        // DDL and the version change together or not at all.
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;\n{migration}\nPRAGMA user_version = {};\nCOMMIT;",
            index + 1
        ))?;
    }
    Ok(())
}
