//! The time and the branches that a query of insights asks about.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{QueryWords, flag, moment};
use crate::server::store::read::Branches;
use crate::server::time::Millis;
use std::time::Duration;

/// Windows by their names, in hours.
const WINDOWS: [(&str, u64); 5] = [
    ("last-24-hours", 24),
    ("last-7-days", 7 * 24),
    ("last-30-days", 30 * 24),
    ("last-60-days", 60 * 24),
    ("last-90-days", 90 * 24),
];

/// The longest of them, which is meant where none is named.
const LONGEST: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    /// First moment of it.
    pub(super) from: Millis,
    /// The first moment after it.
    pub(super) to: Millis,
}

/// A word of a query, unless it is absent or empty.
pub(super) fn given<'w>(words: &'w QueryWords, name: &str) -> Option<&'w str> {
    words.get(name).map(String::as_str).filter(|word| !word.is_empty())
}

impl Period {
    fn until(now: Millis, time: Duration) -> Self {
        // Runs that were made in this very moment count.
        let to = now.plus(Duration::from_millis(1));
        Self { from: to.minus(time), to }
    }

    /// Reads the span that `reporting-window` names, or that from `start-date` to `end-date`.
    pub(super) fn of(words: &QueryWords, now: Millis) -> Answer<Self> {
        let date = |name: &str| given(words, name).map(|text| moment(name, text)).transpose();
        let (start, end) = (date("start-date")?, date("end-date")?);
        if let Some(word) = given(words, "reporting-window") {
            let Some((_, hours)) = WINDOWS.iter().find(|(name, _)| *name == word) else {
                let known = WINDOWS.map(|(name, _)| name).join(", ");
                return Err(bad(format!("`reporting-window` cannot be `{word}`: it is one of {known}")));
            };
            if start.is_some() || end.is_some() {
                return Err(bad(
                    "`reporting-window` and dates exclude each other: give it, or `start-date` and `end-date`",
                ));
            }
            return Ok(Self::until(now, Duration::from_secs(hours * 60 * 60)));
        }
        let usual = Self::until(now, LONGEST);
        let to = end.unwrap_or(usual.to);
        let from = start.unwrap_or(to.minus(LONGEST));
        if from >= to {
            return Err(bad("`start-date` is not before `end-date`"));
        }
        Ok(Self { from, to })
    }

    /// The one of the same length before it.
    pub(super) fn before(&self) -> Self {
        Self { from: self.from.minus(self.to.since(self.from)), to: self.from }
    }

    /// Whether a moment is in it.
    pub(super) fn has(&self, at: Millis) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// Length in days, with fractions.
    pub(super) fn days(&self) -> f64 {
        self.to.since(self.from).as_secs_f64() / (24.0 * 60.0 * 60.0)
    }
}

/// Refuses a span of time where `what` are asked for, which are always of the same one.
pub(super) fn no_period(words: &QueryWords, what: &str) -> Answer<()> {
    let names = ["reporting-window", "start-date", "end-date"];
    match names.into_iter().find(|name| given(words, name).is_some()) {
        Some(name) => Err(bad(format!("`{name}` cannot be chosen here: {what}"))),
        None => Ok(()),
    }
}

/// The branches that `branch` and `all-branches` choose; neither is the default branch.
pub(super) fn branches_of(words: &QueryWords, default: &str) -> Answer<Branches> {
    let all = flag(words, "all-branches")?;
    match (given(words, "branch"), all) {
        (Some(_), true) => Err(bad("`branch` and `all-branches` exclude each other: give one of them")),
        (Some(branch), false) => Ok(Branches::Only(branch.to_owned())),
        (None, true) => Ok(Branches::All),
        (None, false) => Ok(Branches::Default(default.to_owned())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::extract::Query;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn words(text: &[(&str, &str)]) -> QueryWords {
        Query(text.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn times_are_read() {
        let now = Millis(1000 * DAY_MS);
        let week = Period::of(&words(&[("reporting-window", "last-7-days")]), now).unwrap();
        assert_eq!((week.days(), week.has(now)), (7.0, true));
        assert_eq!(week.before().to, week.from);
        assert_eq!(week.before().days(), 7.0);
        assert_eq!(Period::of(&words(&[]), now).unwrap().days(), 90.0);
        assert!(Period::of(&words(&[("reporting-window", "ever")]), now).is_err());
        let dates = words(&[("start-date", "1970-01-02T00:00:00Z"), ("end-date", "1970-01-03T00:00:00Z")]);
        assert_eq!(Period::of(&dates, now).unwrap(), Period { from: Millis(DAY_MS), to: Millis(2 * DAY_MS) });
        let turned = words(&[("start-date", "1970-01-03T00:00:00Z"), ("end-date", "1970-01-02T00:00:00Z")]);
        assert!(Period::of(&turned, now).is_err());
        assert!(Period::of(&words(&[("start-date", "yesterday")]), now).is_err());
        let both = words(&[("reporting-window", "last-7-days"), ("end-date", "1970-01-03T00:00:00Z")]);
        assert!(Period::of(&both, now).is_err());
    }

    #[test]
    fn branches_are_read() {
        let read = |text: &[(&str, &str)]| branches_of(&words(text), "main").ok();
        assert_eq!(read(&[]), Some(Branches::Default("main".to_owned())));
        assert_eq!(read(&[("branch", "a/b")]), Some(Branches::Only("a/b".to_owned())));
        assert_eq!(read(&[("all-branches", "true")]), Some(Branches::All));
        assert_eq!(read(&[("all-branches", "true"), ("branch", "x")]), None);
        assert_eq!(read(&[("all-branches", "yes")]), None);
    }
}
