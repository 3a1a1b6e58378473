//! The names of tests, from a file or standard input.

use super::speak::say;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::Path;

/// Longest input, in bytes: hundreds of thousands of names.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Reads names. They come sorted and each once: a test that is named twice still runs on one node.
pub(super) fn read(file: Option<&Path>, verbose: bool) -> Result<Vec<String>, String> {
    let mut bytes = Vec::new();
    let (shown, read) = match file {
        Some(file) if file.as_os_str() != "-" => (
            format!("`{}`", file.display()),
            std::fs::File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)),
        ),
        _ => {
            let input = std::io::stdin();
            if verbose || input.is_terminal() {
                say("Attempting to read from stdin. This will hang if no input is provided.");
            }
            ("standard input".to_owned(), input.take(LONGEST + 1).read_to_end(&mut bytes))
        }
    };
    read.map_err(|e| format!("failed to read the names of tests from {shown}: {e}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("the names of tests in {shown} are longer than {LONGEST} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        format!("the names of tests in {shown} are not UTF-8 after {} bytes", e.utf8_error().valid_up_to())
    })?;
    Ok(separate(&text))
}

fn separate(text: &str) -> Vec<String> {
    // Inserted, not collected: that would bring a sort of its own into the small file. A map, as environments are, not a
    // set, which nothing else there has.
    let mut names = BTreeMap::new();
    for name in text.split_ascii_whitespace() {
        names.insert(name.to_owned(), String::new());
    }
    names.into_keys().collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn white_space_separates() {
        assert_eq!(separate(" b\n\na\tc\r\na  é "), ["a", "b", "c", "é"]);
        assert!(separate(" \n").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("names");
        assert!(read(Some(&file), false).unwrap_err().contains("names`: No such file"));
        std::fs::write(&file, b"ok \xff").unwrap();
        assert!(read(Some(&file), false).unwrap_err().contains("not UTF-8 after 3 bytes"));
        std::fs::write(&file, b"b a").unwrap();
        assert_eq!(read(Some(&file), false).unwrap(), ["a", "b"]);
    }
}
