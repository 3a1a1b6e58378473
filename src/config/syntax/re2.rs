//! RE2's regular expressions, written as this program's library understands them.
//!
//! The two dialects look alike and differ in small ways: here `\d` would match the digits of every
//! script, `&&` in a class would be an intersection, `(?x)` would be known, and a `{` that repeats
//! nothing would be a mistake. [`translate`] reads a pattern by RE2's rules, refuses what RE2 refuses,
//! and writes all of it in forms that have one meaning. Groups no longer capture: only whether a text
//! matches is asked. Called by [`Pattern`](super::Pattern), which compiles the result.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

/// The most that one repetition, or repetitions inside of each other, may multiply.
const REPETITIONS: u32 = 1000;
/// General categories of Unicode that have a name in RE2; others are scripts.
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];
/// Names between `[:` and `:]`.
const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// Writes a pattern of RE2 in the syntax of the library. The error is the end of a sentence.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: pattern.chars().peekable(),
        out: String::new(),
        groups: Vec::new(),
        names: vec![],
    };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    /// Groups that are open, with what was before each.
    groups: Vec<Level>,
    names: Vec<String>,
}

/// State of the innermost open group.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Repetitions inside the piece before, if there is one that can be repeated.
    last: Option<u32>,
    /// Whether that piece is itself a repetition.
    repeated: bool,
    /// The most that anything in the group repeats.
    most: u32,
}

/// The meaning of an escape.
enum Escape {
    Character(char),
    /// A class, as it is written inside of a class.
    Class(String),
}

impl Level {
    /// A piece that can be repeated, with `times` repetitions inside.
    fn item(&mut self, times: u32) {
        *self = Level { last: Some(times), repeated: false, most: self.most.max(times) };
    }
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), String> {
        let mut level = Level::default();
        while let Some(c) = self.rest.next() {
            match c {
                '(' => {
                    if self.open()? {
                        self.groups.push(level);
                        level = Level::default();
                    } else {
                        level.last = None;
                    }
                }
                ')' => {
                    let inside = level.most;
                    level = self.groups.pop().ok_or("a `)` has no `(`")?;
                    self.out.push(')');
                    level.item(inside);
                }
                '|' => {
                    self.out.push('|');
                    level = Level { most: level.most, ..Level::default() };
                }
                '*' | '+' | '?' => {
                    self.repeat(&mut level, &c.to_string(), 1)?;
                }
                '{' => match self.counts()? {
                    Some((text, times)) => self.repeat(&mut level, &text, times)?,
                    None => {
                        self.literal('{');
                        level.item(1);
                    }
                },
                '[' => {
                    self.class()?;
                    level.item(1);
                }
                '.' | '^' | '$' => {
                    self.out.push(c);
                    level.item(1);
                }
                '\\' if self.rest.peek() == Some(&'Q') => {
                    self.rest.next();
                    if self.quoted() {
                        level.item(1);
                    }
                }
                '\\' => {
                    self.outer_escape()?;
                    level.item(1);
                }
                c => {
                    self.literal(c);
                    level.item(1);
                }
            }
        }
        if self.groups.is_empty() { Ok(()) } else { Err("a `(` is not closed".to_owned()) }
    }

    /// A character that stands for itself, also in a class.
    fn literal(&mut self, c: char) {
        write_literal(&mut self.out, c);
    }

    fn repeat(&mut self, level: &mut Level, operator: &str, times: u32) -> Result<(), String> {
        let Some(inside) = level.last else { return Err(format!("nothing stands before the `{operator}`")) };
        if level.repeated {
            return Err(format!("the `{operator}` repeats a repetition (put that into a group)"));
        }
        let times = inside.saturating_mul(times.max(1));
        if times > REPETITIONS {
            return Err(format!("it repeats more than {REPETITIONS} times"));
        }
        self.out.push_str(operator);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        *level = Level { last: Some(times), repeated: true, most: level.most.max(times) };
        Ok(())
    }

    /// Reads counts after a `{`: as they are written, and the most that they allow. `None` when there are no
    /// counts, and the `{` stands for itself.
    fn counts(&mut self) -> Result<Option<(String, u32)>, String> {
        let mut ahead = self.rest.clone();
        let mut text = String::new();
        let closed = loop {
            match ahead.next() {
                Some('}') => break true,
                Some(c) if c.is_ascii_digit() || c == ',' => text.push(c),
                _ => break false,
            }
        };
        let (least, most) = text.split_once(',').map_or((&*text, None), |(least, most)| (least, Some(most)));
        let is_number = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit());
            !digits.is_empty() && plain && (digits == "0" || !digits.starts_with('0'))
        };
        if !closed || !is_number(least) || !most.is_none_or(|most| most.is_empty() || is_number(most)) {
            return Ok(None);
        }
        self.rest = ahead;
        let number = |digits: &str| digits.parse::<u32>().unwrap_or(u32::MAX);
        let least = number(least);
        let most = most.filter(|most| !most.is_empty()).map(number);
        if most.is_some_and(|most| most < least) {
            return Err(format!("`{{{text}}}` ends below its beginning"));
        }
        let times = most.unwrap_or(least);
        if times > REPETITIONS {
            return Err(format!("`{{{text}}}` repeats more than {REPETITIONS} times"));
        }
        Ok(Some((format!("{{{text}}}"), times)))
    }

    /// Reads a group or flags after a `(`. True if a group begins, false if it was flags alone.
    fn open(&mut self) -> Result<bool, String> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.out.push_str("(?:");
            return Ok(true);
        }
        let unknown = |found: &str| match found {
            "=" | "!" | "<=" | "<!" => format!("`(?{found}` looks around, which is not supported"),
            _ => format!(
                "`(?{found}` is not supported (there are groups `(?:`, `(?P<name>` and the flags i, m, s, U)"
            ),
        };
        let named = match self.rest.peek().copied() {
            Some('P') => {
                self.rest.next();
                self.rest.next_if_eq(&'<').ok_or_else(|| unknown("P"))?;
                true
            }
            Some('<') => {
                self.rest.next();
                if let Some(c @ ('=' | '!')) = self.rest.peek().copied() {
                    return Err(unknown(&format!("<{c}")));
                }
                true
            }
            _ => false,
        };
        if named {
            let mut name = String::new();
            loop {
                match self.rest.next() {
                    Some('>') if !name.is_empty() => break,
                    Some(c) if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
                    _ => {
                        return Err(
                            "a group has a name with other characters than letters, digits and `_`".into()
                        );
                    }
                }
            }
            if self.names.contains(&name) {
                return Err(format!("two groups are called `{name}`"));
            }
            self.names.push(name);
            self.out.push_str("(?:");
            return Ok(true);
        }
        let mut flags = String::new();
        loop {
            let c = self.rest.next();
            match c {
                Some('i' | 'm' | 's' | 'U') => flags.extend(c),
                Some('-') if !flags.contains('-') => flags.push('-'),
                Some(end @ (':' | ')')) if !flags.ends_with('-') => {
                    // A group that sets no flags: `(?)` is dropped, `(?:` stays a plain group.
                    match (end, flags.is_empty()) {
                        (')', true) => {}
                        _ => {
                            let _ = write!(self.out, "(?{}{end}", once_each(&flags));
                        }
                    }
                    return Ok(end == ':');
                }
                c => return Err(unknown(&flags.chars().chain(c).collect::<String>())),
            }
        }
    }

    /// Reads text up to `\E` or the end. True if there was any.
    fn quoted(&mut self) -> bool {
        let mut any = false;
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                break;
            }
            self.literal(c);
            any = true;
        }
        any
    }

    fn outer_escape(&mut self) -> Result<(), String> {
        match self.rest.peek().copied() {
            // Words are of ASCII, like `\w`.
            Some(c @ ('b' | 'B')) => {
                let _ = write!(self.out, r"(?-u:\{c})");
                self.rest.next();
            }
            Some(c @ ('A' | 'z')) => {
                self.out.extend(['\\', c]);
                self.rest.next();
            }
            _ => match self.escape()? {
                Escape::Character(c) => self.literal(c),
                Escape::Class(class) => {
                    let _ = write!(self.out, "[{class}]");
                }
            },
        }
        Ok(())
    }

    /// Reads an escape after a `\` that means the same in a class and outside.
    fn escape(&mut self) -> Result<Escape, String> {
        let Some(c) = self.rest.next() else { return Err(r"it ends with a `\`".to_owned()) };
        let class = |text: &str| Ok(Escape::Class(text.to_owned()));
        Ok(Escape::Character(match c {
            'd' => return class("0-9"),
            'D' => return class("[^0-9]"),
            'w' => return class("0-9A-Za-z_"),
            'W' => return class("[^0-9A-Za-z_]"),
            's' => return class(r"\t\n\f\r\x{20}"),
            'S' => return class(r"[^\t\n\f\r\x{20}]"),
            'p' | 'P' => return self.property(c == 'P').map(Escape::Class),
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0' => self.octal(0),
            '1'..='7' if self.rest.peek().is_some_and(|next| next.is_digit(8)) => {
                self.octal(c.to_digit(8).unwrap_or_default())
            }
            'x' => self.hexadecimal()?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            '1'..='9' => return Err(format!(r"`\{c}` refers back, which is not supported")),
            c => return Err(format!(r"`\{c}` is no escape")),
        }))
    }

    /// Reads at most two more octal digits.
    fn octal(&mut self, first: u32) -> char {
        let mut code = first;
        for _ in 0..2 {
            let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(8)) else { break };
            code = code * 8 + digit;
            self.rest.next();
        }
        char::from_u32(code).unwrap_or_default()
    }

    /// Reads `7F` or `{10FFFF}`.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let mut digits = String::new();
        if self.rest.next_if_eq(&'{').is_some() {
            digits.extend(std::iter::from_fn(|| self.rest.next_if(char::is_ascii_hexdigit)));
            if self.rest.next_if_eq(&'}').is_none() {
                digits.clear();
            }
        } else {
            digits.extend(std::iter::from_fn(|| self.rest.next_if(char::is_ascii_hexdigit)).take(2));
            if digits.len() < 2 {
                digits.clear();
            }
        }
        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        code.ok_or_else(|| r"`\x` needs two hexadecimal digits, or a character as in `\x{1F600}`".to_owned())
    }

    /// Reads `N`, `{Greek}` or `{^Greek}` after `\p`.
    fn property(&mut self, negated: bool) -> Result<String, String> {
        let mut name = String::new();
        match self.rest.next() {
            Some('{') => loop {
                match self.rest.next() {
                    Some('}') => break,
                    Some(c) => name.push(c),
                    None => return Err(r"a `\p{` is not closed".to_owned()),
                }
            },
            Some(c) => name.push(c),
            None => {}
        }
        let (name, negated) = match name.strip_prefix('^') {
            Some(rest) => (rest, !negated),
            None => (&*name, negated),
        };
        let letter = if negated { 'P' } else { 'p' };
        let script = name.len() > 2
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        match name {
            // Characters without a meaning of their own, which no text has.
            "Cs" => Ok(if negated { r"\p{any}" } else { r"\P{any}" }.to_owned()),
            "Any" => Ok(format!(r"\{letter}{{any}}")),
            _ if CATEGORIES.contains(&name) => Ok(format!(r"\{letter}{{gc={name}}}")),
            _ if script => Ok(format!(r"\{letter}{{sc={name}}}")),
            _ => Err(format!(
                r"`{name}` after `\{}` is no category or script of Unicode",
                if negated { 'P' } else { 'p' }
            )),
        }
    }

    /// Reads a class after a `[`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(c) = self.rest.next() else { return Err("a `[` is not closed".to_owned()) };
            if c == ']' && !first {
                break;
            }
            first = false;
            if c == '[' {
                if let Some(name) = self.posix()? {
                    let _ = write!(self.out, "[:{name}:]");
                    continue;
                }
            }
            let from = match self.member(c)? {
                Escape::Character(from) => from,
                Escape::Class(class) => {
                    self.out.push_str(&class);
                    continue;
                }
            };
            self.literal(from);
            let mut ahead = self.rest.clone();
            if ahead.next() != Some('-') || matches!(ahead.peek(), Some(']') | None) {
                continue;
            }
            self.rest = ahead;
            let Some(c) = self.rest.next() else { continue };
            let to = match self.member(c)? {
                Escape::Character(to) if from <= to => to,
                Escape::Character(to) => {
                    return Err(format!("the range `{from}-{to}` ends below its beginning"));
                }
                Escape::Class(_) => return Err(format!("the range from `{from}` ends with a class")),
            };
            self.out.push('-');
            self.literal(to);
        }
        self.out.push(']');
        Ok(())
    }

    fn member(&mut self, c: char) -> Result<Escape, String> {
        if c == '\\' { self.escape() } else { Ok(Escape::Character(c)) }
    }

    /// The name in `[:name:]`, after the first bracket. `None` when it is only a bracket.
    fn posix(&mut self) -> Result<Option<String>, String> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some(':') {
            return Ok(None);
        }
        let text: String = ahead.clone().collect();
        let Some((name, _)) = text.split_once(":]") else { return Ok(None) };
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("`[:{name}:]` is no class of characters (known: {})", POSIX.join(", ")));
        }
        let length = name.chars().count() + ":]".len();
        ahead.nth(length - 1);
        self.rest = ahead;
        Ok(Some(name.to_owned()))
    }
}

/// Flags of which the library would not take one twice.
fn once_each(flags: &str) -> String {
    let (on, off) = flags.split_once('-').map_or((flags, None), |(on, off)| (on, Some(off)));
    let mut text = String::new();
    for flag in ['i', 'm', 's', 'U'] {
        // The last word counts.
        if on.contains(flag) && !off.is_some_and(|off| off.contains(flag)) {
            text.push(flag);
        }
    }
    if let Some(off) = off {
        text.push('-');
        text.extend(['i', 'm', 's', 'U'].into_iter().filter(|flag| off.contains(*flag)));
    }
    text
}

fn write_literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else {
        let _ = write!(out, r"\x{{{:x}}}", u32::from(c));
    }
}

#[cfg(test)]
mod tests;
