//! The operator's log: one line a record, to standard error or a file.
//!
//! Every role that runs for long (`machine`, `task`, `server`) calls [`init`] once; everything else
//! only uses the macros of `log`, and `record!`. A message reads well alone; ids and counts are given as fields (`record!`),
//! which follow the message as `key=value` and are members of their own in the `json` format. Job output never comes
//! here.

use crate::system::clock::Rfc3339;
use crate::system::service;
use log::{Level, LevelFilter, Record};
use std::cell::RefCell;
use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Form of `Text`, with the level coloured when standard error is a terminal and `NO_COLOR` is unset.
    Color,
    /// `2026-01-31T12:00:00.000Z INFO  message key=value`
    Text,
    /// An object of JSON a line: `time`, `level`, `message`, then the fields.
    Json,
    /// `<6>message key=value`: what the journal of systemd reads; it knows the time.
    Journal,
    /// No record is written.
    None,
}

/// Settings of [`init`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Records below it are dropped.
    pub level: LevelFilter,
    /// How records are written.
    pub format: Format,
    /// Appended to; `None` is standard error.
    pub file: Option<PathBuf>,
}

impl Default for LogOptions {
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
            "journal" => Ok(Format::Journal),
            "none" => Ok(Format::None),
            _ => Err("expected `color`, `text`, `json`, `journal` or `none`".to_owned()),
        }
    }

    /// The name that [`Format::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Format::Color => "color",
            Format::Text => "text",
            Format::Json => "json",
            Format::Journal => "journal",
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
pub fn init(options: &LogOptions) -> Result<(), String> {
    if options.format == Format::None {
        return Ok(());
    }
    let mut builder = env_logger::Builder::new();
    // Libraries only speak up when something is wrong.
    builder.filter_level(options.level.min(LevelFilter::Warn));
    // Our own level is the one of the macros, which can be changed later.
    builder.filter_module("runlet", LevelFilter::Trace);
    let format = options.settled();
    if let Some(file) = options.open()? {
        *lock() = Some(file);
        builder.target(env_logger::Target::Pipe(Box::new(CurrentFile)));
    }
    builder.format(move |out, record| {
        FIELDS.with_borrow(|fields| out.write_all(line(format, SystemTime::now(), record, fields).as_bytes()))
    });
    // Another role of the same process may have begun already; its choice stands.
    if builder.try_init().is_ok() {
        log::set_max_level(options.level);
    }
    Ok(())
}

/// The file that is written to. Another one takes its place when the first was renamed.
static FILE: Mutex<Option<File>> = Mutex::new(None);

fn lock() -> std::sync::MutexGuard<'static, Option<File>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to the file of the moment. A record is one write, so none is torn between two files.
struct CurrentFile;

impl Write for CurrentFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *lock() {
            // A file that takes nothing, such as one on a full disk, leaves those who may still be watching.
            Some(file) => file.write(bytes).or_else(|_| io::stderr().write(bytes)),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the log file again, which may have been renamed or be another one now, and changes the level. The error says
/// why things stay as they were. A log that began on standard error stays there, and a format stays what it was.
pub fn reopen(options: &LogOptions) -> Result<(), String> {
    let is_file = lock().is_some();
    if is_file {
        if let Some(file) = options.open()? {
            *lock() = Some(file);
        }
    }
    if options.format != Format::None {
        log::set_max_level(options.level);
    }
    Ok(())
}

fn wants_color(options: &LogOptions) -> bool {
    options.file.is_none()
        && io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl LogOptions {
    /// The format for the place that the log goes to: colours are for terminals, and the journal reads levels.
    pub fn settled(&self) -> Format {
        match self.format {
            Format::Color | Format::Text if self.file.is_none() && service::logs_to_journal() => {
                Format::Journal
            }
            Format::Color if !wants_color(self) => Format::Text,
            format => format,
        }
    }

    fn open(&self) -> Result<Option<File>, String> {
        let Some(path) = &self.file else { return Ok(None) };
        let mut open = OpenOptions::new();
        open.append(true).create(true);
        crate::system::os::OpenOptionsExt::mode(&mut open, 0o640);
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

/// Writes a line of another process to where the log goes, as it is.
pub fn pass_on(options: &LogOptions, line: &str) {
    if options.format == Format::None {
        return;
    }
    // Nobody can be told of a log that cannot be written.
    let _ = match options.open() {
        Ok(Some(mut file)) => writeln!(file, "{line}"),
        _ => writeln!(io::stderr(), "{line}"),
    };
}

/// A field of a record: its key, and its value as text.
type Field = (&'static str, String);

thread_local! {
    /// The fields of the record that this thread is writing. The key-values of the `log` crate are no place for
    /// them: the numbers of every type that they can hold add 20 KB to the small runner.
    static FIELDS: RefCell<Vec<Field>> = const { RefCell::new(Vec::new()) };
}

/// Writes a record with fields: `record!(Info, task_id = id, agent_pid = pid; "task agent started")`. Values are
/// whatever can be displayed, and keys are the same everywhere: `project` is a slug, `project_id` an id, `client` an
/// address. The message is as for the macros of `log`, which are for records without fields. Those of `debug` are written by this one, too (`record!(Debug; "...")`): release builds leave out what `log` has of that level.
macro_rules! record {
    ($level:ident; $($message:tt)+) => {
        $crate::logging::say(::log::Level::$level, &[], ::core::format_args!($($message)+))
    };
    ($level:ident, $($key:ident = $value:expr),+; $($message:tt)+) => {
        $crate::logging::say(
            ::log::Level::$level,
            &[$((stringify!($key), &$value)),+],
            ::core::format_args!($($message)+),
        )
    };
}
pub(crate) use record;

/// Writes a record with fields; `record!` calls it.
pub(crate) fn say(level: Level, fields: &[(&'static str, &dyn Display)], message: fmt::Arguments<'_>) {
    if level > log::max_level() {
        return;
    }
    FIELDS.set(fields.iter().map(|(key, value)| (*key, value.to_string())).collect());
    let target = module_path!();
    log::logger().log(&Record::builder().level(level).target(target).args(message).build());
    FIELDS.take();
}

/// A record as it stands in the log, line break included.
fn line(format: Format, now: SystemTime, record: &Record<'_>, fields: &[Field]) -> String {
    let time = Rfc3339 { time: now, milliseconds: true };
    let message = record.args().to_string();
    let mut line = String::with_capacity(message.len() + 64);
    // Writing to a string cannot fail.
    let _ = match format {
        Format::Json => {
            let level = record.level().as_str().to_ascii_lowercase();
            line.push('{');
            for (key, value) in [("time", &time.to_string()), ("level", &level), ("message", &message)] {
                member(&mut line, key, value);
            }
            for (key, value) in fields {
                member(&mut line, key, value);
            }
            line.push('}');
            Ok(())
        }
        Format::Journal => {
            let priority = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            write!(line, "<{priority}>{}{}", printable(&message), words(fields))
        }
        Format::Color => {
            let color = match record.level() {
                Level::Error => "31",
                Level::Warn => "33",
                Level::Info => "32",
                Level::Debug | Level::Trace => "2",
            };
            let level = record.level();
            write!(line, "{time} \x1b[{color}m{level:<5}\x1b[0m {}{}", printable(&message), words(fields))
        }
        Format::Text | Format::None => {
            write!(line, "{time} {:<5} {}{}", record.level(), printable(&message), words(fields))
        }
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

/// Fields as they follow a message. A value that is not one word stands in quotes.
fn words(fields: &[Field]) -> String {
    let mut words = String::new();
    for (key, value) in fields {
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '"';
        // Writing to a string cannot fail.
        let _ = match value.is_empty() || value.contains(is_odd) {
            true => write!(words, " {key}={value:?}"),
            false => write!(words, " {key}={value}"),
        };
    }
    words
}

/// Appends a member to the text of a JSON object that is not closed yet.
fn member(object: &mut String, key: &str, value: &str) {
    if !object.ends_with('{') {
        object.push(',');
    }
    // Text can always be written as JSON.
    *object += &serde_json::to_string(key).unwrap_or_default();
    object.push(':');
    *object += &serde_json::to_string(value).unwrap_or_default();
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(format: Format, message: &str, fields: &[(&'static str, &str)]) -> String {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
        let fields: Vec<_> = fields.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        // A single expression: Rust 1.85 drops the arguments at its end.
        line(
            format,
            now,
            &Record::builder().level(Level::Warn).args(format_args!("{message}")).build(),
            &fields,
        )
    }

    #[test]
    fn text_is_one_line_whatever_the_message_and_the_fields_hold() {
        assert_eq!(
            written(Format::Text, "a\nb\x1b[2J x=y", &[("id", "1"), ("job", "a\n\"b\""), ("no", "")]),
            "2023-11-14T22:13:20.123Z WARN  a\\nb\\u{1b}[2J x=y id=1 job=\"a\\n\\\"b\\\"\" no=\"\"\n"
        );
        assert!(written(Format::Color, "a", &[("id", "1")]).contains("\x1b[33mWARN \x1b[0m a id=1\n"));
        assert_eq!(written(Format::Journal, "a\n<0>b", &[("id", "1")]), "<4>a\\n<0>b id=1\n");
    }

    #[test]
    fn json_has_the_fields_as_members_and_the_message_as_it_was_given() {
        let fields = [("task_id", "7"), ("job", "build it"), ("url", "https://ci/x?a=b")];
        let line = written(Format::Json, "claimed level=fake", &fields);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "time": "2023-11-14T22:13:20.123Z", "level": "warn", "message": "claimed level=fake",
                "task_id": "7", "job": "build it", "url": "https://ci/x?a=b",
            })
        );
    }

    #[test]
    fn choices_are_listed() {
        assert!(Format::parse("yaml").unwrap_err().contains("`json`"));
        assert!(parse_level("loud").unwrap_err().contains("`warn`"));
        assert_eq!(parse_level("WARN"), Ok(LevelFilter::Warn));
        for format in [Format::Color, Format::Text, Format::Json, Format::Journal, Format::None] {
            assert_eq!(Format::parse(format.name()), Ok(format));
        }
    }
}
