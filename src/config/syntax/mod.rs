//! Expressions and `<< >>` tags as they are written: text to a tree, without values.
//!
//! [`parse()`] reads one expression (`pipeline.git.branch == "main" and not parameters.fast`), and
//! [`template`] cuts a text at its tags. Depth and length are bounded, so the recursion is.

pub(crate) mod template;

mod lex;
mod parse;
mod pattern;
mod re2;

pub(crate) use lex::SyntaxError;
pub(crate) use parse::{Expression, Identifier, Infix, parse};
pub(crate) use pattern::Pattern;
