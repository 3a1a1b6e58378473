//! Workflows: entries, matrices and groups of jobs, joined to a graph.

mod workflows;

mod draft;
mod edges;
mod entry;
mod filter;
mod group;
mod matrix;
mod schedule;
mod unused;
mod workflow;

pub(crate) use filter::NamePattern;
pub(crate) use workflows::Workflows;
