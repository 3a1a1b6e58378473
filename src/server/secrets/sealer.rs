//! Sealing of variable values: what is stored can be read with the key file only.
//!
//! A sealed value is bound to its place (table, owner, name), so rows cannot be swapped or renamed by
//! whoever can write the database. `variables` seals when it stores, `handout` opens when a task is handed
//! out; nothing else sees a value. Tokens of tasks are made with the key as well.

use crate::logging::record;
use crate::protocol::Secret;
use crate::server::ids::{ContextId, OrganisationId, ProjectId};
use crate::server::store::tables::variables::{VariableOwner, list_all_sealed};
use crate::server::store::{Error as StoreError, View};
use crate::system::hex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First byte of what is stored: how the rest is to be read.
const FORMAT: u8 = 1;
/// Bytes of the key's fingerprint in each sealed value.
const FINGERPRINT_LEN: usize = 8;
/// A key file has 64 hexadecimal digits and a line end.
const KEY_LEN: usize = 32;
const MOST_KEY_FILE_BYTES: u64 = 256;

/// The place of a sealed value: it can be opened for this place only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedFor<'a> {
    /// The variable of this name of the project.
    Project(&'a ProjectId, &'a str),
    /// The variable of this name of the context.
    Context(&'a ContextId, &'a str),
    /// The secret of this name that belongs to the project's connection to its forge.
    Forge(&'a ProjectId, &'a str),
    /// The GitHub App of the project or organisation with this id.
    App(&'a str),
    /// The token of the organisation for the forge at this address.
    Organisation(&'a OrganisationId, &'a str),
    /// An address that opens something for a while to whoever has it. Never stored.
    Link,
}

impl SealedFor<'_> {
    /// Lengths stand before the texts, so that no two places read the same.
    fn associated_data(&self) -> Vec<u8> {
        let (table, owner, name) = match self {
            SealedFor::Project(owner, name) => ("project_variables", owner.as_str(), *name),
            SealedFor::Context(owner, name) => ("context_variables", owner.as_str(), *name),
            SealedFor::Forge(owner, name) => ("forge_secrets", owner.as_str(), *name),
            SealedFor::App(owner) => ("forge_apps", *owner, ""),
            SealedFor::Organisation(owner, address) => ("forge_tokens", owner.as_str(), *address),
            SealedFor::Link => ("link", "", ""),
        };
        let mut data = b"runlet sealed value".to_vec();
        for part in [table, owner, name] {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }
}

/// The reason why a value cannot be sealed or opened. It says nothing of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The value was sealed with another key.
    OtherKey,
    /// The value is damaged, or stands in a place that it was not sealed for.
    Damaged,
    /// The system gave no random bytes.
    NoRandomness,
}

impl std::error::Error for SealError {}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SealError::OtherKey => "it was sealed with another key than the one in use",
            SealError::Damaged => "it is damaged, or was moved from another place",
            SealError::NoRandomness => "the system gave no random bytes",
        })
    }
}

/// The key in memory.
pub struct Sealer {
    key: LessSafeKey,
    tokens: hmac::Key,
    fingerprint: [u8; FINGERPRINT_LEN],
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(****)")
    }
}

impl Sealer {
    fn of_key(key: &[u8; KEY_LEN]) -> Option<Self> {
        let labelled = |label: &[u8]| digest(&SHA256, &[label, key].concat());
        let mut fingerprint = [0; FINGERPRINT_LEN];
        fingerprint.copy_from_slice(&labelled(b"runlet key fingerprint").as_ref()[..FINGERPRINT_LEN]);
        let tokens = hmac::Key::new(hmac::HMAC_SHA256, labelled(b"runlet key of task tokens").as_ref());
        Some(Self { key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?), tokens, fingerprint })
    }

    /// The token of a task that belongs to these words, and to no others. The same words give the same token, so that of
    /// a call that arrives twice either answer will do; without the key nobody can tell it.
    pub fn task_token(&self, words: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.tokens);
        for word in words {
            context.update(&(word.len() as u64).to_be_bytes());
            context.update(word.as_bytes());
        }
        format!("rlt_{}", hex(context.sign().as_ref()))
    }

    /// Seals a value for one place.
    pub fn seal(&self, place: SealedFor<'_>, value: &Secret) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut text = value.expose().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.associated_data()),
                &mut text,
            )
            .map_err(|_| SealError::Damaged)?;
        let mut sealed = vec![FORMAT];
        sealed.extend_from_slice(&self.fingerprint);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what [`Sealer::seal`] made for the same place.
    pub fn open(&self, place: SealedFor<'_>, sealed: &[u8]) -> Result<Secret, SealError> {
        let rest = sealed.strip_prefix(&[FORMAT]).ok_or(SealError::Damaged)?;
        let (fingerprint, rest) = rest.split_at_checked(FINGERPRINT_LEN).ok_or(SealError::Damaged)?;
        if fingerprint != self.fingerprint {
            return Err(SealError::OtherKey);
        }
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let mut text = text.to_vec();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(place.associated_data()), &mut text)
            .map_err(|_| SealError::Damaged)?;
        let value = std::str::from_utf8(opened).map_err(|_| SealError::Damaged)?;
        Ok(Secret::new(value))
    }
}

/// Makes the text that stands in place of a value wherever people look at it: `xxxx` and the end of the value, at most
/// four characters and never more than half of it.
pub fn hint(value: &Secret) -> String {
    let length = value.expose().chars().count();
    let shown = 4.min(length / 2);
    let end: String = value.expose().chars().skip(length - shown).collect();
    format!("xxxx{end}")
}

/// The reason why there is no key to start with.
#[derive(Debug)]
pub enum KeyError {
    /// The key file is not there, and values are sealed with it: how many.
    Missing(PathBuf, usize),
    /// The key file cannot be opened or read.
    Unreadable(PathBuf, io::Error),
    /// The key file can be read or changed by others than its owner; this is its mode.
    Exposed(PathBuf, u32),
    /// The key file does not hold a key.
    NotAKey(PathBuf),
    /// The key file holds another key than the one that the stored values were sealed with.
    OtherKey(PathBuf),
    /// The key file cannot be made.
    NotMade(PathBuf, io::Error),
    /// The sealed values cannot be read.
    Store(StoreError),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Missing(path, count) => {
                let variables = if *count == 1 { "variable" } else { "variables" };
                write!(
                    f,
                    "the key file `{}` is missing, and {count} {variables} in the database are sealed with it: put it back from your backup, or name it with `--secrets-key FILE`; without it these values are lost",
                    path.display()
                )
            }
            KeyError::Unreadable(path, error) => {
                write!(f, "failed to read the key file `{}`: {error}", path.display())
            }
            KeyError::Exposed(path, mode) => {
                let path = path.display();
                write!(
                    f,
                    "refusing the key file `{path}`: others may read or change it (mode {mode:04o}); run `chmod 600 {path}`"
                )
            }
            KeyError::NotAKey(path) => write!(
                f,
                "`{}` is not a key file: it must hold 64 hexadecimal digits (put the right file back from your backup)",
                path.display()
            ),
            KeyError::OtherKey(path) => write!(
                f,
                "the key file `{}` does not open the variables in the database: they were sealed with another key (put the right key file back, or name it with `--secrets-key FILE`)",
                path.display()
            ),
            KeyError::NotMade(path, error) => {
                write!(f, "failed to create the key file `{}`: {error}", path.display())
            }
            KeyError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KeyError {}

/// Reads the key file, or makes it when there is nothing yet that it would have to open. `view` is of the
/// database, for the values that are sealed in it. `durable` waits until a key that was made is on the disk.
pub fn open_key(path: &Path, view: &View, durable: bool) -> Result<Sealer, KeyError> {
    let sealed = list_all_sealed(view).map_err(KeyError::Store)?;
    let sealer = match File::open(path) {
        Ok(file) => read_key(path, file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && sealed.is_empty() => {
            make_key(path, durable)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing(path.to_owned(), sealed.len()));
        }
        Err(error) => return Err(KeyError::Unreadable(path.to_owned(), error)),
    };
    for (owner, variable) in &sealed {
        let (place, owner) = match owner {
            VariableOwner::Project(id) => (SealedFor::Project(id, &variable.name), id.as_str()),
            VariableOwner::Context(id) => (SealedFor::Context(id, &variable.name), id.as_str()),
            VariableOwner::Forge(id) => (SealedFor::Forge(id, &variable.name), id.as_str()),
            VariableOwner::App(id) => (SealedFor::App(id), id.as_str()),
            VariableOwner::Organisation(id, address) => (SealedFor::Organisation(id, address), id.as_str()),
        };
        match sealer.open(place, &variable.sealed) {
            Ok(_) => {}
            Err(SealError::OtherKey) => return Err(KeyError::OtherKey(path.to_owned())),
            // A bad row must not keep a whole control plane down; jobs that need it say so.
            Err(error) => {
                record!(Error, variable = variable.name.as_str(), owner = owner;
                    "a stored variable cannot be opened: {error}; set it again"
                );
                break;
            }
        }
    }
    Ok(sealer)
}

fn read_key(path: &Path, mut file: File) -> Result<Sealer, KeyError> {
    let fail = |error: io::Error| KeyError::Unreadable(path.to_owned(), error);
    let mode = file.metadata().map_err(fail)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed(path.to_owned(), mode));
    }
    let mut text = String::new();
    (&mut file).take(MOST_KEY_FILE_BYTES).read_to_string(&mut text).map_err(fail)?;
    let sealer = unhex(text.trim_end()).and_then(|key| Sealer::of_key(&key));
    sealer.ok_or_else(|| KeyError::NotAKey(path.to_owned()))
}

fn make_key(path: &Path, durable: bool) -> Result<Sealer, KeyError> {
    let fail = |error: io::Error| KeyError::NotMade(path.to_owned(), error);
    let mut key = [0u8; KEY_LEN];
    SystemRandom::new().fill(&mut key).map_err(|_| fail(io::Error::other(SealError::NoRandomness)))?;
    // Written beside and renamed, so that a crash leaves a whole key or none.
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let write = || -> io::Result<()> {
        let _ = std::fs::remove_file(&draft);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{}\n", crate::system::hex(&key)).as_bytes())?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&draft, path)?;
        if !durable {
            return Ok(());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(fail)?;
    Sealer::of_key(&key).ok_or_else(|| fail(io::Error::other("it has the wrong length")))
}

fn unhex(text: &str) -> Option<[u8; KEY_LEN]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, d| sum << 4 | d)).collect();
    if digits.len() == 2 * KEY_LEN { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its folder should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::Store;
    use crate::server::store::tables::projects::ensure_project;
    use crate::server::store::tables::variables::{SealedVariable, set_of_project};
    use crate::server::time::Millis;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn sealer(byte: u8) -> Sealer {
        Sealer::of_key(&[byte; KEY_LEN]).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_in_its_place_only(value in ".{0,200}", owner in "[a-c]{1,3}", name in "[A-C]{1,3}") {
            let (sealer, value) = (sealer(1), Secret::new(value));
            let (project, context) = (ProjectId::from(&*owner), ContextId::from(&*owner));
            let sealed = sealer.seal(SealedFor::Project(&project, &name), &value).unwrap();
            prop_assert_eq!(sealer.open(SealedFor::Project(&project, &name), &sealed).unwrap(), value);
            prop_assert_eq!(sealer.open(SealedFor::Context(&context, &name), &sealed), Err(SealError::Damaged));
            let longer = format!("{name}X");
            prop_assert_eq!(sealer.open(SealedFor::Project(&project, &longer), &sealed), Err(SealError::Damaged));
        }

        #[test]
        fn any_changed_byte_is_noticed(value in "[a-z]{1,40}", at in 0usize..1000, with in 1u8..) {
            let (sealer, project) = (sealer(1), ProjectId::from("p"));
            let mut sealed = sealer.seal(SealedFor::Project(&project, "N"), &Secret::new(value)).unwrap();
            let at = at % sealed.len();
            sealed[at] ^= with;
            prop_assert!(sealer.open(SealedFor::Project(&project, "N"), &sealed).is_err());
            sealed.truncate(at);
            prop_assert!(sealer.open(SealedFor::Project(&project, "N"), &sealed).is_err());
        }

        #[test]
        fn hints_show_little(value in ".{0,40}") {
            let hint = hint(&Secret::new(value.clone()));
            let shown = hint.chars().count() - 4;
            prop_assert!(hint.starts_with("xxxx") && shown <= 4 && shown * 2 <= value.chars().count());
            prop_assert!(value.ends_with(&hint[4..]));
        }
    }

    #[test]
    fn sealing_twice_differs_and_another_key_is_named() {
        let context = ContextId::from("c");
        let (place, value) = (SealedFor::Context(&context, "N"), Secret::new("hunter22"));
        let first = sealer(1).seal(place, &value).unwrap();
        assert_ne!(first, sealer(1).seal(place, &value).unwrap());
        assert!(!first.windows(8).any(|part| part == b"hunter22"));
        assert_eq!(sealer(2).open(place, &first), Err(SealError::OtherKey));
    }

    fn refused(path: &Path, store: &Store) -> String {
        store.read_blocking(|c| Ok(open_key(path, c, true))).unwrap().err().unwrap().to_string()
    }

    #[test]
    fn key_files_are_made_once_guarded_and_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
        let made = store.read_blocking(|c| Ok(open_key(&path, c, true))).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        store
            .write_blocking(move |tx| {
                let project = ensure_project(tx, "gh/acme/r", None, Millis(0))?.project;
                let sealed = made.seal(SealedFor::Project(&project, "N"), &Secret::new("v")).unwrap();
                set_of_project(tx, &project, &SealedVariable { name: "N".into(), sealed }, "xxxx", Millis(0))
            })
            .unwrap();
        store.read_blocking(|c| Ok(open_key(&path, c, true))).unwrap().unwrap();

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&path, &store).contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, format!("{}\n", "0".repeat(64))).unwrap();
        assert!(refused(&path, &store).contains("another key"));
        std::fs::write(&path, "0".repeat(63)).unwrap();
        assert!(refused(&path, &store).contains("not a key file"));
        std::fs::remove_file(&path).unwrap();
        assert!(refused(&path, &store).contains("1 variable in the database"));
        assert!(!path.exists(), "a new key would hide what is wrong");
    }
}
