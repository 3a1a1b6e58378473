//! The container spec of a service, chosen by its image: rules of the class and of all classes.
//!
//! A more specific kind of match wins; of one kind, the rule of the class. No rule at all: as the primary container.

use regex_lite::Regex;
use serde_json::{Map, Value, json};

/// Kinds of match, best first.
const KINDS: [&str; 4] = ["exact", "prefix", "pattern", "default"];

/// Rules of one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceRules {
    exact: Map<String, Value>,
    prefix: Map<String, Value>,
    /// Longest first: of two that fit, it says the most.
    patterns: Vec<(Regex, Value)>,
    default: Option<Value>,
}

/// The spec of a service, and why it is that.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chosen<'r> {
    /// The container spec.
    pub(super) spec: &'r Value,
    /// `selectionScope` and `imageMatchType`, for the annotation.
    pub(super) reason: Value,
}

impl ServiceRules {
    /// Reads the rules at a path. `check` says what is wrong with a container spec.
    pub(super) fn read(
        value: Option<&Value>,
        path: &str,
        check: &dyn Fn(&Value, &str) -> Result<(), String>,
    ) -> Result<Self, String> {
        let mut rules = Self::default();
        let given = match value {
            None | Some(Value::Null) => return Ok(rules),
            Some(Value::Object(given)) => given,
            Some(_) => return Err(format!("`{path}` must be a map")),
        };
        for (kind, value) in given {
            let at = format!("{path}.{kind}");
            match kind.as_str() {
                "default" => {
                    check(value, &at)?;
                    rules.default = Some(value.clone());
                }
                "exact" | "prefix" | "pattern" => {
                    let Some(map) = value.as_object() else {
                        return Err(format!("`{at}` must be a map of images"));
                    };
                    map.iter().try_for_each(|(image, spec)| check(spec, &format!("{at}.{image}")))?;
                    match kind.as_str() {
                        "exact" => rules.exact.clone_from(map),
                        "prefix" => rules.prefix.clone_from(map),
                        _ => rules.patterns = patterns(map, &at)?,
                    }
                }
                _ => return Err(format!("`{at}` is not known (known: {})", KINDS.join(", "))),
            }
        }
        Ok(rules)
    }

    fn find(&self, kind: &str, image: &str) -> Option<&Value> {
        match kind {
            "exact" => self.exact.get(image),
            // The longest says the most.
            "prefix" => {
                let fitting = self.prefix.iter().filter(|(prefix, _)| image.starts_with(prefix.as_str()));
                fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, spec)| spec)
            }
            "pattern" => {
                self.patterns.iter().find(|(pattern, _)| pattern.is_match(image)).map(|(_, spec)| spec)
            }
            "default" => self.default.as_ref(),
            _ => None,
        }
    }
}

fn patterns(map: &Map<String, Value>, at: &str) -> Result<Vec<(Regex, Value)>, String> {
    let mut patterns = Vec::new();
    for (text, spec) in map {
        let pattern = Regex::new(text)
            .map_err(|error| format!("`{at}.{text}` is not a regular expression: {error}"))?;
        patterns.push((pattern, spec.clone()));
    }
    patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.as_str().len()));
    Ok(patterns)
}

/// The spec of a service of this image.
pub(super) fn choose<'r>(
    class: &'r ServiceRules,
    global: &'r ServiceRules,
    image: &str,
) -> Option<Chosen<'r>> {
    KINDS.into_iter().find_map(|kind| {
        let (scope, spec) = match class.find(kind, image) {
            Some(spec) => ("resource-class", spec),
            None => ("global", global.find(kind, image)?),
        };
        Some(Chosen { spec, reason: json!({ "selectionScope": scope, "imageMatchType": kind }) })
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_kind_wins_and_then_the_class() {
        let read = |value: Value| ServiceRules::read(Some(&value), "s", &|_, _| Ok(())).unwrap();
        let class =
            read(json!({ "default": { "n": 1 }, "prefix": { "redis": { "n": 2 }, "redis:7": { "n": 3 } } }));
        let global = read(
            json!({ "exact": { "redis:7": { "n": 4 } }, "prefix": { "post": { "n": 5 } }, "default": { "n": 6 } }),
        );
        for (image, n, scope, kind) in [
            ("redis:7", 4, "global", "exact"),
            ("redis:7.1", 3, "resource-class", "prefix"),
            ("redis:6", 2, "resource-class", "prefix"),
            ("postgres", 5, "global", "prefix"),
            ("other", 1, "resource-class", "default"),
        ] {
            let chosen = choose(&class, &global, image).unwrap();
            assert_eq!(chosen.spec["n"], n, "{image}");
            assert_eq!(chosen.reason, json!({ "selectionScope": scope, "imageMatchType": kind }), "{image}");
        }
        assert_eq!(choose(&ServiceRules::default(), &ServiceRules::default(), "x"), None);
    }

    #[test]
    fn a_pattern_stands_between_a_prefix_and_the_default() {
        let read = |value: Value| ServiceRules::read(Some(&value), "s", &|_, _| Ok(()));
        let class = read(json!({ "prefix": { "postgres:1": { "n": 1 } }, "default": { "n": 2 } })).unwrap();
        let global = read(json!({ "pattern": {
            "postgres": { "n": 3 }, "^(registry\\.acme\\.com/)?postgres(:\\d+)?$": { "n": 4 }, "(?i)REDIS": { "n": 5 }
        } }))
        .unwrap();
        for (image, n, kind) in [
            ("postgres:16", 1, "prefix"),
            ("postgres:9", 4, "pattern"),
            ("registry.acme.com/postgres", 4, "pattern"),
            ("cimg/postgres:9-node", 3, "pattern"),
            ("cimg/redis", 5, "pattern"),
            ("mysql", 2, "default"),
        ] {
            let chosen = choose(&class, &global, image).unwrap();
            assert_eq!(
                (chosen.spec["n"].as_i64(), &chosen.reason["imageMatchType"]),
                (Some(n), &json!(kind))
            );
        }
        let error = read(json!({ "pattern": { "a(b": {} } })).unwrap_err();
        assert!(error.contains("`s.pattern.a(b` is not a regular expression"), "{error}");
        let error = read(json!({ "patern": {} })).unwrap_err();
        assert!(error.contains("`s.patern` is not known"), "{error}");
    }
}
