//! The definitions of a config and of its orbs: commands, executors, jobs and parameters.

pub(crate) mod given;
pub(crate) mod orb_reference;
pub(crate) mod parameters;
pub(crate) mod sections;

mod library;
mod orb;
mod package;
mod pipeline_parameters;

pub(crate) use library::{BUILTIN_STEPS, Library};
pub(crate) use orb::packages;
pub(crate) use package::{Definition, Element};
pub(crate) use pipeline_parameters::pipeline_parameters;
