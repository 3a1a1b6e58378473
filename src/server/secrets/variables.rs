//! Setting variables of projects and of contexts: their limits, and the sealing of their values.

use crate::protocol::Secret;
use crate::server::ids::{ContextId, ProjectId};
use crate::server::secrets::sealer::{SealError, SealedFor, Sealer, hint};
use crate::server::store::tables::variables::{self, SealedVariable, ShownVariable};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Longest name of a variable, in bytes.
pub const MOST_NAME_BYTES: usize = 300;
/// Longest value, in bytes.
pub const MOST_VALUE_BYTES: usize = 32 * 1024;
/// Most variables of one project.
pub const MOST_PER_PROJECT: usize = 1000;
/// Most variables of one context.
pub const MOST_PER_CONTEXT: usize = 100;

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

/// Sets a variable of a project. `None` when the project has too many.
pub fn set_of_project(
    tx: &Tx<'_>,
    sealer: &Sealer,
    project: &ProjectId,
    name: &str,
    value: &Secret,
    now: Millis,
) -> Result<Option<ShownVariable>, Error> {
    if variables::count_others_of_project(tx, project, name)? >= MOST_PER_PROJECT {
        return Ok(None);
    }
    let sealed = seal(sealer, SealedFor::Project(project, name), name, value)?;
    variables::set_of_project(tx, project, &sealed, &hint(value), now).map(Some)
}

/// Sets a variable of a context. `None` when the context has too many.
pub fn set_of_context(
    tx: &Tx<'_>,
    sealer: &Sealer,
    context: &ContextId,
    name: &str,
    value: &Secret,
    now: Millis,
) -> Result<Option<ShownVariable>, Error> {
    if variables::count_others_of_context(tx, context, name)? >= MOST_PER_CONTEXT {
        return Ok(None);
    }
    let sealed = seal(sealer, SealedFor::Context(context, name), name, value)?;
    variables::set_of_context(tx, context, &sealed, &hint(value), now).map(Some)
}

fn seal(sealer: &Sealer, place: SealedFor<'_>, name: &str, value: &Secret) -> Result<SealedVariable, Error> {
    let fail = |why: SealError| Error::Corrupt(format!("the variable `{name}` cannot be sealed: {why}"));
    Ok(SealedVariable { name: name.to_owned(), sealed: sealer.seal(place, value).map_err(fail)? })
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
