//! The certificate that the control plane shows: read at the start, when its files have changed, and when somebody
//! asks. Connections that stand keep theirs. Files that do not fit together, as between the two writes of a renewal,
//! change nothing.

use crate::logging::record;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;

/// Pause between two looks at the files.
const LOOK: Duration = Duration::from_secs(60);

/// Times and lengths of both files, by which a change is noticed.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// The certificate of the moment.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    acceptor: RwLock<TlsAcceptor>,
    stamp: Mutex<Stamp>,
}

impl Certificate {
    /// Reads chain and key, PEM files. The error is a sentence that names the file.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, String> {
        let stamp = Mutex::new(stamp(chain, key));
        let acceptor = RwLock::new(acceptor(chain, key)?);
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), acceptor, stamp })
    }

    /// Returns the acceptor for the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again, whether they have changed or not. What is wrong with them stands in the log.
    pub fn read_again(&self) {
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp(&self.chain, &self.key);
        match acceptor(&self.chain, &self.key) {
            Ok(acceptor) => {
                *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                record!(Info, file = self.chain.display(); "read the certificate again");
            }
            Err(why) => log::error!("the certificate stays what it was: {why}"),
        }
    }

    /// Reads the files again if they have changed since they were read last.
    fn look(&self) {
        let now = stamp(&self.chain, &self.key);
        if *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) != now {
            self.read_again();
        }
    }

    /// Looks after the files for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let own = Arc::clone(&self);
            // A look that fails is followed by the next.
            let _ = tokio::task::spawn_blocking(move || own.look()).await;
        }
    }
}

fn stamp(chain: &Path, key: &Path) -> Stamp {
    [chain, key].map(|path| {
        let about = std::fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let fail = |path: &Path, why: String| format!("failed to read `{}`: {why}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| fail(certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(fail(certificate, "there is no certificate in it (expected PEM)".to_owned()));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| fail(key, e.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(crate::http::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("failed to set up TLS: {e}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|e| {
            format!("`{}` and `{}` do not fit together: {e}", certificate.display(), key.display())
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its files should fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_fit_together_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let renew = |write_key: bool| {
            let made = rcgen::generate_simple_self_signed(vec!["ci.example".to_owned()]).unwrap();
            std::fs::write(&chain, made.cert.pem()).unwrap();
            if write_key {
                std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            }
        };
        renew(true);
        let certificate = Certificate::read(&chain, &key).unwrap();
        let config = || Arc::as_ptr(certificate.acceptor().config());
        let first = config();
        certificate.look();
        assert_eq!(config(), first, "nothing has changed");
        renew(false);
        certificate.read_again();
        assert_eq!(config(), first, "a chain without its key was taken");
        std::fs::remove_file(&key).unwrap();
        certificate.look();
        assert_eq!(config(), first);
        renew(true);
        certificate.look();
        assert_ne!(config(), first, "the new pair was not taken");
    }
}
