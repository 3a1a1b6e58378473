//! The file `expect` of a scenario: what is set up beside the config, and what comes of it.
//!
//! A line is `WORDS: VALUE`; lines that begin with `#` or are empty say nothing. In a value `\n`, `\t`,
//! `\0` and `\\` are escapes, and `{name}` stands for a place or a value of this run (`{work}`, `{repo}`,
//! `{home}`, `{place}`, `{place-below}` without its first slash, `{revision}`, `{class}`). A title of a step is in double quotes: `"title#2"` is its second
//! attempt, `"title@1"` that of the second parallel node.

use std::collections::BTreeMap;

/// A line of expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Words before the colon; a title is one word.
    pub(crate) words: Vec<String>,
    pub(crate) value: String,
    pub(crate) number: usize,
}

/// Reads a file; the error names the line.
pub(crate) fn parse(text: &str, places: &BTreeMap<&str, String>) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |why: &str| format!("expect:{}: {why}: {line}", index + 1);
        let (words, rest) = words(line).ok_or_else(|| fail("not `WORDS: VALUE`"))?;
        let mut value = unescape(rest.trim()).ok_or_else(|| fail("an unknown escape"))?;
        for (name, place) in places {
            value = value.replace(&format!("{{{name}}}"), place);
        }
        lines.push(Line { words, value, number: index + 1 });
    }
    Ok(lines)
}

fn words(line: &str) -> Option<(Vec<String>, &str)> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(':') {
            return Some((words, after));
        }
        let end = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                words.push(quoted[..end].to_owned());
                end + 2
            }
            None => {
                let end = rest.find([' ', ':'])?;
                words.push(rest[..end].to_owned());
                end
            }
        };
        rest = &rest[end..];
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            '\\' => '\\',
            _ => return None,
        });
    }
    Some(out)
}

#[test]
fn lines_are_words_and_a_value() {
    let places = BTreeMap::from([("work", "/w".to_owned())]);
    let lines = parse("# x\n\noutput build \"a: b#2\" has: {work}\\n a\\\\ \n", &places).unwrap();
    assert_eq!(lines[0].words, ["output", "build", "a: b#2", "has"]);
    assert_eq!((lines[0].value.as_str(), lines[0].number), ("/w\n a\\", 3));
    assert!(parse("no colon", &places).is_err());
    assert!(parse("x: \\q", &places).is_err());
}
