//! `<< >>` tags in a text: found, unescaped and parsed. Names are looked up by the caller.

use crate::config::limits;
use crate::config::syntax::{Expression, Identifier, SyntaxError, parse as parse_expression};
use std::rc::Rc;

/// A text cut at its tags.
#[derive(Debug, PartialEq)]
pub(crate) struct Template {
    pub(crate) parts: Vec<TemplatePart>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum TemplatePart {
    Text(String),
    Tag(TemplateTag),
    /// `<<# name >> .. <</ name >>`, or `<<^ name >>` for a section that stands when the name is falsy.
    Section {
        name: TemplateTag,
        inverted: bool,
        parts: Vec<TemplatePart>,
    },
}

/// A tag: the text between `<<` and `>>`, trimmed, as an expression.
#[derive(Debug, PartialEq)]
pub(crate) struct TemplateTag {
    pub(crate) source: Rc<str>,
    /// Byte offset of `source` in the text.
    pub(crate) offset: usize,
    pub(crate) expression: Expression,
}

impl Template {
    /// The tag that is all of the text, whose value then keeps its type.
    pub(crate) fn sole_tag(&self) -> Option<&TemplateTag> {
        match self.parts.as_slice() {
            [TemplatePart::Tag(tag)] => Some(tag),
            _ => None,
        }
    }
}

struct Open {
    name: TemplateTag,
    inverted: bool,
    before: Vec<TemplatePart>,
}

/// Cuts a text at its tags.
pub(crate) fn parse(text: &str) -> Result<Template, SyntaxError> {
    let mut sections: Vec<Open> = Vec::new();
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("<<") {
        let start = at + found;
        let before = &text[at..start];
        if before.ends_with('\\') && !before.ends_with("\\\\") {
            literal.push_str(&before[..before.len() - 1]);
            literal.push_str("<<");
            at = start + 2;
            continue;
        }
        literal.push_str(before.strip_suffix('\\').unwrap_or(before));
        let (body, after) = body(text, start)?;
        at = after;
        let offset = start + 2;
        let fail = |message: &str| SyntaxError { offset: start, message: message.to_owned() };
        if let Some(name) = body.strip_prefix(['#', '^']) {
            if sections.len() >= limits::LOGIC_DEPTH {
                return Err(fail(&format!("Sections nest at most {} levels", limits::LOGIC_DEPTH)));
            }
            flush(&mut literal, &mut parts);
            let name = section_name(name, offset + 1)?;
            sections.push(Open { name, inverted: body.starts_with('^'), before: std::mem::take(&mut parts) });
        } else if let Some(name) = body.strip_prefix('/') {
            flush(&mut literal, &mut parts);
            let Some(open) = sections.pop() else {
                return Err(fail("Section end tag without a section"));
            };
            if name.trim() != &*open.name.source {
                return Err(fail("Expected section end tag to match start tag"));
            }
            let inner = std::mem::replace(&mut parts, open.before);
            parts.push(TemplatePart::Section { name: open.name, inverted: open.inverted, parts: inner });
        } else {
            flush(&mut literal, &mut parts);
            parts.push(TemplatePart::Tag(tag(body, offset)?));
        }
    }
    if let Some(open) = sections.pop() {
        let message = "Unclosed section, expected '<</'".to_owned();
        return Err(SyntaxError { offset: open.name.offset, message });
    }
    literal.push_str(&text[at..]);
    flush(&mut literal, &mut parts);
    Ok(Template { parts })
}

fn flush(literal: &mut String, parts: &mut Vec<TemplatePart>) {
    if !literal.is_empty() {
        parts.push(TemplatePart::Text(std::mem::take(literal)));
    }
}

/// The text up to the first `>>`, and the offset after that.
fn body(text: &str, start: usize) -> Result<(&str, usize), SyntaxError> {
    let fail = |message: String| Err(SyntaxError { offset: start, message });
    let Some(length) = text[start + 2..].find(">>") else {
        return fail("Unclosed '<<' tag (in configs of version 2.1 a literal `<<` is written `\\<<`)".into());
    };
    let body = &text[start + 2..start + 2 + length];
    if body.is_empty() {
        return fail("Expected expression after '<<'".into());
    }
    if body.trim().is_empty() {
        return fail("Expected expression".into());
    }
    if body.chars().count() > limits::TAG_CHARS {
        return fail(format!(
            "Expressions must be less than {} characters (a literal `<<`, as of a here-document, is written `\\<<`)",
            limits::TAG_CHARS
        ));
    }
    Ok((body, start + 2 + length + 2))
}

fn section_name(text: &str, offset: usize) -> Result<TemplateTag, SyntaxError> {
    let source = text.trim();
    let offset = offset + (text.len() - text.trim_start().len());
    match parse_expression(source) {
        Ok(expression @ Expression::Name(_)) => Ok(TemplateTag { source: source.into(), offset, expression }),
        _ => Err(SyntaxError { offset, message: "Expected valid identifier".into() }),
    }
}

fn tag(body: &str, offset: usize) -> Result<TemplateTag, SyntaxError> {
    let source = body.trim();
    let offset = offset + (body.len() - body.trim_start().len());
    if source.starts_with("include(") {
        let message =
            "`<<include(file)>>` is only understood when an orb is packed; give the packed text here";
        return Err(SyntaxError { offset, message: message.into() });
    }
    let expression = match parse_expression(source) {
        Ok(expression) => expression,
        Err(_) if is_odd_name(source) => Expression::Name(Identifier { text: source.into(), offset: 0 }),
        Err(error) => {
            // A here-document that is not escaped looks like this too, unless a value is named.
            let meant = ["pipeline.", "parameters.", "matrix."].iter().any(|root| source.contains(root));
            let hint = if meant { "" } else { " (a literal `<<` is written `\\<<`)" };
            let message = format!("{}{hint}", error.message);
            return Err(SyntaxError { offset: offset + error.offset, message });
        }
    };
    Ok(TemplateTag { source: source.into(), offset, expression })
}

/// `[\w-]+(\.\S+)*`: names with characters that expressions do not have are looked up as they stand.
fn is_odd_name(text: &str) -> bool {
    let (first, rest) = text.split_once('.').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !first.is_empty()
        && first.chars().all(word)
        && rest.is_none_or(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Tags as `{source}`, sections as `#name[..]` or `^name[..]`.
    fn show(text: &str) -> String {
        fn all(parts: &[TemplatePart]) -> String {
            parts
                .iter()
                .map(|part| match part {
                    TemplatePart::Text(text) => text.clone(),
                    TemplatePart::Tag(tag) => format!("{{{}}}", tag.source),
                    TemplatePart::Section { name, inverted, parts: inner } => {
                        format!("{}{}[{}]", if *inverted { '^' } else { '#' }, name.source, all(inner))
                    }
                })
                .collect()
        }
        match parse(text) {
            Ok(template) => all(&template.parts),
            Err(error) => format!("{}: {}", error.offset, error.message),
        }
    }

    #[test]
    fn texts_are_cut_at_tags() {
        for (text, shown) in [
            ("plain >> file", "plain >> file"),
            ("<<a.b>>", "{a.b}"),
            ("x << a.b >> y <<c.d>>", "x {a.b} y {c.d}"),
            (r"cat \<<EOF", "cat <<EOF"),
            (r"cat \<<<x", "cat <<<x"),
            (r"a \\<< b.c >>", r"a \{b.c}"),
            (r"\ x", r"\ x"),
            ("<<# p.x >>yes<</ p.x >><<^p.x>>no<</p.x>>", "#p.x[yes]^p.x[no]"),
            ("<<# a.b >><<# c.d >>x<</ c.d >><</ a.b >>", "#a.b[#c.d[x]]"),
            ("<< parameters.my/odd >>", "{parameters.my/odd}"),
            ("<< 1 == 2 >>", "{1 == 2}"),
        ] {
            assert_eq!(show(text), shown, "{text}");
        }
        assert!(parse("<< a.b >>").unwrap().sole_tag().is_some());
        assert!(parse("<< a.b >>\n").unwrap().sole_tag().is_none());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("cat <<EOF", "4: Unclosed '<<' tag"),
            ("<<>>", "0: Expected expression after '<<'"),
            ("<< >>", "0: Expected expression"),
            ("<<# a.b >>x", "4: Unclosed section, expected '<</'"),
            ("<<# a.b >>x<</ c.d >>", "11: Expected section end tag to match start tag"),
            ("x<</ c.d >>", "1: Section end tag without a section"),
            ("<<# a b >>x<</ a b >>", "4: Expected valid identifier"),
            ("<< a & b >>", "5: Unexpected character `&`"),
            ("<<include(x.sh)>>", "2: `<<include(file)>>`"),
        ] {
            assert!(show(text).starts_with(message), "{text}: {}", show(text));
        }
        assert!(show(&format!("<<{}>>", "x".repeat(2049))).contains("less than 2048"));
        assert!(show(&"<<#a.b>>".repeat(101)).contains("at most 100 levels"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>\\\\#^/a.\" é]{0,40}") {
            show(&text);
        }

        #[test]
        fn escaped_text_comes_back(text in "[a<> ]{0,20}") {
            prop_assert_eq!(show(&text.replace("<<", "\\<<")), text);
        }
    }
}
