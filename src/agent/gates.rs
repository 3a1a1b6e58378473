//! Reasons of a runner not to ask for tasks though it could: hours of the operator, the load of the host, a disk that
//! is nearly full. Looked at before each claim; a running task is left alone.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Pause between two looks at a host that is loaded or full.
const LOOK: Duration = Duration::from_secs(15);
const MINUTES_OF_DAY: u64 = 24 * 60;

/// Limits, each of which may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// `runner.max_load`, in hundredths: the load of the last minute.
    pub max_load: Option<u32>,
    /// Hours without claims, `runner.quiet_hours`.
    pub quiet_hours: Vec<Hours>,
    /// `runner.min_free_disk`: of the file system with the working directory.
    pub min_free_disk: Option<Room>,
}

/// Room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Part of the whole.
    Percent(u8),
    /// Room in bytes.
    Bytes(u64),
}

/// Hours of each day, in UTC; they may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// First minute of the day.
    from: u64,
    /// First minute after them.
    to: u64,
}

/// The reason for asking for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// Reason, for people.
    pub(super) why: String,
    /// Reason in one word, for programs.
    pub(super) kind: &'static str,
    /// The time until it is worth a look again.
    pub(super) wait: Duration,
}

impl Hours {
    /// Reads `22:00-06:00`; the error says what is expected.
    pub fn read(text: &str) -> Result<Self, String> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute) = (hour.parse::<u64>().ok()?, minute.parse::<u64>().ok()?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let hours =
            text.split_once('-').and_then(|(from, to)| Some(Self { from: minute(from)?, to: minute(to)? }));
        let hours = hours.filter(|hours| hours.from != hours.to);
        hours.ok_or_else(|| "expected hours in UTC as `22:00-06:00`".to_owned())
    }

    /// The time to their end, if this is one of them; else the time to their beginning.
    fn left(self, now: SystemTime) -> (bool, Duration) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (minute, into) =
            (since.as_secs() / 60 % MINUTES_OF_DAY, Duration::from_secs(since.as_secs() % 60));
        let until = |at: u64| {
            let minutes = (at + MINUTES_OF_DAY - minute) % MINUTES_OF_DAY;
            Duration::from_secs(minutes * 60).saturating_sub(into)
        };
        let is_within = match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => !(self.to..self.from).contains(&minute),
        };
        (is_within, until(if is_within { self.to } else { self.from }))
    }

    /// The hours as settings write them: `22:00-06:00`.
    pub fn text(self) -> String {
        let Self { from, to } = self;
        format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Room {
    /// Whether less than this is left of a file system, given the bytes that it has and those that are free.
    fn is_missing(self, all: u64, free: u64) -> bool {
        match self {
            Room::Bytes(bytes) => free < bytes,
            Room::Percent(percent) => u128::from(free) * 100 < u128::from(all) * u128::from(percent),
        }
    }

    /// The room as settings write it: `10%` or a size in bytes.
    pub fn text(self) -> String {
        match self {
            Room::Percent(percent) => format!("{percent}%"),
            Room::Bytes(bytes) => bytes_text(bytes),
        }
    }
}

impl Gates {
    /// The reason for which this host takes no task now.
    pub(super) fn closed(&self, working_directory: &Path, now: SystemTime) -> Option<Closed> {
        let load = self.max_load.and_then(|_| crate::system::os::load());
        let room = self.min_free_disk.and_then(|_| room_of(working_directory));
        self.decide(now, load.as_deref(), room, working_directory)
    }

    fn decide(
        &self,
        now: SystemTime,
        load: Option<&str>,
        room: Option<(u64, u64)>,
        folder: &Path,
    ) -> Option<Closed> {
        for hours in &self.quiet_hours {
            if let (true, wait) = hours.left(now) {
                let why = format!("quiet hours ({} UTC, `runner.quiet_hours`)", hours.text());
                return Some(Closed { why, kind: "quiet hours", wait });
            }
        }
        let load = load.and_then(|text| text.split_ascii_whitespace().next());
        if let (Some(most), Some(text)) = (self.max_load, load) {
            if hundredths(text).is_some_and(|load| load > most) {
                let why = format!("the load is {text}, above `runner.max_load`");
                return Some(Closed { why, kind: "load", wait: LOOK });
            }
        }
        let (least, (all, free)) = (self.min_free_disk?, room?);
        least.is_missing(all, free).then(|| {
            let (free, least) = (bytes_text(free), least.text());
            let why = format!(
                "the disk of `{}` has {free} left, less than `runner.min_free_disk` ({least})",
                folder.display()
            );
            Closed { why, kind: "disk low", wait: LOOK }
        })
    }

    /// The time until hours begin in which nothing is asked for: a claim is not to be parked for longer.
    pub(super) fn open_for(&self, now: SystemTime) -> Duration {
        let until = |hours: &Hours| hours.left(now).1;
        self.quiet_hours.iter().map(until).fold(Duration::MAX, Duration::min)
    }
}

/// Bytes of the file system of a folder, or of the nearest one above it that is there: all, and those that are free.
pub(super) fn room_of(folder: &Path) -> Option<(u64, u64)> {
    let about = folder.ancestors().find_map(|folder| crate::system::os::statvfs(folder).ok())?;
    Some((about.f_blocks.saturating_mul(about.f_frsize), about.f_bavail.saturating_mul(about.f_frsize)))
}

/// Bytes for people, and for settings: the largest unit that leaves a whole number, or nearly so.
pub(super) fn bytes_text(bytes: u64) -> String {
    let mut text = String::new();
    let is_whole = |power: &u32| bytes >= 1 << (10 * power) && bytes % (1 << (10 * power)) == 0;
    let power =
        (1..=4).rev().find(is_whole).or_else(|| (1..=4).rev().find(|power| bytes >= 10 << (10 * power)));
    // Writing to a string cannot fail.
    let _ = match power {
        Some(power) => write!(text, "{}{}", bytes >> (10 * power), ["", "K", "M", "G", "T"][power as usize]),
        None => write!(text, "{bytes}"),
    };
    text
}

/// A decimal number in hundredths. In whole numbers: reading fractions as the library does costs the small file 20 KB.
pub(super) fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain(['0', '0']).take(2).collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(digits.parse().ok()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(hour: u64, minute: u64, second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 20_000 + hour * 3600 + minute * 60 + second)
    }

    #[test]
    fn hours_go_over_midnight() {
        let night = Hours::read("22:00-06:30").unwrap();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(night.left(at(21, 59, 30)), (false, Duration::from_secs(30)));
        assert_eq!(night.left(at(22, 0, 0)), (true, minutes(510)));
        assert_eq!(night.left(at(0, 0, 1)), (true, minutes(390) - Duration::from_secs(1)));
        assert_eq!(night.left(at(6, 30, 0)), (false, minutes(930)));
        assert!(Hours::read("9:05-17:00").unwrap().left(at(16, 59, 59)).0);
        for bad in ["", "22:00", "24:00-1:00", "1:60-2:00", "6:00-6:00", "a:b-c:d"] {
            assert!(Hours::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_closed_for_the_first_reason_and_says_it() {
        let gates = Gates {
            max_load: Some(250),
            quiet_hours: vec![Hours::read("22:00-06:00").unwrap()],
            min_free_disk: Some(Room::Percent(10)),
        };
        let decide = |now, load, room| gates.decide(now, Some(load), Some(room), Path::new("/w"));
        let (day, idle, plenty) = (at(12, 0, 0), "2.50 9.00 9.00 1/100 7\n", (1000, 100));
        assert_eq!(decide(day, idle, plenty), None);
        let quiet = decide(at(23, 0, 0), "9.00 1", (1000, 0)).unwrap();
        assert_eq!((quiet.kind, quiet.wait), ("quiet hours", Duration::from_secs(7 * 3600)));
        assert!(quiet.why.contains("22:00-06:00 UTC"), "{quiet:?}");
        assert!(decide(day, "2.51 0 0", plenty).unwrap().why.starts_with("the load is 2.51, above"));
        let full = decide(day, idle, (1000, 99)).unwrap();
        assert_eq!(full.why, "the disk of `/w` has 99 left, less than `runner.min_free_disk` (10%)");
        assert_eq!(
            gates.decide(day, None, None, Path::new("/w")),
            None,
            "what cannot be known closes nothing"
        );
        assert_eq!(gates.open_for(at(21, 0, 0)), Duration::from_secs(3600));
        assert_eq!(Gates::default().open_for(day), Duration::MAX);
    }

    #[test]
    fn numbers_for_people() {
        for (text, number) in
            [("0.07", Some(7)), ("12", Some(1200)), ("2.5", Some(250)), ("1.239", Some(123))]
        {
            assert_eq!(hundredths(text), number, "{text}");
        }
        for bad in ["", ".", "1.", "-1", "a", "99999999999", "1.x"] {
            assert_eq!(hundredths(bad), None, "{bad}");
        }
        let shown = [(99, "99"), (2 << 30, "2G"), (1500 << 20, "1500M"), (20_000, "19K"), (1 << 40, "1T")];
        assert!(shown.iter().all(|(bytes, text)| bytes_text(*bytes) == *text));
        assert!(room_of(Path::new("/nonexistent/x")).is_some_and(|(all, free)| all >= free));
    }
}
