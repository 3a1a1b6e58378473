//! ContainerSettings of the container runner: a values file, the config map of the chart, and variables, which win.
//!
//! `yaml` reads text, `schema` checks pod templates, `resolve` makes [`ContainerSettings`] of both. Nothing here does more than
//! read files.

mod resolve;
mod schema;
mod types;
mod yaml;

pub(super) use resolve::load;
pub(super) use types::{Checker, ClassSettings, Cluster, ContainerSettings};
