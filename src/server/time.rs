//! Time as the control plane stores and shows it: milliseconds since 1970.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};

/// A point in time: Unix milliseconds by the clock of the control plane's host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// The last millisecond of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;

impl Millis {
    /// The last time that can be shown: what ends then never does.
    pub const NEVER: Self = Self(LAST_MS);

    /// The present. Rooms that decide are given the time instead.
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
    }

    /// The time that is so much later.
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_millis() as u64))
    }

    /// The time that is so much earlier, not before 1970.
    pub fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time.as_millis() as u64))
    }

    /// How long ago `earlier` was; nothing when it is not earlier.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 with milliseconds, as every API writes times.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The notation ends with the year 9999; what a runner says its clock showed may lie beyond.
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_MS));
        write!(f, "{}", humantime::format_rfc3339_millis(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_shown() {
        for (time, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Millis(time).to_string(), shown);
        }
    }
}
