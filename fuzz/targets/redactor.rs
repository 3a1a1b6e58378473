//! Pieces change nothing, no value stays readable, and white space in the text makes no difference. A string that is a
//! password in a document of JSON stays readable in no layout and no spelling of the document.
//!
//! The input is `PIECES|VALUE|VALUE|...|TEXT`: each byte of the first part is the length of a piece.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runlet::executor::output::forms::Forms;
use runlet::executor::output::redactor::{Redactor, Secrets};
use runlet::protocol::Secret;

/// Longer runs of white space in a text are not taken for that of a secret.
const LONGEST_GAP: usize = 64;

fuzz_target!(|input: &str| {
    let Some((rest, text)) = input.rsplit_once('|') else { return };
    let (pieces, values) = rest.split_once('|').unwrap_or(("", rest));
    let values: Vec<&str> = values.split('|').collect();
    let further: Vec<Secret> = values.iter().map(|value| Secret::new(*value)).collect();
    let secrets = Secrets::new(&[], &further);
    let whole = secrets.mask(text);
    assert_eq!(in_pieces(&secrets, pieces, text), whole);
    let all = Secrets::of(further.iter(), Forms { base64: true, url: true, json: true }, None);
    assert_eq!(in_pieces(&all, pieces, text), all.mask(text));

    for value in values.iter().map(|value| value.trim_matches(is_space)) {
        let is_common = matches!(value, "true" | "True" | "false" | "False");
        // Counted as the product does: a run of white space is one character.
        if fold(value).chars().count() >= 4 && !is_common && !value.contains('*') {
            assert!(!whole.contains(value), "`{value}` stands in `{whole}`");
        }
    }
    // The value as a password of a document, and the document as others write it.
    if let Some(password) = values.first().map(|value| value.trim()).filter(|password| {
        let is_folded = password.split(|c| !is_space(c)).all(|gap| gap.len() <= LONGEST_GAP);
        fold(password).chars().count() >= 6
            && is_folded
            && !password.contains('*')
            && !password.contains("://")
    }) {
        let (minimal, ascii) = (escaped(password, false), escaped(password, true));
        for (written, others) in [(&minimal, [&ascii, &minimal]), (&ascii, [&minimal, &ascii])] {
            let document = Secret::new(format!(r#"{{"kind":"x","password":"{written}"}}"#));
            let secrets = Secrets::new(&[], &[document]);
            for text in others.into_iter().map(|text| text.trim()).chain([password]) {
                let whole = secrets.mask(&format!("{{\n  \"password\":   \"{text}\"\n}} {text}"));
                assert!(!whole.contains(text), "`{text}` stands in `{whole}`");
            }
        }
    }
    if text.split(|c| !is_space(c)).all(|gap| gap.len() <= LONGEST_GAP) {
        assert_eq!(secrets.mask(&fold(text)), fold(&whole));
    }
});

/// The text masked when it comes in pieces of these lengths.
fn in_pieces(secrets: &Secrets, pieces: &str, text: &str) -> String {
    let mut redactor = Redactor::new(secrets.clone());
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    for length in pieces.bytes().map(usize::from) {
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        redactor.push(piece, &mut out);
        rest = tail;
    }
    redactor.push(rest, &mut out);
    redactor.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ')
}

/// Every run of white space as one space.
fn fold(text: &str) -> String {
    let mut folded = String::new();
    for c in text.chars() {
        if !is_space(c) {
            folded.push(c);
        } else if !folded.ends_with(' ') {
            folded.push(' ');
        }
    }
    folded
}

/// As a string of JSON without its quotes, in ASCII or not.
fn escaped(text: &str, is_ascii: bool) -> String {
    let mut written = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => written.extend(['\\', c]),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\u{8}' => written.push_str("\\b"),
            '\u{c}' => written.push_str("\\f"),
            c if c < ' ' || is_ascii && !c.is_ascii() => {
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .for_each(|unit| written.push_str(&format!("\\u{unit:04x}")));
            }
            c => written.push(c),
        }
    }
    written
}
