//! The issuer of a certificate and when it holds: just enough of X.509 for error messages and for
//! recognising a certificate that is trusted by itself.
//!
//! No decision about trust rests on what is read here except the dates of a certificate that the
//! operator named byte for byte. Malformed input gives `None`, never a panic.

use crate::system::clock::unix_time;
use std::time::SystemTime;

/// Facts of a certificate for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateFacts {
    /// `CN=..., O=...` of whoever signed it.
    pub(super) issuer: String,
    /// `CN=..., O=...` of its owner.
    pub(super) subject: String,
    /// Start of its validity.
    pub(super) not_before: SystemTime,
    /// End of its validity.
    pub(super) not_after: SystemTime,
    /// Whether it is of the version that names hosts.
    pub(super) is_version_3: bool,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const VERSION: u8 = 0xa0;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
/// Object id of `rsaEncryption`.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// Reads a DER certificate.
pub(super) fn facts(der: &[u8]) -> Option<CertificateFacts> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    let mut tbs = Der(certificate.expect(SEQUENCE)?);
    let is_version_3 = tbs.peek() == Some(VERSION) && tbs.next()?.1 == [INTEGER, 1, 2];
    tbs.next()?; // serial number
    tbs.expect(SEQUENCE)?; // signature algorithm
    let issuer = name(tbs.expect(SEQUENCE)?)?;
    let mut validity = Der(tbs.expect(SEQUENCE)?);
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    let subject = name(tbs.expect(SEQUENCE)?)?;
    Some(CertificateFacts { issuer, subject, not_before, not_after, is_version_3 })
}

/// The length of a public key (the inside of a `SubjectPublicKeyInfo`), if it is RSA.
pub(super) fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut key = Der(key);
    if Der(key.expect(SEQUENCE)?).next()?.1 != RSA {
        return None;
    }
    let mut numbers = Der(Der(key.expect(BIT_STRING)?.get(1..)?).expect(SEQUENCE)?);
    let modulus = numbers.expect(INTEGER)?;
    // The first byte may be there for the sign only.
    let leading = modulus.iter().position(|byte| *byte != 0)?;
    Some(8 * (modulus.len() - leading) - usize::try_from(modulus[leading].leading_zeros()).ok()?)
}

/// A reader of DER elements.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let digits = usize::from(first & 0x7f);
            if digits == 0 || digits > 3 || rest.len() < digits {
                return None;
            }
            length = rest[..digits].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = &rest[digits..];
        }
        if rest.len() < length {
            return None;
        }
        let (body, rest) = rest.split_at(length);
        self.0 = rest;
        Some((tag, body))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, body)| body)
    }
}

/// The common name and the organisation, or whatever else the name consists of.
pub(super) fn name(body: &[u8]) -> Option<String> {
    let mut sets = Der(body);
    let (mut known, mut other) = (Vec::new(), Vec::new());
    while sets.peek().is_some() {
        let mut set = Der(sets.next()?.1);
        while set.peek().is_some() {
            let mut pair = Der(set.expect(SEQUENCE)?);
            let (oid, (tag, value)) = (pair.next()?.1, pair.next()?);
            let text = text(tag, value);
            match oid {
                [0x55, 4, 3] => known.insert(0, format!("CN={text}")),
                [0x55, 4, 10] => known.push(format!("O={text}")),
                [0x55, 4, 11] => known.push(format!("OU={text}")),
                _ => other.push(text),
            }
        }
    }
    let parts = if known.is_empty() { other } else { known };
    Some(if parts.is_empty() { "an authority without a name".to_owned() } else { parts.join(", ") })
}

/// A string of any of X.509's kinds; control characters cannot reach a terminal or a log.
fn text(tag: u8, value: &[u8]) -> String {
    let decoded = if tag == BMP_STRING {
        let units: Vec<u16> =
            value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    } else {
        String::from_utf8_lossy(value).into_owned()
    };
    decoded.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time((tag, value): (u8, &[u8])) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: u64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let field = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    unix_time(year, field(0)?, field(2)?, field(4)?, field(6)?, field(8)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seconds(time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn names_and_dates_are_read() {
        let mut parameters = rcgen::CertificateParams::new(vec!["ci.example".to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "Acme Root");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme\x07 Ltd");
        parameters.not_before = rcgen::date_time_ymd(2020, 2, 29);
        parameters.not_after = rcgen::date_time_ymd(2061, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let facts = facts(certificate.der()).unwrap();
        assert_eq!(facts.issuer, "CN=Acme Root, O=Acme? Ltd");
        assert_eq!(facts.subject, facts.issuer);
        assert!(facts.is_version_3);
        assert_eq!(seconds(facts.not_before), 1_582_934_400);
        assert_eq!(seconds(facts.not_after), 2_871_849_600);
    }

    #[test]
    fn wide_characters_and_long_lengths_are_most_significant_first() {
        assert_eq!(text(BMP_STRING, &[0, b'G', 0, 0xf6, 0x20, 0xac]), "Gö€");
        let long = [&[SEQUENCE, 0x82, 0x01, 0x02][..], &[7; 0x102], &[9, 0]].concat();
        let mut der = Der(&long);
        assert_eq!(der.next(), Some((SEQUENCE, &[7; 0x102][..])));
        assert_eq!(der.next(), Some((9, &[][..])));
    }

    #[test]
    fn damage_is_no_panic() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().to_vec();
        for length in 0..der.len() {
            assert_eq!(facts(&der[..length]), None, "{length}");
            let mut damaged = der.clone();
            damaged[length] ^= 0xff;
            let _ = facts(&damaged);
        }
    }
}
