//! Orbs from outside a config, read for the compiler, which does no IO itself: from a folder of
//! registry orbs, and from web addresses that the operator has allowed.
//!
//! `server`, `exec` and `runlet config` hand an [`OrbSites`] to [`config::compile`](crate::config::compile()).

mod archive;
mod builtin;
mod folder;
mod pack;
mod sites;

pub use folder::OrbFolder;
pub use pack::{pack_orbs, pack_parts};
pub use sites::OrbSites;
