//! Regular expressions of conditions and filters: RE2 syntax, always matched against the whole text.

use super::re2;
use crate::config::limits;
use regex::{Regex, RegexBuilder};

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// Compiles the text between the slashes. The error is a sentence for people.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.chars().count() > limits::REGEX_CHARS {
            return Err(format!("a regular expression must be at most {} characters", limits::REGEX_CHARS));
        }
        let fail = |reason: &str| format!("`{text}` is not a regular expression: {reason}");
        let translated = re2::translate(text).map_err(|reason| fail(&reason))?;
        let regex = RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
            .size_limit(limits::REGEX_BYTES)
            .nest_limit(50)
            .build()
            .map_err(|error| {
                let all = error.to_string();
                let last = all.lines().last().unwrap_or_default();
                fail(last.strip_prefix("error: ").unwrap_or(last).trim_end_matches('.'))
            })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether the whole text matches.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_whole_text_has_to_match() {
        let matches = |pattern, text| Pattern::new(pattern).unwrap().is_match(text);
        assert!(matches("rel.*", "release"));
        assert!(!matches("rel", "release"));
        assert!(!matches("a|b", "ab"));
        assert!(matches("^v[0-9]+$", "v12"));
        assert!(matches("(?i)MAIN", "main"));
        assert!(!matches("main", "main\n"));
    }

    #[test]
    fn what_is_not_linear_time_is_refused() {
        for bad in ["(?!x)y", r"(a)\1", "(", ")(", "a{1000}{1000}", "[z-a]"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        assert!(Pattern::new(&"a".repeat(257)).is_err());
    }
}
