//! Errors and warnings with a place.

use serde::Serialize;
use std::fmt;

/// A message about a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether it is an error or a warning.
    pub severity: Severity,
    /// File as given to the compiler; for an orb the file in the folder of orbs, or its reference.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The mistake, with the known choices where they are few. May have several lines.
    pub message: String,
    /// The line of the text it is about; empty when there is none.
    pub excerpt: String,
    /// The invocations that led there, innermost first.
    pub notes: Vec<Note>,
    /// An orb could not be fetched: the config may be valid the next time. Not written where it is false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may_pass: bool,
}

/// A place that led to the one of the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// File as in [`Diagnostic`].
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The invocation, such as "in command `deploy`, used here".
    pub message: String,
}

/// The weight of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The config is not valid, and nothing runs.
    Error,
    /// The config runs, but may not do what its author meant.
    Warning,
}

/// All messages about a config; never empty when returned as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether the same config may be valid the next time: all that is wrong is that orbs could not be fetched.
    pub fn may_pass(&self) -> bool {
        let mut errors = self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        errors.all(|error| error.may_pass)
    }
}

impl Diagnostic {
    /// The message for a terminal: severity and text, place, the line with a caret under the column,
    /// then the notes. Ends with a newline.
    pub fn render(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut lines = self.message.lines();
        let mut out = format!("{severity}: {}\n", lines.next().unwrap_or_default());
        for line in lines {
            out += &format!("       {line}\n");
        }
        let margin = " ".repeat(self.line.to_string().len());
        out += &format!("{margin}--> {}:{}:{}\n", self.file, self.line, self.column);
        if !self.excerpt.is_empty() {
            let (line, column) = self.window();
            // Tabs stay tabs above the caret, so that it stands under its character.
            let blank: String =
                line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            out += &format!("{margin} |\n{} | {line}\n{margin} | {blank}^\n", self.line);
        }
        for note in &self.notes {
            out += &format!("{margin} = {} ({}:{}:{})\n", note.message, note.file, note.line, note.column);
        }
        out
    }

    /// The message as one of a list of errors, in which a warning says that it is one.
    pub fn among_errors(&self) -> String {
        match self.severity {
            Severity::Error => self.to_string(),
            Severity::Warning => {
                format!("{}:{}:{}: warning: {}", self.file, self.line, self.column, self.message)
            }
        }
    }

    /// The part of a long line around the column, and the column in it.
    fn window(&self) -> (String, usize) {
        const WIDTH: usize = 110;
        let start = if self.column > WIDTH - 20 { self.column - WIDTH / 2 } else { 0 };
        let printable = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
        let line: String = self.excerpt.chars().skip(start).take(WIDTH).map(printable).collect();
        let column = (self.column - start).clamp(1, line.chars().count() + 1);
        (line, column)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&diagnostic.among_errors())?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column() {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            file: "config.yml".into(),
            line: 12,
            column: 6,
            message: "unknown key `commnd`".into(),
            excerpt: "\t\trun: {commnd: x}".into(),
            notes: vec![],
            may_pass: false,
        };
        let rendered = diagnostic.render();
        assert!(rendered.ends_with("12 | \t\trun: {commnd: x}\n   | \t\t   ^\n"), "{rendered}");
    }

    #[test]
    fn long_lines_are_cut_around_the_column() {
        let diagnostic = Diagnostic {
            severity: Severity::Warning,
            file: "config.yml".into(),
            line: 1,
            column: 1001,
            message: "here".into(),
            excerpt: format!("{}X{}", "a".repeat(1000), "b".repeat(1000)),
            notes: vec![],
            may_pass: false,
        };
        let rendered = diagnostic.render();
        let lines: Vec<_> = rendered.lines().collect();
        assert_eq!(lines[3].find('X'), lines[4].find('^'), "{rendered}");
    }
}
