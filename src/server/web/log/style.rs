//! Colours and other styles of text in a terminal, brought down to what a page has classes for.

use std::fmt::Write;

/// Styles beside the colours, each a bit.
const BOLD: u8 = 1;
const FAINT: u8 = 2;
const ITALIC: u8 = 4;
const UNDERLINE: u8 = 8;
const INVERSE: u8 = 16;
const STRIKE: u8 = 32;

/// The style of a character. Colours are those of the sixteen that come nearest: they can be read on light and dark
/// grounds, and need no style of their own in the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CharacterStyle {
    text: Option<u8>,
    ground: Option<u8>,
    bits: u8,
}

impl CharacterStyle {
    /// Text as it is unless something else is said.
    pub(super) const PLAIN: Self = Self { text: None, ground: None, bits: 0 };

    /// Changes it by the parameters of `SGR`.
    pub(super) fn select(&mut self, parameters: &str) {
        if !parameters.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':') {
            return;
        }
        let mut words = parameters.split(';');
        while let Some(word) = words.next() {
            // With colons a colour is one parameter, without them it takes several.
            let mut parts = word.split(':').filter(|part| !part.is_empty());
            let first: u16 = parts.next().map_or(Ok(0), str::parse).unwrap_or(u16::MAX);
            match first {
                38 | 48 => {
                    let colour = if word.contains(':') {
                        let parts: Vec<&str> = parts.collect();
                        // A colour space may stand before the three parts of a colour.
                        let skip = usize::from(parts.len() == 5);
                        colour(&mut parts.iter().take(1).chain(parts.iter().skip(1 + skip)).copied())
                    } else {
                        colour(&mut words)
                    };
                    let place = if first == 38 { &mut self.text } else { &mut self.ground };
                    *place = colour.or(*place);
                }
                _ => self.simple(first),
            }
        }
    }

    fn simple(&mut self, number: u16) {
        match number {
            0 => *self = Self::PLAIN,
            1 => self.bits |= BOLD,
            2 => self.bits |= FAINT,
            3 => self.bits |= ITALIC,
            4 => self.bits |= UNDERLINE,
            7 => self.bits |= INVERSE,
            9 => self.bits |= STRIKE,
            22 => self.bits &= !(BOLD | FAINT),
            23 => self.bits &= !ITALIC,
            24 => self.bits &= !UNDERLINE,
            27 => self.bits &= !INVERSE,
            29 => self.bits &= !STRIKE,
            30..=37 => self.text = Some((number - 30) as u8),
            39 => self.text = None,
            40..=47 => self.ground = Some((number - 40) as u8),
            49 => self.ground = None,
            90..=97 => self.text = Some((number - 90 + 8) as u8),
            100..=107 => self.ground = Some((number - 100 + 8) as u8),
            _ => {}
        }
    }

    /// The classes of the page's style sheet, with blanks between; empty for plain text.
    pub(super) fn classes(self) -> String {
        let mut classes = String::new();
        let (mut text, mut ground) = (self.text, self.ground);
        if self.bits & INVERSE != 0 {
            (text, ground) = (ground, text);
            if ground.is_none() {
                classes.push_str("iv ");
            }
        }
        // A ground brings the colour of its text along: no pair is unreadable.
        let colour = ground.map(|n| ('b', n)).or(text.map(|n| ('f', n)));
        if let Some((letter, number)) = colour {
            let _ = write!(classes, "{letter}{number} ");
        }
        for (bit, class) in
            [(BOLD, "bo "), (FAINT, "fa "), (ITALIC, "it "), (UNDERLINE, "un "), (STRIKE, "st ")]
        {
            if self.bits & bit != 0 {
                classes.push_str(class);
            }
        }
        classes.pop();
        classes
    }
}

/// Reads `5;N` or `2;R;G;B`: the nearest of the sixteen colours.
fn colour<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u8> {
    let kind = words.next()?;
    let mut part = || words.next()?.parse::<u8>().ok();
    match kind {
        "5" => Some(match part()? {
            n @ 0..=15 => n,
            n @ 16..=231 => {
                let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
                let n = n - 16;
                nearest([level(n / 36), level(n / 6 % 6), level(n % 6)])
            }
            n => nearest([8 + 10 * (n - 232); 3]),
        }),
        "2" => Some(nearest([part()?, part()?, part()?])),
        _ => None,
    }
}

/// Red, green and blue of the sixteen colours, as terminals commonly have them.
const PALETTE: [[u8; 3]; 16] = [
    [0, 0, 0],
    [205, 0, 0],
    [0, 205, 0],
    [205, 205, 0],
    [0, 0, 238],
    [205, 0, 205],
    [0, 205, 205],
    [229, 229, 229],
    [127, 127, 127],
    [255, 0, 0],
    [0, 255, 0],
    [255, 255, 0],
    [92, 92, 255],
    [255, 0, 255],
    [0, 255, 255],
    [255, 255, 255],
];

fn nearest(colour: [u8; 3]) -> u8 {
    let distance = |other: &[u8; 3]| -> u32 {
        let parts = colour.iter().zip(other);
        parts.map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum()
    };
    let best = PALETTE.iter().enumerate().min_by_key(|(_, other)| distance(other));
    best.map_or(7, |(index, _)| index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_have_classes() {
        for (parameters, classes) in [
            ("", ""),
            ("1;31", "f1 bo"),
            ("97;44", "b4"),
            ("7", "iv"),
            ("7;32", "b2"),
            ("38;5;196", "f9"),
            ("38;5;9;4", "f9 un"),
            ("38;2;0;0;240", "f4"),
            ("38:2::250:0:0;3", "f9 it"),
            ("38:5:11", "f11"),
            ("48;5;238", "b8"),
            ("31;0", ""),
            ("31;99999;?", ""),
            ("38;5", ""),
            ("38;9;31", ""),
        ] {
            let mut style = CharacterStyle::default();
            style.select(parameters);
            if parameters == "38;9;31" {
                // The rest of a colour that nobody knows is read as what it says.
                assert_eq!(style.classes(), "f1");
                continue;
            }
            assert_eq!(style.classes(), classes, "{parameters}");
        }
    }
}
