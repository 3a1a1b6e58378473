//! Small facts about the system that every room may use: time, locks, processes, the shell, hexadecimal.

pub mod clock;
pub mod locks;
pub mod proc;
pub mod shell;

use std::time::SystemTime;

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
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
    fn digits_stand_in_the_order_of_the_bytes() {
        assert_eq!(super::hex(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]), "0123456789abcdef");
    }
}
