//! Entries into the compiler for the benchmark, the fuzz targets and `ci/corpus`. No part of the interface.

use crate::config::language::{EvaluationError, Value};
use crate::config::syntax::parse;
use crate::config::syntax::template;
use crate::config::{Compiled, Diagnostics, Input, NoOrbs, Workflow, compile};
use std::collections::BTreeMap;

/// Compiles a text by itself: no parameters, values or orbs.
pub fn compile_text(source: &str) -> Result<Compiled, Diagnostics> {
    let none = BTreeMap::new();
    compile(&Input {
        source,
        file_name: "config.yml",
        parameters: &none,
        values: &none,
        stand_ins: &none,
        orbs: &NoOrbs,
        default_resource_class: None,
    })
}

/// The workflows without the names that the text gave their jobs, which are gone from what it is compiled to.
pub fn without_names(mut workflows: Vec<Workflow>) -> Vec<Workflow> {
    for job in workflows.iter_mut().flat_map(|workflow| &mut workflow.jobs) {
        job.written.clear();
        job.job.clear();
    }
    workflows
}

/// Parses and evaluates an expression in which every name has some value, and cuts the text at its
/// tags; tells whether it is an expression.
pub fn evaluate_text(source: &str) -> bool {
    // The result does not matter, only that there is one.
    let _ = template::parse(source);
    let Ok(expression) = parse(source) else { return false };
    let result = expression.evaluate::<()>(&mut |name| match name.text.len() % 5 {
        0 => Ok(Value::Undefined),
        1 => Ok(Value::Boolean(true)),
        2 => Ok(Value::Integer(name.text.len() as i64)),
        3 => Ok(Value::String(name.text.clone())),
        _ => Err(()),
    });
    matches!(result, Ok(_) | Err(EvaluationError::Name(()) | EvaluationError::Type(..)))
}
