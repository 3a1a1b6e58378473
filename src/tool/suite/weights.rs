//! Weights of names. Whole numbers: all nodes must come to the same, on any architecture.

use super::options::{NameKind, SplitBy, SuiteOptions};
use super::speak::say;
use super::timings_source::{self, FoundTimings};
use crate::system::fits;
use serde_json::Value;
use std::ffi::OsString;

/// Microseconds of a name without timing when nothing else was asked for.
const UNKNOWN: u64 = 1000;
/// Text in the place of a secret.
const MASK: &str = "****";
/// Names that are listed in a warning.
const MOST_LISTED: usize = 5;

/// Message for when there are no timings for any name.
const NO_TIMINGS: &str = "Error auto-detecting timing type, falling back to weighting by name.";

/// The weights of `names`, in their order. The error is a sentence for people.
pub(super) fn of(
    names: &[String],
    options: &SuiteOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<u64>, String> {
    let found = match options.by {
        SplitBy::Name => None,
        SplitBy::Filesize => by_size(names),
        SplitBy::Timings => match timings_source::find(options.timings_file.as_deref(), variable)? {
            FoundTimings::Timings(timings) => by_timings(names, &timings, options),
            FoundTimings::Nothing(why) => {
                say(&why);
                say(NO_TIMINGS);
                None
            }
        },
    };
    Ok(found.unwrap_or_else(|| vec![1; names.len()]))
}

fn by_size(names: &[String]) -> Option<Vec<u64>> {
    let sizes: Vec<Option<u64>> = names
        .iter()
        .map(|name| std::fs::metadata(name).ok().filter(|f| f.is_file()).map(|f| f.len()))
        .collect();
    let missing: Vec<&str> =
        names.iter().zip(&sizes).filter(|(_, size)| size.is_none()).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        say(&format!("warning: no file, so taken as empty: {}", listed(&missing)));
    }
    let weights: Vec<u64> = sizes.into_iter().map(Option::unwrap_or_default).collect();
    // Weightless names would all go to the first node.
    if weights.iter().all(|&weight| weight == 0) {
        say("warning: none of the names is a file with content, falling back to weighting by name.");
        return None;
    }
    Some(weights)
}

fn listed(names: &[&str]) -> String {
    let mut text =
        names.iter().take(MOST_LISTED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MOST_LISTED {
        text += &format!(" and {} more", names.len() - MOST_LISTED);
    }
    text
}

fn by_timings(names: &[String], timings: &Value, options: &SuiteOptions) -> Option<Vec<u64>> {
    let times = |kind: &str| known(names, &timings[kind], kind == "filename");
    let (kind, known) = match options.kind {
        NameKind::Filename => ("filename", times("filename")),
        NameKind::Classname => ("classname", times("classname")),
        NameKind::Testname => ("testname", times("testname")),
        NameKind::Autodetect => {
            let (files, classes) = (times("filename"), times("classname"));
            if classes.1 > files.1 { ("classname", classes) } else { ("filename", files) }
        }
    };
    let (known, count) = known;
    if options.verbose {
        say(&format!("timings by {kind} are there for {count} of {} names", names.len()));
    }
    if count == 0 {
        say("none of the names has a time in the timings");
        say(NO_TIMINGS);
        return None;
    }
    let unknown = u64::try_from(options.time_default.as_micros()).unwrap_or(u64::MAX);
    let unknown = if unknown == 0 { UNKNOWN } else { unknown };
    Some(known.into_iter().map(|time| if time == 0 { unknown } else { time }).collect())
}

/// Microseconds of each name by `times`, in seconds, and of how many they are known. A time of nothing is
/// what a report without times says, so it is not known: 0.
fn known(names: &[String], times: &Value, are_files: bool) -> (Vec<u64>, usize) {
    // Names that hold a secret are stored with a mask in its place.
    let masked = times.as_object().into_iter().flatten().filter(|(name, _)| name.contains(MASK));
    let masked: Vec<(&str, &Value)> = masked.map(|(name, time)| (name.as_str(), time)).collect();
    let mut known = Vec::with_capacity(names.len());
    let mut count = 0;
    for name in names {
        let mut seconds = times[name.as_str()].as_f64();
        if are_files && seconds.is_none() {
            // `./a` and `a` are one file.
            seconds = match name.strip_prefix("./") {
                Some(short) => times[short].as_f64(),
                None => times[format!("./{name}").as_str()].as_f64(),
            };
        }
        if seconds.is_none() {
            let found = masked.iter().filter(|(stored, _)| fits(stored, MASK, name));
            // The one that says most of it.
            let found = found.max_by_key(|(stored, _)| stored.len());
            seconds = found.and_then(|(_, time)| time.as_f64());
        }
        // The conversion keeps within what a `u64` holds; what is negative becomes nothing.
        let micros = (seconds.unwrap_or(0.0) * 1e6).round() as u64;
        count += usize::from(micros > 0);
        known.push(micros);
    }
    (known, count)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> SuiteOptions {
        let mut all = vec!["--index=0", "--total=2"];
        all.extend(words);
        SuiteOptions::parse(false, &all, &|_| None).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn weigh(timings: &str, input: &[&str], words: &[&str]) -> Option<Vec<u64>> {
        by_timings(&names(input), &serde_json::from_str(timings).unwrap(), &options(words))
    }

    const TIMINGS: &str = r#"{"filename": {"./a": 1.5, "b": 0.25, "z": 0}, "classname": {"a": 2, "b": 3, "C": 4},
        "testname": {"t": 0.000001}}"#;

    #[test]
    fn times_are_looked_up_by_kind() {
        assert_eq!(weigh(TIMINGS, &["a", "./b", "c"], &[]), Some(vec![1_500_000, 250_000, 1000]));
        assert_eq!(weigh(TIMINGS, &["C", "a", "b"], &[]), Some(vec![4_000_000, 2_000_000, 3_000_000]));
        let classes = ["--timings-type=classname", "--time-default=10s"];
        assert_eq!(weigh(TIMINGS, &["a", "x"], &classes), Some(vec![2_000_000, 10_000_000]));
        assert_eq!(weigh(TIMINGS, &["t", "x"], &["--timings-type=name"]), Some(vec![1, 1000]));
    }

    #[test]
    fn names_with_secrets_are_looked_up_as_they_were_stored() {
        let timings = r#"{"testname": {"a ****.c": 2, "a": 1, "****": 0}}"#;
        let by_name = ["--timings-type=testname"];
        let found = weigh(timings, &["a s3cret.c", "a", "s3cret", "b"], &by_name);
        assert_eq!(found, Some(vec![2_000_000, 1_000_000, 1000, 1000]));
    }

    #[test]
    fn without_any_time_there_are_none() {
        assert_eq!(weigh(TIMINGS, &["x", "z"], &[]), None);
        assert_eq!(weigh("{}", &["a"], &[]), None);
        assert_eq!(weigh(r#"{"filename": {"a": -1}, "other": 1}"#, &["a"], &[]), None);
        assert_eq!(weigh(r#"{"filename": {"a": 1e300}}"#, &["a"], &[]), Some(vec![u64::MAX]));
        // No scratch folder, so no timings at all: by name, with a message.
        assert_eq!(of(&names(&["a", "b"]), &options(&["--split-by=timings"]), &|_| None), Ok(vec![1, 1]));
    }

    #[test]
    fn sizes_are_those_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("a"), "12345").unwrap();
        assert_eq!(by_size(&[path("a"), path("b"), path("")]), Some(vec![5, 0, 0]));
        assert_eq!(by_size(&[path("b")]), None);
        assert_eq!(listed(&["a"; 7]), "`a`, `a`, `a`, `a`, `a` and 2 more");
    }
}
