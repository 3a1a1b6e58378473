//! JSON columns as typed values: they are read once, here, and damage in one is an error of the read.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A column whose text is JSON of `T`.
pub(in crate::server::store) struct Json<T>(pub(in crate::server::store) T);

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let read = serde_json::from_str(value.as_str()?);
        read.map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
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
