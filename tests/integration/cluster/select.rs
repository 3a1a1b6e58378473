//! Selectors of labels and fields.

use serde_json::Value;

/// Fields that pods and events can be selected by.
const FIELDS: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "involvedObject.uid",
    "involvedObject.name",
];

/// Whether an object has the labels of a selector. The error is a message of the API server.
pub(super) fn has_labels(object: &Value, selector: &str) -> Result<bool, String> {
    let label = |key: &str| object["metadata"]["labels"][key.trim()].as_str();
    for part in split(selector) {
        let part = part.trim();
        let fits = if let Some((key, values)) = part.split_once(" notin ") {
            !label(key).is_some_and(|value| list(values).contains(&value))
        } else if let Some((key, values)) = part.split_once(" in ") {
            label(key).is_some_and(|value| list(values).contains(&value))
        } else if let Some((key, value)) = part.split_once("!=") {
            label(key) != Some(value)
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            if value.starts_with('(') {
                return Err("unable to parse requirement: found '(', expected: identifier".to_owned());
            }
            label(key) == Some(value)
        } else if let Some(key) = part.strip_prefix('!') {
            label(key).is_none()
        } else {
            label(part).is_some()
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Parts of a selector: commas in brackets stand between values.
fn split(selector: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in selector.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn list(values: &str) -> Vec<&str> {
    values.trim().trim_matches(['(', ')']).split(',').map(str::trim).collect()
}

/// Whether an object has the fields of a selector.
pub(super) fn has_fields(object: &Value, selector: &str) -> Result<bool, String> {
    for part in selector.split(',').filter(|part| !part.is_empty()) {
        let (key, value, wanted) = if let Some((key, value)) = part.split_once("!=") {
            (key, value, false)
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (key, value, true)
        } else {
            return Err(format!("invalid selector: '{part}'; can't understand '{part}'"));
        };
        if !FIELDS.contains(&key) {
            return Err(format!("field label not supported: {key}"));
        }
        let found = key.split('.').fold(object, |object, part| &object[part]).as_str().unwrap_or_default();
        if (found == value) != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}
