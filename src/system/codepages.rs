//! Encodings of one byte for each character, which reports of tests and consoles still have: Windows-1252, which is
//! ISO 8859-1 with signs where that has control characters, and ISO 8859-15, which differs from that in eight more.

/// Bytes that are looked at for the encoding: the XML declaration comes first.
const HEAD: usize = 256;
/// Windows-1252 from 0x80 to 0x9f; zero where it has no character.
const WINDOWS: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,
    0x017d, 0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a,
    0x0153, 0, 0x017e, 0x0178,
];

/// The character of a byte.
pub type CodePage = fn(u8) -> char;

/// Windows-1252.
pub fn windows(byte: u8) -> char {
    let sign = usize::from(byte).checked_sub(0x80).and_then(|at| WINDOWS.get(at));
    match sign {
        None => char::from(byte),
        Some(0) => char::REPLACEMENT_CHARACTER,
        Some(code) => char::from_u32(u32::from(*code)).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

/// ISO 8859-15: where ISO 8859-1 has signs that nobody missed, it has the euro and letters of French and Finnish.
pub fn latin9(byte: u8) -> char {
    match byte {
        0xa4 => '€',
        0xa6 => 'Š',
        0xa8 => 'š',
        0xb4 => 'Ž',
        0xb8 => 'ž',
        0xbc => 'Œ',
        0xbd => 'œ',
        0xbe => 'Ÿ',
        byte => windows(byte),
    }
}

/// The one of them that the XML declaration names at this beginning of a file.
pub fn declared(beginning: &[u8]) -> Option<CodePage> {
    let head = String::from_utf8_lossy(&beginning[..beginning.len().min(HEAD)]).to_ascii_lowercase();
    let (declaration, _) = head.split_once("?>")?;
    let (_, after) = declaration.split_once("encoding")?;
    let quoted = after.trim_start().strip_prefix('=')?.trim_start();
    let quote = if quoted.starts_with('"') { '"' } else { '\'' };
    match quoted.strip_prefix(quote)?.split_once(quote)?.0 {
        "iso-8859-1" | "iso_8859-1" | "iso8859-1" | "latin1" | "latin-1" | "windows-1252" | "cp1252" => {
            Some(windows)
        }
        "iso-8859-15" | "iso_8859-15" | "iso8859-15" | "latin9" | "latin-9" => Some(latin9),
        _ => None,
    }
}

/// A text in one of them, with the later of two bytes that mean the same; `None` when it has other characters.
pub fn encoded(text: &str, page: CodePage) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for c in text.chars() {
        let mut byte = u8::try_from(c).unwrap_or(0xff);
        if !c.is_ascii() {
            byte = 0xff;
            while page(byte) != c {
                byte -= 1;
                if byte.is_ascii() {
                    return None;
                }
            }
        }
        bytes.push(byte);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_one_byte() {
        // Between ASCII and those, Latin-9 has no signs.
        for (page, first) in [(windows as CodePage, 0x80), (latin9, 0xa0)] {
            let bytes = (0..=0x7f).chain(first..=0xff);
            for byte in bytes.filter(|byte| page(*byte) != char::REPLACEMENT_CHARACTER) {
                assert_eq!(encoded(&page(byte).to_string(), page), Some(vec![byte]));
            }
        }
        assert_eq!(encoded("a€ß", windows).as_deref(), Some(&b"a\x80\xdf"[..]));
        assert_eq!(encoded("a€ß", latin9).as_deref(), Some(&b"a\xa4\xdf"[..]));
        assert_eq!(encoded("aπ", windows), None);
    }

    #[test]
    fn the_declaration_names_one() {
        let named = |text: &str| declared(text.as_bytes()).map(|page| page(0xa4));
        assert_eq!(named("<?xml version='1.0' encoding='ISO-8859-1'?><a/>"), Some('¤'));
        assert_eq!(named("<?xml version=\"1.0\" encoding = \"Latin-9\"?>"), Some('€'));
        for none in [
            "<?xml encoding='utf-8'?>",
            "<?xml encoding='koi8-r'?>",
            "<a encoding='latin1'/>",
            "",
            "<?xml encoding",
        ] {
            assert_eq!(named(none), None, "{none}");
        }
    }
}
