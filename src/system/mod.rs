//! Small facts about the system that every room may use: time, faults of the host, locks, processes, signals, threads,
//! probes, the service manager, the shell, files for git, mistyped words, encodings, hexadecimal.

pub mod clock;
pub mod codepages;
pub mod command;
pub mod fault;
pub mod git_files;
pub mod locks;
pub mod opening;
pub mod os;
pub mod probes;
pub mod proc;
#[cfg(test)]
pub mod seeded;
pub mod service;
pub mod shell;
pub mod signals;
pub mod suggest;
pub mod threads;

use std::time::SystemTime;

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Whether a text fits a pattern, in which `gap` stands for anything.
pub fn fits(pattern: &str, gap: &str, text: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once(gap) else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    while let Some((part, after)) = rest.split_once(gap) {
        let Some(at) = text.find(part) else { return false };
        (text, rest) = (&text[at + part.len()..], after);
    }
    text.ends_with(rest)
}

/// Keeps other processes of the same user out of this one's memory and environment, and out of core dumps: what it
/// starts is told no secrets but by intent. A program that it starts begins without this.
pub fn keep_memory_private() {
    if let Err(error) = os::keep_memory_private() {
        log::info!("cannot keep the memory of this process private: {error}");
    }
}

/// 128 random bits as 32 hexadecimal digits. Not a secret, but it should not be guessed by chance.
pub fn random_id() -> String {
    let mut bytes = [0u8; 16];
    if ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).is_err() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        bytes = (now << 32 | u128::from(std::process::id())).to_be_bytes();
    }
    hex(&bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_gap_stands_for_anything() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("*x*", "aXb", false),
            ("**", "x/y", true),
        ] {
            assert_eq!(super::fits(pattern, "*", text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn digits_stand_in_the_order_of_the_bytes() {
        assert_eq!(super::hex(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]), "0123456789abcdef");
    }
}
