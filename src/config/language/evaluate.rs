//! The value of an expression.
//!
//! Only `false` and undefined are falsy here. An operator with an undefined operand is undefined, so
//! that `x == "a"` and `x != "a"` are both false for a value that does not apply.

use crate::config::syntax::{Expression, Identifier, Infix};
use crate::config::values::{Data, ScalarKind};
use std::rc::Rc;

/// The value of an expression.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Undefined,
    Boolean(bool),
    Integer(i64),
    String(Rc<str>),
    /// A value of another type that a parameter can hold, such as a list.
    Other(Data),
}

/// The reason for which an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EvaluationError<E> {
    /// The caller could not look up a name.
    Name(E),
    /// An operand has the wrong type; with the offset of the operator.
    Type(usize, String),
}

impl Value {
    /// The value of a name.
    pub(crate) fn of(data: &Data) -> Self {
        match data {
            Data::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => Value::Undefined,
                ScalarKind::Bool(value) => Value::Boolean(value),
                ScalarKind::Int(value) => Value::Integer(value),
                ScalarKind::Str => Value::String(scalar.text.clone()),
                ScalarKind::Float(_) => Value::Other(data.clone()),
            },
            other => Value::Other(other.clone()),
        }
    }

    /// The value as a tag leaves it.
    pub(crate) fn into_data(self) -> Data {
        match self {
            Value::Undefined => Data::null(),
            Value::Boolean(value) => Data::bool(value),
            Value::Integer(value) => Data::int(value),
            Value::String(text) => Data::string(text),
            Value::Other(data) => data.substituted(),
        }
    }

    /// Truth as `and`, `or` and `not` see it.
    pub(crate) fn is_truthy(&self) -> bool {
        !matches!(self, Value::Undefined | Value::Boolean(false))
    }

    fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Boolean(a), Value::Boolean(b)) => a == b,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Other(a), Value::Other(b)) => a.equals(b),
            (Value::Other(a), Value::String(b)) | (Value::String(b), Value::Other(a)) => {
                a.equals(&Data::string(b.clone()))
            }
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Value::Undefined => "undefined".into(),
            Value::Boolean(value) => format!("the boolean `{value}`"),
            Value::Integer(value) => format!("the integer `{value}`"),
            Value::String(text) => format!("the string `{}`", crate::config::values::shorten(text)),
            Value::Other(data) => data.type_name().into(),
        }
    }
}

impl Expression {
    /// The value, with `look_up` called for each name that matters.
    pub(crate) fn evaluate<E>(
        &self,
        look_up: &mut dyn FnMut(&Identifier) -> Result<Value, E>,
    ) -> Result<Value, EvaluationError<E>> {
        Ok(match self {
            Expression::Integer(value) => Value::Integer(*value),
            Expression::String(text) => Value::String(text.clone()),
            Expression::Boolean(value) => Value::Boolean(*value),
            Expression::Name(name) => look_up(name).map_err(EvaluationError::Name)?,
            Expression::Not(operand) => Value::Boolean(!operand.evaluate(look_up)?.is_truthy()),
            Expression::And(left, right) => {
                let left = left.evaluate(look_up)?;
                if left.is_truthy() { right.evaluate(look_up)? } else { left }
            }
            Expression::Or(left, right) => {
                let left = left.evaluate(look_up)?;
                if left.is_truthy() { left } else { right.evaluate(look_up)? }
            }
            Expression::Matches(left, at, pattern) => match left.evaluate(look_up)? {
                Value::Undefined => Value::Undefined,
                Value::String(text) => Value::Boolean(pattern.is_match(&text)),
                other => {
                    return Err(EvaluationError::Type(*at, wrong_type("matches", "a string", &other)));
                }
            },
            Expression::Infix(infix, at, left, right) => {
                let left = left.evaluate(look_up)?;
                let right = right.evaluate(look_up)?;
                if matches!(left, Value::Undefined) || matches!(right, Value::Undefined) {
                    return Ok(Value::Undefined);
                }
                let applied = infix.apply(&left, &right);
                Value::Boolean(applied.map_err(|message| EvaluationError::Type(*at, message))?)
            }
        })
    }
}

impl Infix {
    fn apply(self, left: &Value, right: &Value) -> Result<bool, String> {
        let strings = |word: &str| match (left, right) {
            (Value::String(a), Value::String(b)) => Ok((a.clone(), b.clone())),
            (Value::String(_), other) | (other, _) => Err(wrong_type(word, "strings", other)),
        };
        let integers = |word: &str| match (left, right) {
            (Value::Integer(a), Value::Integer(b)) => Ok((*a, *b)),
            (Value::Integer(_), other) | (other, _) => Err(wrong_type(word, "integers", other)),
        };
        Ok(match self {
            Infix::Equal => left.equals(right),
            Infix::NotEqual => !left.equals(right),
            Infix::StartsWith => strings("starts-with").map(|(a, b)| a.starts_with(&*b))?,
            Infix::Contains => strings("contains").map(|(a, b)| a.contains(&*b))?,
            Infix::GreaterOrEqual => integers(">=").map(|(a, b)| a >= b)?,
            Infix::Greater => integers(">").map(|(a, b)| a > b)?,
            Infix::LessOrEqual => integers("<=").map(|(a, b)| a <= b)?,
            Infix::Less => integers("<").map(|(a, b)| a < b)?,
        })
    }
}

fn wrong_type(operator: &str, expected: &str, found: &Value) -> String {
    format!("`{operator}` needs {expected}, not {}", found.describe())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::syntax::parse;
    use proptest::prelude::*;

    fn evaluate(text: &str) -> String {
        let expression = match parse(text) {
            Ok(expression) => expression,
            Err(error) => return format!("{}: {}", error.offset, error.message),
        };
        let result = expression.evaluate(&mut |name| match &*name.text {
            "p.one" => Ok(Value::Integer(1)),
            "p.main" => Ok(Value::String("main".into())),
            "p.empty" => Ok(Value::String("".into())),
            "p.yes" => Ok(Value::Boolean(true)),
            "p.null" => Ok(Value::Undefined),
            other => Err(other.to_owned()),
        });
        match result {
            Ok(Value::Boolean(value)) => value.to_string(),
            Ok(Value::Integer(value)) => value.to_string(),
            Ok(Value::String(text)) => format!("{text:?}"),
            Ok(Value::Undefined) => "undefined".into(),
            Ok(Value::Other(_)) => "other".into(),
            Err(EvaluationError::Name(name)) => format!("unknown {name}"),
            Err(EvaluationError::Type(_, message)) => message,
        }
    }

    #[test]
    fn values_follow_the_table_of_operators() {
        for (text, value) in [
            ("1 == 1", "true"),
            ("1 == \"1\"", "false"),
            ("1 != \"1\"", "true"),
            ("p.main == \"main\" and 10 or 1", "10"),
            ("p.main == \"dev\" and 10 or 1", "1"),
            ("false or p.empty", "\"\""),
            ("0 and 2", "2"),
            ("not 0", "false"),
            ("!p.null", "true"),
            ("p.null == p.null", "undefined"),
            ("p.null != \"x\"", "undefined"),
            ("p.null or 12", "12"),
            ("p.null < 3", "undefined"),
            ("p.null starts-with \"x\"", "undefined"),
            ("p.null matches /x/", "undefined"),
            ("p.main starts-with \"ma\"", "true"),
            ("p.main contains \"ai\"", "true"),
            ("p.main matches /m.*/", "true"),
            ("p.main matches /ma/", "false"),
            ("\"a/b\" matches /a\\/b/", "true"),
            ("3 >= 3 and 2 < 3", "true"),
            ("not false == true", "true"),
            ("true or nothing.here", "true"),
            ("TRUE AND NOT FALSE", "true"),
            ("1 == 1 == true", "true"),
            ("(1 == 2) or (2 == 2)", "true"),
            ("\"say \\\"hi\\\" \\\\\"", "\"say \\\"hi\\\" \\\\\""),
            ("1\n==\t1", "true"),
        ] {
            assert_eq!(evaluate(text), value, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("", "0: Expected expression"),
            ("1 ==", "4: Expected expression"),
            ("p.one p.main", "6: Unexpected additional input"),
            ("p.one foo p.main", "6: Unknown infix function `foo`"),
            ("(1 == 1", "7: Expected ')' after expression"),
            ("1 = 1", "2: Incomplete token, expected \"==\""),
            ("1 & 1", "2: Unexpected character `&` (and is written `and`)"),
            ("'a'", "0: Unexpected character `'` (strings stand in double quotes)"),
            ("\"a", "0: Unclosed string, expected '\"'"),
            ("5 > 4 > 3", "`>` needs integers, not the boolean `true`"),
            ("\"a\" > 1", "`>` needs integers, not the string `a`"),
            ("1 starts-with \"x\"", "`starts-with` needs strings, not the integer `1`"),
            ("p.one matches /1/", "`matches` needs a string, not the integer `1`"),
            ("p.main matches \"x\"", "15: Expected a regular expression such as `/v[0-9]+/` after `matches`"),
            ("nothing.here == 1", "unknown nothing.here"),
            ("9223372036854775808", "0: Integers go up to 9223372036854775807"),
            ("\"\\n\"", "1: Unexpected escape, only `\\\"` and `\\\\` exist in strings"),
        ] {
            assert_eq!(evaluate(text), message, "{text}");
        }
        assert!(evaluate(&"(".repeat(2000)).contains("at most 100 levels"));
        assert!(evaluate(&"!".repeat(2000)).contains("at most 100 levels"));
        assert!(evaluate(&"1".repeat(2049)).contains("less than 2048"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            evaluate(&text);
        }

        #[test]
        fn no_tokens_make_it_panic(words in prop::collection::vec(prop::sample::select(vec![
            "(", ")", "and", "or", "not", "!", "==", "!=", "<", ">=", "1", "\"a\"", "/a/", "p.one", "p.main", "p.null",
            "matches", "starts-with", "contains", "true", "x",
        ]), 0..20)) {
            evaluate(&words.join(" "));
        }

        #[test]
        fn integers_compare_as_integers(a in 0i64.., b in 0i64..) {
            prop_assert_eq!(evaluate(&format!("{a} < {b}")), (a < b).to_string());
            prop_assert_eq!(evaluate(&format!("{a} == {b}")), (a == b).to_string());
        }
    }
}
