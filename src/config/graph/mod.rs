//! Workflows: entries, matrices and groups of jobs, joined to a graph.

pub(crate) mod edges;

mod entry;
mod filter;
mod group;
mod matrix;
mod schedule;
mod unused;
mod workflow;
