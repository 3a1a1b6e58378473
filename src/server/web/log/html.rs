//! Rows of a terminal as HTML: everything a job wrote is escaped before anything is added.

use crate::server::web::log::style::CharacterStyle;
use crate::server::web::log::terminal::{Row, Terminal, is_link};
use std::fmt::Write;

/// Writes a row: its anchor, its time, its text with classes and links, a line end. `address` leads to the page that
/// shows this row; `stamp` is empty or ends with a space.
pub(super) fn row(terminal: &Terminal, row: &Row, address: &str, stamp: &str) -> String {
    let characters: Vec<char> = row.cells.iter().map(|cell| cell.character).collect();
    let links = plain_links(&characters);
    let mut link_at = vec![None; characters.len()];
    for (index, link) in links.iter().enumerate() {
        link_at[link.range.clone()].fill(Some(index));
    }
    let mut html = String::new();
    let _ = write!(html, r#"<a id="L{n}" href="{address}#L{n}" data-n="{n}"></a>"#, n = row.number);
    if !stamp.is_empty() {
        let _ = write!(html, r#"<span class="faint">{stamp}</span>"#);
    }
    let mut at = 0;
    while at < row.cells.len() {
        let cell = row.cells[at];
        let address = |at: usize| match terminal.link_of(&row.cells[at]) {
            Some(address) => Some(address),
            None => link_at[at].map(|index: usize| links[index].address.as_str()),
        };
        let here = address(at);
        let same = |at: &usize| row.cells[*at].style == cell.style && address(*at) == here;
        let end = (at + 1..row.cells.len()).find(|at| !same(at)).unwrap_or(row.cells.len());
        run(&mut html, &characters, at..end, cell.style, here);
        at = end;
    }
    if row.cut > 0 {
        let _ = write!(html, r#"<span class="uc"> … {} more characters, in the whole log</span>"#, row.cut);
    }
    html.push('\n');
    html
}

fn run(
    html: &mut String,
    row: &[char],
    range: std::ops::Range<usize>,
    style: CharacterStyle,
    link: Option<&str>,
) {
    let classes = style.classes();
    if let Some(link) = link {
        let _ = write!(html, r#"<a href="{}" rel="noopener noreferrer nofollow">"#, escaped(link));
    }
    if !classes.is_empty() {
        let _ = write!(html, r#"<span class="{classes}">"#);
    }
    for at in range {
        let c = row[at];
        if is_misleading(c, at.checked_sub(1).map(|before| row[before])) {
            let _ = write!(html, r#"<span class="uc">&lt;U+{:04X}&gt;</span>"#, c as u32);
        } else {
            escape(html, c);
        }
    }
    if !classes.is_empty() {
        html.push_str("</span>");
    }
    if link.is_some() {
        html.push_str("</a>");
    }
}

/// Whether a character makes text look other than it is: it turns its direction, or hides between Latin letters.
fn is_misleading(c: char, before: Option<char>) -> bool {
    match c {
        '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => before.is_none_or(|before| before.is_ascii()),
        _ => false,
    }
}

fn escape(html: &mut String, c: char) {
    match c {
        '<' => html.push_str("&lt;"),
        '>' => html.push_str("&gt;"),
        '&' => html.push_str("&amp;"),
        '"' => html.push_str("&quot;"),
        '\'' => html.push_str("&#39;"),
        c => html.push(c),
    }
}

/// A text for HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    text.chars().for_each(|c| escape(&mut html, c));
    html
}

struct Link {
    range: std::ops::Range<usize>,
    address: String,
}

/// Addresses that stand in a row as they are.
fn plain_links(row: &[char]) -> Vec<Link> {
    let mut links = Vec::new();
    let mut at = 0;
    while let Some(found) = row[at..].windows(3).position(|part| part == [':', '/', '/']) {
        let colon = at + found;
        at = colon + 3;
        let scheme = ["https", "http"].into_iter().find(|scheme| {
            let start = colon.checked_sub(scheme.len());
            start.is_some_and(|start| row[start..colon].iter().copied().eq(scheme.chars()))
        });
        let Some(scheme) = scheme else { continue };
        let start = colon - scheme.len();
        let ends = |c: &char| c.is_whitespace() || c.is_control() || "<>\"'`)]}|\\".contains(*c);
        let mut end = row[at..].iter().position(ends).map_or(row.len(), |length| at + length);
        while end > at && ".,;:!?".contains(row[end - 1]) {
            end -= 1;
        }
        let address: String = row[start..end].iter().collect();
        if end > at && is_link(&address) && !address.chars().any(|c| is_misleading(c, None)) {
            links.push(Link { range: start..end, address });
        }
        at = end.max(at);
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut terminal = Terminal::new(1);
        assert!(text.chars().all(|c| terminal.write(c).is_none()));
        let rows = terminal.end();
        let html: String = rows.iter().map(|r| row(&terminal, r, "?step=1&amp;from=1", "")).collect();
        let anchor = r##"<a id="L1" href="?step=1&amp;from=1#L1" data-n="1"></a>"##;
        html.strip_prefix(anchor).map(|html| html.trim_end_matches('\n').to_owned()).unwrap_or(html)
    }

    #[test]
    fn what_a_job_writes_stays_text() {
        for (text, html) in [
            ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
            ("</pre><script>'\"&", "&lt;/pre&gt;&lt;script&gt;&#39;&quot;&amp;"),
            ("\x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\", "x"),
            (
                "\x1b]8;;http://a/\"><script>\x07x\x1b]8;;\x07y",
                "<a href=\"http://a/&quot;&gt;&lt;script&gt;\" rel=\"noopener noreferrer nofollow\">x</a>y",
            ),
            ("a\u{202e}b", "a<span class=\"uc\">&lt;U+202E&gt;</span>b"),
            ("\x1b[31mA\x1b[0m B", "<span class=\"f1\">A</span> B"),
        ] {
            assert_eq!(shown(text), html, "{text:?}");
        }
    }

    #[test]
    fn addresses_are_links() {
        let link = |text: &str| {
            let html = shown(text);
            let from = html.find("href=\"").map(|at| at + 6)?;
            Some(html[from..].split('"').next().unwrap_or_default().to_owned())
        };
        for (text, address) in [
            ("see (https://a.b/c?d=1&e).", Some("https://a.b/c?d=1&amp;e")),
            ("at http://x/y, and", Some("http://x/y")),
            ("ftp://x/y", None),
            ("https://", None),
            ("ahttps://b", Some("https://b")),
        ] {
            assert_eq!(link(text).as_deref(), address, "{text}");
        }
    }
}
