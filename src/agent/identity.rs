//! The identity of this machine, as the control plane may know it, and random names.

use crate::system::hex;
use ring::digest::{SHA256, digest};
use std::fs;

/// Hashed before the machine id, so that the id itself is not sent and hashes of other programs differ.
const PREFIX: &str = "runlet machine id\n";

/// The machine as 32 hexadecimal digits that stay the same over restarts; `None` where the system has no such
/// number.
pub(super) fn machine_id() -> Option<String> {
    let files = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    files.iter().find_map(|file| hashed(&fs::read_to_string(file).ok()?))
}

fn hashed(text: &str) -> Option<String> {
    let id = text.trim();
    // Images are shipped with an empty file, or with a word in place of the number.
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let sum = digest(&SHA256, format!("{PREFIX}{id}").as_bytes());
    Some(hex(sum.as_ref().get(..16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_without_telling_its_number() {
        let id = "0123456789abcdef0123456789abcdef";
        let told = hashed(&format!("{id}\n")).expect("a number");
        assert_eq!(told, "1593385fac469f260a168f4cb4322633");
        assert!(told.len() == 32 && hashed(id).as_deref() == Some(&told));
        for none in ["", "uninitialized\n", "0123", "0123456789abcdef0123456789abcdeg"] {
            assert_eq!(hashed(none), None, "{none}");
        }
    }
}
