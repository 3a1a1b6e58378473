//! Patterns that are looked for so that a value is masked.
//!
//! - The value itself, and each line of it: tools print parts of a key or of a document.
//! - Any white space counts as one space, here and in the text, and none at the ends counts: `echo $KEY`
//!   makes a space of each newline, `for word in $KEY` a newline of each space, and others indent.
//! - `\n` in a value begins a line too: `echo` of some shells prints it as one, and so does what reads a
//!   key from JSON.
//! - A value of several lines is a string of JSON, too, and one that is a document of JSON counts in one line, by its
//!   members, and by those of its strings that have several lines or are secret by name or look, as they stand there, as
//!   they are and as others spell them: whatever reads it lays it out anew.
//! - Colours in a value count, and count not: reports are looked through without them, and so are texts of tools that
//!   take them out.
//! - A value beyond ASCII counts in Windows-1252 and ISO 8859-15 (with them ISO 8859-1), too, if these have its characters.
//! - Values shorter than four characters and the words of booleans are in every text, and so are lines
//!   with nothing but brackets and punctuation of a language.

use super::automaton::{FILTERED, folded};
use super::forms::{Forms, SPELLINGS, json, spelled};
use crate::system::codepages;

/// The beginning of a colour.
const COLOUR: &str = "\x1b[";
/// Characters of the shortest value that is masked.
const SHORTEST_SECRET: usize = 4;
/// Longest document that is looked for in other spellings than its own, in bytes.
const LONGEST_SPELLED: usize = 32 << 10;
/// Ends of the names of members whose strings are secret, whatever they look like, and the fewest bytes that they have.
const SECRET_NAMES: [&str; 7] =
    ["password", "passphrase", "passwd", "pwd", "pass", "secret", "connectionstring"];
const SECRET_BYTES: usize = 6;
/// Parts of the names of members whose strings are secret if they are no mere words.
const TELLING_NAMES: [&str; 4] = ["key", "token", "auth", "cred"];

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
    let mut patterns = Vec::new();
    if value.contains(COLOUR) {
        let mut plain = Vec::new();
        for byte in value.bytes() {
            plain.push(byte);
            end_colour(&mut plain);
        }
        if plain.len() < value.len() {
            patterns = of(&String::from_utf8_lossy(&plain), forms);
        }
    }
    for text in texts.into_iter().filter(|text| is_secret(text)) {
        if !text.is_ascii() {
            for page in [codepages::windows, codepages::latin9] {
                patterns.extend(codepages::encoded(&text, page));
            }
        }
        patterns.push(text.into_bytes());
    }
    patterns
}

/// Takes a colour off the end of a text that was read up to its last byte.
pub(in crate::executor) fn end_colour(text: &mut Vec<u8>) {
    let Some((b'm', before)) = text.split_last() else { return };
    let begin = before.iter().rposition(|byte| !matches!(byte, b'0'..=b';'));
    if let Some(at) = begin.filter(|at| before[..=*at].ends_with(COLOUR.as_bytes())) {
        text.truncate(at - 1);
    }
}

/// Returns the longest gap that a form of the value may have within, in bytes.
pub(super) fn longest_gap(value: &str) -> usize {
    value.split(|c| !is_space(c)).map(str::len).max().unwrap_or_default()
}

fn with_lines(value: &str) -> Vec<String> {
    let lines = value.split(['\n', '\r']).map(fold).filter(|line| is_telling(line));
    std::iter::once(fold(value)).chain(lines).collect()
}

/// The texts of what looks like a document of JSON: as a whole and of its members, without white space and with a space
/// behind each comma and colon; of its strings that are secret by themselves; and what differs of these where a tool
/// reads the document and writes it with other escapes.
fn of_document(value: &str) -> Vec<String> {
    let value = value.trim_matches(is_space);
    if !value.starts_with(['{', '[']) || !value.ends_with(['}', ']']) {
        return Vec::new();
    }
    // Most spellings say the same of most documents.
    let mut spellings: Vec<Vec<String>> = Vec::new();
    let others = if value.len() <= LONGEST_SPELLED { SPELLINGS } else { 0 };
    for number in 0..=others {
        let mut texts = Vec::new();
        read_document(value, number.checked_sub(1), &mut texts);
        if !spellings.contains(&texts) {
            spellings.push(texts);
        }
    }
    spellings.iter().flatten().map(|text| fold(text)).collect()
}

/// Reads a document as it is written, or as another spelling has it; then only members and strings that differ count.
fn read_document(value: &str, spelling: Option<usize>, texts: &mut Vec<String>) {
    // All of it, and the present member; both without and with spaces.
    let mut so_far = <[String; 4]>::default();
    let (mut in_string, mut is_escaped, mut differs) = (false, false, spelling.is_none());
    let (mut string, mut name, mut last) = (String::new(), String::new(), None::<(String, String)>);
    for c in value.chars().filter(|&c| !is_space(c) || c == ' ') {
        if in_string && (c != '"' || is_escaped) {
            string.push(c);
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        if c == '"' {
            in_string = !in_string;
            if !in_string {
                let written = std::mem::take(&mut string);
                let meant = serde_json::from_slice(format!("\"{written}\"").as_bytes()).unwrap_or_default();
                let meant = serde_json::Value::as_str(&meant).unwrap_or(&written).to_owned();
                let text = spelling.map_or_else(|| written.clone(), |spelling| spelled(&meant, spelling));
                differs |= text != written;
                so_far.iter_mut().for_each(|so_far| so_far.push_str(&text));
                last = Some((meant, text));
            }
        } else if c == ' ' {
            continue;
        } else if let Some((meant, text)) = last.take() {
            if c == ':' {
                name = meant.to_ascii_lowercase();
            } else if meant.contains(['\n', '\r']) || is_hidden(&name, &meant) {
                // The form that `jq -r` prints: its first line has nothing of the document before it.
                texts.extend(with_lines(&meant));
                texts.push(text);
            }
        }
        let is_end = "{}[],".contains(c);
        for (at, text) in so_far.iter_mut().enumerate() {
            if at > 1 && is_end {
                let member = std::mem::take(text);
                if differs && is_telling(&member) {
                    texts.push(member);
                }
            } else {
                text.push(c);
            }
            if at % 2 == 1 && ",:".contains(c) {
                text.push(' ');
            }
        }
        differs &= !is_end || spelling.is_none();
    }
    if spelling.is_none() && !in_string {
        texts.extend(so_far.into_iter().take(2));
    }
}

/// Whether a string of a document is secret by itself, wherever it stands. A document names its kind, projects and
/// addresses, too, which are in many texts.
fn is_hidden(name: &str, text: &str) -> bool {
    if text.contains("://") {
        return text.contains('@');
    }
    let mut kinds = 0u8;
    for byte in text.bytes() {
        kinds |= match byte {
            b'a'..=b'z' => 1,
            b'A'..=b'Z' => 2,
            b'0'..=b'9' => 4,
            b' ' | b'-' | b'.' | b'/' | b':' | b'@' | b'_' => 0,
            _ => 8,
        };
    }
    let (length, is_long) = (text.len(), text.len() >= 16);
    if SECRET_NAMES.iter().any(|end| name.ends_with(end)) {
        length >= SECRET_BYTES
    } else if TELLING_NAMES.iter().any(|part| name.contains(part)) {
        kinds.count_ones() > 1 && (is_long || length >= 8 && kinds > 3)
    } else {
        is_long && kinds & 7 == 7 && !text.contains([' ', ':'])
    }
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
        // Strings of a document count by their own lines.
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
    fn strings_of_a_document_count_by_their_names_or_their_looks() {
        let document = r#"{
            "type": "service_account", "project_id": "my-project-123456", "private_key_id": "0f1e2d3c4b5a69788796a5b4",
            "client_email": "robot@my-project-123456.iam.gserviceaccount.com", "client_id": "123456789012345678901",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_type": "Bearer", "sort_key": "createdAt",
            "db": {"user": "deploy", "password": "letters", "pin_pass": "abc", "url": "db://me:pw@host/x"},
            "tokens": ["abcd1234", "release"], "other": "aB3aB3aB3aB3aB3aB3", "role": "arn:aws:iam::123456789012:role/Deploy"
        }"#;
        let patterns = of(document);
        let has = |text: &&str| patterns.iter().any(|pattern| pattern == text);
        let hidden =
            ["0f1e2d3c4b5a69788796a5b4", "letters", "db://me:pw@host/x", "abcd1234", "aB3aB3aB3aB3aB3aB3"];
        let shown = [
            "service_account",
            "my-project-123456",
            "robot@my-project-123456.iam.gserviceaccount.com",
            "123456789012345678901",
            "https://accounts.google.com/o/oauth2/auth",
            "Bearer",
            "createdAt",
            "deploy",
            "abc",
            "release",
            "arn:aws:iam::123456789012:role/Deploy",
            "password",
            "private_key_id",
        ];
        assert_eq!(hidden.iter().find(|text| !has(text)), None, "{patterns:#?}");
        assert_eq!(shown.iter().find(|text| has(text)), None, "{patterns:#?}");
    }

    #[test]
    fn members_and_strings_of_a_document_count_as_others_spell_them() {
        let patterns = of(r#"{"note":"a\u003db\/c\u00f6","plain":"some text","password":"q\"<ü/="}"#);
        for text in [
            r#""note":"a=b/cö""#,
            r#""note": "a=b/c\u00f6""#,
            r#""note": "a=b\/cö""#,
            r#""note": "a\u003db/cö""#,
            r#""note": "a=b/c\u00F6""#,
            r#"q"<ü/="#,
            r#"q\"<ü/="#,
            r#"q\"<\u00fc/="#,
            r#"q\"\u003cü/="#,
            r#"q\"<\u00fc\/="#,
            r#"q\"\u003cü/\u003d"#,
            r#"q\u0022\u003C\u00FC/="#,
            r#"q\"<\u00FC/="#,
            r#"q\"\u003C\u00fc/="#,
            r#""note": "a=b\/c\u00F6""#,
        ] {
            assert!(patterns.iter().any(|pattern| pattern == text), "{text} in {patterns:#?}");
        }
        let count = patterns.iter().filter(|pattern| pattern.starts_with("\"plain")).count();
        assert_eq!(count, 2, "nothing of it is spelled otherwise: {patterns:#?}");
    }

    #[test]
    fn what_is_no_whole_document_has_no_part_of_it_as_a_whole() {
        for value in [r#"{"a": "b}"#, r#"{"a": "\"}"#, r#"["\u12"]"#, "{\"\"}", "{{{{]"] {
            let patterns = of(value);
            assert!(patterns.contains(&value.to_owned()) && patterns.len() < 6, "{value}: {patterns:#?}");
        }
        // The work for a long one is bounded.
        let long = format!(r#"{{"password":"{}\u003d"}}"#, "x".repeat(super::LONGEST_SPELLED));
        assert!(of(&long).len() < 12);
    }

    #[test]
    fn a_value_counts_without_its_colours_and_in_other_encodings() {
        assert_eq!(of("ab\x1b[1;31mcd\x1b[mef"), ["abcdef", "ab\x1b[1;31mcd\x1b[mef"]);
        assert_eq!(of("ab\x1b\x1b[m[3m cd")[0], "ab cd");
        assert_eq!(of("ab\x1b[2Jcd"), ["ab\x1b[2Jcd"]);
        assert_eq!(of("\x1b[1mabc\x1b[m").len(), 1, "three characters are in every text");
        let patterns = super::of("pä€ss", Forms::default());
        assert_eq!(patterns[..3], [b"p\xe4\x80ss".to_vec(), b"p\xe4\xa4ss".to_vec(), "pä€ss".into()]);
        assert_eq!(of("пароль"), ["пароль"]);
    }

    #[test]
    fn a_whole_value_counts_whatever_is_in_it() {
        assert_eq!(of(" }}}}\n"), ["}}}}"]);
        assert_eq!(of("----"), ["----"]);
        assert_eq!(of("C:\\nul"), ["C:\\nul", "C: ul"]);
        assert!(of("\n abc \n").is_empty() && of("      ").is_empty() && of(" true\n").is_empty());
    }
}
