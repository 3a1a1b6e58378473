//! The definitions of a config and of its orbs: commands, executors, jobs and parameters.

pub(crate) mod given;
pub(crate) mod orb;
pub(crate) mod orb_reference;
pub(crate) mod package;
pub(crate) mod parameters;
