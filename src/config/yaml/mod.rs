//! YAML as configs use it: text to a tree with positions, and compiled values back to text.
//!
//! The events come from `saphyr-parser`; what they mean (types of scalars, merge keys, duplicate keys,
//! bounds) is decided here.

mod advice;
mod emit;
mod load;
mod reindent;
mod scalar;

pub(crate) use emit::Emitter;
pub(crate) use load::load;
pub(crate) use scalar::number_text;
