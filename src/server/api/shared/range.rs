//! The part of a file that a client asks for with `Range`, and whether it still holds the same file (`If-Range`) or has
//! it already (`If-None-Match`).
//!
//! One range is served. Several at once are answered with the whole file, as RFC 9110 allows.

use axum::http::{HeaderMap, header};

/// Part of a file that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it, with 200.
    Whole,
    /// The bytes from the first to before the second, which are some, with 206.
    Part(u64, u64),
    /// No bytes: the range begins after the end, 416.
    Outside,
}

/// Reads what the headers of a request want of a file of `length` bytes, whose strong entity tag is `tag`; a file
/// without a tag never is the one that `If-Range` names. A range that is not understood is none.
pub fn wanted(headers: &HeaderMap, length: u64, tag: Option<&str>) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(header::RANGE) else { return Wanted::Whole };
    if headers.contains_key(header::IF_RANGE) && (tag.is_none() || text(header::IF_RANGE) != tag) {
        return Wanted::Whole;
    }
    let Some((unit, range)) = range.split_once('=') else { return Wanted::Whole };
    let Some((from, to)) = range.trim().split_once('-') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => part(from, to.saturating_add(1), length),
        (Some(from), None) if to.is_empty() => part(from, length, length),
        (None, Some(last)) if from.is_empty() => match last {
            0 => Wanted::Outside,
            last => part(length.saturating_sub(last), length, length),
        },
        _ => Wanted::Whole,
    }
}

/// Whether the client has what the entity tag names: it tells the tags of what it has, or `*` for anything.
pub fn is_named(headers: &HeaderMap, tag: &str) -> bool {
    let names = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|names| names.to_str().ok());
    let mut names = names.flat_map(|names| names.split(',')).map(str::trim);
    names.any(|name| name == "*" || name.trim_start_matches("W/") == tag.trim_start_matches("W/"))
}

/// A number as it stands in a range; one that no file reaches is the greatest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn part(from: u64, end: u64, length: u64) -> Wanted {
    if from >= length { Wanted::Outside } else { Wanted::Part(from, end.min(length)) }
}

/// `Content-Range` of the bytes from the first to before the second, or of none, of a file of `length` bytes.
pub fn content_range(part: Option<(u64, u64)>, length: u64) -> String {
    match part {
        Some((from, end)) => format!("bytes {from}-{}/{length}", end.saturating_sub(1)),
        None => format!("bytes */{length}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(range: &str, if_range: Option<&str>, length: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, tag.parse().unwrap());
        }
        wanted(&headers, length, Some("\"a\""))
    }

    #[test]
    fn one_range_is_read() {
        use Wanted::{Outside, Part, Whole};
        for (range, expected) in [
            ("bytes=0-3", Part(0, 4)),
            ("bytes=2-", Part(2, 10)),
            ("Bytes=9-99", Part(9, 10)),
            ("bytes=-4", Part(6, 10)),
            ("bytes=-40", Part(0, 10)),
            ("bytes=10-", Outside),
            ("bytes=-0", Outside),
            ("bytes=99999999999999999999-", Outside),
            ("bytes=0-99999999999999999999", Part(0, 10)),
            ("bytes=3-2", Whole),
            ("bytes=0-1,4-5", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("lines=0-1", Whole),
            ("x", Whole),
        ] {
            assert_eq!(of(range, None, 10), expected, "{range}");
        }
        assert_eq!(of("bytes=0-0", None, 0), Outside);
        assert_eq!(of("bytes=-1", None, 0), Outside);
        assert_eq!(wanted(&HeaderMap::new(), 10, None), Whole);
    }

    #[test]
    fn a_range_of_another_file_is_the_whole_of_this_one() {
        assert_eq!(of("bytes=0-3", Some("\"a\""), 10), Wanted::Part(0, 4));
        for other in ["\"b\"", "W/\"a\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(of("bytes=0-3", Some(other), 10), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn parts_are_named_by_their_last_byte() {
        assert_eq!(content_range(Some((0, 4)), 10), "bytes 0-3/10");
        assert_eq!(content_range(None, 10), "bytes */10");
    }
}
