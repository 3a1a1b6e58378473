//! The meaning of plain scalars: YAML 1.1 words for booleans, decimal numbers, everything else text.

use crate::config::values::Kind;

/// The type of an unquoted scalar.
///
/// Numbers with leading zeros (`007`) stay text: the specifications disagree about their base, and
/// text loses nothing.
pub(crate) fn resolve(text: &str) -> Kind {
    // Most scalars are longer than any of the words.
    if text.len() <= 5 {
        if let Some(kind) = word(text) {
            return kind;
        }
    }
    if !matches!(text.as_bytes().first(), Some(b'0'..=b'9' | b'.' | b'-' | b'+')) {
        return Kind::Str;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Kind::Str;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return i64::from_str_radix(digits, radix)
                .ok()
                .filter(|_| digits.bytes().all(|b| b.is_ascii_alphanumeric()))
                .map_or(Kind::Str, Kind::Int);
        }
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return Kind::Str;
        }
        return match text.parse() {
            Ok(value) => Kind::Int(value),
            Err(_) => text.parse().map_or(Kind::Str, Kind::Float),
        };
    }
    if is_decimal(unsigned) { text.parse().map_or(Kind::Str, Kind::Float) } else { Kind::Str }
}

fn word(text: &str) -> Option<Kind> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Kind::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Kind::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Kind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Kind::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Kind::Float(f64::NAN),
        _ => return None,
    })
}

/// `1.`, `.5`, `1.5`, `1e3`, `1.5e-3`, without sign.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let exponent_ok = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && !(whole.len() > 1 && whole.starts_with('0'))
        && exponent_ok
}

/// A number as the hosted service writes it into an environment: shortest form, with an exponent from
/// the seventh digit on (`1.234567e+06`).
pub(crate) fn number_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_have_types() {
        for (text, kind) in [
            ("yes", Kind::Bool(true)),
            ("Off", Kind::Bool(false)),
            ("y", Kind::Str),
            ("~", Kind::Null),
            ("10", Kind::Int(10)),
            ("-3", Kind::Int(-3)),
            ("0x1F", Kind::Int(31)),
            ("0o17", Kind::Int(15)),
            ("007", Kind::Str),
            ("2.1", Kind::Float(2.1)),
            ("1e3", Kind::Float(1000.0)),
            ("1.2.3", Kind::Str),
            ("2019-01-01", Kind::Str),
            ("1_000", Kind::Str),
            ("22:22", Kind::Str),
            ("2xlarge", Kind::Str),
            (".", Kind::Str),
            ("-", Kind::Str),
            ("0x-1", Kind::Str),
        ] {
            assert_eq!(resolve(text), kind, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_the_hosted_service_does() {
        for (value, text) in [
            (1_234_567.0, "1.234567e+06"),
            (123_456.0, "123456"),
            (1_000_000.0, "1e+06"),
            (1.10, "1.1"),
            (0.0, "0"),
            (-2.5, "-2.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
        ] {
            assert_eq!(number_text(value), text);
        }
    }
}
