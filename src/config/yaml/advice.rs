//! Advice about text that is not YAML: the scanner says what it met, not what a person did.
//!
//! Called by the loader with the words of the scanner; leaves positions to it.

/// Words of the scanner, and what the mistake usually is.
const ADVICE: &[(&str, &str)] = &[
    ("tabs disallowed", "indent with blanks instead"),
    ("plain scalar, found a tab", "a line below begins with one: indent with blanks instead"),
    ("cannot start with a tab", "indent with blanks instead"),
    ("'-' must be followed", "put blanks instead of tabs behind it"),
    ("quoted scalar, found unexpected end", "the quotation mark that opens here is not closed"),
    (
        "mapping values are not allowed",
        "a text with `: ` in it must be quoted or stand below a `|`; or this line is indented differently from its neighbours",
    ),
    (
        "invalid indentation",
        "the line is indented less than what it belongs to, or a bracket or quotation mark above is not closed",
    ),
    ("unknown anchor", "no `&name` stands above it; a text that begins with `*` must be quoted"),
    ("unexpected character", "a text that begins with it must be quoted"),
    (
        "did not find expected key",
        "the line must be indented like its neighbours, and a text that begins with `[`, `{` or a quotation mark must be quoted as a whole",
    ),
    ("did not find expected ',' or", "a bracket or brace above is not closed, or a comma is missing"),
    (
        "simple key expect",
        "the line below is neither `key: value` nor an item of a list; look at its colon and indentation",
    ),
    ("did not find expected '-' indicator", "items of a list begin with `- ` in the same column"),
];

/// The message for what the scanner says about `source`.
pub(super) fn not_yaml(info: &str, source: &str) -> String {
    if source.lines().any(|line| line.starts_with("<<<<<<< ")) {
        return format!(
            "this is not YAML: {info} (the file has the marks `<<<<<<<` of a merge conflict: resolve it)"
        );
    }
    if let Some(line) = source.lines().position(|line| line.contains('\0')) {
        return format!(
            "this is not YAML: {info} (line {} has a NUL byte: the file is not text, or is damaged)",
            line + 1
        );
    }
    match ADVICE.iter().find(|(words, _)| info.contains(words)) {
        Some((_, advice)) => format!("this is not YAML: {info} ({advice})"),
        None => format!("this is not YAML: {info}"),
    }
}
