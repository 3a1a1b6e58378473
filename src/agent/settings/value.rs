//! Readers of single values: text to a checked value, or the reason why not.
//!
//! The reasons complete the sentence "`key` is `value` (...)"; whoever calls them adds key and place.

use crate::agent::gates::Room;
use crate::protocol::json;
use crate::protocol::limits::WORD_BYTES;
use crate::system::shell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The spellings of YAML and of Go.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" | "y" => Ok(true),
        "false" | "no" | "off" | "0" | "f" | "n" => Ok(false),
        _ => Err("expected `true` or `false` (or yes, no, on, off, 1, 0)".to_owned()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    crate::protocol::duration::parse(text)
        .map_err(|_| "expected a duration such as `90s`, `10m` or `1h30m20s`".to_owned())
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("expected an absolute path, beginning with `/`".to_owned())
    }
}

/// An absolute path, or one below the home directory written with `~/`.
pub(super) fn path(text: &str, home: Option<&str>) -> Result<PathBuf, String> {
    let Some(rest) = text.strip_prefix("~/").or((text == "~").then_some("")) else { return absolute(text) };
    match home {
        Some(home) => Ok(PathBuf::from(home).join(rest)),
        None => Err("`~` has no meaning here: HOME is not set".to_owned()),
    }
}

fn fits_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".()-_".contains(c)
}

pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > WORD_BYTES {
        return Err(format!("expected 1 to {WORD_BYTES} characters"));
    }
    match text.chars().find(|c| !fits_name(*c)) {
        _ if text.trim_matches('.').is_empty() => Err("expected more than dots".to_owned()),
        Some(_) => Err("expected letters, digits, `.`, `(`, `)`, `-` and `_` only".to_owned()),
        None => Ok(text.to_owned()),
    }
}

/// A host name as a runner's name: whatever does not fit becomes `-`.
pub(super) fn name_of_host(host: &str) -> Option<String> {
    let name: String = host.chars().take(WORD_BYTES).map(|c| if fits_name(c) { c } else { '-' }).collect();
    (!name.is_empty() && name != "(none)").then_some(name)
}

pub(super) fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected `host:port`".to_owned()),
    }
}

/// A number of bytes: `512M`, `2 GiB`, `1.5T` is none.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as `512M` or `20G` (K, M, G and T are powers of 1024)".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').map_or(unit.as_str(), |unit| unit.strip_suffix('i').unwrap_or(unit));
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().ok();
    number.and_then(|number| number.checked_mul(1 << (10 * power))).ok_or_else(wrong)
}

/// A whole number from 1 to `most`.
pub(super) fn number(text: &str, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {most}"))
}

/// A load such as `8` or `2.5`, in hundredths.
pub(super) fn load(text: &str) -> Result<u32, String> {
    crate::agent::gates::hundredths(text)
        .filter(|load| *load > 0)
        .ok_or_else(|| "expected a load above 0, such as `8` or `2.5`".to_owned())
}

/// Room that is to stay free: a size, or a part of the whole as `10%`.
pub(super) fn room(text: &str) -> Result<Room, String> {
    match text.strip_suffix('%') {
        Some(percent) => number(percent.trim(), 99).map(|percent| Room::Percent(percent as u8)),
        None => size(text).map(Room::Bytes).map_err(|why| format!("{why}, or a part such as `10%`")),
    }
}

/// Permissions of a file: `0660`.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected permissions as an octal number, such as `0660`".to_owned())
}

/// An address to listen on.
pub(in crate::agent) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an address and a port, such as `127.0.0.1:9101` or `[::]:9101`".to_owned())
}

/// A list in one variable: a JSON list of strings, or words as a shell would split them.
pub(super) fn list(text: &str) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('[') {
        return json::read(text.as_bytes()).map_err(|_| "expected a JSON list of strings".to_owned());
    }
    shell::words(text).map_err(|_| "it ends within a quote".to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_json_or_words() {
        assert_eq!(list("sudo -niHu 'a b' --").unwrap(), ["sudo", "-niHu", "a b", "--"]);
        assert_eq!(list(" \"x\\\"y\" a\\ b '' ").unwrap(), ["x\"y", "a b", ""]);
        assert_eq!(list(r#"["env", "A=b c"]"#).unwrap(), ["env", "A=b c"]);
        assert_eq!(list("").unwrap(), [""; 0]);
        for bad in ["'a", "a \"b", "a\\", "[1]", "[\"a\""] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_checked_and_host_names_cleaned() {
        assert!(name("a.b(c)-_9").is_ok());
        for bad in ["", "a b", "ä", "a/b", "..", &"x".repeat(256)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(name_of_host("köln:1").as_deref(), Some("k-ln-1"));
        assert_eq!(name_of_host(""), None);
        assert_eq!(name_of_host("(none)"), None);
    }

    #[test]
    fn paths_are_absolute_or_below_home() {
        assert_eq!(path("~/x", Some("/home/a")), Ok(PathBuf::from("/home/a/x")));
        assert_eq!(path("/x", None), Ok(PathBuf::from("/x")));
        assert!(path("~/x", None).unwrap_err().contains("HOME"));
        assert!(path("x", Some("/h")).is_err() && path("~a/x", Some("/h")).is_err());
    }

    #[test]
    fn sizes_loads_and_modes() {
        for (text, bytes) in [("0", 0), ("512", 512), ("4K", 4096), ("2 GiB", 2 << 30), ("1tb", 1 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "1.5G", "-1", "2X", "99999999999T", "18446744073709551615T"] {
            assert!(size(bad).unwrap_err().contains("`512M`"), "{bad}");
        }
        assert_eq!((room("10 %"), room("3G")), (Ok(Room::Percent(10)), Ok(Room::Bytes(3 << 30))));
        assert!(room("100%").is_err() && room("x").unwrap_err().contains("`10%`"));
        assert_eq!((load("8"), load("2.5")), (Ok(800), Ok(250)));
        assert!(load("0").is_err() && load("many").is_err());
        assert_eq!((mode("0660"), mode("600")), (Ok(0o660), Ok(0o600)));
        assert!(mode("888").is_err() && mode("7777").is_err() && mode("").is_err());
        assert!(number("0", 9).is_err() && number("10", 9).is_err() && number("9", 9) == Ok(9));
        assert!(
            listen("127.0.0.1:9101").is_ok() && listen("localhost:1").is_err() && listen("9101").is_err()
        );
    }

    #[test]
    fn small_values() {
        assert_eq!((boolean("True"), boolean("0")), (Ok(true), Ok(false)));
        assert!(boolean("maybe").is_err() && boolean("").is_err());
        assert!(
            host_and_port("[::1]:54782").is_ok()
                && host_and_port("h:x").is_err()
                && host_and_port(":1").is_err()
        );
        assert!(duration("1 day").is_err());
    }
}
