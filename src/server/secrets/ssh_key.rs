//! SSH keys in OpenSSH's own format: made, and read as far as their public half.

use super::md5::md5;
use crate::protocol::Secret;
use crate::system::hex;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Longest key that is taken, in bytes.
const MOST_BYTES: usize = 16 * 1024;

/// A key with both halves.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Public half, in one line: the kind of the key, its half in base64, a comment.
    pub public: String,
    /// The file that ssh reads.
    pub private: Secret,
}

/// Makes an Ed25519 key. `None` when the system gives no random bytes.
pub fn make(comment: &str) -> Option<Pair> {
    let mut seed = [0; 32];
    let mut check = [0; 4];
    let random = SystemRandom::new();
    random.fill(&mut seed).and_then(|()| random.fill(&mut check)).ok()?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
    let half = pair.public_key().as_ref();
    let mut public = Vec::new();
    put(&mut public, b"ssh-ed25519");
    put(&mut public, half);

    let mut inner = Vec::new();
    inner.extend_from_slice(&check);
    inner.extend_from_slice(&check);
    put(&mut inner, b"ssh-ed25519");
    put(&mut inner, half);
    put(&mut inner, &[&seed, half].concat());
    put(&mut inner, comment.as_bytes());
    for byte in 1.. {
        if inner.len() % 8 == 0 {
            break;
        }
        inner.push(byte);
    }
    let mut outer = MAGIC.to_vec();
    put(&mut outer, b"none");
    put(&mut outer, b"none");
    put(&mut outer, b"");
    outer.extend_from_slice(&1_u32.to_be_bytes());
    put(&mut outer, &public);
    put(&mut outer, &inner);

    let mut text = format!("{BEGIN}\n");
    for (at, letter) in STANDARD.encode(outer).chars().enumerate() {
        if at > 0 && at % 70 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str(&format!("\n{END}\n"));
    Some(Pair { public: line(&public, comment), private: Secret::new(text) })
}

/// Reads a private key. The error is a sentence for people, and says nothing of the key.
pub fn read(text: &str, comment: &str) -> Result<Pair, &'static str> {
    const WRONG: &str = "it is no private key in OpenSSH's format (`-----BEGIN OPENSSH PRIVATE KEY-----`; `ssh-keygen -p -f FILE` rewrites an older one so)";
    if text.len() > MOST_BYTES {
        return Err("it is too long for a private key");
    }
    let inner = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(WRONG)?;
    let plain: String = inner.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(plain).map_err(|_| WRONG)?;
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(WRONG)?;
    let cipher = take(&mut rest).ok_or(WRONG)?;
    let (_kdf, _options) = (take(&mut rest).ok_or(WRONG)?, take(&mut rest).ok_or(WRONG)?);
    let count = rest.get(..4).ok_or(WRONG)?;
    if cipher != b"none" {
        return Err(
            "it has a passphrase, which nobody could type when a job runs: `ssh-keygen -p -f FILE` takes it away",
        );
    }
    if count != 1_u32.to_be_bytes() {
        return Err(WRONG);
    }
    rest = rest.get(4..).unwrap_or_default();
    let public = take(&mut rest).ok_or(WRONG)?;
    // The public half begins with the name of its kind, whichever that is.
    let name = take(&mut { public }).ok_or(WRONG)?;
    if name.is_empty() || !name.iter().all(|b| b.is_ascii_graphic()) {
        return Err(WRONG);
    }
    let private = Secret::new(format!("{BEGIN}\n{}\n{END}\n", inner.trim().replace('\r', "")));
    Ok(Pair { public: line(public, comment), private })
}

/// The fingerprints of a public half, as OpenSSH writes them: MD5 (`aa:bb:...`), and SHA-256 (`SHA256:...`).
pub fn fingerprints(public: &str) -> (String, String) {
    let half = public.split(' ').nth(1).unwrap_or_default();
    let bytes = STANDARD.decode(half).unwrap_or_default();
    let pairs: Vec<String> = md5(&bytes).iter().map(|byte| hex(&[*byte])).collect();
    (pairs.join(":"), format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, &bytes))))
}

fn line(public: &[u8], comment: &str) -> String {
    let name = take(&mut { public }).unwrap_or_default();
    format!("{} {} {comment}", String::from_utf8_lossy(name), STANDARD.encode(public))
}

fn put(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    into.extend_from_slice(bytes);
}

/// Takes the next string of the format: four bytes of length, and as many bytes.
fn take<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (taken, rest) = (rest.get(..length)?, rest.get(length..)?);
    *from = rest;
    Some(taken)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn what_is_made_is_what_openssh_reads_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let keygen = |args: &[&str]| {
            let output = Command::new("ssh-keygen").args(args).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        if Command::new("ssh-keygen").arg("-?").output().is_err() {
            return;
        }
        let made = make("runlet acme/app").unwrap();
        std::fs::write(at("made"), made.private.expose()).unwrap();
        std::fs::set_permissions(at("made"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let half = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(half(&keygen(&["-y", "-f", &at("made")])), half(&made.public));
        let (md5, sha256) = fingerprints(&made.public);
        assert!(keygen(&["-l", "-f", &at("made")]).contains(&sha256));
        assert!(keygen(&["-l", "-E", "md5", "-f", &at("made")]).contains(&md5));

        for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")] {
            let file = at(kind);
            keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-C", "x", "-f", &file]);
            let text = std::fs::read_to_string(&file).unwrap();
            let given = std::fs::read_to_string(format!("{file}.pub")).unwrap();
            let read = read(&text.replace('\n', "\r\n"), "x").unwrap();
            assert_eq!(
                (read.public.as_str(), read.private.expose()),
                (given.trim(), text.as_str()),
                "{kind}"
            );
        }
        keygen(&["-q", "-p", "-P", "", "-N", "a phrase", "-f", &at("rsa")]);
        let locked = std::fs::read_to_string(at("rsa")).unwrap();
        assert!(read(&locked, "x").unwrap_err().contains("passphrase"));
        keygen(&["-q", "-p", "-P", "", "-N", "", "-m", "PEM", "-f", &at("ecdsa")]);
        assert!(
            read(&std::fs::read_to_string(at("ecdsa")).unwrap(), "x").unwrap_err().contains("ssh-keygen")
        );
    }

    proptest! {
        #[test]
        fn whatever_is_given_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), keep in 0_usize..400) {
            let _ = read(&format!("{BEGIN}\n{}\n{END}", STANDARD.encode(&bytes)), "x");
            let whole = make("x").unwrap().private.expose().to_owned();
            let inner: String = whole.lines().filter(|line| !line.starts_with('-')).collect();
            let mut cut = STANDARD.decode(inner).unwrap();
            cut.truncate(keep);
            let _ = read(&format!("{BEGIN}\n{}\n{END}", STANDARD.encode(&cut)), "x");
        }
    }
}
