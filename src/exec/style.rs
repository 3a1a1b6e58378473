//! A line of the screen: its colours, and what of foreign text may be in it; lengths of time and output in words.

use crate::terminal;
use std::borrow::Cow;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Colours, and a progress line.
    pub terminal: bool,
    /// A terminal whose owner wants neither: what jobs write must not draw on it either.
    pub is_plain: bool,
    /// Columns of the terminal.
    pub width: usize,
}

impl Style {
    /// Text in a colour: the parameters of an SGR sequence, such as `31`.
    pub(super) fn paint(self, code: &str, text: &str) -> String {
        if self.terminal { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Ends a line and its colours.
    pub(super) fn end_of_line(self) -> &'static [u8] {
        if self.terminal { b"\x1b[0m\n" } else { b"\n" }
    }

    /// A line of foreign text as a terminal may have it; a file gets it as it is.
    pub(super) fn shown_line(self, line: &[u8]) -> Cow<'_, [u8]> {
        if self.is_plain {
            let line = String::from_utf8_lossy(&terminal::line(line)).into_owned();
            return Cow::Owned(terminal::without_colours(&line).into_owned().into_bytes());
        }
        if !self.terminal {
            return Cow::Borrowed(line);
        }
        // Other control sequences would fight the progress line too.
        Cow::Owned(terminal::line(line))
    }
}

/// `0.4s`, `12.0s`, `3m5s`.
pub(super) fn seconds(ms: u64) -> String {
    if ms >= 60_000 {
        format!("{}m{}s", ms / 60_000, ms / 1000 % 60)
    } else {
        format!("{}.{}s", ms / 1000, ms / 100 % 10)
    }
}

/// A name as a word of a command line: quoted where a shell would read it otherwise.
pub(super) fn word(name: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:@%+,=".contains(c);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("'{}'", name.replace('\'', "'\\''"))),
    }
}

/// How much a step wrote, when that is remarkable.
pub(super) fn much(bytes: u64) -> String {
    match bytes >> 20 {
        0 => String::new(),
        mib => format!(", {mib} MiB of output"),
    }
}
