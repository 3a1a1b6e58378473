//! Expressions outside of a config: the rules that restrict a context to some pipelines.
//!
//! The language is that of conditions. What does not apply to a pipeline is undefined, and a rule whose
//! value is undefined does not hold, so a rule never opens a context by accident.

use super::evaluate::{EvaluationError, Value};
use super::pipeline;
use crate::config::syntax::{Identifier, parse};
use serde_json::Value as Json;

/// Whether the job is a rerun with SSH.
const SSH: &str = "job.ssh.enabled";
const PARAMETERS: &str = "pipeline.parameters.";

/// Checks that a text is a rule: an expression over pipeline values, pipeline parameters and
/// `job.ssh.enabled`. The error is a sentence for people.
pub fn check_rule(source: &str) -> Result<(), String> {
    let expression = parse(source).map_err(|error| error.message)?;
    let mut names = Vec::new();
    expression.names(&mut names);
    match names.into_iter().find(|name| !is_known(&name.text)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "`{}` cannot be used here: rules know the `pipeline.` values, `pipeline.parameters.` and `{SSH}`",
            name.text
        )),
    }
}

/// Whether a rule holds for a pipeline. `values` has the pipeline values and parameters by full name.
pub fn rule_holds(source: &str, values: &dyn Fn(&str) -> Option<Json>) -> Result<bool, String> {
    check_rule(source)?;
    let expression = parse(source).map_err(|error| error.message)?;
    let mut look_up = |name: &Identifier| -> Result<Value, String> {
        Ok(values(&name.text).map_or(Value::Undefined, |value| Value::of(&pipeline::from_json(&value))))
    };
    match expression.evaluate(&mut look_up) {
        Ok(value) => Ok(value.is_truthy()),
        Err(EvaluationError::Name(message) | EvaluationError::Type(_, message)) => Err(message),
    }
}

fn is_known(name: &str) -> bool {
    name == SSH || pipeline::is_known(name) || name.strip_prefix(PARAMETERS).is_some_and(|n| !n.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(source: &str) -> Result<bool, String> {
        rule_holds(source, &|name| match name {
            "pipeline.git.branch" => Some(json!("main")),
            "pipeline.number" => Some(json!(7)),
            "pipeline.config_source" => Some(json!("api")),
            "pipeline.parameters.deploy" => Some(json!(true)),
            _ => None,
        })
    }

    #[test]
    fn rules_see_values_parameters_and_ssh() {
        assert_eq!(holds("pipeline.git.branch == \"main\" and not job.ssh.enabled"), Ok(true));
        assert_eq!(holds("pipeline.parameters.deploy and pipeline.number > 6"), Ok(true));
        assert_eq!(holds("not (pipeline.config_source starts-with \"api\")"), Ok(false));
    }

    #[test]
    fn what_does_not_apply_opens_nothing() {
        assert_eq!(holds("pipeline.git.tag == \"v1\""), Ok(false));
        assert_eq!(holds("pipeline.git.tag != \"v1\""), Ok(false));
        assert_eq!(holds("pipeline.parameters.missing"), Ok(false));
    }

    #[test]
    fn wrong_rules_are_refused() {
        for source in [
            "",
            "pipeline.git.brunch == \"x\"",
            "branch == \"x\"",
            "pipeline.number >",
            "x.y",
            "pipeline.parameters.",
        ] {
            assert!(check_rule(source).is_err(), "{source}");
        }
        assert!(holds("pipeline.git.branch > 3").is_err(), "a type error is no answer");
    }
}
