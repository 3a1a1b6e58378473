//! Durations as people write them in configs and settings: `10m`, `1h30m20s`, `1.25h`.

use std::time::Duration;

/// Parses a Go style duration of the units `h`, `m`, `s` and `ms`, with decimals, without sign.
/// The error is a sentence for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    let fail = || format!("`{text}` is not a duration (write it as `90s`, `10m`, `1.5h` or `1h30m20s`)");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(fail());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, nanos) = match tail {
            _ if tail.starts_with("ms") => ("ms", 1_000_000),
            _ if tail.starts_with('h') => ("h", 3_600_000_000_000),
            _ if tail.starts_with('m') => ("m", 60_000_000_000),
            _ if tail.starts_with('s') => ("s", 1_000_000_000),
            _ => return Err(fail()),
        };
        let part = part_of(number, nanos).ok_or_else(fail)?;
        total = total.checked_add(part).ok_or_else(fail)?;
        rest = &tail[unit.len()..];
    }
    Ok(total)
}

/// A decimal number of units of so many nanoseconds. In whole numbers: reading fractions as the library does
/// costs the small file 20 KB.
fn part_of(number: &str, unit: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut nanos = 0u64;
    for digit in whole.bytes() {
        nanos = nanos.checked_mul(10)?.checked_add(u64::from(digit - b'0').checked_mul(unit)?)?;
    }
    let mut worth = unit;
    for digit in fraction.bytes() {
        worth /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * worth)?;
    }
    Some(Duration::from_nanos(nanos))
}

/// Writes a duration the way Go does, to whole seconds above one: `5h0m0s`, `10m0s`, `1.5s`, `20ms`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 3600 {
        format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
    } else if seconds >= 60 {
        format!("{}m{}s", seconds / 60, seconds % 60)
    } else if seconds >= 1 {
        let text = format!("{seconds}.{:03}", duration.subsec_millis());
        format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
    } else {
        format!("{}ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        let seconds = |text| parse(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("10m"), Ok(600.0));
        assert_eq!(seconds("1h30m20s"), Ok(5420.0));
        assert_eq!(seconds("1.25h"), Ok(4500.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("0"), Ok(0.0));
        assert_eq!(parse("0.123456789123s"), Ok(Duration::from_nanos(123_456_789)));
        assert_eq!((seconds("1.s"), seconds(".5s"), seconds("01s")), (Ok(1.0), Ok(0.5), Ok(1.0)));
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for bad in
            ["", "10", "m", "1d", "-1s", "1.2.3s", "1h30", "99999999999999999999h", "NaNs", ".s", "1e3s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        assert_eq!(format(Duration::from_secs(600)), "10m0s");
        assert_eq!(format(Duration::from_secs(5420)), "1h30m20s");
        assert_eq!(format(Duration::from_millis(1500)), "1.5s");
        assert_eq!(format(Duration::from_millis(10_050)), "10.05s");
        assert_eq!(format(Duration::from_secs(20)), "20s");
    }
}
