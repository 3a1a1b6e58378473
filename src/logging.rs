//! The operator's log: one line a record, to standard error or a file.
//!
//! Every role that runs for long (`machine`, `task`, `server`) calls [`init`] once; everything else
//! only uses the macros of `log`. A message reads well alone and ends in `key=value` fields, which the
//! `json` format writes as members of their own. Job output never comes here.

use crate::system::clock::Rfc3339;
use log::{Level, LevelFilter, Record};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::SystemTime;

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `Text`, with the level coloured when standard error is a terminal and `NO_COLOR` is unset.
    Color,
    /// `2026-01-31T12:00:00.000Z INFO  message key=value`
    Text,
    /// One object a line: `time`, `level`, `message`, then the fields.
    Json,
    /// Nothing at all.
    None,
}

/// Settings of [`init`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Records below it are dropped.
    pub level: LevelFilter,
    /// How records are written.
    pub format: Format,
    /// Appended to; `None` is standard error.
    pub file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: LevelFilter::Info, format: Format::Color, file: None }
    }
}

impl Format {
    /// Reads the name of a format; the error lists the choices.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "color" | "colour" => Ok(Format::Color),
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            "none" => Ok(Format::None),
            _ => Err("expected `color`, `text`, `json` or `none`".to_owned()),
        }
    }

    /// The name that [`Format::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Format::Color => "color",
            Format::Text => "text",
            Format::Json => "json",
            Format::None => "none",
        }
    }
}

/// Reads the name of a level; the error lists the choices.
pub fn parse_level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::Error),
        "warn" | "warning" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err("expected `debug`, `info`, `warn` or `error`".to_owned()),
    }
}

/// Starts logging. The error is a sentence for people: the file cannot be opened. A second call in
/// one process changes nothing.
pub fn init(options: &Options) -> Result<(), String> {
    if options.format == Format::None {
        return Ok(());
    }
    let mut builder = env_logger::Builder::new();
    // Libraries only speak up when something is wrong.
    builder.filter_level(options.level.min(LevelFilter::Warn));
    builder.filter_module("runlet", options.level);
    let mut format = options.format;
    if format == Format::Color && !wants_color(options) {
        format = Format::Text;
    }
    if let Some(file) = options.open()? {
        builder.target(env_logger::Target::Pipe(Box::new(file)));
    }
    builder.format(move |out, record| out.write_all(line(format, SystemTime::now(), record).as_bytes()));
    // Another role of the same process may have begun already; its choice stands.
    let _ = builder.try_init();
    Ok(())
}

fn wants_color(options: &Options) -> bool {
    options.file.is_none()
        && io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Options {
    fn open(&self) -> Result<Option<File>, String> {
        let Some(path) = &self.file else { return Ok(None) };
        let mut open = OpenOptions::new();
        open.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o640);
        open.open(path).map(Some).map_err(|error| {
            format!("cannot open the log file `{}` (`logging.file`): {error}", path.display())
        })
    }

    /// Log of a child process of the same role: the same place.
    pub fn stdio(&self) -> Stdio {
        match self.open() {
            _ if self.format == Format::None => Stdio::null(),
            Ok(Some(file)) => Stdio::from(file),
            _ => Stdio::inherit(),
        }
    }
}

/// One record as it stands in the log, line break included.
fn line(format: Format, now: SystemTime, record: &Record<'_>) -> String {
    let time = Rfc3339 { time: now, milliseconds: true };
    let message = record.args().to_string();
    let mut line = String::with_capacity(message.len() + 64);
    // Writing to a string cannot fail.
    let _ = match format {
        Format::Json => {
            line = json(&time.to_string(), record.level(), &message);
            Ok(())
        }
        Format::Color => {
            let color = match record.level() {
                Level::Error => "31",
                Level::Warn => "33",
                Level::Info => "32",
                Level::Debug | Level::Trace => "2",
            };
            write!(line, "{time} \x1b[{color}m{:<5}\x1b[0m {}", record.level(), printable(&message))
        }
        Format::Text | Format::None => write!(line, "{time} {:<5} {}", record.level(), printable(&message)),
    };
    line.push('\n');
    line
}

/// A record is one line, and what others said (a server's message) cannot forge another one.
fn printable(message: &str) -> String {
    message.chars().fold(String::with_capacity(message.len()), |mut out, c| {
        match c {
            c if !c.is_control() || c == '\t' => out.push(c),
            c => out.extend(c.escape_default()),
        }
        out
    })
}

fn json(time: &str, level: Level, message: &str) -> String {
    let (message, fields) = fields(message);
    let level = level.as_str().to_ascii_lowercase();
    let mut members = vec![("time", time), ("level", &level), ("message", message)];
    for (key, value) in fields {
        if members.iter().all(|(taken, _)| *taken != key) {
            members.push((key, value.trim_matches('"')));
        }
    }
    let mut object = String::new();
    for (key, value) in members {
        object.push(if object.is_empty() { '{' } else { ',' });
        // Text can always be written as JSON.
        object += &serde_json::to_string(key).unwrap_or_default();
        object.push(':');
        object += &serde_json::to_string(value).unwrap_or_default();
    }
    object.push('}');
    object
}

/// Splits the trailing `key=value` words from a message. A value is a word or stands in quotes. The one place that
/// knows of fields: the key-values of the `log` crate would add an array of typed pairs to every call, in a program
/// whose size is counted in bytes.
fn fields(message: &str) -> (&str, Vec<(&str, &str)>) {
    let mut rest = message.trim_end();
    let mut fields = Vec::new();
    while let Some(start) = last_word(rest) {
        let Some((key, value)) = rest[start..].split_once('=') else { break };
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            break;
        }
        fields.push((key, value));
        rest = rest[..start].trim_end();
    }
    fields.reverse();
    (rest, fields)
}

/// Start of the last word; a word may end in a quoted part that has spaces.
fn last_word(text: &str) -> Option<usize> {
    let head = match text.strip_suffix('"') {
        Some(head) => &text[..head.rfind("=\"")?],
        None => text,
    };
    // A message needs its first word to itself.
    head.rfind(' ').map(|at| at + 1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(format: Format, message: &str) -> String {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
        // One expression: Rust 1.85 drops the arguments at its end.
        line(format, now, &Record::builder().level(Level::Warn).args(format_args!("{message}")).build())
    }

    #[test]
    fn text_is_one_line_whatever_the_message_holds() {
        assert_eq!(
            written(Format::Text, "a\nb\x1b[2J id=1"),
            "2023-11-14T22:13:20.123Z WARN  a\\nb\\u{1b}[2J id=1\n"
        );
        assert!(written(Format::Color, "a").contains("\x1b[33mWARN \x1b[0m a\n"));
    }

    #[test]
    fn json_has_the_fields_as_members() {
        let line = written(Format::Json, "claimed a task task_id=7 job=\"build it\" url=https://ci/x?a=b");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["message"], "claimed a task");
        assert_eq!(value["task_id"], "7");
        assert_eq!(value["job"], "build it");
        assert_eq!(value["url"], "https://ci/x?a=b");
    }

    #[test]
    fn a_field_cannot_replace_what_every_record_has() {
        let value: serde_json::Value = serde_json::from_str(&written(Format::Json, "x level=fake")).unwrap();
        assert_eq!(value["level"], "warn");
    }

    #[test]
    fn only_trailing_words_are_fields() {
        assert_eq!(fields("a=b c"), ("a=b c", vec![]));
        assert_eq!(fields("x A=b"), ("x A=b", vec![]));
        assert_eq!(fields("x \"quoted\""), ("x \"quoted\"", vec![]));
        assert_eq!(fields(""), ("", vec![]));
        assert_eq!(fields("x a=1 b=\"2 3\""), ("x", vec![("a", "1"), ("b", "\"2 3\"")]));
    }

    #[test]
    fn choices_are_listed() {
        assert!(Format::parse("yaml").unwrap_err().contains("`json`"));
        assert!(parse_level("loud").unwrap_err().contains("`warn`"));
        assert_eq!(parse_level("WARN"), Ok(LevelFilter::Warn));
        for format in [Format::Color, Format::Text, Format::Json, Format::None] {
            assert_eq!(Format::parse(format.name()), Ok(format));
        }
    }
}
