//! From a trigger to stored workflows: finds the config, compiles it, hands it to the engine.
//!
//! `triggers` reads the repository for people who ask, `create` stores the pipeline, `continuation` gives it a
//! second config. `types` holds what they share and uses none of them.

pub mod compile;
pub mod continuation;
pub mod create;
pub mod forge;
pub mod repository;
pub mod triggers;
pub mod types;
