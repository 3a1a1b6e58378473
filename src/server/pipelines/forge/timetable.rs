//! When schedules are due, in UTC: five fields of cron, and the timetables of the API. No IO, no clock.

use crate::server::store::tables::schedules::Timetable;
use crate::server::time::Millis;

/// A missed time that is older than this, in minutes, is not made up for.
pub(super) const LATEST_MINUTES: u64 = 15;
/// Names of days, from Sunday, and of months.
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// A minute as calendars have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    minute: u32,
    hour: u32,
    day: u32,
    month: u32,
    /// Day of the week, Sunday is 0.
    weekday: u32,
}

impl Moment {
    /// The minute that is so many after the beginning of 1970.
    fn of(minutes: u64) -> Self {
        let days = minutes / (24 * 60);
        // Civil from days: years begin in March, so that the odd day is the last.
        let shifted = days + 719_468;
        let of_era = shifted % 146_097;
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            minute: (minutes % 60) as u32,
            hour: (minutes / 60 % 24) as u32,
            day: day as u32,
            month: month as u32,
            weekday: ((days + 4) % 7) as u32,
        }
    }
}

/// Five fields of cron, as sets of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    has_days: bool,
    has_weekdays: bool,
}

impl Cron {
    /// Reads the five fields; `None` when it is not such a text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else { return None };
        let mut cron = Self {
            minutes: set(minutes, 0, 59, &[])?,
            hours: set(hours, 0, 23, &[])?,
            days: set(days, 1, 31, &[])?,
            months: set(months, 1, 12, &MONTHS)?,
            weekdays: set(weekdays, 0, 7, &DAYS)?,
            has_days: *days != "*",
            has_weekdays: *weekdays != "*",
        };
        if cron.weekdays & (1 << 7) != 0 {
            cron.weekdays |= 1;
        }
        Some(cron)
    }

    fn is_due(&self, at: Moment) -> bool {
        let has = |set: u64, value: u32| set & (1 << value) != 0;
        let (day, weekday) = (has(self.days, at.day), has(self.weekdays, at.weekday));
        // Either will do when both are restricted.
        let is_day = if self.has_days && self.has_weekdays { day || weekday } else { day && weekday };
        has(self.minutes, at.minute) && has(self.hours, at.hour) && has(self.months, at.month) && is_day
    }

    /// The last time that is due after `last` and not later than `now`, unless that is too long ago.
    pub(super) fn due(&self, last: Millis, now: Millis) -> Option<Millis> {
        latest(last, now, |moment| self.is_due(moment))
    }
}

/// Reads a field into a set of bits: `*`, a value, a list of values, a range.
fn set(field: &str, least: u32, most: u32, names: &[&str]) -> Option<u64> {
    let value = |text: &str| -> Option<u32> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(at) => u32::try_from(at).ok()? + least.min(1),
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (least..=most).contains(&value).then_some(value)
    };
    if field == "*" {
        return Some((least..=most).fold(0, |set, value| set | 1 << value));
    }
    if let Some((from, to)) = field.split_once('-') {
        let (from, to) = (value(from)?, value(to)?);
        return (from <= to).then(|| (from..=to).fold(0, |set, value| set | 1 << value));
    }
    field.split(',').try_fold(0, |set, text| Some(set | 1 << value(text)?))
}

/// Checks a timetable; the error is a sentence for people.
pub fn check(timetable: &Timetable) -> Result<(), String> {
    if !(1..=60).contains(&timetable.per_hour) {
        return Err("`per-hour` is a number from 1 to 60".to_owned());
    }
    let hours = &timetable.hours_of_day;
    if hours.is_empty() || hours.iter().any(|hour| *hour > 23) {
        return Err("`hours-of-day` is a list of hours from 0 to 23".to_owned());
    }
    let (week, month) = (&timetable.days_of_week, &timetable.days_of_month);
    if week.is_empty() == month.is_empty() {
        return Err("give `days-of-week` or `days-of-month`, one of them".to_owned());
    }
    if let Some(word) = week.iter().find(|word| !DAYS.contains(&word.as_str())) {
        return Err(format!("`{word}` in `days-of-week` is none of {}", DAYS.join(", ")));
    }
    if month.iter().any(|day| !(1..=31).contains(day)) {
        return Err("`days-of-month` is a list of days from 1 to 31".to_owned());
    }
    if let Some(word) = timetable.months.iter().find(|word| !MONTHS.contains(&word.as_str())) {
        return Err(format!("`{word}` in `months` is none of {}", MONTHS.join(", ")));
    }
    Ok(())
}

/// The last time of a timetable that is due after `last` and not later than `now`, unless that is too long ago. The
/// minute in the hour is the schedule's own, by its id.
pub(super) fn due(timetable: &Timetable, id: &str, last: Millis, now: Millis) -> Option<Millis> {
    let offset = id.bytes().fold(7u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())) % 10;
    let step = 60 / timetable.per_hour.clamp(1, 60);
    latest(last, now, |at| {
        let since = (at.minute + 60 - offset) % 60;
        let is_minute = since % step == 0 && since / step < timetable.per_hour;
        let weekday = DAYS.get(at.weekday as usize).copied().unwrap_or_default();
        let month = MONTHS.get(at.month as usize - 1).copied().unwrap_or_default();
        let has = |list: &[String], word: &str| list.is_empty() || list.iter().any(|one| one == word);
        is_minute
            && timetable.hours_of_day.contains(&at.hour)
            && has(&timetable.days_of_week, weekday)
            && (timetable.days_of_month.is_empty() || timetable.days_of_month.contains(&at.day))
            && has(&timetable.months, month)
    })
}

/// The latest minute that fits, after `last`, up to `now`.
fn latest(last: Millis, now: Millis, fits: impl Fn(Moment) -> bool) -> Option<Millis> {
    let (last, now) = (last.0 / 60_000, now.0 / 60_000);
    let first = (last + 1).max(now.saturating_sub(LATEST_MINUTES - 1));
    (first..=now).rev().find(|minute| fits(Moment::of(*minute))).map(|minute| Millis(minute * 60_000))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its times should fail loudly")]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        let time = humantime::parse_rfc3339_weak(text).unwrap();
        Millis(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64)
    }

    /// The times of a day that are due, looked at every minute.
    fn times(day: &str, due: impl Fn(Millis, Millis) -> Option<Millis>) -> Vec<String> {
        let (start, mut last, mut found) = (at(&format!("{day}T00:00:00Z")), Millis(0), Vec::new());
        for minute in 0..24 * 60 {
            let now = Millis(start.0 + minute * 60_000 + 30_000);
            if let Some(time) = due(last.max(Millis(start.0.saturating_sub(1))), now) {
                last = time;
                found.push(time.to_string()[11..16].to_owned());
            }
        }
        found
    }

    #[test]
    fn cron_is_posix() {
        let of = |cron: &str, day: &str| {
            let cron = Cron::parse(cron).unwrap();
            times(day, |last, now| cron.due(last, now))
        };
        assert_eq!(of("0,30 8 * * *", "2026-11-26"), ["08:00", "08:30"]);
        assert_eq!(of("5 9-11 * JAN 0", "2026-01-04"), ["09:05", "10:05", "11:05"]);
        assert!(of("5 9-11 * JAN 0", "2026-01-05").is_empty());
        // On the first, and on Mondays.
        assert_eq!(of("0 0 1 * 1", "2026-11-01"), ["00:00"]);
        assert_eq!(of("0 0 1 * 1", "2026-11-30"), ["00:00"]);
        assert!(of("0 0 1 * 1", "2026-11-29").is_empty());
        assert_eq!(of("0 0 29 2 *", "2028-02-29"), ["00:00"]);
        assert_eq!(of("0 0 * * 7", "2026-11-29"), ["00:00"]);
        for bad in ["* * * *", "*/5 * * * *", "60 0 * * *", "0 0 * * 5-1", "x 0 * * *"] {
            assert!(Cron::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_timetable_is_due_once_in_its_window() {
        let table = Timetable {
            per_hour: 1,
            hours_of_day: vec![8],
            days_of_week: vec!["MON".to_owned()],
            days_of_month: Vec::new(),
            months: Vec::new(),
        };
        let of = |table: &Timetable, day: &str| times(day, |last, now| due(table, "some-id", last, now));
        let monday = of(&table, "2026-11-30");
        assert!(monday.len() == 1 && monday[0].starts_with("08:0"), "{monday:?}");
        assert_eq!(of(&table, "2026-12-07"), monday, "the same minute each week");
        assert!(of(&table, "2026-12-01").is_empty());
        for (per_hour, count) in [(2, 2), (7, 7), (60, 60)] {
            assert_eq!(of(&Timetable { per_hour, ..table.clone() }, "2026-11-30").len(), count);
        }
        let monthly = Timetable {
            days_of_week: Vec::new(),
            days_of_month: vec![31],
            months: vec!["FEB".to_owned()],
            ..table.clone()
        };
        assert!(of(&monthly, "2026-02-28").is_empty());
        for bad in [
            Timetable { hours_of_day: vec![24], ..table.clone() },
            Timetable { per_hour: 61, ..table.clone() },
            Timetable { days_of_week: vec!["mon".to_owned()], ..table.clone() },
            Timetable { days_of_month: vec![1], ..table.clone() },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        assert!(check(&table).is_ok());
    }

    #[test]
    fn a_missed_time_is_made_up_for_once_and_only_if_it_is_recent() {
        let cron = Cron::parse("0 * * * *").unwrap();
        let last = at("2026-11-26T08:00:00Z");
        assert_eq!(cron.due(last, at("2026-11-26T11:10:00Z")), Some(at("2026-11-26T11:00:00Z")));
        assert_eq!(cron.due(last, at("2026-11-26T11:20:00Z")), None);
        // The clock goes back.
        assert_eq!(cron.due(last, at("2026-11-26T07:59:00Z")), None);
        assert_eq!(cron.due(last, at("2026-11-26T08:00:30Z")), None);
    }
}
