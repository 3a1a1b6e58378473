//! The settings file: YAML text to a flat list of keys with positions.
//!
//! Only what a settings file needs is understood: mappings of scalars and lists of scalars. Duplicate
//! keys, anchors and a second document are refused, so that nothing is silently overridden.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileValue {
    /// `~`, `null` or nothing: as if the key were not there.
    Null,
    /// A scalar of any kind.
    Text(String),
    /// A list of scalars.
    List(Vec<String>),
}

/// A key of the file with its value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileEntry {
    /// Path of the key, such as `runner.name`.
    pub(super) key: String,
    /// Value as it stands in the file; null where there is none.
    pub(super) value: FileValue,
    /// Line of the key, from 1.
    pub(super) line: usize,
    /// Column of the key, from 1.
    pub(super) column: usize,
}

/// Deepest nesting; the known keys need two.
const MAX_DEPTH: usize = 8;

/// Reads the text of a file; the error is `line:column: reason`.
pub(super) fn parse(text: &str) -> Result<Vec<FileEntry>, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text), entries: Vec::new() };
    let mut documents = 0;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(reader.entries),
            Event::DocumentStart(_) => documents += 1,
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            _ if documents > 1 => {
                return Err(at(span, "a second document begins here; a settings file has one"));
            }
            Event::MappingStart(..) => reader.mapping("", 1)?,
            Event::Scalar(text, style, ..) if is_null(&text, style) => {}
            _ => return Err(at(span, "expected keys such as `api:` and `runner:`")),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    entries: Vec<FileEntry>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.parser.next_event() {
            Some(Ok((Event::Alias(_), span))) => {
                Err(at(span, "anchors and aliases are not supported in a settings file"))
            }
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                Err(format!("{}:{}: {}", marker.line(), marker.col() + 1, error.info()))
            }
            None => Err("1:1: the file ends in the middle".to_owned()),
        }
    }

    /// After the start of a mapping, up to its end.
    fn mapping(&mut self, prefix: &str, depth: usize) -> Result<(), String> {
        loop {
            let (event, span) = self.next()?;
            let name = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(name, ..) => name,
                _ => return Err(at(span, "a key must be a plain word")),
            };
            let key = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}.{name}") };
            let nested = format!("{key}.");
            if let Some(first) = self.entries.iter().find(|e| e.key == key || e.key.starts_with(&nested)) {
                return Err(at(span, &format!("`{key}` is given twice (first in line {})", first.line)));
            }
            let value = match self.next()? {
                (Event::Scalar(text, style, ..), _) => scalar(text, style),
                (Event::SequenceStart(..), _) => FileValue::List(self.list(&key)?),
                (Event::MappingStart(..), span) if depth >= MAX_DEPTH => {
                    return Err(at(span, "nested too deeply"));
                }
                (Event::MappingStart(..), _) => {
                    self.mapping(&key, depth + 1)?;
                    continue;
                }
                (_, span) => return Err(at(span, &format!("`{key}` has no value"))),
            };
            let (line, column) = position(span);
            self.entries.push(FileEntry { key, value, line, column });
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<String>, String> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (Event::Scalar(text, ..), _) => items.push(text.into_owned()),
                (_, span) => return Err(at(span, &format!("an item of `{key}` must be a text"))),
            }
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> FileValue {
    if is_null(&text, style) { FileValue::Null } else { FileValue::Text(text.into_owned()) }
}

fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn position(span: Span) -> (usize, usize) {
    (span.start.line(), span.start.col() + 1)
}

fn at(span: Span, why: &str) -> String {
    let (line, column) = position(span);
    format!("{line}:{column}: {why}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_flat_and_have_positions() {
        let entries = parse("# c\napi:\n  auth_token: << AUTH_TOKEN >>\nrunner:\n  command_prefix: [sudo, \"-n\"]\n  name: ~\n").unwrap();
        let shown: Vec<_> = entries.iter().map(|e| (e.key.as_str(), &e.value, e.line, e.column)).collect();
        assert_eq!(
            shown,
            [
                ("api.auth_token", &FileValue::Text("<< AUTH_TOKEN >>".into()), 3, 3),
                ("runner.command_prefix", &FileValue::List(vec!["sudo".into(), "-n".into()]), 5, 3),
                ("runner.name", &FileValue::Null, 6, 3),
            ]
        );
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("---\n"), Ok(vec![]));
    }

    #[test]
    fn what_could_be_misread_is_refused_with_its_place() {
        for (text, error) in [
            ("a: 1\nb: 2\na: 3\n", "3:1: `a` is given twice (first in line 1)"),
            ("r:\n  a: 1\nr:\n  b: 1\n", "3:1: `r` is given twice (first in line 2)"),
            ("a: &x 1\nb: *x\n", "2:4: anchors"),
            ("- a\n", "1:1: expected keys"),
            ("a: 1\n---\nb: 1\n", "3:1: a second document"),
            ("? [a]\n: 1\n", "1:3: a key must be a plain word"),
            ("a: [[1]]\n", "1:5: an item of `a`"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.starts_with(error), "{text:?}: {found}");
        }
        assert!(parse("a: [1\n").is_err());
        assert!(parse("a: \"x\n").is_err());
        assert!(parse(&"a:\n ".repeat(20)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[ a-c:\\n\\[\\]{}&*'\"?!|>~#,-]{0,60}") {
            let _ = parse(&text);
        }
    }
}
