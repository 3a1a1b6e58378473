//! Checks a pod template before any pod is made of it: fields that exist, of the right type. What Kubernetes says of
//! values comes with the first task.

use crate::system::suggest::nearest;
use serde_json::Value;
use std::collections::BTreeMap;

/// The types, as the file describes them.
pub(super) struct Schema(BTreeMap<&'static str, Vec<(&'static str, &'static str)>>);

impl Schema {
    /// Reads the description that is compiled in.
    pub(super) fn new() -> Self {
        let lines = include_str!("schema.txt").lines().filter(|line| !line.starts_with('#'));
        let types = lines.filter_map(|line| line.split_once(": "));
        let fields = |text: &'static str| text.split(' ').filter_map(|field| field.split_once('=')).collect();
        Self(types.map(|(name, text)| (name, fields(text))).collect())
    }

    /// Checks a value of a type at a path. The error names the path of the first thing that is wrong.
    pub(super) fn check(&self, kind: &str, value: &Value, path: &str) -> Result<(), String> {
        let wrong = |wanted: &str| Err(format!("`{path}` must be {wanted}, not {}", describe(value)));
        if value.is_null() {
            return Ok(());
        }
        if let Some(item) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            let Some(list) = value.as_array() else { return wrong("a list") };
            let mut items = list.iter().enumerate();
            return items.try_for_each(|(n, value)| self.check(item, value, &format!("{path}[{n}]")));
        }
        match kind {
            "*" => Ok(()),
            "s" if value.is_string() => Ok(()),
            "s" => wrong("a text (put it in quotes)"),
            "i" if value.is_i64() => Ok(()),
            "i" => wrong("a whole number"),
            "b" if value.is_boolean() => Ok(()),
            "b" => wrong("true or false"),
            "q" if value.is_string() || value.is_number() => Ok(()),
            "q" => wrong("a quantity, such as `500m` or `1Gi`"),
            "p" if value.is_string() || value.is_i64() => Ok(()),
            "p" => wrong("a number or a name"),
            "m" | "Q" => {
                let Some(map) = value.as_object() else { return wrong("a map") };
                let inner = if kind == "m" { "s" } else { "q" };
                map.iter().try_for_each(|(key, value)| self.check(inner, value, &join(path, key)))
            }
            _ => {
                let Some(map) = value.as_object() else { return wrong("a map") };
                let fields = self.0.get(kind).map(Vec::as_slice).unwrap_or_default();
                map.iter().try_for_each(|(key, value)| match fields.iter().find(|(name, _)| name == key) {
                    Some((_, kind)) => self.check(kind, value, &join(path, key)),
                    None => Err(unknown(key, path, fields.iter().map(|(name, _)| *name))),
                })
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The error of a key that does not exist, with the nearest that does.
pub(super) fn unknown<'a>(key: &str, path: &str, known: impl Iterator<Item = &'a str>) -> String {
    let meant = nearest(key, &known.collect::<Vec<_>>());
    let meant = meant.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
    format!("`{}` is not known{meant}", join(path, key))
}

/// A value as a phrase.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{}`", text.chars().take(60).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_checked_by_path_with_the_nearest_name() {
        let schema = Schema::new();
        let check = |value: Value| schema.check("PodTemplate", &value, "t").err().unwrap_or_default();
        for (value, why) in [
            (
                json!({ "spec": { "nodeSelecter": {} } }),
                "`t.spec.nodeSelecter` is not known (did you mean `nodeSelector`?)",
            ),
            (
                json!({ "spec": { "containers": [{ "env": [{ "name": "A", "value": 1 }] }] } }),
                "`t.spec.containers[0].env[0].value` must be a text (put it in quotes), not the number 1",
            ),
            (json!({ "spec": { "tolerations": {} } }), "`t.spec.tolerations` must be a list, not a map"),
            (
                json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": true } } }] } }),
                "`t.spec.containers[0].resources.limits.cpu` must be a quantity, such as `500m` or `1Gi`, not `true`",
            ),
            (json!({ "spec": { "zzzzzzzz": 1 } }), "`t.spec.zzzzzzzz` is not known"),
        ] {
            assert_eq!(check(value), why);
        }
        let good = json!({ "metadata": { "labels": { "a": "b" } }, "spec": {
            "containers": [{ "resources": { "requests": { "cpu": 0.5, "memory": "1Gi" } }, "securityContext": { "runAsUser": 1 } }],
            "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "p", "projected": { "sources": [] } }],
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] }] } } },
            "tolerations": [{ "operator": "Exists" }], "nodeSelector": null } });
        assert_eq!(check(good), "");
    }

    #[test]
    fn every_type_of_the_description_is_described() {
        let schema = Schema::new();
        for (name, fields) in &schema.0 {
            for (field, kind) in fields {
                let inner = kind.trim_matches(['[', ']']);
                let known = inner.len() == 1 || schema.0.contains_key(inner);
                assert!(known, "{name}.{field} is of `{kind}`");
            }
        }
    }
}
