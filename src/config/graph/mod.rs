//! Workflows: entries, matrices and groups of jobs, joined to a graph.

mod edges;

mod draft;

mod entry;
mod filter;
mod group;
mod matrix;
mod schedule;
mod unused;
mod workflow;
