//! Limits of forges: the pause that an answer asks for, in whichever way it says so.

use crate::http::caller::AnyAnswer;
use crate::http::retry::retry_after;
use crate::server::pipelines::forge::words::doubled;
use crate::server::secrets::pace::TokenPace;
use crate::server::time::Millis;
use std::time::{Duration, SystemTime};

/// The longest pause that is kept, whatever a forge asks for: limits are of an hour.
const LONGEST_SECONDS: u64 = 3600;
/// A time that no clock shows, in seconds since 1970.
const FAR_FUTURE: u64 = 1 << 40;

/// Begins the pause that an answer asks for; its length in seconds.
pub(super) fn pause(pace: &TokenPace, answer: &AnyAnswer) -> Option<u64> {
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let (body, now) = (String::from_utf8_lossy(&answer.body), Millis::now().0 / 1000);
    let asked = asked_pause(answer.status, header, &body, now, pace.in_a_row());
    match asked {
        Some(seconds) => pace.pause(Duration::from_secs(seconds)),
        None if answer.status < 400 => pace.answered(),
        None => {}
    }
    asked
}

/// How long an answer asks for a pause of the token, in seconds: by its headers, or by its refusal alone. `now` is the time
/// in seconds, `in_a_row` how often it was asked for before.
fn asked_pause(
    status: u16,
    header: impl Fn(&str) -> Option<String>,
    body: &str,
    now: u64,
    in_a_row: u32,
) -> Option<u64> {
    // By the clock of the forge, where it tells the time.
    let theirs = header("date").and_then(|date| retry_after(&date, SystemTime::UNIX_EPOCH));
    let now = theirs.map(|time| time.as_secs()).filter(|time| *time < FAR_FUTURE).unwrap_or(now);
    let usual = doubled(in_a_row).max(60);
    if let Some(given) = header("retry-after").filter(|_| matches!(status, 403 | 429 | 500..=599)) {
        let given = given.trim();
        let is_huge = !given.is_empty() && given.bytes().all(|b| b.is_ascii_digit());
        let seconds = match retry_after(given, SystemTime::UNIX_EPOCH + Duration::from_secs(now)) {
            Some(wait) => wait.as_secs(),
            None if is_huge => LONGEST_SECONDS,
            None => usual,
        };
        return Some(seconds.clamp(1, LONGEST_SECONDS));
    }
    let either = |one: &str, other: &str| header(one).or_else(|| header(other));
    let is_refused = matches!(status, 403 | 429);
    if either("x-ratelimit-remaining", "ratelimit-remaining").is_some_and(|left| left.trim() == "0") {
        let reset =
            either("x-ratelimit-reset", "ratelimit-reset").and_then(|at| at.trim().parse::<u64>().ok());
        // Some count from now, others from 1970.
        let wait = reset.map(|at| if at < now / 2 { at } else { at.saturating_sub(now) });
        if let Some(wait) = wait.or(is_refused.then_some(usual)) {
            return Some(wait.clamp(1, LONGEST_SECONDS));
        }
    }
    let is_said = || body.to_ascii_lowercase().contains("rate limit");
    (status == 429 || status == 403 && is_said()).then_some(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_a_pause_is_understood_and_bounded() {
        let asked = |status, all: &[(&str, &str)], body: &str| {
            let header = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            asked_pause(status, header, body, 1_700_000_000, 0)
        };
        let after = |status, text: &str| asked(status, &[("retry-after", text)], "");
        assert_eq!((after(403, "30"), after(429, " 30 "), after(503, "30")), (Some(30), Some(30), Some(30)));
        assert_eq!((after(201, "30"), after(404, "30")), (None, None));
        assert_eq!((after(429, "0"), after(429, "100000000")), (Some(1), Some(3600)));
        assert_eq!((after(403, "99999999999999999999999"), after(403, "-1")), (Some(3600), Some(60)));
        assert_eq!(after(429, "Tue, 14 Nov 2023 22:15:20 GMT"), Some(120));
        let limit = |status, reset: &str| {
            asked(status, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)], "")
        };
        assert_eq!((limit(403, "1700000060"), limit(201, "1700000060")), (Some(60), Some(60)));
        assert_eq!((limit(200, "90"), limit(200, "1700000000000")), (Some(90), Some(3600)));
        assert_eq!(
            (limit(200, "1699999999"), limit(200, "soon"), limit(429, "soon")),
            (Some(1), None, Some(60))
        );
        assert_eq!(
            asked(200, &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1700000060")], ""),
            Some(60)
        );
        assert_eq!(
            asked(200, &[("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "1700000060")], ""),
            None
        );
        // The clock here is an hour off that of the forge.
        let date = ("date", "Tue, 14 Nov 2023 23:13:20 GMT");
        let spent = [date, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700003660")];
        assert_eq!(asked(403, &spent, ""), Some(60));
        assert_eq!(asked(403, &[], "You have exceeded a secondary rate limit"), Some(60));
        assert_eq!((asked(429, &[], ""), asked(403, &[], "Resource not accessible")), (Some(60), None));
        let never = [("date", "18446744073709551615"), ("retry-after", "30")];
        assert_eq!(asked(403, &never, ""), Some(30));
        assert_eq!(asked_pause(429, |_| None, "", 0, 7), Some(128));
    }
}
