//! Selectors of labels and fields.

use serde_json::Value;

/// Fields that objects of a kind can be selected by, beside their names.
fn fields(kind: &str) -> &'static [&'static str] {
    match kind {
        "pods" => &[
            "spec.nodeName",
            "spec.host",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "reason",
            "type",
        ],
        "secrets" => &["type"],
        _ => &["spec.unschedulable"],
    }
}

/// Whether an object has the labels of a selector. The error is a message of the API server.
pub(super) fn has_labels(object: &Value, selector: &str) -> Result<bool, String> {
    let label = |key: &str| object["metadata"]["labels"][key.trim()].as_str();
    for part in split(selector) {
        let part = part.trim();
        if part.starts_with('=') {
            return Err("found '=', expected: !, identifier, or 'end of string'".to_owned());
        }
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
            if let Some((_, rest)) = value.split_once(' ') {
                return Err(format!("found '{rest}', expected: ',' or 'end of string'"));
            }
            label(key) == Some(value)
        } else if let Some((key, value)) = part.split_once('>') {
            let number = |text: &str| text.trim().parse::<i64>().ok();
            label(key).and_then(number).zip(number(value)).is_some_and(|(label, value)| label > value)
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
pub(super) fn has_fields(kind: &str, object: &Value, selector: &str) -> Result<bool, String> {
    for part in selector.split(',').filter(|part| !part.is_empty()) {
        let (key, value, wanted) = if let Some((key, value)) = part.split_once("!=") {
            (key, value, false)
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (key, value, true)
        } else {
            return Err(format!("invalid selector: '{part}'; can't understand '{part}'"));
        };
        if !matches!(key, "metadata.name" | "metadata.namespace") && !fields(kind).contains(&key) {
            return Err(format!("field label not supported: {key}"));
        }
        let path = if key == "spec.host" { "spec.nodeName" } else { key };
        let found = match path.split('.').fold(object, |object, part| &object[part]) {
            Value::String(text) => text.as_str(),
            Value::Bool(true) => "true",
            _ if matches!(key, "spec.hostNetwork" | "spec.unschedulable") => "false",
            _ => "",
        };
        if (found == value) != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}
