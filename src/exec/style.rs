//! A line of the screen: its colours, and what of foreign text may be in it; lengths of time and output in words.

use std::borrow::Cow;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Colours, and a progress line.
    pub terminal: bool,
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
        if !self.terminal {
            return Cow::Borrowed(line);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A redrawn line ends as its last state; other control sequences would fight the progress line.
        let last = memchr::memrchr(b'\r', line).map_or(line, |at| &line[at + 1..]);
        Cow::Owned(only_colours(last))
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

/// How much a step wrote, when that is remarkable.
pub(super) fn much(bytes: u64) -> String {
    match bytes >> 20 {
        0 => String::new(),
        mib => format!(", {mib} MiB of output"),
    }
}

/// Removes control sequences other than colours and control characters other than tabs.
fn only_colours(line: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != 0x1b {
            if byte >= 0x20 && byte != 0x7f || byte == b'\t' {
                clean.push(byte);
            }
            continue;
        }
        let Some(sequence) = tail.strip_prefix(b"[") else { continue };
        let Some(end) = sequence.iter().position(|b| (0x40..=0x7e).contains(b)) else { return clean };
        if sequence[end] == b'm' {
            clean.extend_from_slice(b"\x1b[");
            clean.extend_from_slice(&sequence[..=end]);
        }
        rest = &sequence[end + 1..];
    }
    clean
}
