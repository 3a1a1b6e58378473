//! Forms in which tools print a value without meaning to: base64, URLs and JSON. A runner chooses which of them are
//! masked too (`runner.mask_forms`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Line lengths of base64: that of `base64`, and that of PEM.
const LINES: [usize; 2] = [76, 64];
/// Characters that a URL may keep besides letters, digits, and `-._~`: by the strictest encoder, by those that leave
/// paths whole, and by the one of JavaScript.
const KEPT: [&[u8]; 3] = [b"", b"/", b"!'()*"];
const DIGITS: [&[u8; 16]; 2] = [b"0123456789ABCDEF", b"0123456789abcdef"];

/// The characters that encoders of JSON escape besides those that must be, with DEL for all that are not ASCII. As most
/// encoders; in ASCII alone, as Python's and Jackson; as Go's; as that of Django; with `\/`, as PHP's, which is in ASCII
/// unless told otherwise; as Gson; as that of .NET.
const ESCAPED: [&str; 8] = ["", "\u{7f}", "<>&", "\u{7f}<>&", "/", "\u{7f}/", "<>&='", "\u{7f}\"<>&'+`"];
/// How encoders of JSON write a string: each of those sets by the digits of ASCII and of other characters, which some write
/// by different hands.
pub(super) const SPELLINGS: usize = ESCAPED.len() * 4;

/// The forms to look for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// Base64 of any text that the value is a part of.
    pub base64: bool,
    /// The value percent-encoded.
    pub url: bool,
    /// The value as a string of JSON.
    pub json: bool,
}

impl Forms {
    /// Finds forms by their names; others are left out.
    pub fn named(names: &[String]) -> Self {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        Self { base64: has("base64"), url: has("url"), json: has("json") }
    }

    /// The texts that stand for `value` in the chosen forms, `value` itself not among them.
    pub(super) fn of(self, value: &str) -> Vec<String> {
        let mut texts = Vec::new();
        if self.base64 {
            texts.extend(base64(value));
        }
        if self.url {
            for kept in KEPT {
                for digits in DIGITS {
                    texts.extend([false, true].map(|plus| percent(value, kept, digits, plus)));
                }
            }
        }
        if self.json {
            texts.extend(json(value));
        }
        texts.retain(|text| text != value);
        texts
    }
}

/// Returns the part of the base64 of a text with the value in it that is always there; in both alphabets. Broken
/// into lines, where the value is the beginning of the text.
fn base64(value: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for before in 0..3 {
        let bytes = [&[0; 2][..before], value.as_bytes()].concat();
        // Characters of which not every bit is of the value depend on what is around it.
        let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        let text = encoded.get(first..end).unwrap_or_default();
        texts.push(text.to_owned());
        for width in LINES.into_iter().filter(|width| before == 0 && text.len() > *width) {
            texts
                .extend(text.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line).into_owned()));
        }
    }
    let other: Vec<String> = texts.iter().map(|text| text.replace('+', "-").replace('/', "_")).collect();
    texts.extend(other);
    texts
}

fn percent(value: &str, kept: &[u8], digits: &[u8; 16], plus: bool) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b' ' if plus => text.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) => {
                text.push(char::from(byte));
            }
            byte => text.extend(
                [b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]].map(char::from),
            ),
        }
    }
    text
}

/// The value as strings of JSON, in every spelling, without quotes.
pub(super) fn json(value: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for number in 0..SPELLINGS {
        let text = spelled(value, number);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// The value as a string of JSON in the spelling of this number, without quotes.
pub(super) fn spelled(value: &str, number: usize) -> String {
    let also = ESCAPED[number / 4 % ESCAPED.len()];
    let mut text = String::new();
    for c in value.chars() {
        let is_escaped = c < ' ' || also.contains(c) || !c.is_ascii() && also.starts_with('\u{7f}');
        let short = match c {
            '"' if !is_escaped => c,
            '\\' => c,
            '/' => c,
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            _ => '\0',
        };
        if short != '\0' && (is_escaped || short != '/') {
            text.extend(['\\', short]);
        } else if is_escaped {
            let digits = DIGITS[number >> usize::from(c.is_ascii()) & 1];
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str("\\u");
                text.extend([12, 8, 4, 0].map(|bits| char::from(digits[usize::from(*unit >> bits & 15)])));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::output::secrets::Secrets;
    use crate::protocol::Secret;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn secrets(value: &str) -> Secrets {
        let all = Forms { base64: true, url: true, json: true };
        Secrets::of([Secret::new(value)].iter(), all, None)
    }

    #[test]
    fn what_encoders_print_is_masked() {
        let secrets = secrets("pass word/\"ü<\n+x");
        for text in [
            "pass%20word%2F%22%C3%BC%3C%0A%2Bx",
            "pass+word%2F%22%C3%BC%3C%0A%2Bx",
            "pass%20word/%22%c3%bc%3c%0a%2bx",
            r#"pass word/\"ü<\n+x"#,
            r#"pass word/\"\u00fc<\n+x"#,
            r#"pass word/\"ü\u003c\n+x"#,
            r#"pass word\/\"ü<\n+x"#,
            r#"pass word\/\"\u00fc<\n+x"#,
            r#"pass word/\u0022\u00FC\u003C\n\u002Bx"#,
            r#"pass word/\"\u00FC<\n+x"#,
            r#"pass word/\"\u00fc\u003C\n+x"#,
            r#"pass word\/\"\u00FC<\n+x"#,
        ] {
            assert_eq!(secrets.mask(&format!("a={text}&b")), "a=****&b");
        }
        assert_eq!(Forms::default().of("pass word"), Vec::<String>::new());
    }

    #[test]
    fn base64_in_lines_is_masked() {
        let key = "0123456789".repeat(20);
        for width in LINES {
            let encoded = STANDARD_NO_PAD.encode(&key);
            let lines: Vec<_> = encoded.as_bytes().chunks(width).map(String::from_utf8_lossy).collect();
            let masked = secrets(&key).mask(&lines.join("\n"));
            assert!(masked.chars().filter(|c| c.is_ascii_alphanumeric()).count() < 3, "{masked}");
        }
    }

    proptest! {
        #[test]
        fn base64_of_a_text_around_the_value_does_not_tell_it(
            value in "[ -~]{4,80}", before in "[ -~]{0,9}", after in "[ -~]{0,9}",
        ) {
            let value = value.trim();
            prop_assume!(value.len() >= 6);
            let encoded = STANDARD.encode([&before, value, &after].concat());
            let masked = secrets(value).mask(&encoded);
            // The rest has at most the characters before and after, and those that are the value's in part.
            let most = (before.len() * 8).div_ceil(6) + (after.len() * 8).div_ceil(6) + 1 + 4 + "****".len();
            prop_assert!(masked.contains("****") && masked.len() <= most, "{encoded}: {masked}");
        }

        #[test]
        fn urls_and_json_do_not_tell_the_value(value in "[ -~äß€\n\t]{4,40}") {
            let value = value.trim();
            let is_long = value.chars().filter(|c| !c.is_whitespace()).count() >= 4;
            prop_assume!(is_long && !value.contains('*'));
            let url = percent(value, b"", b"0123456789ABCDEF", false);
            prop_assert_eq!(secrets(value).mask(&format!("?{url}&")), "?****&");
            let text = serde_json::to_string(value).unwrap_or_default();
            prop_assert_eq!(secrets(value).mask(&text), "\"****\"");
        }
    }
}
