//! Tokens of an expression, out of its text.

use std::rc::Rc;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Integer(i64),
    String(Rc<str>),
    /// The text between the slashes, `\/` unescaped.
    Regex(String),
    True,
    False,
    And,
    Or,
    Not,
    /// A dotted name, or the word of an infix function.
    Name(Rc<str>),
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
    LessOrEqual,
    Less,
    Open,
    Close,
}

/// A mistake in an expression or a tag, with its byte offset in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) offset: usize,
    pub(crate) message: String,
}

impl SyntaxError {
    pub(super) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

/// Tokens with the byte offset of each.
pub(super) fn lex(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let pair = |second: char| rest[1..].starts_with(second);
        let (token, length) = match c {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '=' if pair('=') => (Token::Equal, 2),
            '=' => return Err(SyntaxError::new(at, "Incomplete token, expected \"==\"")),
            '!' if pair('=') => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            '>' if pair('=') => (Token::GreaterOrEqual, 2),
            '>' => (Token::Greater, 1),
            '<' if pair('=') => (Token::LessOrEqual, 2),
            '<' => (Token::Less, 1),
            '"' => string(rest).map_err(|(by, message)| SyntaxError::new(at + by, message))?,
            '/' => regex(rest).map_err(|message| SyntaxError::new(at, message))?,
            '0'..='9' => integer(rest).map_err(|message| SyntaxError::new(at, message))?,
            'a'..='z' | 'A'..='Z' => name(rest),
            '&' | '|' | '\'' => {
                let instead = match c {
                    '&' => "and is written `and`",
                    '|' => "or is written `or`",
                    _ => "strings stand in double quotes",
                };
                return Err(SyntaxError::new(at, format!("Unexpected character `{c}` ({instead})")));
            }
            other => return Err(SyntaxError::new(at, format!("Unexpected character `{other}`"))),
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

fn string(rest: &str) -> Result<(Token, usize), (usize, String)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::String(value.into()), at + 1)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err((at, "Unexpected escape, only `\\\"` and `\\\\` exist in strings".into())),
            },
            c => value.push(c),
        }
    }
    Err((0, "Unclosed string, expected '\"'".into()))
}

fn regex(rest: &str) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '/' => return Ok((Token::Regex(value), at + 1)),
            '\\' => match chars.next() {
                Some((_, '/')) => value.push('/'),
                Some((_, c @ ('u' | 'x'))) => {
                    return Err(format!("`\\{c}` cannot be used in a regular expression"));
                }
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c if u32::from(c) > 0xff => {
                return Err(format!("Unexpected character `{c}` in a regular expression"));
            }
            c => value.push(c),
        }
    }
    Err("Unclosed regular expression, expected '/'".into())
}

fn integer(rest: &str) -> Result<(Token, usize), String> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    match rest[..length].parse() {
        Ok(value) => Ok((Token::Integer(value), length)),
        Err(_) => Err(format!("Integers go up to {}", i64::MAX)),
    }
}

/// Segments joined by single dots; each begins with a letter or digit after the first.
fn name(rest: &str) -> (Token, usize) {
    let bytes = rest.as_bytes();
    let part = |b: &u8| b.is_ascii_alphanumeric() || b"-_?".contains(b);
    let mut length = bytes.iter().take_while(|b| part(b)).count();
    while bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_alphanumeric) {
        length += 1;
        length += bytes[length..].iter().take_while(|b| part(b)).count();
    }
    let token = match &rest[..length] {
        "true" | "TRUE" => Token::True,
        "false" | "FALSE" => Token::False,
        "and" | "AND" => Token::And,
        "or" | "OR" => Token::Or,
        "not" | "NOT" => Token::Not,
        name => Token::Name(name.into()),
    };
    (token, length)
}
