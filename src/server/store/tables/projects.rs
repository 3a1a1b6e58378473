//! Settings of projects.
//!
//! SQLite only: nothing. `settings` is JSON in a text column.

use crate::server::ids::ProjectId;
use crate::server::store::{Error, Tx, View};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// Settings of a project, as they stand in its JSON column. Absent ones are off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSettings {
    /// Whether a new pipeline cancels the unfinished ones of its branch, unless that is the default branch.
    #[serde(default)]
    pub enable_auto_cancel_redundant_workflows: bool,
}

/// Reads the settings of a project.
pub fn settings(view: &View, project: &ProjectId) -> Result<Option<ProjectSettings>, Error> {
    let mut query = view.sql().prepare_cached("SELECT settings FROM projects WHERE id = ?1")?;
    let stored: Option<String> = query.query_row([project], |row| row.get(0)).optional()?;
    Ok(stored.map(|text| serde_json::from_str(&text)).transpose()?)
}

/// Replaces the settings of a project.
pub fn set_settings(tx: &Tx<'_>, project: &ProjectId, settings: &ProjectSettings) -> Result<(), Error> {
    tx.sql()
        .prepare_cached("UPDATE projects SET settings = ?2 WHERE id = ?1")?
        .execute(params![project, serde_json::to_string(settings)?])?;
    Ok(())
}
