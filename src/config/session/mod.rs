//! A compilation as everybody who takes part in it sees it: messages, budget, and reading with both.

pub(crate) mod cost;

mod budget;
mod read;
mod report;
mod suggest;

pub(crate) use budget::Budget;
pub(crate) use read::{NodeReader, present};
pub(crate) use report::Report;
