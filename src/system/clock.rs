//! The clock of leases, and dates in UTC: what certificates and HTTP headers write, and RFC 3339 for logs. The control plane reads
//! times of people with a library; these few lines are what the runner needs.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Time since the start of the system, sleep included: leases and fences are measured by it, and nobody sets this clock.
pub fn since_boot() -> Duration {
    super::os::since_boot()
}

/// Days from 0000-03-01 to 1970-01-01. Years begin in March here, so that the leap day is the last of its year.
const MARCH_ERA: u64 = 719_468;

/// A date and time in UTC; years before 1970 count as 1970. `None` for what is no date, and from year 10000 on.
pub fn unix_time(year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64) -> Option<SystemTime> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if !(1970..=9999).contains(&year) {
        return (year < 1970).then_some(SystemTime::UNIX_EPOCH);
    }
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    let seconds = days.checked_sub(MARCH_ERA)? * 86_400 + hour * 3600 + minute * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Shows a time as `2026-11-25T04:05:06Z`, or with milliseconds. Times before 1970 are shown as 1970.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339 {
    /// Time that is written.
    pub time: SystemTime,
    /// Whether to show them.
    pub milliseconds: bool,
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400 + MARCH_ERA, since.as_secs() % 86_400);
        // 400 years have the same number of days, wherever they begin.
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        let (year, hour, minute) = (year + era * 400, second / 3600, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}", second % 60)?;
        if self.milliseconds {
            write!(f, ".{:03}", since.subsec_millis())?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_become_seconds() {
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(unix_time(1970, 1, 1, 0, 0, 0).map(seconds), Some(0));
        assert_eq!(unix_time(2000, 3, 1, 0, 0, 1).map(seconds), Some(951_868_801));
        assert_eq!(unix_time(2024, 2, 29, 23, 59, 59).map(seconds), Some(1_709_251_199));
        assert_eq!(unix_time(2024, 13, 1, 0, 0, 0), None);
        assert_eq!(unix_time(1949, 1, 1, 0, 0, 0).map(seconds), Some(0));
    }

    #[test]
    fn times_are_shown() {
        let shown = |millis: u64, milliseconds: bool| {
            Rfc3339 { time: SystemTime::UNIX_EPOCH + Duration::from_millis(millis), milliseconds }.to_string()
        };
        assert_eq!(shown(0, false), "1970-01-01T00:00:00Z");
        assert_eq!(shown(951_782_399_007, true), "2000-02-28T23:59:59.007Z");
        assert_eq!(shown(951_782_400_000, false), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_735_689_599_999, true), "2024-12-31T23:59:59.999Z");
        assert_eq!(shown(4_107_542_400_000, false), "2100-03-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_same_time(seconds in 0u64..250_000_000_000) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let shown = Rfc3339 { time, milliseconds: false }.to_string();
            let field = |from: usize, to: usize| shown[from..to].parse::<u64>().unwrap();
            let read = unix_time(field(0, 4), field(5, 7), field(8, 10), field(11, 13), field(14, 16), field(17, 19));
            prop_assert_eq!(read, Some(time), "{}", shown);
        }
    }
}
