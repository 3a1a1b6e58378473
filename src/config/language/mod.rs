//! The language inside values: what names and expressions come to, and which conditions hold.

pub(crate) mod pipeline;

mod evaluate;
mod logic;
mod restriction;
mod scope;
mod substitute;

pub(crate) use evaluate::{EvaluationError, Value};
pub(crate) use logic::ConditionOf;
pub use restriction::{check_rule, rule_holds};
pub(crate) use scope::Scope;
pub(crate) use substitute::Language;
