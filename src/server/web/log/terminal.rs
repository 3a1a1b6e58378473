//! Output of a step as a terminal would show it: bytes that were meant for one become rows of styled characters.
//!
//! Jobs write to a pipe: colours, carriage returns of progress meters and erased lines are usual, a moving cursor is
//! rare. The cursor reaches the newest [`WINDOW`] rows only; a row that has left them is final. What a terminal would
//! clear is kept: this is a log. State is kept between calls, so that a sequence may be cut anywhere.

use crate::server::web::log::style::CharacterStyle;
use crate::terminal::{LONGEST_STRING, begins_string, selects_set};
use std::collections::VecDeque;

/// Rows that the cursor can go back to.
pub(super) const WINDOW: usize = 100;
/// Characters that are kept of a row; the rest is counted.
const MOST_CELLS: usize = 4096;
/// Longest parameters of a sequence, in characters; longer ones are dropped with their sequence.
const MOST_PARAMETERS: usize = 256;
/// A character and its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// Character that stands in the cell; a space where nothing was written.
    pub(super) character: char,
    /// The style that it was written in.
    pub(super) style: CharacterStyle,
    /// Position among the links of the terminal, from 1; 0 is none.
    pub(super) link: u32,
}

/// A row, as it stands when nothing can change it any more.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Number of the line that it began as, from 1.
    pub(super) number: u64,
    /// The characters, from column 0.
    pub(super) cells: Vec<Cell>,
    /// Characters that were too many.
    pub(super) cut: u64,
}

enum State {
    Text,
    Escape,
    /// Skip a character: a sequence selects a character set by it.
    Skip,
    Control(String),
    /// An operating system command (`true`), or another string that is dropped.
    Command(bool, String),
    /// A string as in `Command`, behind an escape that may end it.
    CommandEscape(bool, String),
}

/// A terminal without an end.
pub(super) struct Terminal {
    rows: VecDeque<Row>,
    /// Position of the cursor's row in `rows`.
    at: usize,
    column: usize,
    style: CharacterStyle,
    link: u32,
    links: Vec<String>,
    line: u64,
    state: State,
}

impl Terminal {
    /// An empty one, whose first row has this number.
    pub(super) fn new(first: u64) -> Self {
        let row = Row { number: first, cells: Vec::new(), cut: 0 };
        Self {
            rows: VecDeque::from([row]),
            at: 0,
            column: 0,
            style: CharacterStyle::default(),
            link: 0,
            links: Vec::new(),
            line: first,
            state: State::Text,
        }
    }

    /// The address that a cell links to.
    pub(super) fn link_of(&self, cell: &Cell) -> Option<&str> {
        self.links.get((cell.link as usize).checked_sub(1)?).map(String::as_str)
    }

    /// Writes a character; returns the row that became final by it.
    pub(super) fn write(&mut self, c: char) -> Option<Row> {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => return self.text(c),
            State::Skip => {}
            State::Escape => self.escape(c),
            State::Control(mut parameters) => match c {
                ' '..='?' if parameters.len() < MOST_PARAMETERS => {
                    parameters.push(c);
                    self.state = State::Control(parameters);
                }
                '@'..='~' => self.control(&parameters, c),
                // A sequence that is none: what broke it counts.
                c if c.is_control() => return self.text(c),
                _ => {}
            },
            State::Command(is_osc, text) => match c {
                '\u{7}' => self.command(is_osc, &text),
                '\u{1b}' => self.state = State::CommandEscape(is_osc, text),
                '\n' => return self.text(c),
                _ if text.len() >= LONGEST_STRING => return self.text(c),
                _ => self.state = State::Command(is_osc, text + c.encode_utf8(&mut [0; 4])),
            },
            State::CommandEscape(is_osc, text) if c == '\\' => self.command(is_osc, &text),
            State::CommandEscape(..) => self.escape(c),
        }
        None
    }

    /// Ends it: the rows that are left, but for an empty one after the last line end.
    pub(super) fn end(&mut self) -> VecDeque<Row> {
        let mut rows = std::mem::take(&mut self.rows);
        if rows.back().is_some_and(|row| row.cells.is_empty()) {
            rows.pop_back();
        }
        rows
    }

    fn text(&mut self, c: char) -> Option<Row> {
        match c {
            '\n' => return self.line_feed(),
            '\r' => self.column = 0,
            '\u{8}' => self.column = self.column.saturating_sub(1),
            '\t' => {
                let next = (self.column / 8 + 1) * 8;
                while self.column < next {
                    self.put(' ');
                }
            }
            '\u{1b}' => self.state = State::Escape,
            '\0' => self.put(char::REPLACEMENT_CHARACTER),
            c if c.is_control() => {}
            c => self.put(c),
        }
        None
    }

    fn put(&mut self, character: char) {
        let (column, cell) = (self.column, Cell { character, style: self.style, link: self.link });
        self.column += 1;
        let Some(row) = self.rows.get_mut(self.at) else { return };
        if column >= MOST_CELLS {
            row.cut += 1;
            return;
        }
        if row.cells.len() <= column {
            row.cells.resize(column, BLANK);
            row.cells.push(cell);
        } else {
            row.cells[column] = cell;
        }
    }

    fn line_feed(&mut self) -> Option<Row> {
        self.line += 1;
        self.column = 0;
        self.at += 1;
        if self.at < self.rows.len() {
            return None;
        }
        self.rows.push_back(Row { number: self.line, cells: Vec::new(), cut: 0 });
        if self.rows.len() <= WINDOW {
            return None;
        }
        self.at -= 1;
        self.rows.pop_front()
    }

    fn escape(&mut self, c: char) {
        self.state = match c {
            '[' => State::Control(String::new()),
            ']' => State::Command(true, String::new()),
            c if begins_string(c) => State::Command(false, String::new()),
            '\u{1b}' => State::Escape,
            c if selects_set(c) => State::Skip,
            _ => State::Text,
        };
    }

    fn control(&mut self, parameters: &str, end: char) {
        if end == 'm' {
            return self.style.select(parameters);
        }
        let number = |default| match parameters.split(';').next().map(str::parse) {
            Some(Ok(number)) => number,
            _ => default,
        };
        let steps = number(1_usize).clamp(1, MOST_CELLS);
        match end {
            'A' | 'F' => self.at = self.at.saturating_sub(steps),
            'B' | 'E' => self.at = (self.at + steps).min(self.rows.len() - 1),
            'C' => self.column = (self.column + steps).min(MOST_CELLS),
            'D' => self.column = self.column.saturating_sub(steps),
            'G' => self.column = steps - 1,
            // Nobody knows which row is the first of the screen.
            'H' | 'f' => self.column = 0,
            'J' if number(0) == 0 => {
                self.erase(self.column, usize::MAX);
                for row in self.rows.iter_mut().skip(self.at + 1) {
                    row.cells.clear();
                }
            }
            'K' => match number(0) {
                0 => self.erase(self.column, usize::MAX),
                1 => self.erase(0, self.column.saturating_add(1)),
                _ => self.erase(0, usize::MAX),
            },
            _ => {}
        }
        if matches!(end, 'E' | 'F') {
            self.column = 0;
        }
    }

    fn erase(&mut self, from: usize, to: usize) {
        let Some(row) = self.rows.get_mut(self.at) else { return };
        if to >= row.cells.len() {
            row.cells.truncate(from);
            row.cut = 0;
        } else if let Some(cells) = row.cells.get_mut(from..to) {
            cells.fill(BLANK);
        }
    }

    /// Links are the only operating system command that a page can show.
    fn command(&mut self, is_osc: bool, text: &str) {
        let Some(rest) = text.strip_prefix("8;").filter(|_| is_osc) else { return };
        let address = rest.split_once(';').map_or("", |(_, address)| address);
        self.link = 0;
        if is_link(address) {
            self.links.push(address.to_owned());
            self.link = self.links.len() as u32;
        }
    }
}

const BLANK: Cell = Cell { character: ' ', style: CharacterStyle::PLAIN, link: 0 };

/// Whether a page may lead to an address that a job wrote.
pub(super) fn is_link(address: &str) -> bool {
    const MOST_BYTES: usize = 2048;
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty())
        && address.len() <= MOST_BYTES
        && !address.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let mut terminal = Terminal::new(1);
        let mut rows: Vec<Row> = text.chars().filter_map(|c| terminal.write(c)).collect();
        rows.extend(terminal.end());
        rows.iter().map(|row| row.cells.iter().map(|cell| cell.character).collect()).collect()
    }

    #[test]
    fn rows_are_those_of_a_terminal() {
        for (text, rows) in [
            ("10%\r20%\r100%\n", &["100%"][..]),
            ("abc\rX\n", &["Xbc"]),
            ("ab\x1b[K\n", &["ab"]),
            ("abc\r\x1b[Kx", &["x"]),
            ("a\nb\x1b[1A\x1b[2Kc\n", &[" c", "b"]),
            ("a\r\nb\r\n", &["a", "b"]),
            ("a\tb", &["a       b"]),
            ("ab\x08c", &["ac"]),
            ("\x1b[2J\x1b[Hnext\n", &["next"]),
            ("a\x1b]0;title\x07b\x1bP1;2|zz\x1b\\c\x1b]52;c;aGk=\x07", &["abc"]),
            ("\x1b[38;5;300;7mx\x1b(By\x1b\x1b[0mz\u{9b}31m", &["xyz31m"]),
            ("\x1b[12\nx", &["", "x"]),
            ("\x1b[3Cx\x1b[2Dy", &["  yx"]),
            ("", &[]),
        ] {
            assert_eq!(shown(text), rows, "{text:?}");
        }
    }

    #[test]
    fn what_never_ends_stays_small() {
        let mut text = "x".repeat(10_000);
        text.push_str("\n\x1b[99999999999999999999999C\x1b[4096Cy\n\x1b]8;;");
        text.push_str(&"z".repeat(5000));
        let mut terminal = Terminal::new(7);
        assert!(text.chars().all(|c| terminal.write(c).is_none()));
        let rows = terminal.end();
        assert_eq!((rows[0].cells.len(), rows[0].cut), (MOST_CELLS, 10_000 - MOST_CELLS as u64));
        assert_eq!((rows[1].number, rows[1].cells.len(), rows[1].cut), (8, 0, 1));
        assert_eq!(rows[2].cells.len(), 5000 - LONGEST_STRING + "8;;".len());
    }

    #[test]
    fn rows_that_are_written_over_keep_the_number_of_their_line() {
        let mut terminal = Terminal::new(1);
        let text = "a\nb\n\x1b[2Ac\nd\ne\n";
        assert!(text.chars().all(|c| terminal.write(c).is_none()));
        let numbers: Vec<u64> = terminal.end().iter().map(|row| row.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
    }
}
