//! The filter of a search: terms `name == "value"` joined by ` and `.

/// Term of a filter: a field has to have this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// Name of a field, such as `pipeline.status`.
    pub(super) name: String,
    /// Value that it must have.
    pub(super) value: String,
}

/// Reads a filter; values are quoted as Go does. The error is a sentence for people.
pub(super) fn terms(text: &str) -> Result<Vec<Term>, String> {
    let wrong =
        || format!("the filter `{text}` is not understood: write `name == \"value\"`, joined by ` and `");
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("==").ok_or_else(wrong)?;
        let after = after.trim_start();
        let mut ends = after.match_indices('"').map(|(at, _)| at).skip(1);
        // The first quote that ends a well-formed string.
        let (value, end) = ends
            .find_map(|at| Some((serde_json::from_str::<String>(after.get(..=at)?).ok()?, at)))
            .ok_or_else(wrong)?;
        found.push(Term { name: name.trim().to_owned(), value });
        rest = after[end + 1..].trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix("and ").ok_or_else(wrong)?.trim_start();
        }
    }
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod unit {
    use super::*;

    #[test]
    fn filters_are_read() {
        let term = |name: &str, value: &str| Term { name: name.to_owned(), value: value.to_owned() };
        assert_eq!(terms("").unwrap(), []);
        assert_eq!(
            terms(r#"pipeline.git.branch == "a \"b\" and c" and pipeline.status == "failed""#).unwrap(),
            [term("pipeline.git.branch", "a \"b\" and c"), term("pipeline.status", "failed")]
        );
        for bad in ["x", "x == y", r#"x == "y" or z == "w""#, r#"x == "y"#] {
            assert!(terms(bad).is_err(), "{bad}");
        }
    }
}
