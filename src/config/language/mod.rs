//! The language inside values: what names and expressions come to, and which conditions hold.

pub(crate) mod logic;
pub(crate) mod pipeline;
pub(crate) mod scope;

mod evaluate;
mod restriction;

pub(crate) use evaluate::{EvaluationError, Value};
pub use restriction::{check_rule, rule_holds};
