//! Files of variables: `NAME=VALUE` lines.

use crate::protocol::Secret;
use std::path::Path;

/// Reads a file; the error is a sentence for people that shows no value.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Secret)>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("failed to read the variables in `{shown}`: {e}"))?;
    parse(&text).map_err(|line| {
        format!("`{shown}`, line {line}: expected NAME=VALUE (a value may stand in quotes, which it needs to have several lines)")
    })
}

/// The variables of a text; the error is the number of the line that is none.
fn parse(text: &str) -> Result<Vec<(String, Secret)>, usize> {
    let mut found = Vec::new();
    // Editors on Windows begin a file with a mark that nobody sees.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(at + 1)?;
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut whole = value[1..].to_owned();
                while closing(&whole, quote).is_none() {
                    let (_, more) = lines.next().ok_or(at + 1)?;
                    whole.push('\n');
                    whole.push_str(more);
                }
                let end = closing(&whole, quote).unwrap_or(whole.len());
                whole.truncate(end);
                if quote == '"' { unescaped(&whole) } else { whole }
            }
            // A comment has white space before it.
            _ => value.split_once(" #").map_or(value, |(value, _)| value).trim_end().to_owned(),
        };
        found.push((name.trim().to_owned(), Secret::new(value)));
    }
    Ok(found)
}

/// The place of the quote that ends a value.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        ends.then_some(at)
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some(other @ ('"' | '\\' | '$')) => plain.push(other),
                other => {
                    plain.push('\\');
                    plain.extend(other);
                }
            },
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_such_files_are_written() {
        let text = "\u{feff}A=1\n# comment\n\nexport B = two words # not this\nC='a # $x\nb'\nD=\"x\\n\\\"y\\\"\"\nE=\nF=a#b\n";
        let found = parse(text).unwrap_or_default();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "a # $x\nb"), ("D", "x\n\"y\""), ("E", ""), ("F", "a#b")];
        assert_eq!(found, expected);
        assert_eq!(parse("A=1\nnothing\n").err(), Some(2));
        assert_eq!(parse("A='open\n").err(), Some(1));
    }
}
