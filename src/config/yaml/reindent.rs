//! Text whose brackets and quotations are indented less than the parser wants. YAML 1.2 says that lines
//! inside of them are indented more than the key above; parsers of 1.1, and so public configs, do not care.
//!
//! Called by the loader when the parser has refused an indentation, so that other texts cost nothing.

/// Messages of the parser that another indentation mends.
const REFUSALS: &[&str] = &[
    "invalid indentation",
    "invalid indentation in flow construct",
    "invalid indentation in quoted scalar",
    "tab cannot be used as indentation",
];

/// The parser's words where nothing but tabs is between a colon and a value that begins with a letter or a digit. YAML
/// lets them stand there, and parsers of 1.1 do not care either.
pub(super) const TABS_REFUSED: &str = "':' must be followed by a valid YAML whitespace";

/// A text that means the same, with a blank for each tab behind a colon, outside of quotations and of text below `|` or
/// `>`. `None` when there are none.
pub(super) fn without_tabs(source: &str) -> Option<String> {
    let mut lines = Lines::default();
    let mut text = String::with_capacity(source.len());
    for line in source.split_inclusive('\n') {
        lines.tabs.clear();
        lines.take(line);
        let mut done = 0;
        for &at in &lines.tabs {
            let rest = line[at..].trim_start_matches('\t');
            let end = line.len() - rest.len();
            text += &line[done..at];
            text.extend(std::iter::repeat_n(' ', end - at));
            done = end;
        }
        text += &line[done..];
    }
    (text != source).then_some(text)
}

/// A text that means the same, with the blanks that were added before each line.
pub(super) struct Reindented {
    pub(super) text: String,
    pub(super) added: Vec<u32>,
}

/// Whether the parser's words are about indentation.
pub(super) fn is_refusal(info: &str) -> bool {
    REFUSALS.contains(&info)
}

/// Indents the lines inside of brackets and quotations. `None` when no line needs it, when brackets or
/// quotations do not end, and when the text would become far longer.
pub(super) fn reindent(source: &str) -> Option<Reindented> {
    let most = source.len() * 2 + (64 << 10);
    let mut lines = Lines::default();
    let mut text = String::with_capacity(source.len() + (source.len() >> 4));
    let mut added = Vec::new();
    for line in source.split_inclusive('\n') {
        let missing = lines.take(line);
        text.extend(std::iter::repeat_n(' ', missing));
        text += line;
        added.push(u32::try_from(missing).unwrap_or(u32::MAX));
        if text.len() > most {
            return None;
        }
    }
    let is_changed = added.iter().any(|missing| *missing > 0);
    (is_changed && !lines.is_inside()).then_some(Reindented { text, added })
}

/// The place that the lines so far have led to.
#[derive(Default)]
struct Lines {
    /// Brackets that are open.
    depth: usize,
    /// Quotation mark that is open.
    quote: Option<u8>,
    /// Column that lines inside of brackets and quotations begin at.
    required: usize,
    /// Column of the key that a block scalar stands under; its lines are indented more.
    block: Option<usize>,
    /// Offsets of tabs behind colons in the lines that were taken.
    tabs: Vec<usize>,
}

impl Lines {
    fn is_inside(&self) -> bool {
        self.depth > 0 || self.quote.is_some()
    }

    /// Reads a line; returns how many blanks it lacks.
    fn take(&mut self, line: &str) -> usize {
        let rest = line.trim_start_matches(' ');
        let indent = line.len() - rest.len();
        let is_blank = rest.trim().is_empty();
        let was_inside = self.is_inside();
        if !was_inside {
            if self.block.is_some_and(|column| is_blank || indent > column) {
                return 0;
            }
            self.block = None;
            self.required = indent + key_offset(rest) + 2;
        }
        self.scan(rest.as_bytes(), indent);
        if was_inside && !is_blank { self.required.saturating_sub(indent) } else { 0 }
    }

    fn scan(&mut self, line: &[u8], indent: usize) {
        let is_blank = |at: usize| line.get(at).is_none_or(u8::is_ascii_whitespace);
        // Whether a value or a key may begin here.
        let mut begins = true;
        let mut dash = None;
        let mut at = 0;
        while let Some(byte) = line.get(at).copied() {
            if let Some(quote) = self.quote {
                let is_doubled = quote == b'\'' && line.get(at + 1) == Some(&quote);
                match byte {
                    b'\\' if quote == b'"' => at += 1,
                    _ if byte == quote && is_doubled => at += 1,
                    _ if byte == quote => self.quote = None,
                    _ => {}
                }
                begins = false;
                at += 1;
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'#' if at == 0 || is_blank(at - 1) => return,
                b'"' | b'\'' if begins => self.quote = Some(byte),
                b'[' | b'{' if begins || self.depth > 0 => {
                    self.depth += 1;
                    begins = true;
                }
                b']' | b'}' if self.depth > 0 => {
                    self.depth -= 1;
                    begins = false;
                }
                b',' if self.depth > 0 => begins = true,
                b':' if is_blank(at + 1) => {
                    begins = true;
                    if line.get(at + 1) == Some(&b'\t') {
                        self.tabs.push(indent + at + 1);
                    }
                }
                b'-' if begins && self.depth == 0 && is_blank(at + 1) => dash = Some(at),
                b'&' | b'!' if begins => {
                    while !is_blank(at + 1) {
                        at += 1;
                    }
                }
                b'|' | b'>' if begins && self.depth == 0 => {
                    let key = key_offset_of(line);
                    // Directly in a list, the lines are indented more than the dash.
                    let column = if key == at { dash.unwrap_or(0) } else { key };
                    self.block = Some(indent + column);
                    return;
                }
                _ => begins = false,
            }
            at += 1;
        }
    }
}

/// Offset of the first key or value after the dashes of list items.
fn key_offset(line: &str) -> usize {
    key_offset_of(line.as_bytes())
}

fn key_offset_of(line: &[u8]) -> usize {
    let mut at = 0;
    while line.get(at) == Some(&b'-') && line.get(at + 1) == Some(&b' ') {
        at += 1;
        while line.get(at) == Some(&b' ') {
            at += 1;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(source: &str) -> Option<String> {
        reindent(source).map(|reindented| reindented.text)
    }

    #[test]
    fn lines_inside_of_brackets_and_quotations_are_indented() {
        assert_eq!(text("- a: [\n  b # ]\n]\nc: d\n").unwrap(), "- a: [\n    b # ]\n    ]\nc: d\n");
        assert_eq!(text("a: \"b\nc\\\"\nd\"\n").unwrap(), "a: \"b\n  c\\\"\n  d\"\n");
        assert_eq!(text("a: 'it''s\n]'\n").unwrap(), "a: 'it''s\n  ]'\n");
        assert_eq!(text("a: &x {\nb: c,\nd: [e]}\n").unwrap(), "a: &x {\n  b: c,\n  d: [e]}\n");
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for source in [
            "a: [\n    b\n  ]\n",
            "a: |\n  [ {\n  'b\nc: d\n",
            "- |\n  [\n- >-\n  \"\nb: [c]\n",
            "a: b[c\nd: e'f\n",
            "a: b # [\nc: d\n",
            "a: x-{{ b }}\nc: d\n",
        ] {
            assert_eq!(text(source), None, "{source}");
        }
    }

    #[test]
    fn tabs_behind_colons_become_blanks() {
        assert_eq!(without_tabs("a:\tb\n- c:\t\td: \te\n").unwrap(), "a: b\n- c:  d: \te\n");
        assert_eq!(without_tabs("a: {b:\tc,\td:\t1}\n").unwrap(), "a: {b: c,\td: 1}\n");
        assert_eq!(without_tabs("ä:\tb: |\n").unwrap(), "ä: b: |\n");
        for source in ["a: |\n  b:\tc\n", "a: 'b:\tc'\n", "a: \"b\n  c:\td\"\n", "a: b # c:\td\n", "a:b\tc\n"]
        {
            assert_eq!(without_tabs(source), None, "{source}");
        }
    }

    #[test]
    fn what_does_not_end_or_grows_too_far_is_left() {
        assert_eq!(text("a: [\nb\n"), None);
        let wide = format!("{}a: [\n{}]\n", " ".repeat(100_000), "b,\n".repeat(1000));
        assert_eq!(text(&wide), None);
    }
}
