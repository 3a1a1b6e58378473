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
        let (unit, seconds) = match tail {
            _ if tail.starts_with("ms") => ("ms", 0.001),
            _ if tail.starts_with('h') => ("h", 3600.0),
            _ if tail.starts_with('m') => ("m", 60.0),
            _ if tail.starts_with('s') => ("s", 1.0),
            _ => return Err(fail()),
        };
        let number: f64 = number.parse().map_err(|_| fail())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| fail())?;
        total = total.checked_add(part).ok_or_else(fail)?;
        rest = &tail[unit.len()..];
    }
    Ok(total)
}

/// Writes a duration the way Go does, to whole seconds above one: `5h0m0s`, `10m0s`, `1.5s`, `20ms`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 3600 {
        format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
    } else if seconds >= 60 {
        format!("{}m{}s", seconds / 60, seconds % 60)
    } else if seconds >= 1 {
        format!("{}s", duration.as_millis() as f64 / 1000.0)
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
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for bad in ["", "10", "m", "1d", "-1s", "1.2.3s", "1h30", "99999999999999999999h", "NaNs"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        assert_eq!(format(Duration::from_secs(600)), "10m0s");
        assert_eq!(format(Duration::from_secs(5420)), "1h30m20s");
        assert_eq!(format(Duration::from_millis(1500)), "1.5s");
    }
}
