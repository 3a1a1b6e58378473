//! JSON columns as typed values: they are read once, here, and damage in one is an error of the read.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A column whose text is JSON of `T`.
pub(in crate::server::store) struct Json<T>(pub(in crate::server::store) T);

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let read = serde_json::from_str(value.as_str()?);
        read.map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// A column of one row that cannot be read. It is a value of its own where other rows must not wait for that one: whoever
/// works on the row ends it with this sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedColumn(String);

impl fmt::Display for DamagedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is damaged in the database, or a newer version has stored it ({})", self.0)
    }
}

/// Reads a JSON column of a row that damage in it must not keep others from.
pub(in crate::server::store) fn json_or_why<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Result<T, DamagedColumn>> {
    match row.get::<_, Json<T>>(column) {
        Ok(Json(value)) => Ok(Ok(value)),
        Err(rusqlite::Error::FromSqlConversionFailure(_, _, why)) => Ok(Err(DamagedColumn(why.to_string()))),
        Err(error @ rusqlite::Error::InvalidColumnType(..)) => Ok(Err(DamagedColumn(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// A sentence for people about a pipeline or a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// A word that programs tell sentences of its kind by, such as `config`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Sentence for people.
    pub message: String,
}
