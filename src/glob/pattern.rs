//! Patterns as values: text to parts, and whether a name matches. No IO.
//!
//! Braces are written out before anything else, so a pattern is a list of alternatives. Each alternative
//! is a list of parts between slashes. A name is compared in time proportional to its length times that of
//! the part, whatever the part is.

/// How a pattern is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `*`, `?`, `[abc]`, `[a-z]`, `[!x]` or `[^x]`, `{a,b}` (nested as well), `**` for any number of
    /// folders, `\` before a character that means itself. Names that begin with a dot are matched by a
    /// written dot only. What is malformed means itself. Finds files, and links to files.
    Shell,
    /// `*`, `?`, `[abc]`, `[a-z]`, `[^x]` and `\`, as Go's `filepath.Match`; what is malformed is an error.
    /// A leading dot is nothing special. Finds files, folders and links.
    Go,
}

/// Longest pattern, in bytes.
const LONGEST: usize = 4096;
/// Most alternatives that a pattern may stand for.
const MOST_ALTERNATIVES: usize = 1000;
/// Most braces and `**` that are taken apart: nested ones make more work than alternatives.
const MOST_STEPS: usize = 4 * MOST_ALTERNATIVES;

/// Patterns that braces and `**` within a name stand for.
pub(super) type Alternatives = Vec<Alternative>;

/// A pattern without braces.
#[derive(Debug)]
pub(super) struct Alternative {
    /// Whether the pattern begins with a slash.
    pub(super) absolute: bool,
    /// Whether the pattern ends with a slash.
    pub(super) folder: bool,
    /// Parts between its slashes.
    pub(super) parts: Vec<ComponentPattern>,
}

/// Demand on one component of a path.
#[derive(Debug)]
pub(super) enum ComponentPattern {
    /// A component that is exactly this text.
    Name(String),
    /// `**`: any number of folders.
    Deep,
    /// The pattern of one name.
    Glob(Glob),
}

/// A component with special characters.
#[derive(Debug)]
pub(super) struct Glob(Vec<Token>);

#[derive(Debug)]
enum Token {
    Char(char),
    /// `?`: any one character.
    Any,
    /// `*`: any number of characters within a component.
    Star,
    /// Characters and ranges of them, both ends included.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Reads a pattern. The error is a sentence for people.
pub(super) fn parse(pattern: &str, dialect: Dialect) -> Result<Alternatives, String> {
    if pattern.len() > LONGEST {
        let begin: String = pattern.chars().take(40).collect();
        return Err(format!("the pattern `{begin}...` is longer than {LONGEST} bytes: use several"));
    }
    let texts = match dialect {
        Dialect::Shell => write_out(pattern).ok_or_else(|| {
            format!("the pattern `{pattern}` stands for more than {MOST_ALTERNATIVES} others: use several")
        })?,
        Dialect::Go => vec![pattern.to_owned()],
    };
    let mut all = Vec::new();
    for text in texts {
        let mut parts = Vec::new();
        for component in text.split('/') {
            match component {
                "" => {}
                stars if is_deep(stars, dialect) => parts.push(ComponentPattern::Deep),
                component => parts.push(part(component, dialect).ok_or_else(|| {
                    format!("the pattern `{pattern}` is malformed: a `[` without its `]`, a range without its end, or a `\\` at the end of a name")
                })?),
            }
        }
        // `a/**` is everything below `a`.
        if let Some(ComponentPattern::Deep) = parts.last() {
            parts.push(ComponentPattern::Glob(Glob(vec![Token::Star])));
        }
        // An empty pattern is no path.
        if !parts.is_empty() {
            let (absolute, folder) = (text.starts_with('/'), text.ends_with('/'));
            all.push(Alternative { absolute, folder, parts });
        }
    }
    Ok(all)
}

fn is_deep(component: &str, dialect: Dialect) -> bool {
    dialect == Dialect::Shell && component.len() > 1 && component.bytes().all(|byte| byte == b'*')
}

/// Writes out braces, and `**` beside other characters: the texts in the order in which they stand. `None`
/// when there are too many.
fn write_out(pattern: &str) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut work = vec![pattern.to_owned()];
    let mut steps = 0;
    while let Some(text) = work.pop() {
        steps += 1;
        let (begin, end, middles) = if let Some((begin, ends)) = first_braces(&text) {
            let mut from = begin + 1;
            let mut middles = Vec::new();
            for &at in &ends {
                middles.push(&text[from..at]);
                from = at + 1;
            }
            (begin, from, middles)
        } else if let Some((begin, end)) = first_stars(&text) {
            // A name, or the end of one, any number of folders, and the beginning of another.
            (begin, end, vec!["*", "*/**/*"])
        } else {
            done.push(text);
            continue;
        };
        if steps > MOST_STEPS || done.len() + work.len() + middles.len() > MOST_ALTERNATIVES {
            return None;
        }
        // The first comes off first.
        let written = middles.iter().rev().map(|middle| [&text[..begin], middle, &text[end..]].concat());
        work.extend(written);
    }
    Some(done)
}

/// The first `{` that has its `}`: where it is, and the commas that belong to it, then the `}`.
fn first_braces(text: &str) -> Option<(usize, Vec<usize>)> {
    // Each open brace with its commas. One that is never closed means itself, those within it count.
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut found: Option<(usize, Vec<usize>)> = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match byte {
            b'\\' => escaped = true,
            b'{' => open.push((at, Vec::new())),
            b',' => {
                if let Some((_, commas)) = open.last_mut() {
                    commas.push(at);
                }
            }
            b'}' => {
                if let Some((begin, mut ends)) = open.pop() {
                    ends.push(at);
                    if found.as_ref().is_none_or(|(other, _)| begin < *other) {
                        found = Some((begin, ends));
                    }
                    if open.is_empty() {
                        return found;
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The first `**` that is not all of a component: where it begins and ends.
fn first_stars(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let begin = at;
        match bytes[at] {
            b'\\' => at += 1,
            b'*' => {
                while bytes.get(at + 1) == Some(&b'*') {
                    at += 1;
                }
                let alone = (begin == 0 || bytes[begin - 1] == b'/')
                    && matches!(bytes.get(at + 1), None | Some(b'/'));
                if at > begin && !alone {
                    return Some((begin, at + 1));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Reads one component. `None` when it is malformed.
fn part(text: &str, dialect: Dialect) -> Option<ComponentPattern> {
    let chars: Vec<char> = text.chars().collect();
    let strict = dialect == Dialect::Go;
    let mut tokens = Vec::new();
    let mut name = String::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => match class(&chars, at, strict) {
                Some((class, end)) => {
                    at = end;
                    class
                }
                None if strict => return None,
                None => Token::Char('['),
            },
            '\\' => match chars.get(at) {
                Some(&next) => {
                    at += 1;
                    Token::Char(next)
                }
                None if strict => return None,
                // Before a slash it changes nothing.
                None => break,
            },
            c => Token::Char(c),
        });
        if let Some(Token::Char(c)) = tokens.last() {
            name.push(*c);
        }
    }
    let plain = tokens.iter().all(|token| matches!(token, Token::Char(_)));
    Some(if plain { ComponentPattern::Name(name) } else { ComponentPattern::Glob(Glob(tokens)) })
}

/// A class whose `[` is before `at`, and where it ends. `None` when it has no end, or, when `strict`, when a
/// minus or a bracket in it has no backslash.
fn class(chars: &[char], mut at: usize, strict: bool) -> Option<(Token, usize)> {
    let negated = match chars.get(at) {
        Some('^') => true,
        Some('!') => !strict,
        _ => false,
    };
    at += usize::from(negated);
    let mut ranges = Vec::new();
    while ranges.is_empty() || *chars.get(at)? != ']' {
        let first = one(chars, &mut at, strict)?;
        // A minus before the end means itself.
        let ranges_on = chars.get(at) == Some(&'-') && (strict || chars.get(at + 1) != Some(&']'));
        let last = if ranges_on {
            at += 1;
            one(chars, &mut at, strict)?
        } else {
            first
        };
        ranges.push((first, last));
    }
    Some((Token::Class { negated, ranges }, at + 1))
}

fn one(chars: &[char], at: &mut usize, strict: bool) -> Option<char> {
    let mut c = *chars.get(*at)?;
    if strict && matches!(c, '-' | ']') {
        return None;
    }
    if c == '\\' {
        *at += 1;
        c = *chars.get(*at)?;
    }
    *at += 1;
    Some(c)
}

impl Glob {
    /// Whether a name matches. A `hidden` one does only when the pattern begins with its dot.
    pub(super) fn matches(&self, name: &str, hidden: bool) -> bool {
        if hidden && !matches!(self.0.first(), Some(Token::Char('.'))) {
            return false;
        }
        // A single star is open at a time: what a later one cannot match, an earlier one could not either.
        let tokens = self.0.as_slice();
        let (mut at, mut rest) = (0, name.chars());
        let mut open: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            match (tokens.get(at), rest.next()) {
                (None, None) => return true,
                (Some(Token::Star), _) => {
                    open = Some((at + 1, before.clone()));
                    rest = before;
                    at += 1;
                    continue;
                }
                (Some(token), Some(c)) if token.matches(c) => {
                    at += 1;
                    continue;
                }
                (_, None) => return false,
                _ => {}
            }
            // The open star takes one character more.
            let Some((after, from)) = &mut open else { return false };
            from.next();
            at = *after;
            rest = from.clone();
        }
    }
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Token::Char(own) => *own == c,
            Token::Any => true,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
            Token::Star => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether a pattern of one component matches a name; `None` when it is malformed.
    fn go(pattern: &str, name: &str) -> Option<bool> {
        let parsed = parse(pattern, Dialect::Go).ok()?;
        let parts = &parsed.first()?.parts;
        match parts.as_slice() {
            [ComponentPattern::Name(own)] => Some(own == name),
            [ComponentPattern::Glob(glob)] => Some(glob.matches(name, false)),
            _ => None,
        }
    }

    #[test]
    fn go_patterns_are_those_of_its_own_tests() {
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*b*c*d*e*", "axbxcxdxe", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "x", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[\\-x]", "-", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("\\", "a", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("*x", "xxx", Some(true)),
        ] {
            assert_eq!(go(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn braces_are_written_out_in_order() {
        let out = |text| write_out(text).map(|texts| texts.join(" "));
        for (text, expected) in [
            ("a", "a"),
            ("{a,b}c{d,e}", "acd ace bcd bce"),
            ("x{a,{b,c}d}", "xa xbd xcd"),
            ("{a}{,b}", "a ab"),
            ("\\{a,b}", "\\{a,b}"),
            ("{a\\,b,c}", "a\\,b c"),
            ("{a,{b", "{a,{b"),
            ("{{a,b}", "{a {b"),
            ("a}b,c", "a}b,c"),
            ("**", "**"),
            ("a/**/b", "a/**/b"),
            ("a/***", "a/***"),
            ("a**b/c", "a*b/c a*/**/*b/c"),
            ("\\***", "\\** \\**/**/*"),
        ] {
            assert_eq!(out(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(out(&"{a,b}".repeat(11)), None);
    }

    #[test]
    fn long_and_deeply_nested_patterns_end() {
        let Some(ComponentPattern::Glob(glob)) = part(&"*a".repeat(1000), Dialect::Shell) else { return };
        assert!(!glob.matches(&format!("{}b", "a".repeat(20_000)), false));
        let nested = format!("{}{}", "{a,".repeat(1000), "}".repeat(1000));
        let _ = parse(&nested, Dialect::Shell);
        let _ = parse(&"{".repeat(4096), Dialect::Shell);
        assert!(parse(&"a**".repeat(1000), Dialect::Shell).is_err());
        assert!(parse(&"a".repeat(5000), Dialect::Shell).is_err_and(|e| e.contains("longer than")));
    }

    /// The meaning of tokens, by trying everything.
    fn slowly(tokens: &[Token], name: &[char]) -> bool {
        match (tokens.first(), name.first()) {
            (None, None) => true,
            (Some(Token::Star), first) => {
                slowly(&tokens[1..], name) || (first.is_some() && slowly(tokens, &name[1..]))
            }
            (Some(token), Some(&c)) => token.matches(c) && slowly(&tokens[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_means(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let chars: Vec<char> = name.chars().collect();
            if let Some(ComponentPattern::Glob(glob)) = part(&pattern, Dialect::Go) {
                prop_assert_eq!(glob.matches(&name, false), slowly(&glob.0, &chars));
            }
        }

        #[test]
        fn nothing_panics(pattern in "\\PC{0,40}", special in "[a/*?{},!^\\\\\\[\\]-]{0,40}", name in "\\PC{0,10}") {
            for text in [pattern, special] {
                for dialect in [Dialect::Shell, Dialect::Go] {
                    for one in parse(&text, dialect).unwrap_or_default() {
                        for part in one.parts {
                            if let ComponentPattern::Glob(glob) = part {
                                glob.matches(&name, name.starts_with('.'));
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn a_quoted_name_means_itself(name in "[a*?{}!,\\\\\\[\\].-]{1,12}") {
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            for dialect in [Dialect::Shell, Dialect::Go] {
                let parsed = parse(&quoted, dialect).unwrap_or_default();
                let is_same = matches!(parsed.first().map(|one| one.parts.as_slice()), Some([ComponentPattern::Name(own)]) if *own == name);
                prop_assert!(is_same, "{parsed:?}");
            }
        }
    }
}
