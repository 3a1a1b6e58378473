//! The meaning of plain scalars: YAML 1.1 words for booleans, decimal numbers, everything else text.

use crate::config::values::ScalarKind;

/// The type of an unquoted scalar.
///
/// Numbers with leading zeros (`007`) stay text: the specifications disagree about their base, and
/// text loses nothing.
pub(crate) fn resolve(text: &str) -> ScalarKind {
    // Most scalars are longer than any of the words.
    if text.len() <= 5 {
        if let Some(kind) = word(text) {
            return kind;
        }
    }
    if !matches!(text.as_bytes().first(), Some(b'0'..=b'9' | b'.' | b'-' | b'+')) {
        return ScalarKind::Str;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return ScalarKind::Str;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return i64::from_str_radix(digits, radix)
                .ok()
                .filter(|_| digits.bytes().all(|b| b.is_ascii_alphanumeric()))
                .map_or(ScalarKind::Str, ScalarKind::Int);
        }
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return ScalarKind::Str;
        }
        return match text.parse() {
            Ok(value) => ScalarKind::Int(value),
            Err(_) => text.parse().map_or(ScalarKind::Str, ScalarKind::Float),
        };
    }
    if is_decimal(unsigned) {
        text.parse().map_or(ScalarKind::Str, ScalarKind::Float)
    } else {
        ScalarKind::Str
    }
}

fn word(text: &str) -> Option<ScalarKind> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => ScalarKind::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => ScalarKind::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => ScalarKind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => ScalarKind::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => ScalarKind::Float(f64::NAN),
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
            ("yes", ScalarKind::Bool(true)),
            ("Off", ScalarKind::Bool(false)),
            ("y", ScalarKind::Str),
            ("~", ScalarKind::Null),
            ("10", ScalarKind::Int(10)),
            ("-3", ScalarKind::Int(-3)),
            ("0x1F", ScalarKind::Int(31)),
            ("0o17", ScalarKind::Int(15)),
            ("007", ScalarKind::Str),
            ("2.1", ScalarKind::Float(2.1)),
            ("1e3", ScalarKind::Float(1000.0)),
            ("1.2.3", ScalarKind::Str),
            ("2019-01-01", ScalarKind::Str),
            ("1_000", ScalarKind::Str),
            ("22:22", ScalarKind::Str),
            ("2xlarge", ScalarKind::Str),
            (".", ScalarKind::Str),
            ("-", ScalarKind::Str),
            ("0x-1", ScalarKind::Str),
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
