//! Project variables in the store, and what a task is given of them and of its contexts' variables.

use crate::protocol::{Secret, Variable};
use crate::server::secrets::contexts;
use crate::server::secrets::sealer::{Place, Sealer, hint};
use crate::server::store::{Error, Tx, View};
use rusqlite::{OptionalExtension, params};

/// Longest name of a variable, in bytes.
pub const MOST_NAME_BYTES: usize = 300;
/// Longest value, in bytes.
pub const MOST_VALUE_BYTES: usize = 32 * 1024;
/// Variables of one project.
pub const MOST_PER_PROJECT: i64 = 1000;
/// Bytes of all variables of one task: more than a process can be started with.
const MOST_TASK_BYTES: usize = 4 * 1024 * 1024;

/// A variable as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Name.
    pub name: String,
    /// `xxxx` and the end of the value.
    pub hint: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds; of project variables the same as `created_at_ms`.
    pub updated_at_ms: i64,
}

/// Checks a name; the error is a sentence for people.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if name.len() > MOST_NAME_BYTES {
        return Err(format!("the name of a variable has at most {MOST_NAME_BYTES} characters"));
    }
    if fits {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    Err(format!(
        "`{shown}` is not the name of a variable: it has letters, digits and `_`, and does not start with a digit"
    ))
}

/// Checks a value; the error says nothing of it.
pub fn check_value(value: &str) -> Result<(), String> {
    if value.len() > MOST_VALUE_BYTES {
        return Err(format!("the value has {} bytes, the limit is {MOST_VALUE_BYTES}", value.len()));
    }
    if value.contains('\0') {
        return Err("the value contains a zero byte, which no environment can hold".to_owned());
    }
    Ok(())
}

/// Sets a project variable. `None` when the project has too many.
pub fn set(
    tx: &Tx<'_>,
    sealer: &Sealer,
    project: &str,
    name: &str,
    value: &Secret,
    now: u64,
) -> Result<Option<Shown>, Error> {
    let count: i64 = tx
        .prepare_cached("SELECT count(*) FROM project_variables WHERE project_id = ?1 AND name <> ?2")?
        .query_row([project, name], |row| row.get(0))?;
    if count >= MOST_PER_PROJECT {
        return Ok(None);
    }
    let sealed = sealer.seal(Place::Project(project, name), value).map_err(|e| broken(name, &e))?;
    let hint = hint(value);
    tx.prepare_cached(
        "INSERT INTO project_variables VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET sealed = ?3, hint = ?4, created_at_ms = ?5",
    )?
    .execute(params![project, name, sealed, hint, now as i64])?;
    let now = now as i64;
    Ok(Some(Shown { name: name.to_owned(), hint, created_at_ms: now, updated_at_ms: now }))
}

/// The variables of a project, by name.
pub fn list(c: &View, project: &str) -> Result<Vec<Shown>, Error> {
    let mut query = c.prepare_cached(
        "SELECT name, hint, created_at_ms, created_at_ms FROM project_variables WHERE project_id = ?1 ORDER BY name",
    )?;
    let rows = query.query_map([project], shown)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One variable of a project.
pub fn get(c: &View, project: &str, name: &str) -> Result<Option<Shown>, Error> {
    let mut query = c.prepare_cached(
        "SELECT name, hint, created_at_ms, created_at_ms FROM project_variables WHERE project_id = ?1 AND name = ?2",
    )?;
    Ok(query.query_row([project, name], shown).optional()?)
}

/// Removes a variable. False when there is none.
pub fn delete(tx: &Tx<'_>, project: &str, name: &str) -> Result<bool, Error> {
    let sql = "DELETE FROM project_variables WHERE project_id = ?1 AND name = ?2";
    Ok(tx.prepare_cached(sql)?.execute([project, name])? > 0)
}

/// A row of name, hint, creation and change.
pub(super) fn shown(row: &rusqlite::Row<'_>) -> rusqlite::Result<Shown> {
    Ok(Shown { name: row.get(0)?, hint: row.get(1)?, created_at_ms: row.get(2)?, updated_at_ms: row.get(3)? })
}

pub(super) fn broken(name: &str, why: &crate::server::secrets::sealer::SealError) -> Error {
    Error::Corrupt(format!("the variable `{name}` cannot be sealed or opened: {why}"))
}

/// Why a task gets no variables, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A context does not exist (any more), or is restricted.
    Unauthorized(String),
    /// A stored value cannot be opened, or they are too many.
    Unusable(String),
}

/// What a task of the job is given: the project's variables, then those of its contexts in their order;
/// of variables with one name the last.
pub fn of_job(c: &View, sealer: &Sealer, job: &str) -> Result<Result<Vec<Variable>, Withheld>, Error> {
    let contexts = match contexts::of_job(c, job)? {
        Ok(contexts) => contexts,
        Err(why) => return Ok(Err(Withheld::Unauthorized(why))),
    };
    let mut rows: Vec<(Option<String>, String, Vec<u8>)> = Vec::new();
    let project: String =
        c.prepare_cached("SELECT project_id FROM jobs WHERE id = ?1")?.query_row([job], |row| row.get(0))?;
    let mut query =
        c.prepare_cached("SELECT name, sealed FROM project_variables WHERE project_id = ?1 ORDER BY name")?;
    for row in query.query_map([&project], |row| Ok((None, row.get(0)?, row.get(1)?)))? {
        rows.push(row?);
    }
    let mut query =
        c.prepare_cached("SELECT name, sealed FROM context_variables WHERE context_id = ?1 ORDER BY name")?;
    for context in contexts {
        for row in query.query_map([&context], |row| Ok((Some(context.clone()), row.get(0)?, row.get(1)?)))? {
            rows.push(row?);
        }
    }
    let mut variables: Vec<Variable> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (context, name, sealed) in rows {
        let place = match &context {
            Some(context) => Place::Context(context, &name),
            None => Place::Project(&project, &name),
        };
        let value = match sealer.open(place, &sealed) {
            Ok(value) => value,
            Err(why) => {
                let why = format!("the variable `{name}` cannot be handed out: {why}; set it again");
                return Ok(Err(Withheld::Unusable(why)));
            }
        };
        match places.get(&name) {
            Some(&at) => variables[at] = Variable { name, value },
            None => {
                places.insert(name.clone(), variables.len());
                variables.push(Variable { name, value });
            }
        }
    }
    let bytes: usize = variables.iter().map(|v| v.name.len() + v.value.expose().len()).sum();
    if bytes > MOST_TASK_BYTES {
        let why = format!(
            "the variables of this job have {bytes} bytes together, the limit is {MOST_TASK_BYTES}: use fewer contexts"
        );
        return Ok(Err(Withheld::Unusable(why)));
    }
    Ok(Ok(variables))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_checked() {
        for good in ["A", "_a", "PATH_2", "a".repeat(300).as_str()] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "ä", "A=B", "a".repeat(301).as_str()] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_value("").is_ok() && check_value("a\nb").is_ok());
        assert!(check_value("a\0b").is_err() && check_value(&"x".repeat(MOST_VALUE_BYTES + 1)).is_err());
    }
}
