//! Views of the database: all that other rooms hold of a connection.

use rusqlite::Connection;

/// The database as it was at one moment: what a read sees, and what a transaction sees of itself.
///
/// Statements are written in this room only; nothing else can reach the connection. A transaction is a view, too.
pub struct View(Connection);

impl View {
    /// Sees the database through a connection.
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Runs a statement without values and rows, such as the begin of a transaction, and keeps it compiled.
    pub(in crate::server::store) fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.0.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// The connection, for the statements of this room.
    pub(in crate::server::store) fn sql(&self) -> &Connection {
        &self.0
    }
}
