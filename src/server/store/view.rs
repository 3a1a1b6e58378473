//! Views of the database: all that other rooms hold of a connection.

use rusqlite::Connection;

/// The database as it was at one moment: what a read sees, and what a transaction sees of itself.
///
/// Statements are written in this room only; nothing else can reach the connection. A [`Tx`] is a view, too.
pub struct View(Connection);

impl View {
    /// Sees the database through a connection.
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// The connection, for the statements of this room.
    pub(in crate::server::store) fn sql(&self) -> &Connection {
        &self.0
    }
}

/// Transitional: statements that have not moved to this room yet go through it.
impl std::ops::Deref for View {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.0
    }
}
