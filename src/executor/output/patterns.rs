//! Patterns that are looked for so that a value is masked.
//!
//! - The value itself, and each line of it: tools print parts of a key or of a document.
//! - Any white space counts as one space, here and in the text, and none at the ends counts: `echo $KEY`
//!   makes a space of each newline, `for word in $KEY` a newline of each space, and others indent.
//! - `\n` in a value begins a line too: `echo` of some shells prints it as one, and so does what reads a
//!   key from JSON.
//! - A value of several lines is a string of JSON, too, and one that is a document of JSON counts in one line, by its
//!   members and by its strings of several lines, as they stand there and as they are: whatever reads it lays it out
//!   anew.
//! - Values shorter than four characters and the words of booleans are in every text, and so are lines
//!   with nothing but brackets and punctuation of a language.

use super::automaton::{FILTERED, folded};
use super::forms::{Forms, json};

/// Characters of the shortest value that is masked.
const SHORTEST_SECRET: usize = 4;

// A character has at least one byte.
const _: () = assert!(SHORTEST_SECRET >= FILTERED);

/// The patterns of a value, and of what stands for it in other forms, with white space folded.
pub(super) fn of(value: &str, forms: Forms) -> Vec<Vec<u8>> {
    let mut texts = with_lines(value);
    texts.extend(of_document(value));
    let mut others = forms.of(value.trim_matches(is_space));
    others.extend(texts.iter().flat_map(|text| forms.of(text)));
    if value.trim_matches(is_space).contains('\n') {
        others.extend(json(value.trim_matches(is_space)));
    }
    // Of a value that is none, no form is one either.
    if is_secret(&fold(value)) {
        texts.extend(others.iter().map(|text| fold(text)));
    }
    if value.contains('\\') {
        texts.extend(with_lines(&value.replace("\\n", "\n").replace("\\r", "\n").replace("\\t", "\t")));
    }
    texts.into_iter().filter(|text| is_secret(text)).map(String::into_bytes).collect()
}

/// Returns the longest gap that a form of the value may have within, in bytes.
pub(super) fn longest_gap(value: &str) -> usize {
    value.split(|c| !is_space(c)).map(str::len).max().unwrap_or_default()
}

fn with_lines(value: &str) -> Vec<String> {
    let lines = value.split(['\n', '\r']).map(fold).filter(|line| is_telling(line));
    std::iter::once(fold(value)).chain(lines).collect()
}

/// The texts of what looks like a document of JSON: of its members and as a whole, without white space and with a space
/// behind each comma and colon; and the strings with an end of a line in them.
fn of_document(value: &str) -> Vec<String> {
    let value = value.trim_matches(is_space);
    if !value.starts_with(['{', '[']) || !value.ends_with(['}', ']']) {
        return Vec::new();
    }
    let mut texts = Vec::new();
    let (mut wholes, mut members) = (<[String; 2]>::default(), <[String; 2]>::default());
    let (mut in_string, mut is_escaped, mut string) = (false, false, String::new());
    for c in value.chars().filter(|&c| !is_space(c) || c == ' ') {
        let is_end = !in_string && "{}[],".contains(c);
        if c == ' ' && !in_string {
            continue;
        }
        wholes.iter_mut().for_each(|text| text.push(c));
        if is_end {
            texts.extend(members.iter_mut().map(std::mem::take).filter(|member| is_telling(member)));
        } else {
            members.iter_mut().for_each(|text| text.push(c));
        }
        if !in_string && ",:".contains(c) {
            wholes[1].push(' ');
            members[1].push(' ');
        }
        match c {
            '"' if !in_string => (in_string, string) = (true, String::new()),
            '"' if !is_escaped => {
                in_string = false;
                let string = std::mem::take(&mut string);
                if string.contains("\\n") {
                    // As `jq -r` prints it: its first line has nothing of the document before it.
                    let plain =
                        serde_json::from_slice(format!("\"{string}\"").as_bytes()).unwrap_or_default();
                    texts.extend(serde_json::Value::as_str(&plain).into_iter().flat_map(with_lines));
                    texts.push(string);
                }
            }
            _ => string.push(c),
        }
        is_escaped = in_string && c == '\\' && !is_escaped;
    }
    texts.extend(wholes);
    texts.iter().map(|text| fold(text)).collect()
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
    fn lines_of_a_text_count_if_there_is_something_in_them() {
        let value = "x{\n  \"id\":  1,\n\t\"key\":\t\"a\\nsecond\",\r\n  ------\n  true\n  }},\n}\n";
        let whole = "x{ \"id\": 1, \"key\": \"a\\nsecond\", ------ true }}, }";
        let patterns = of(value);
        let lines =
            [whole, "\"key\": \"a\\nsecond\",", &whole.replace("\\n", " "), "\"key\": \"a", "second\","];
        // The others are the value as a string of JSON.
        let (strings, mut plain): (Vec<_>, Vec<_>) =
            patterns.iter().partition(|text| text.starts_with("x{\\n"));
        plain.dedup();
        assert_eq!(plain, lines);
        assert!(!strings.is_empty());
    }

    #[test]
    fn a_document_of_json_counts_however_it_is_laid_out() {
        let value = "{\n  \"type\": \"robot\",\n  \"id\": 1,\n  \"key\": \"--\\nab\\n, \\\"x\\\" --\\n\",\n  \"of\": [\"some\", 7]\n}\n";
        let key = r#"--\nab\n, \"x\" --\n"#;
        let close = format!(r#"{{"type":"robot","id":1,"key":"{key}","of":["some",7]}}"#);
        let wide = format!(r#"{{"type": "robot", "id": 1, "key": "{key}", "of": ["some", 7]}}"#);
        let patterns = of(value);
        let members = [r#""type":"robot""#, r#""type": "robot""#, r#""some""#].map(str::to_owned);
        for text in [close.as_str(), &wide, key].map(str::to_owned).iter().chain(&members) {
            assert!(patterns.contains(text), "{text} in {patterns:#?}");
        }
        for text in [r#""id":1"#, r#""id": 1"#, "7", r#""of":"#] {
            assert!(!patterns.iter().any(|pattern| pattern == text), "{text}");
        }
        // Its strings count by their own lines.
        let patterns = of(r#"{"host":"h","pgpass":"db1:u:\u0046IRST\ndb2:u:SECOND\ndb3:u:LAST"}"#);
        for text in ["db1:u:FIRST", "db2:u:SECOND", "db3:u:LAST", "db1:u:FIRST db2:u:SECOND db3:u:LAST"] {
            assert!(patterns.iter().any(|pattern| pattern == text), "{text} in {patterns:#?}");
        }
        // A value of any kind is the same in one line.
        let of_one_line = of(&close);
        assert!(of_one_line.contains(&wide) && of_one_line.contains(&key.to_owned()));
        assert_eq!(of("[not json").len(), 1);
    }

    #[test]
    fn a_whole_value_counts_whatever_is_in_it() {
        assert_eq!(of(" }}}}\n"), ["}}}}"]);
        assert_eq!(of("----"), ["----"]);
        assert_eq!(of("C:\\nul"), ["C:\\nul", "C: ul"]);
        assert!(of("\n abc \n").is_empty() && of("      ").is_empty() && of(" true\n").is_empty());
    }
}
