//! `env subst`: replaces variables in a text. Bytes in, bytes out; the environment is a function.
//!
//! `$NAME`, `${NAME}`, `${NAME:-text}` (unset or empty), `${NAME-text}` (unset), `${NAME:=text}` and
//! `${NAME=text}` (the same, nothing is assigned), `${NAME:+text}`, `${NAME+text}` (set), `${#NAME}`
//! (length). The text of a form is substituted in turn. Unset variables are empty. `$$` is `$`; a `$`
//! before anything else stays.

/// How deep forms may nest.
const DEEPEST: usize = 20;

/// Replaces the variables in `text`. The error is a sentence for people.
pub fn substitute(text: &[u8], variable: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    replace(text, variable, 0)
}

fn replace(text: &[u8], variable: &dyn Fn(&str) -> Option<Vec<u8>>, depth: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&b| b == b'$') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.first() {
            Some(b'$') => {
                out.push(b'$');
                rest = &rest[1..];
            }
            Some(b'{') => {
                let end = closing(&rest[1..]).ok_or("a `${` has no closing `}`")?;
                out.extend(form(&rest[1..=end], variable, depth)?);
                rest = &rest[end + 2..];
            }
            _ => {
                let (name, tail) = split_name(rest);
                if name.is_empty() {
                    out.push(b'$');
                } else {
                    out.extend(variable(name).unwrap_or_default());
                }
                rest = tail;
            }
        }
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Position of the `}` that closes what has just been opened.
fn closing(text: &[u8]) -> Option<usize> {
    let mut open = 1usize;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'$' if text.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Text between `${` and `}`.
fn form(text: &[u8], variable: &dyn Fn(&str) -> Option<Vec<u8>>, depth: usize) -> Result<Vec<u8>, String> {
    let shown = || String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
    if depth >= DEEPEST {
        return Err(format!("`${{{}}}` is nested too deeply", shown()));
    }
    if let Some(name) = text.strip_prefix(b"#") {
        let (name, tail) = split_name(name);
        if !name.is_empty() && tail.is_empty() {
            let value = variable(name).unwrap_or_default();
            return Ok(String::from_utf8_lossy(&value).chars().count().to_string().into_bytes());
        }
    }
    let (name, tail) = split_name(text);
    if name.is_empty() {
        return Err(format!("`${{{}}}` has no variable name", shown()));
    }
    let value = variable(name);
    let (colon, operator) = match tail.strip_prefix(b":") {
        Some(operator) => (true, operator),
        None => (false, tail),
    };
    let is_set = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
    match operator.split_first() {
        None if !colon => Ok(value.unwrap_or_default()),
        Some((b'-' | b'=', _)) if is_set => Ok(value.unwrap_or_default()),
        Some((b'-' | b'=', other)) => replace(other, variable, depth + 1),
        Some((b'+', other)) if is_set => replace(other, variable, depth + 1),
        Some((b'+', _)) => Ok(Vec::new()),
        _ => Err(format!(
            "`${{{}}}` is not a known form (known: `-`, `:-`, `=`, `:=`, `+`, `:+`, `#`)",
            shown()
        )),
    }
}

/// Splits off a leading variable name, which may be empty.
fn split_name(text: &[u8]) -> (&str, &[u8]) {
    let starts = text.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    let length = text.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_')).unwrap_or(text.len());
    let length = if starts { length } else { 0 };
    // Only ASCII was accepted, so this is text.
    (std::str::from_utf8(&text[..length]).unwrap_or_default(), &text[length..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subst(text: &str) -> Result<String, String> {
        let variable = |name: &str| match name {
            "A" => Some(b"one".to_vec()),
            "E" => Some(Vec::new()),
            _ => None,
        };
        substitute(text.as_bytes(), &variable).map(|out| String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn variables_and_forms_are_replaced() {
        for (text, expected) in [
            ("hello $A!", "hello one!"),
            ("${A}x $Ax $A_", "onex  "),
            ("${N:-d} ${E:-d} ${E-d} ${A:-d}", "d d  one"),
            ("${N:=d} ${A:=d}", "d one"),
            ("${A:+y} ${E:+y} ${E+y} ${N+y}|", "y  y |"),
            ("${N:-${M:-deep $A}}", "deep one"),
            ("${#A} ${#N}", "3 0"),
            ("$$A $ 5$ $1 é", "$A $ 5$ $1 é"),
        ] {
            assert_eq!(subst(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn broken_forms_are_refused() {
        for text in ["${A", "${}", "${A^}", "${A:}", "${1}"] {
            assert!(subst(text).is_err(), "{text}");
        }
        let deep = "${N:-".repeat(50) + &"}".repeat(50);
        assert!(subst(&deep).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_plain_text_stays(text in "[${}:A+#a-]{0,40}", plain in "[^$]{0,40}") {
            let _ = subst(&text);
            prop_assert_eq!(subst(&plain), Ok(plain.clone()));
        }
    }
}
