//! Sources of values of settings: a variable, a line of the file, or nowhere. Every wrong value is written down,
//! so that all of them are told at once.

use super::file::{self, FileEntry, FileValue};
use super::keys::{AUTH_TOKEN, KEYS, meant};
use std::cell::RefCell;

/// A value and where it comes from.
pub(super) struct Given {
    pub(super) key: &'static str,
    pub(super) value: FileValue,
    /// `FILE:LINE:COLUMN: ` or empty.
    pub(super) place: String,
    /// The variable's name, or the key in backticks.
    pub(super) what: String,
    pub(super) from_variable: bool,
}

impl Given {
    /// A sentence about a value that is of no use.
    pub(super) fn wrong(&self, why: &str) -> String {
        let shown = match &self.value {
            FileValue::Null => "empty".to_owned(),
            FileValue::Text(_) if self.key == AUTH_TOKEN => "not usable".to_owned(),
            FileValue::Text(text) => format!("`{}`", text.escape_debug()),
            FileValue::List(items) => format!("`{items:?}`"),
        };
        format!("{}{} is {shown}: {why}", self.place, self.what)
    }

    /// The value, which is to be a single one.
    pub(super) fn text(&self) -> Result<&str, String> {
        match &self.value {
            FileValue::Text(text) => Ok(text.trim()),
            _ => Err(self.wrong("expected a single value")),
        }
    }
}

/// The file and the environment, and what is wrong in them.
pub(super) struct Sources<'a> {
    /// Path of the file as the operator wrote it, and what is in it.
    file: Option<(&'a str, Vec<FileEntry>)>,
    environment: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<String>>,
}

impl<'a> Sources<'a> {
    /// Reads the text of a file, given with its path as the operator wrote it. Unknown keys are problems; text that is
    /// no YAML is an error.
    pub(super) fn new(
        file: Option<(&'a str, &str)>,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let file = match file {
            None => None,
            Some((path, text)) => Some((path, file::parse(text).map_err(|error| format!("{path}:{error}"))?)),
        };
        let sources = Self { file, environment, problems: RefCell::default() };
        sources.find_unknown_keys();
        Ok(sources)
    }

    fn find_unknown_keys(&self) {
        let Some((path, entries)) = &self.file else { return };
        for entry in entries.iter().filter(|entry| !KEYS.iter().any(|key| key.key == entry.key)) {
            let hint = meant(&entry.key).map_or_else(String::new, |key| format!(" (did you mean `{key}`?)"));
            let FileEntry { key, line, column, .. } = entry;
            self.wrong(format!("{path}:{line}:{column}: there is no setting `{key}`{hint}"));
        }
    }

    /// Writes a problem down.
    #[inline(never)]
    pub(super) fn wrong(&self, problem: String) {
        self.problems.borrow_mut().push(problem);
    }

    /// All problems, as one text; `None` when there is none.
    pub(super) fn problems(&self) -> Option<String> {
        let problems = self.problems.borrow();
        match problems.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("{} settings are wrong:\n  {}", many.len(), many.join("\n  "))),
        }
    }

    /// Returns the value of a variable; an empty one is none.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.trim().is_empty())
    }

    /// The value of a key.
    pub(super) fn get(&self, wanted: &'static str) -> Option<Given> {
        let key = KEYS.iter().find(|key| key.key == wanted)?;
        let variable = key.variables.iter().find_map(|name| Some((*name, self.variable(name)?)));
        if let Some((name, value)) = variable {
            return Some(Given {
                key: key.key,
                value: FileValue::Text(value),
                place: String::new(),
                what: name.to_owned(),
                from_variable: true,
            });
        }
        let (path, entries) = self.file.as_ref()?;
        let entry = entries.iter().find(|entry| entry.key == wanted && entry.value != FileValue::Null)?;
        Some(Given {
            key: key.key,
            value: entry.value.clone(),
            place: format!("{path}:{}:{}: ", entry.line, entry.column),
            what: format!("`{wanted}`"),
            from_variable: false,
        })
    }

    /// The value of a key as text, and whatever is made of it. One that is wrong counts as not given.
    pub(super) fn read<T>(&self, key: &'static str, reader: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (given, text) = self.single(key)?;
        reader(&text).map_err(|why| self.wrong(given.wrong(&why))).ok()
    }

    /// A value, which is to be a single one, and its text. Apart, since every key has a reader of its own.
    #[inline(never)]
    fn single(&self, key: &'static str) -> Option<(Given, String)> {
        let given = self.get(key)?;
        let text = given.text().map(str::to_owned);
        Some((given, text.map_err(|why| self.wrong(why)).ok()?))
    }

    /// The value of a key as a list: of the file, a JSON list, or words as in a shell.
    pub(super) fn list(
        &self,
        key: &'static str,
        check: impl Fn(&[String]) -> Result<(), &'static str>,
    ) -> Vec<String> {
        let Some(given) = self.get(key) else { return Vec::new() };
        let items = match &given.value {
            FileValue::List(items) => Ok(items.clone()),
            FileValue::Text(text) => super::value::list(text),
            FileValue::Null => Ok(Vec::new()),
        };
        let checked = items.and_then(|items| match check(&items) {
            Ok(()) => Ok(items),
            Err(why) => Err(why.to_owned()),
        });
        checked.unwrap_or_else(|why| {
            self.wrong(given.wrong(&why));
            Vec::new()
        })
    }
}
