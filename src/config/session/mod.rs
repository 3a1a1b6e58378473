//! One compilation: its messages, and its budget.

pub(crate) mod compiler;
pub(crate) mod cost;
pub(crate) mod suggest;
