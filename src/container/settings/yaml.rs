//! YAML text to JSON values: what a values file needs. Anchors and a second document are refused, duplicate keys too.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

/// Deepest nesting of a values file.
const MAX_DEPTH: usize = 40;

/// Reads the text; the error is `line:column: reason`.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    let mut found = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(found.unwrap_or(Value::Null)),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if found.is_some() => return Err(at(span, "a second document begins here")),
            event => found = Some(reader.value(event, span, 0)?),
        }
    }
}

fn at(span: Span, what: &str) -> String {
    format!("{}:{}: {what}", span.start.line(), span.start.col() + 1)
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.parser.next_event() {
            Some(Ok((Event::Alias(_), span))) => Err(at(span, "anchors and aliases are not supported here")),
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                Err(format!("{}:{}: {}", marker.line(), marker.col() + 1, error.info()))
            }
            None => Err("the text ends in the middle".to_owned()),
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(at(span, "nested too deep"));
        }
        match event {
            Event::Scalar(text, style, ..) => Ok(scalar(&text, style)),
            Event::SequenceStart(..) => {
                let mut list = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        return Ok(Value::Array(list));
                    }
                    list.push(self.value(event, span, depth + 1)?);
                }
            }
            Event::MappingStart(..) => {
                let mut map = Map::new();
                loop {
                    let (event, span) = self.next()?;
                    let key = match event {
                        Event::MappingEnd => return Ok(Value::Object(map)),
                        Event::Scalar(text, ..) => text.into_owned(),
                        _ => return Err(at(span, "a key must be a plain word")),
                    };
                    let (event, inside) = self.next()?;
                    let value = self.value(event, inside, depth + 1)?;
                    if map.insert(key.clone(), value).is_some() {
                        return Err(at(span, &format!("`{key}` is given twice")));
                    }
                }
            }
            _ => Err(at(span, "a value was expected here")),
        }
    }
}

/// A scalar by the core rules: quoted ones are texts.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::Number(number.into());
    }
    let looks_like_number = text.bytes().all(|byte| byte.is_ascii_digit() || b".+-eE".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_digit());
    let number = text.parse::<f64>().ok().filter(|_| looks_like_number).and_then(Number::from_f64);
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_they_look_like() {
        let text = "a: 1\nb: [x, 'true', true, ~, 1.5, 1h30m, 0.5]\nc: {d: \"5\", e: {}}\n";
        let expected =
            json!({ "a": 1, "b": ["x", "true", true, null, 1.5, "1h30m", 0.5], "c": { "d": "5", "e": {} } });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), Value::Null);
        for (text, why) in [
            ("a: 1\na: 2\n", "2:1: `a` is given twice"),
            ("a: &x 1\nb: *x\n", "anchors"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("a: [", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
