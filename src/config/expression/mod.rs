//! The expression language: `pipeline.git.branch == "main" and not parameters.fast`.
//!
//! Text to a tree here ([`parse()`]), the tree to a value with names looked up by the caller
//! ([`Expression::evaluate`]). Depth and length are bounded, so both recursions are.

mod evaluate;
mod lex;
mod parse;
mod pattern;
mod re2;

pub(crate) use evaluate::{EvaluationError, Value};
pub(crate) use parse::{Expression, Name, SyntaxError, parse};
pub(crate) use pattern::Pattern;
