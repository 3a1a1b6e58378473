//! Logs of steps: a part of one as HTML, whose size does not depend on that of the log.

mod html;
mod stamps;
mod style;
mod terminal;

use crate::server::blobs::{Error, Stretch};
pub(super) use stamps::Stamps;
use std::collections::VecDeque;
use terminal::{Terminal, WINDOW};

/// Rows of one page.
const MOST_ROWS: usize = 1000;
/// Bytes of output that one page shows.
const MOST_BYTES: u64 = 256 * 1024;
/// Bytes of HTML of one page: colours may take more than the text.
const MOST_HTML: usize = 384 * 1024;
/// Bytes that are read at once.
const BLOCK: usize = 256 * 1024;
/// Bytes before a page from which its colours come, and the rows that its first rows were drawn over.
const CONTEXT_BYTES: u64 = 64 * 1024;

/// A part of a log.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The rows, escaped, each with its anchor.
    pub(super) html: String,
    /// Number of the first row; rows are counted from 1.
    pub(super) first: u64,
    /// Number of the last row.
    pub(super) last: u64,
    /// Whether nothing that is stored comes after it.
    pub(super) is_end: bool,
    /// The row at which the part before it begins.
    pub(super) earlier: Option<u64>,
}

/// All rows of some output, for the fuzz target.
#[cfg(fuzzing)]
pub(super) fn rows(output: &str) -> String {
    let mut terminal = Terminal::new(1);
    let mut html = String::new();
    for c in output.chars() {
        if let Some(row) = terminal.write(c) {
            html += &html::row(&terminal, &row, "?1", "");
        }
    }
    for row in terminal.end() {
        html += &html::row(&terminal, &row, "?1", "");
    }
    html
}

/// Reads the rows from a number on, or the last ones. `address` is the query, escaped, to which a row adds its number;
/// `stamps` go before the rows.
pub(super) fn part(
    stretch: &Stretch,
    from: Option<u64>,
    address: &str,
    stamps: &Stamps,
) -> Result<Part, Error> {
    let (start, end) = match from {
        Some(row) => {
            let start = line_at(stretch, row)?;
            (start, whole_lines(stretch, start)?)
        }
        None => (stretch.tail(MOST_ROWS, MOST_BYTES)?, stretch.length()),
    };
    let before = back(stretch, start)?;
    let mut bytes = Vec::new();
    while before + (bytes.len() as u64) < end {
        let at = before + bytes.len() as u64;
        bytes.extend(stretch.read(at, BLOCK.min((end - at) as usize))?);
    }
    let (first_line, first_row) = (1 + line_ends(stretch, before)?, 1 + line_ends(stretch, start)?);
    let stamps = stamps.of_lines(&bytes, before);

    let mut rows: VecDeque<(u64, String)> = VecDeque::new();
    let (mut size, mut is_cut) = (0, false);
    let mut terminal = Terminal::new(first_line);
    let mut take = |terminal: &Terminal, row: terminal::Row| {
        if row.number < first_row || (is_cut && from.is_some()) {
            return;
        }
        let stamp = usize::try_from(row.number - first_line).ok().and_then(|line| stamps.get(line));
        let stamp = stamp.map_or("", String::as_str);
        let html = html::row(terminal, &row, &format!("{address}{}", row.number), stamp);
        size += html.len();
        rows.push_back((row.number, html));
        // From a row on the end gives way, else the beginning.
        while rows.len() > 1 && (rows.len() > MOST_ROWS || size > MOST_HTML) {
            is_cut = true;
            let gone = if from.is_some() { rows.pop_back() } else { rows.pop_front() };
            size -= gone.map_or(0, |(_, html)| html.len());
        }
    };
    for c in String::from_utf8_lossy(&bytes).chars() {
        if let Some(row) = terminal.write(c) {
            take(&terminal, row);
        }
    }
    for row in terminal.end() {
        take(&terminal, row);
    }
    let is_end = end == stretch.length() && !(is_cut && from.is_some());
    let first = rows.front().map_or(first_row, |(number, _)| *number);
    Ok(Part {
        first,
        last: rows.back().map_or(first, |(number, _)| *number),
        is_end,
        earlier: (first > 1).then(|| first.saturating_sub(MOST_ROWS as u64).max(1)),
        html: rows.into_iter().map(|(_, html)| html).collect(),
    })
}

/// The offset at which a row begins; of one that is not there, the last.
fn line_at(stretch: &Stretch, row: u64) -> Result<u64, Error> {
    let (mut at, mut left, mut last) = (0, row.saturating_sub(1), 0);
    while left > 0 && at < stretch.length() {
        let block = stretch.read(at, BLOCK)?;
        for end in memchr::memchr_iter(b'\n', &block) {
            let after = at + end as u64 + 1;
            if after < stretch.length() {
                last = after;
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        at += block.len() as u64;
    }
    Ok(last)
}

/// The end of the last whole line that fits on a page from `start`, or what fits of a longer one.
fn whole_lines(stretch: &Stretch, start: u64) -> Result<u64, Error> {
    let most = (start + MOST_BYTES).min(stretch.length());
    let block = bytes(stretch, start, most)?;
    let end = start + block.len() as u64;
    if end == stretch.length() {
        return Ok(end);
    }
    Ok(memchr::memrchr(b'\n', &block).map_or(end, |at| start + at as u64 + 1))
}

/// The beginning of a line some rows before `start`.
fn back(stretch: &Stretch, start: u64) -> Result<u64, Error> {
    let first = start.saturating_sub(CONTEXT_BYTES);
    let block = bytes(stretch, first, start)?;
    let found = memchr::memrchr_iter(b'\n', &block[..block.len().saturating_sub(1)]).nth(WINDOW);
    let of_block = || memchr::memchr(b'\n', &block).map_or(start, |at| first + at as u64 + 1);
    Ok(match found {
        Some(at) => first + at as u64 + 1,
        None if first == 0 => 0,
        None => of_block(),
    })
}

/// The bytes between two offsets, as far as they are there.
fn bytes(stretch: &Stretch, from: u64, to: u64) -> Result<Vec<u8>, Error> {
    if from < to { stretch.read(from, (to - from) as usize) } else { Ok(Vec::new()) }
}

fn line_ends(stretch: &Stretch, before: u64) -> Result<u64, Error> {
    let (mut at, mut count) = (0, 0);
    while at < before {
        let block = stretch.read(at, BLOCK.min((before - at) as usize))?;
        count += memchr::memchr_iter(b'\n', &block).count() as u64;
        at += block.len() as u64;
    }
    Ok(count)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::blobs::example::output as stored;
    use crate::server::time::Millis;

    #[test]
    fn parts_of_a_long_log_follow_each_other() {
        let text: String = (1..=5500).map(|n| format!("row {n}\n")).collect();
        let (_dir, stretch) = stored(text.as_bytes());
        let end = part(&stretch, None, "?", &Stamps::default()).unwrap();
        assert_eq!((end.first, end.last, end.is_end, end.earlier), (4501, 5500, true, Some(3501)));
        let (mut from, mut seen) = (1, Vec::<u64>::new());
        loop {
            let part = part(&stretch, Some(from), "?", &Stamps::default()).unwrap();
            assert_eq!(part.first, from);
            seen.extend(
                part.html.lines().map(|row| row.rsplit("row ").next().unwrap().parse::<u64>().unwrap()),
            );
            from = part.last + 1;
            if part.is_end {
                break;
            }
        }
        assert_eq!(seen, (1..=5500).collect::<Vec<u64>>());
        let beyond = part(&stretch, Some(9999), "?", &Stamps::default()).unwrap();
        assert_eq!((beyond.first, beyond.last, beyond.is_end), (5500, 5500, true));
    }

    #[test]
    fn a_part_is_bounded_and_has_the_colours_from_before() {
        let coloured = "\x1b[31mA\x1b[32mB".repeat(2000);
        let (_dir, stretch) = stored(format!("{coloured}\n").repeat(30).as_bytes());
        for from in [None, Some(1)] {
            let part = part(&stretch, from, "?", &Stamps::default()).unwrap();
            assert!(part.html.len() <= MOST_HTML, "{}", part.html.len());
            assert_eq!(part.is_end, from.is_none());
            assert!(part.last >= part.first);
        }
        let (_dir, stretch) = stored(format!("\x1b[31mred\n{}", "x\n".repeat(1000)).as_bytes());
        let part = part(&stretch, Some(50), "?", &Stamps::default()).unwrap();
        assert!(part.html.starts_with(r##"<a id="L50" href="?50#L50" data-n="50"></a><span class="f1">x"##));
    }

    #[test]
    fn any_bytes_have_a_part() {
        for bytes in [&b""[..], b"\n", b"\xff\xfe\x00", b"\x1b[", &[b'x'; 600_000]] {
            let (_dir, stretch) = stored(bytes);
            for from in [None, Some(0), Some(1), Some(u64::MAX)] {
                let part = part(&stretch, from, "?", &Stamps::default()).unwrap();
                assert_eq!(part.first, 1);
                assert!(part.html.len() < 10_000);
            }
        }
    }

    #[test]
    fn rows_have_the_times_of_their_lines() {
        let text: String = (1..=2500).map(|n| format!("row {n}\n")).collect();
        let (_dir, stretch) = stored(text.as_bytes());
        let half = text.find("row 2000\n").unwrap() as u64;
        let stamps = Stamps::clock(vec![(0, Millis(1_000)), (half, Millis(61_000))]);
        for from in [None, Some(1800)] {
            let part = part(&stretch, from, "?", &stamps).unwrap();
            let stamp = |row: u64| {
                let line = part.html.lines().find(|line| line.contains(&format!("id=\"L{row}\""))).unwrap();
                line.split("<span class=\"faint\">").nth(1).unwrap().split(' ').next().unwrap().to_owned()
            };
            assert_eq!((stamp(1999), stamp(2000)), ("00:00:01.000".into(), "00:01:01.000".into()));
        }
    }
}
