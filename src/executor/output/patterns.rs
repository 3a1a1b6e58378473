//! Patterns that are looked for so that a value is masked.
//!
//! - The value itself, and each line of it: tools print parts of a key or of a document.
//! - Any white space counts as one space, here and in the text, and none at the ends counts: `echo $KEY`
//!   makes a space of each newline, `for word in $KEY` a newline of each space, and others indent.
//! - `\n` in a value begins a line too: `echo` of some shells prints it as one, and so does what reads a
//!   key from JSON.
//! - Values shorter than four characters and the words of booleans are in every text, and so are lines
//!   with nothing but brackets and punctuation of a language.

use super::automaton::{FILTERED, folded};
use super::forms::Forms;

/// In characters.
const SHORTEST_SECRET: usize = 4;

// A character has at least one byte.
const _: () = assert!(SHORTEST_SECRET >= FILTERED);

/// The patterns of a value, and of what stands for it in other forms, with white space folded.
pub(super) fn of(value: &str, forms: Forms) -> Vec<Vec<u8>> {
    let mut texts = with_lines(value);
    let mut others = forms.of(value.trim_matches(is_space));
    others.extend(texts.iter().flat_map(|text| forms.of(text)));
    // Of a value that is none, no form is one either.
    if is_secret(&fold(value)) {
        texts.extend(others.iter().map(|text| fold(text)));
    }
    if value.contains('\\') {
        texts.extend(with_lines(&value.replace("\\n", "\n").replace("\\r", "\n").replace("\\t", "\t")));
    }
    texts.into_iter().filter(|text| is_secret(text)).map(String::into_bytes).collect()
}

/// In bytes.
pub(super) fn longest_gap(value: &str) -> usize {
    value.split(|c| !is_space(c)).map(str::len).max().unwrap_or_default()
}

fn with_lines(value: &str) -> Vec<String> {
    let lines = value.split(['\n', '\r']).map(fold).filter(|line| is_telling(line));
    std::iter::once(fold(value)).chain(lines).collect()
}

fn is_space(c: char) -> bool {
    u8::try_from(c).is_ok_and(|byte| folded(byte) == b' ')
}

fn fold(text: &str) -> String {
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

fn is_secret(text: &str) -> bool {
    text.chars().count() >= SHORTEST_SECRET && !matches!(text, "true" | "True" | "false" | "False")
}

/// `false` for a line that many texts have, such as `"},` or `-----`.
fn is_telling(line: &str) -> bool {
    let is_structure = |c: char| is_space(c) || "{}[]()<>,;:\"'`".contains(c);
    let first = line.bytes().next().unwrap_or(b' ');
    let is_ruler = first.is_ascii_punctuation() && line.bytes().all(|byte| byte == first);
    !is_ruler && line.chars().filter(|&c| !is_structure(c)).count() >= SHORTEST_SECRET
}

#[cfg(test)]
mod tests {
    use super::Forms;

    fn of(value: &str) -> Vec<String> {
        let patterns = super::of(value, Forms::default())
            .into_iter()
            .map(|text| String::from_utf8_lossy(&text).into_owned());
        let mut patterns: Vec<String> = patterns.collect();
        patterns.dedup();
        patterns
    }

    #[test]
    fn lines_of_a_document_count_if_there_is_something_in_them() {
        let value = "{\n  \"id\":  1,\n\t\"key\":\t\"a\\nsecond\",\r\n  ------\n  true\n  }},\n}\n";
        let whole = "{ \"id\": 1, \"key\": \"a\\nsecond\", ------ true }}, }";
        assert_eq!(
            of(value),
            [whole, "\"key\": \"a\\nsecond\",", &whole.replace("\\n", " "), "\"key\": \"a", "second\","]
        );
    }

    #[test]
    fn a_whole_value_counts_whatever_is_in_it() {
        assert_eq!(of(" }}}}\n"), ["}}}}"]);
        assert_eq!(of("----"), ["----"]);
        assert_eq!(of("C:\\nul"), ["C:\\nul", "C: ul"]);
        assert!(of("\n abc \n").is_empty() && of("      ").is_empty() && of(" true\n").is_empty());
    }
}
