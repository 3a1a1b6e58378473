//! Times as Go writes them, which the values of the chart are in.

use std::time::Duration;

/// Reads `5h`, `5h5m`, `1m30s`, `250ms`.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match rest.get(..length)? {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = rest.get(length..)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn times_are_sums_of_units() {
        for (text, seconds) in
            [("5h", 18000.0), ("5h5m", 18300.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "5", "h", "5 h", "-1s", "5x", "1e9h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
