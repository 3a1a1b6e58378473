//! Patterns as values: text to parts, and whether a name matches. No IO.
//!
//! Braces are written out before anything else, so a pattern is a list of alternatives. Each alternative
//! is a list of parts between slashes. A name is compared in time proportional to its length times that of
//! the part, whatever the part is.

use super::Dialect;

/// Longest pattern, in bytes.
const LONGEST: usize = 4096;
/// Most alternatives that braces may make.
const MOST_ALTERNATIVES: usize = 1000;
/// Most braces that are taken apart: nested ones make more work than alternatives.
const MOST_BRACES: usize = 4 * MOST_ALTERNATIVES;

/// Whatever braces and `**` within a name stand for.
pub(super) type Alternatives = Vec<Alternative>;

/// A pattern without braces.
#[derive(Debug)]
pub(super) struct Alternative {
    /// It begins with a slash.
    pub(super) absolute: bool,
    /// It ends with a slash.
    pub(super) folder: bool,
    /// Between its slashes.
    pub(super) parts: Vec<Part>,
}

/// What one component of a path must be.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// Exactly this.
    Name(String),
    /// `**`: any number of folders.
    Deep,
    /// What matches.
    Glob(Glob),
}

/// A component with special characters.
#[derive(Clone, Debug)]
pub(super) struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**` beside other characters, until it is taken apart.
    Deep,
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
    let too_many =
        || format!("the braces of the pattern `{pattern}` stand for more than {MOST_ALTERNATIVES} others");
    let texts = match dialect {
        Dialect::Shell => write_out(pattern).ok_or_else(too_many)?,
        Dialect::Go => vec![pattern.to_owned()],
    };
    let mut all = Vec::new();
    for text in &texts {
        let components = components(text, dialect).ok_or_else(|| {
            format!("the pattern `{pattern}` is malformed: a `[` without its `]`, a range without its end, or a `\\` at the end of a name")
        })?;
        // An empty pattern is no path.
        if components.is_empty() {
            continue;
        }
        let mut made = vec![Vec::new()];
        for tokens in components {
            add(&mut made, tokens);
            if all.len() + made.len() > MOST_ALTERNATIVES {
                return Err(too_many());
            }
        }
        let (absolute, folder) = (text.starts_with('/'), text.ends_with('/'));
        all.extend(made.into_iter().map(|parts| Alternative { absolute, folder, parts: end_deep(parts) }));
    }
    Ok(all)
}

/// Writes braces out: the texts in the order in which they stand. `None` when there are too many.
fn write_out(pattern: &str) -> Option<Vec<String>> {
    let mut done = Vec::new();
    let mut work = vec![pattern.to_owned()];
    let mut steps = 0;
    while let Some(text) = work.pop() {
        steps += 1;
        let Some((begin, commas, end)) = first_braces(&text) else {
            done.push(text);
            continue;
        };
        let mut ends = commas;
        ends.push(end);
        if steps > MOST_BRACES || done.len() + work.len() + ends.len() > MOST_ALTERNATIVES {
            return None;
        }
        let mut from = begin + 1;
        let mut written = Vec::new();
        for at in ends {
            written.push(format!("{}{}{}", &text[..begin], &text[from..at], &text[end + 1..]));
            from = at + 1;
        }
        work.extend(written.into_iter().rev());
    }
    Some(done)
}

/// The first `{` that has its `}`: where they are, and the commas that belong to them.
fn first_braces(text: &str) -> Option<(usize, Vec<usize>, usize)> {
    // Each open brace with its commas. One that is never closed means itself, those within it count.
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut found: Option<(usize, Vec<usize>, usize)> = None;
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
                if let Some((begin, commas)) = open.pop() {
                    if found.as_ref().is_none_or(|(other, ..)| begin < *other) {
                        found = Some((begin, commas, at));
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

/// The components of a path, each as tokens; empty ones are left out. `None` when it is malformed.
fn components(text: &str, dialect: Dialect) -> Option<Vec<Vec<Token>>> {
    let mut all = Vec::new();
    for component in text.split('/').filter(|component| !component.is_empty()) {
        let chars: Vec<char> = component.chars().collect();
        all.push(match dialect {
            Dialect::Shell => shell_tokens(&chars),
            Dialect::Go => go_tokens(&chars)?,
        });
    }
    Some(all)
}

fn shell_tokens(chars: &[char]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        tokens.push(match c {
            '*' => {
                let mut stars = 1;
                while chars.get(at) == Some(&'*') {
                    stars += 1;
                    at += 1;
                }
                if stars == 1 { Token::Star } else { Token::Deep }
            }
            '?' => Token::Any,
            '[' => match shell_class(&chars[at..]) {
                Some((class, length)) => {
                    at += length;
                    class
                }
                None => Token::Char('['),
            },
            '\\' => match chars.get(at) {
                Some(&next) => {
                    at += 1;
                    Token::Char(next)
                }
                // Before a slash it changes nothing.
                None => break,
            },
            c => Token::Char(c),
        });
    }
    tokens
}

/// A class after its `[`, and how long it is with its `]`. `None` when it has no end.
fn shell_class(chars: &[char]) -> Option<(Token, usize)> {
    let negated = matches!(chars.first(), Some('!' | '^'));
    let first = usize::from(negated);
    let mut at = first;
    let mut ranges = Vec::new();
    loop {
        let mut c = *chars.get(at)?;
        if c == ']' && at > first {
            return Some((Token::Class { negated, ranges }, at + 1));
        }
        if c == '\\' {
            at += 1;
            c = *chars.get(at)?;
        }
        at += 1;
        // A minus before the end means itself.
        let mut last = c;
        if chars.get(at) == Some(&'-') && chars.get(at + 1).is_some_and(|&c| c != ']') {
            at += 1;
            last = *chars.get(at)?;
            if last == '\\' {
                at += 1;
                last = *chars.get(at)?;
            }
            at += 1;
        }
        ranges.push((c, last));
    }
}

fn go_tokens(chars: &[char]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = chars.iter().copied().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(rest.next()?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                        break Token::Class { negated, ranges };
                    }
                    let mut one = || match rest.next()? {
                        '-' | ']' => None,
                        '\\' => rest.next(),
                        c => Some(c),
                    };
                    let first = one()?;
                    let last = if rest.next_if_eq(&'-').is_some() {
                        match rest.next()? {
                            '-' | ']' => return None,
                            '\\' => rest.next()?,
                            c => c,
                        }
                    } else {
                        first
                    };
                    ranges.push((first, last));
                }
            }
            c => Token::Char(c),
        });
    }
    Some(tokens)
}

/// Adds a component to every alternative. `**` beside other characters is a name, or the end of one, any
/// number of folders, and the beginning of another: `a**b` is `a*b` or `a*/**/*b`.
fn add(made: &mut Vec<Vec<Part>>, tokens: Vec<Token>) {
    if tokens == [Token::Deep] {
        made.iter_mut().for_each(|parts| parts.push(Part::Deep));
        return;
    }
    let mut ways: Vec<Vec<Part>> = vec![Vec::new()];
    let mut current: Vec<Vec<Token>> = vec![Vec::new()];
    for token in tokens {
        if token != Token::Deep {
            current.iter_mut().for_each(|tokens| tokens.push(token.clone()));
            continue;
        }
        for index in 0..ways.len() {
            current[index].push(Token::Star);
            let mut parts = ways[index].clone();
            parts.extend([part(current[index].clone()), Part::Deep]);
            ways.push(parts);
            current.push(vec![Token::Star]);
        }
        if ways.len() > MOST_ALTERNATIVES {
            break;
        }
    }
    let before = std::mem::take(made);
    for (way, last) in ways.into_iter().zip(current) {
        for parts in &before {
            let mut parts = parts.clone();
            parts.extend(way.iter().cloned());
            parts.push(part(last.clone()));
            made.push(parts);
        }
        if made.len() > MOST_ALTERNATIVES {
            return;
        }
    }
}

fn part(tokens: Vec<Token>) -> Part {
    let text = tokens.iter().map(|token| if let Token::Char(c) = token { Some(*c) } else { None });
    match text.collect::<Option<String>>() {
        Some(name) => Part::Name(name),
        None => Part::Glob(Glob(tokens)),
    }
}

/// `a/**` is everything below `a`.
fn end_deep(mut parts: Vec<Part>) -> Vec<Part> {
    if matches!(parts.last(), Some(Part::Deep)) {
        parts.push(Part::Glob(Glob(vec![Token::Star])));
    }
    parts
}

impl Glob {
    /// Whether a name matches. A `hidden` one does only when the pattern begins with its dot.
    pub(super) fn matches(&self, name: &str, hidden: bool) -> bool {
        if hidden && !matches!(self.0.first(), Some(Token::Char('.'))) {
            return false;
        }
        // One star is open at a time: what a later one cannot match, an earlier one could not either.
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
            Token::Star | Token::Deep => false,
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
            [Part::Name(own)] => Some(own == name),
            [Part::Glob(glob)] => Some(glob.matches(name, false)),
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
        ] {
            assert_eq!(out(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(out(&"{a,b}".repeat(11)), None);
    }

    #[test]
    fn long_and_deeply_nested_patterns_end() {
        let tokens = |text: &str| Glob(shell_tokens(&text.chars().collect::<Vec<_>>()));
        let pattern = tokens(&"*a".repeat(1000));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(20_000)), false));
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
            let tokens = go_tokens(&pattern.chars().collect::<Vec<_>>()).unwrap_or_default();
            let chars: Vec<char> = name.chars().collect();
            prop_assert_eq!(Glob(tokens.clone()).matches(&name, false), slowly(&tokens, &chars));
        }

        #[test]
        fn nothing_panics(pattern in "\\PC{0,40}", special in "[a/*?{},!^\\\\\\[\\]-]{0,40}", name in "\\PC{0,10}") {
            for text in [pattern, special] {
                for dialect in [Dialect::Shell, Dialect::Go] {
                    for one in parse(&text, dialect).unwrap_or_default() {
                        for part in one.parts {
                            if let Part::Glob(glob) = part {
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
                let is_same = matches!(parsed.first().map(|one| one.parts.as_slice()), Some([Part::Name(own)]) if *own == name);
                prop_assert!(is_same, "{parsed:?}");
            }
        }
    }
}
