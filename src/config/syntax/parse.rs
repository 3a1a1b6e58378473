//! Tokens to a tree, by precedence: `or`, `and`, equality and infix words, comparison, negation.

use super::lex::{SyntaxError, Token, lex};
use super::pattern::Pattern;
use crate::config::limits;
use std::rc::Rc;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Integer(i64),
    String(Rc<str>),
    Boolean(bool),
    Name(Identifier),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    /// An operator with its byte offset and its operands.
    Infix(Infix, usize, Box<Expression>, Box<Expression>),
    Matches(Box<Expression>, usize, Pattern),
}

/// A name and where it stands, as a byte offset.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Identifier {
    pub(crate) text: Rc<str>,
    pub(crate) offset: usize,
}

/// Operators that need both operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Infix {
    Equal,
    NotEqual,
    StartsWith,
    Contains,
    GreaterOrEqual,
    Greater,
    LessOrEqual,
    Less,
}

/// Parses a whole text.
pub(crate) fn parse(text: &str) -> Result<Expression, SyntaxError> {
    if text.chars().count() > limits::TAG_CHARS {
        return Err(SyntaxError::new(
            0,
            format!("Expressions must be less than {} characters", limits::TAG_CHARS),
        ));
    }
    let mut parser = Parser { tokens: lex(text)?, next: 0, end: text.len(), depth: 0 };
    let expression = parser.or()?;
    match parser.tokens.get(parser.next) {
        None => Ok(expression),
        Some((at, Token::Name(word))) if parser.tokens.len() > parser.next + 1 => {
            Err(SyntaxError::new(*at, format!("Unknown infix function `{word}`")))
        }
        Some((at, _)) => Err(SyntaxError::new(*at, "Unexpected additional input")),
    }
}

impl Expression {
    /// Whether the expression has names and every one has a dot, unlike a stray word.
    pub(crate) fn names_are_dotted(&self) -> bool {
        let mut names = Vec::new();
        self.names(&mut names);
        !names.is_empty() && names.iter().all(|name| name.text.contains('.'))
    }

    /// All names in it.
    pub(crate) fn names<'a>(&'a self, into: &mut Vec<&'a Identifier>) {
        match self {
            Expression::Name(name) => into.push(name),
            Expression::Not(a) | Expression::Matches(a, _, _) => a.names(into),
            Expression::And(a, b) | Expression::Or(a, b) | Expression::Infix(_, _, a, b) => {
                a.names(into);
                b.names(into);
            }
            Expression::Integer(_) | Expression::String(_) | Expression::Boolean(_) => {}
        }
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
}

type Parsed = Result<Expression, SyntaxError>;

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.offset(), message)
    }

    /// Byte offset of the next token.
    fn offset(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.take(&Token::Or) {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.equality()?;
        while self.take(&Token::And) {
            left = Expression::And(Box::new(left), Box::new(self.equality()?));
        }
        Ok(left)
    }

    fn equality(&mut self) -> Parsed {
        let mut left = self.comparison()?;
        loop {
            let at = self.offset();
            let infix = match self.peek() {
                Some(Token::Equal) => Infix::Equal,
                Some(Token::NotEqual) => Infix::NotEqual,
                Some(Token::Name(word)) => match &**word {
                    "starts-with" => Infix::StartsWith,
                    "contains" => Infix::Contains,
                    "matches" => {
                        self.next += 1;
                        left = Expression::Matches(Box::new(left), at, self.pattern()?);
                        continue;
                    }
                    _ => return Ok(left),
                },
                _ => return Ok(left),
            };
            self.next += 1;
            left = Expression::Infix(infix, at, Box::new(left), Box::new(self.comparison()?));
        }
    }

    fn pattern(&mut self) -> Result<Pattern, SyntaxError> {
        let Some(Token::Regex(text)) = self.peek() else {
            return Err(self.error("Expected a regular expression such as `/v[0-9]+/` after `matches`"));
        };
        let pattern = Pattern::new(text).map_err(|message| self.error(message))?;
        self.next += 1;
        Ok(pattern)
    }

    fn comparison(&mut self) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let at = self.offset();
            let infix = match self.peek() {
                Some(Token::GreaterOrEqual) => Infix::GreaterOrEqual,
                Some(Token::Greater) => Infix::Greater,
                Some(Token::LessOrEqual) => Infix::LessOrEqual,
                Some(Token::Less) => Infix::Less,
                _ => return Ok(left),
            };
            self.next += 1;
            left = Expression::Infix(infix, at, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > limits::LOGIC_DEPTH {
            return Err(self.error(format!("Expressions nest at most {} levels", limits::LOGIC_DEPTH)));
        }
        let parsed = if self.take(&Token::Not) {
            Ok(Expression::Not(Box::new(self.unary()?)))
        } else {
            self.primary()
        };
        self.depth -= 1;
        parsed
    }

    fn primary(&mut self) -> Parsed {
        let expression = match self.peek() {
            Some(Token::Integer(value)) => Expression::Integer(*value),
            Some(Token::String(text)) => Expression::String(text.clone()),
            Some(Token::True) => Expression::Boolean(true),
            Some(Token::False) => Expression::Boolean(false),
            Some(Token::Name(name)) => {
                Expression::Name(Identifier { text: name.clone(), offset: self.offset() })
            }
            Some(Token::Open) => {
                self.next += 1;
                let inner = self.or()?;
                if !self.take(&Token::Close) {
                    return Err(self.error("Expected ')' after expression"));
                }
                return Ok(inner);
            }
            _ => return Err(self.error("Expected expression")),
        };
        self.next += 1;
        Ok(expression)
    }
}
