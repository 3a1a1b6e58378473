//! Variables that a person gives: files of `NAME=VALUE` lines, and single ones.

use crate::protocol::Secret;
use crate::server::{MOST_VARIABLES, check_variable};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const NO_TEXT: &str = "it is no UTF-8 text";

/// The variables of all files, those of later ones last, and then the single ones. The error has a line for everything
/// that is wrong with them, with its place; of files it shows neither values nor names, since a line that is not one of a
/// variable may be part of a value.
pub(super) fn read(files: &[PathBuf], single: &[(String, Secret)]) -> Result<Vec<(String, Secret)>, String> {
    let (mut found, mut names, mut wrong) = (Vec::new(), BTreeSet::new(), Vec::new());
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => found.extend(parse(&bytes, file, &mut names, &mut wrong)),
            Err(e) => wrong.push(format!("failed to read the variables in `{}`: {e}", file.display())),
        }
    }
    if !wrong.is_empty() {
        return Err(format!("the variables of `--env-file` are not valid:\n{}", wrong.join("\n")));
    }
    names.extend(single.iter().map(|(name, _)| name.clone()));
    if names.len() > MOST_VARIABLES {
        return Err(format!("`--env-file` and `--env` give more than {MOST_VARIABLES} variables"));
    }
    found.extend(single.iter().cloned());
    Ok(found)
}

/// The variable of `--env NAME=VALUE`; of `--env NAME`, with the value that it has for this process. The error does not
/// show the value.
pub(super) fn argument(given: OsString) -> Result<(String, Secret), String> {
    let given = given.into_string().map_err(|_| "what `--env` gives is no UTF-8 text".to_owned())?;
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => match std::env::var_os(&given).map(OsString::into_string) {
            Some(Ok(value)) => (given, value),
            Some(Err(_)) => {
                return Err(format!("the value of the variable of `--env {given}` is no UTF-8 text"));
            }
            None => {
                return Err(format!(
                    "`--env {given}` has no value, and there is no variable of this name here (write `--env NAME=VALUE`)"
                ));
            }
        },
    };
    check_variable(&name, &value).map_err(|why| format!("the variable of `--env` is not valid: {why}"))?;
    Ok((name, Secret::new(value)))
}

/// The variables of a text; their names are added to those of other files, and what is wrong with it to `wrong`.
fn parse(
    bytes: &[u8],
    file: &Path,
    names: &mut BTreeSet<String>,
    wrong: &mut Vec<String>,
) -> Vec<(String, Secret)> {
    let (mut found, mut told) = (Vec::new(), 0);
    let mut fault = |line: usize, why: &str| {
        if told != line {
            wrong.push(format!("{}:{line}: {why}", file.display()));
        }
        told = line;
    };
    // Editors on Windows begin a file with a mark that nobody sees.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut at = 0;
    while let Some(line) = lines.next() {
        at += 1;
        let begins_at = at;
        let line = String::from_utf8_lossy(line);
        if let Cow::Owned(_) = line {
            fault(at, NO_TEXT);
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            fault(
                at,
                "expected NAME=VALUE (a value may stand in quotes, which it needs to have several lines)",
            );
            continue;
        };
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut whole = value[1..].to_owned();
                while closing(&whole, quote).is_none() {
                    let Some(more) = lines.next() else {
                        // The value has no end: what follows could be parts of it.
                        fault(begins_at, "the quote at which the value begins is not closed");
                        return found;
                    };
                    at += 1;
                    whole.push('\n');
                    let more = String::from_utf8_lossy(more);
                    if let Cow::Owned(_) = more {
                        fault(at, NO_TEXT);
                    }
                    whole.push_str(&more);
                }
                let end = closing(&whole, quote).unwrap_or(whole.len());
                let rest = whole.split_off(end);
                let rest = rest.get(1..).unwrap_or_default().trim_start();
                if !rest.is_empty() && !rest.starts_with('#') {
                    fault(
                        at,
                        "there is text behind the quote that ends the value (inside of `\"` a quote is written `\\\"`)",
                    );
                }
                if quote == '"' { unescaped(&whole) } else { whole }
            }
            // A comment has white space before it.
            _ => value.split_once(" #").map_or(value, |(value, _)| value).trim_end().to_owned(),
        };
        let name = name.trim();
        if let Err(why) = check_variable(name, &value) {
            fault(begins_at, &why);
        } else if names.insert(name.to_owned()) && names.len() == MOST_VARIABLES + 1 {
            fault(begins_at, &format!("there are more than {MOST_VARIABLES} variables"));
        }
        found.push((name.to_owned(), Secret::new(value)));
    }
    found
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

    fn read(text: &[u8]) -> (Vec<(String, String)>, Vec<String>) {
        let mut wrong = Vec::new();
        let found = parse(text, Path::new("v.env"), &mut BTreeSet::new(), &mut wrong);
        (found.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect(), wrong)
    }

    #[test]
    fn values_are_read_as_such_files_are_written() {
        let text = "\u{feff}A=1\n# comment\n\nexport B = two words # not this\nC='a # $x\nb' # nor this\nD=\"x\\n\\\"y\\\"\"\r\nE=\nF=a#b\n";
        let (found, wrong) = read(text.as_bytes());
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("A", "1"), ("B", "two words"), ("C", "a # $x\nb"), ("D", "x\n\"y\""), ("E", ""), ("F", "a#b")];
        assert_eq!((found, wrong), (expected.to_vec(), Vec::new()));
    }

    #[test]
    fn everything_that_is_wrong_has_its_place_and_shows_nothing() {
        let text = b"A=1\nsecret\n1B=secret\nMII+secret==\nC=\"two\nlines\" secret\nD='\xffsecret\n'\n=x\n\xff=1\nE='secret\nF=2\n";
        let (found, wrong) = read(text);
        assert_eq!(found.first(), Some(&("A".to_owned(), "1".to_owned())));
        let places: Vec<&str> =
            wrong.iter().filter_map(|why| why.split_once(": ")).map(|(at, _)| at).collect();
        let expected = [2, 3, 4, 6, 7, 9, 10, 11].map(|line| format!("v.env:{line}"));
        assert_eq!(places, expected, "{wrong:?}");
        assert!(!wrong.concat().contains("secret"), "{wrong:?}");
        let many: String =
            (0..MOST_VARIABLES + 9).map(|number| format!("V{number}=\nV{number}=1\n")).collect();
        let expected =
            format!("v.env:{}: there are more than {MOST_VARIABLES} variables", 2 * MOST_VARIABLES + 1);
        assert_eq!(read(many.as_bytes()).1, [expected]);
    }
}
