//! Contexts: named sets of variables of an organisation, and who may use them.
//!
//! A context without restrictions is open to every project of its organisation. Restrictions of one kind
//! widen each other for projects and groups (any may match) and narrow each other for rules (all must
//! hold); every kind that is present must be satisfied.

use crate::config;
use crate::protocol::Secret;
use crate::server::secrets::sealer::{Place, Sealer, hint};
use crate::server::secrets::variables::{Shown, broken, shown};
use crate::server::store::{Error, Tx, View, new_id};
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

/// Longest name, in characters.
pub const MOST_NAME_CHARS: usize = 200;
/// Contexts of one organisation.
pub const MOST_PER_ORGANISATION: i64 = 500;
/// Variables of one context.
pub const MOST_VARIABLES: i64 = 100;
/// Restrictions of one context.
pub const MOST_RESTRICTIONS: i64 = 100;
/// Exists in every organisation, made or not.
const ALWAYS_THERE: &str = "org-global";

/// A context.
#[derive(Clone, Debug)]
pub struct Context {
    /// UUID.
    pub id: String,
    /// UUID.
    pub organisation: String,
    /// Unique in the organisation.
    pub name: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// Who may use a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// UUID.
    pub id: String,
    /// What is restricted.
    pub kind: Kind,
    /// UUID of a project, a rule, or UUID of a group.
    pub value: String,
}

/// What a restriction looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The project.
    Project,
    /// The pipeline's values.
    Expression,
    /// Who triggered the pipeline.
    Group,
}

impl Kind {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Project => "project",
            Kind::Expression => "expression",
            Kind::Group => "group",
        }
    }

    /// From what the API writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Kind::Project, Kind::Expression, Kind::Group].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Why something was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There is one of this name.
    Exists,
    /// The limit is reached.
    TooMany(i64),
}

/// Checks a name; the error is a sentence for people.
pub fn check_name(name: &str) -> Result<(), String> {
    let count = name.chars().count();
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err("a context needs a name of visible characters".to_owned());
    }
    if count > MOST_NAME_CHARS {
        return Err(format!(
            "the name of a context has at most {MOST_NAME_CHARS} characters, this one has {count}"
        ));
    }
    Ok(())
}

/// Makes a context.
pub fn create(tx: &Tx<'_>, organisation: &str, name: &str, now: u64) -> Result<Result<Context, Full>, Error> {
    let count: i64 = tx
        .prepare_cached("SELECT count(*) FROM contexts WHERE organisation_id = ?1")?
        .query_row([organisation], |row| row.get(0))?;
    let id = new_id();
    let made = tx
        .prepare_cached("INSERT OR IGNORE INTO contexts VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, organisation, name, now as i64])?;
    if made == 0 {
        return Ok(Err(Full::Exists));
    }
    if count >= MOST_PER_ORGANISATION {
        tx.execute("DELETE FROM contexts WHERE id = ?1", [&id])?;
        return Ok(Err(Full::TooMany(MOST_PER_ORGANISATION)));
    }
    let organisation = organisation.to_owned();
    Ok(Ok(Context { id, organisation, name: name.to_owned(), created_at_ms: now as i64 }))
}

/// The contexts of an organisation, by name.
pub fn list(c: &View, organisation: &str) -> Result<Vec<Context>, Error> {
    let mut query = c.prepare_cached(
        "SELECT id, organisation_id, name, created_at_ms FROM contexts WHERE organisation_id = ?1 ORDER BY name",
    )?;
    let rows = query.query_map([organisation], context)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A context by its id.
pub fn get(c: &View, id: &str) -> Result<Option<Context>, Error> {
    let mut query =
        c.prepare_cached("SELECT id, organisation_id, name, created_at_ms FROM contexts WHERE id = ?1")?;
    Ok(query.query_row([id], context).optional()?)
}

fn context(row: &rusqlite::Row<'_>) -> rusqlite::Result<Context> {
    Ok(Context { id: row.get(0)?, organisation: row.get(1)?, name: row.get(2)?, created_at_ms: row.get(3)? })
}

/// Removes a context with everything in it. False when there is none.
pub fn delete(tx: &Tx<'_>, id: &str) -> Result<bool, Error> {
    Ok(tx.prepare_cached("DELETE FROM contexts WHERE id = ?1")?.execute([id])? > 0)
}

/// The variables of a context, by name.
pub fn variables(c: &View, id: &str) -> Result<Vec<Shown>, Error> {
    let mut query = c.prepare_cached(
        "SELECT name, hint, created_at_ms, updated_at_ms FROM context_variables WHERE context_id = ?1 ORDER BY name",
    )?;
    let rows = query.query_map([id], shown)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Sets a variable of a context.
pub fn set_variable(
    tx: &Tx<'_>,
    sealer: &Sealer,
    id: &str,
    name: &str,
    value: &Secret,
    now: u64,
) -> Result<Result<Shown, Full>, Error> {
    let count: i64 = tx
        .prepare_cached("SELECT count(*) FROM context_variables WHERE context_id = ?1 AND name <> ?2")?
        .query_row([id, name], |row| row.get(0))?;
    if count >= MOST_VARIABLES {
        return Ok(Err(Full::TooMany(MOST_VARIABLES)));
    }
    let sealed = sealer.seal(Place::Context(id, name), value).map_err(|e| broken(name, &e))?;
    let stored = tx
        .prepare_cached(
            "INSERT INTO context_variables VALUES (?1, ?2, ?3, ?4, ?5, ?5)
             ON CONFLICT DO UPDATE SET sealed = ?3, hint = ?4, updated_at_ms = ?5
             RETURNING name, hint, created_at_ms, updated_at_ms",
        )?
        .query_row(params![id, name, sealed, hint(value), now as i64], shown)?;
    Ok(Ok(stored))
}

/// Removes a variable. False when there is none.
pub fn delete_variable(tx: &Tx<'_>, id: &str, name: &str) -> Result<bool, Error> {
    let sql = "DELETE FROM context_variables WHERE context_id = ?1 AND name = ?2";
    Ok(tx.prepare_cached(sql)?.execute([id, name])? > 0)
}

/// The restrictions of a context.
pub fn restrictions(c: &View, id: &str) -> Result<Vec<Restriction>, Error> {
    let mut query = c.prepare_cached(
        "SELECT id, kind, value FROM context_restrictions WHERE context_id = ?1 ORDER BY kind, value",
    )?;
    let mut rows = query.query([id])?;
    let mut restrictions = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(1)?;
        // Dropping what is not understood would open the context.
        let kind = Kind::parse(&text)
            .ok_or_else(|| Error::Corrupt(format!("a context has a restriction of the kind `{text}`")))?;
        restrictions.push(Restriction { id: row.get(0)?, kind, value: row.get(2)? });
    }
    Ok(restrictions)
}

/// Adds a restriction; the same one again is the one that is there.
pub fn restrict(tx: &Tx<'_>, id: &str, kind: Kind, value: &str) -> Result<Result<Restriction, Full>, Error> {
    let all = restrictions(tx, id)?;
    if let Some(same) = all.iter().find(|r| r.kind == kind && r.value == value) {
        return Ok(Ok(same.clone()));
    }
    if all.len() as i64 >= MOST_RESTRICTIONS {
        return Ok(Err(Full::TooMany(MOST_RESTRICTIONS)));
    }
    let restriction = Restriction { id: new_id(), kind, value: value.to_owned() };
    tx.prepare_cached("INSERT INTO context_restrictions VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        restriction.id,
        id,
        kind.as_str(),
        value
    ])?;
    Ok(Ok(restriction))
}

/// Removes a restriction. False when there is none.
pub fn unrestrict(tx: &Tx<'_>, id: &str, restriction: &str) -> Result<bool, Error> {
    let sql = "DELETE FROM context_restrictions WHERE context_id = ?1 AND id = ?2";
    Ok(tx.prepare_cached(sql)?.execute([id, restriction])? > 0)
}

/// The ids of the contexts of a job in their order, or why the job may not have one of them.
pub fn of_job(c: &View, job: &str) -> Result<Result<Vec<String>, String>, Error> {
    let names: String = c
        .prepare_cached(
            "SELECT coalesce(json_extract(definition, '$.contexts'), '[]') FROM jobs WHERE id = ?1",
        )?
        .query_row([job], |row| row.get(0))?;
    let names: Vec<String> = serde_json::from_str(&names)?;
    if names.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let (project, organisation, slug, values, parameters): (String, String, String, String, String) = c
        .prepare_cached(
            "SELECT r.id, r.organisation_id, r.vcs || '/' || r.org, p.pipeline_values, p.parameters
             FROM jobs j JOIN projects r ON r.id = j.project_id JOIN pipelines p ON p.id = j.pipeline_id WHERE j.id = ?1",
        )?
        .query_row([job], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
    let facts = Facts {
        project: &project,
        organisation: &organisation,
        values: serde_json::from_str(&values)?,
        parameters: serde_json::from_str(&parameters)?,
    };
    let mut ids = Vec::new();
    for name in names {
        let id: Option<String> = c
            .prepare_cached("SELECT id FROM contexts WHERE organisation_id = ?1 AND name = ?2")?
            .query_row([&organisation, &name], |row| row.get(0))
            .optional()?;
        let Some(id) = id else {
            if name == ALWAYS_THERE {
                continue;
            }
            return Ok(Err(format!(
                "this job uses the context `{name}`, which does not exist in the organisation `{slug}`"
            )));
        };
        if let Err(why) = allows(&restrictions(c, &id)?, &facts) {
            return Ok(Err(format!("this job may not use the context `{name}`: {why}")));
        }
        ids.push(id);
    }
    Ok(Ok(ids))
}

/// What restrictions look at.
struct Facts<'a> {
    project: &'a str,
    organisation: &'a str,
    values: Value,
    parameters: Value,
}

fn allows(restrictions: &[Restriction], facts: &Facts<'_>) -> Result<(), String> {
    let of = |kind: Kind| restrictions.iter().filter(move |r| r.kind == kind).map(|r| r.value.as_str());
    if of(Kind::Project).next().is_some() && !of(Kind::Project).any(|id| id == facts.project) {
        return Err("it is restricted to other projects".to_owned());
    }
    // The organisation's own id stands for all its members; further groups do not exist here.
    if of(Kind::Group).next().is_some() && !of(Kind::Group).any(|id| id == facts.organisation) {
        return Err("it is restricted to a group, and this control plane knows no groups".to_owned());
    }
    let look_up = |name: &str| match name.strip_prefix("pipeline.parameters.") {
        Some(parameter) => facts.parameters.get(parameter).cloned(),
        None => facts.values.get(name).cloned(),
    };
    for rule in of(Kind::Expression) {
        match config::rule_holds(rule, &look_up) {
            Ok(true) => {}
            Ok(false) => return Err(format!("its rule `{rule}` does not hold for this pipeline")),
            Err(why) => return Err(format!("its rule `{rule}` cannot be evaluated: {why}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(restrictions: &[(Kind, &str)]) -> Result<(), String> {
        let all: Vec<_> = restrictions
            .iter()
            .map(|(kind, value)| Restriction { id: String::new(), kind: *kind, value: (*value).to_owned() })
            .collect();
        let facts = Facts {
            project: "p",
            organisation: "o",
            values: json!({ "pipeline.git.branch": "main" }),
            parameters: json!({ "level": 3 }),
        };
        allows(&all, &facts)
    }

    #[test]
    fn every_kind_must_be_satisfied() {
        const MAIN: &str = "pipeline.git.branch == \"main\"";
        const LEVEL: &str = "pipeline.parameters.level > 2";
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&[(Kind::Project, "q"), (Kind::Project, "p")]), Ok(()));
        assert!(verdict(&[(Kind::Project, "q")]).is_err());
        assert_eq!(verdict(&[(Kind::Expression, MAIN), (Kind::Expression, LEVEL)]), Ok(()));
        assert!(verdict(&[(Kind::Expression, MAIN), (Kind::Expression, "pipeline.number == 1")]).is_err());
        assert!(verdict(&[(Kind::Project, "q"), (Kind::Expression, MAIN)]).is_err());
        assert_eq!(verdict(&[(Kind::Group, "o")]), Ok(()));
        assert!(verdict(&[(Kind::Group, "g")]).is_err_and(|why| why.contains("group")));
        assert!(verdict(&[(Kind::Expression, "nonsense ==")]).is_err(), "a damaged rule opens nothing");
    }
}
