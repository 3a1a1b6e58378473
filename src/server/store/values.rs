//! Ids and times as the database keeps them: text, and integers of milliseconds.

use crate::protocol::TaskId;
use crate::server::ids::*;
use crate::server::time::Millis;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

macro_rules! stored_as_text {
    ($name:ident) => {
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.as_str()))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Ok(Self::from(value.as_str()?))
            }
        }
    };
}

for_every_id!(stored_as_text);

impl ToSql for TaskId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.as_str()))
    }
}

impl FromSql for TaskId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        TaskId::new(value.as_str()?).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

impl ToSql for Millis {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // SQLite's integers are signed; a time that does not fit is one that never comes.
        Ok(ToSqlOutput::from(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }
}

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let stored = value.as_i64()?;
        u64::try_from(stored).map(Self).map_err(|_| FromSqlError::OutOfRange(stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_all_times_is_damage() {
        assert_eq!(Millis::column_result(ValueRef::Integer(7)), Ok(Millis(7)));
        assert_eq!(Millis::column_result(ValueRef::Integer(-7)), Err(FromSqlError::OutOfRange(-7)));
    }
}
