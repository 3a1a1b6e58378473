//! The time and the branches that a query of insights asks about.

use crate::server::api::shared::failure::{Answer, bad};
use crate::server::api::shared::input::{QueryWords, moment};
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
fn given<'w>(words: &'w QueryWords, name: &str) -> Option<&'w str> {
    words.get(name).map(String::as_str).filter(|word| !word.is_empty())
}

impl Period {
    fn until(now: Millis, time: Duration) -> Self {
        // Runs that were made in this very moment count.
        let to = now.plus(Duration::from_millis(1));
        Self { from: to.minus(time), to }
    }

    /// The one that `reporting-window` names.
    pub(super) fn window(words: &QueryWords, now: Millis) -> Answer<Self> {
        let Some(word) = given(words, "reporting-window") else { return Ok(Self::until(now, LONGEST)) };
        match WINDOWS.iter().find(|(name, _)| *name == word) {
            Some((_, hours)) => Ok(Self::until(now, Duration::from_secs(hours * 60 * 60))),
            None => {
                let known: Vec<&str> = WINDOWS.iter().map(|(name, _)| *name).collect();
                Err(bad(format!("`reporting-window` cannot be `{word}`: it is one of {}", known.join(", "))))
            }
        }
    }

    /// Reads the span from `start-date` to `end-date`.
    pub(super) fn dates(words: &QueryWords, now: Millis) -> Answer<Self> {
        let usual = Self::until(now, LONGEST);
        let date = |name: &str| given(words, name).map(|text| moment(name, text)).transpose();
        let to = date("end-date")?.unwrap_or(usual.to);
        let from = date("start-date")?.unwrap_or(to.minus(LONGEST));
        if from > to {
            return Err(bad("`start-date` is after `end-date`"));
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

/// The branches that `branch` and `all-branches` choose; neither is the default branch.
pub(super) fn branches_of(words: &QueryWords, default: &str) -> Answer<Branches> {
    let all = match given(words, "all-branches") {
        None | Some("false") => false,
        Some("true") => true,
        Some(word) => return Err(bad(format!("`all-branches` must be true or false, not `{word}`"))),
    };
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
        let week = Period::window(&words(&[("reporting-window", "last-7-days")]), now).unwrap();
        assert_eq!((week.days(), week.has(now)), (7.0, true));
        assert_eq!(week.before().to, week.from);
        assert_eq!(week.before().days(), 7.0);
        assert_eq!(Period::window(&words(&[]), now).unwrap().days(), 90.0);
        assert!(Period::window(&words(&[("reporting-window", "ever")]), now).is_err());
        let dates = words(&[("start-date", "1970-01-02T00:00:00Z"), ("end-date", "1970-01-03T00:00:00Z")]);
        assert_eq!(
            Period::dates(&dates, now).unwrap(),
            Period { from: Millis(DAY_MS), to: Millis(2 * DAY_MS) }
        );
        let turned = words(&[("start-date", "1970-01-03T00:00:00Z"), ("end-date", "1970-01-02T00:00:00Z")]);
        assert!(Period::dates(&turned, now).is_err());
        assert!(Period::dates(&words(&[("start-date", "yesterday")]), now).is_err());
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
