//! Trust: which certificates are believed, and what is said about one that is not. The only place
//! that names a TLS provider.
//!
//! Believed are the authorities of the system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR` name
//! another one), those of `ca_file`, and a server certificate that is itself in `ca_file`, as
//! self-signed ones are. There is no switch that turns the check off.

use super::certificate::{self, Facts};
use super::{Endpoint, Error};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::SystemTime;
use std::{fmt, fs};

/// Largest certificate or key file that is read, in bytes.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// The cryptography, for every use of TLS in this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The TLS settings of a client. Reads the system's store and the files of the endpoint.
pub(super) fn config(endpoint: &Endpoint) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let (_, mut ignored) = roots.add_parsable_certificates(system.certs);
    let mut pinned = Vec::new();
    if let Some(path) = &endpoint.ca_file {
        pinned = certificates(path, "api.ca_file")?;
        let (added, skipped) = roots.add_parsable_certificates(pinned.iter().cloned());
        ignored += skipped;
        if added == 0 {
            return Err(Error::Setup(format!(
                "no certificate in `{}` (`api.ca_file`) can be used: none of them could be parsed",
                path.display()
            )));
        }
    }
    warn_once(ignored, &system.errors);
    if roots.is_empty() {
        return Err(Error::Setup(no_roots(&system.errors)));
    }
    let setup = |error: &dyn fmt::Display| Error::Setup(format!("cannot set up TLS: {error}"));
    let provider = provider();
    let verifier = Verifier { roots, pinned, provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .dangerous() // Stricter words, not weaker checks: see `Verifier`.
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &endpoint.client_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "api.client_certificate")?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| {
                Error::Setup(format!(
                    "the key `{}` (`api.client_key`) cannot be used with the certificate `{}` (`api.client_certificate`): {error}",
                    key.display(),
                    certificate.display()
                ))
            })?
        }
    };
    // One control plane needs few sessions; the default sets room for 256 aside.
    config.resumption = Resumption::in_memory_sessions(4);
    Ok(Arc::new(config))
}

fn warn_once(ignored: usize, errors: &[rustls_native_certs::Error]) {
    static WARNED: Once = Once::new();
    if ignored > 0 || !errors.is_empty() {
        WARNED.call_once(|| {
            let first = errors.first().map_or_else(String::new, |error| format!(": {error}"));
            log::warn!(
                "some certificates of the system's store cannot be used and are not trusted count={}{first}",
                ignored + errors.len()
            );
        });
    }
}

fn no_roots(errors: &[rustls_native_certs::Error]) -> String {
    let named: Vec<String> = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var_os(name)?.to_string_lossy())))
        .collect();
    let store =
        if named.is_empty() { "the system's certificate store".to_owned() } else { named.join(" and ") };
    let first = errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    format!(
        "no certificate authority is trusted: {store} is empty or missing{first}; install the package `ca-certificates`, or name a PEM file in `api.ca_file` or SSL_CERT_FILE"
    )
}

fn read(path: &Path, setting: &str) -> Result<Vec<u8>, Error> {
    let fail = |why: String| Error::Setup(format!("cannot read `{}` (`{setting}`): {why}", path.display()));
    let length = fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > MAX_PEM_BYTES {
        return Err(fail(format!("it has {length} bytes, which no PEM file has")));
    }
    fs::read(path).map_err(|error| fail(error.to_string()))
}

fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path, setting)?;
    let fail = |why: String| Error::Setup(format!("`{}` (`{setting}`) {why}", path.display()));
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(format!("is not a PEM file: {error}")))?;
    if found.is_empty() {
        return Err(fail("holds no certificate (expected PEM, `-----BEGIN CERTIFICATE-----`)".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path, "api.client_key")?).map_err(|_| {
        Error::Setup(format!(
            "`{}` (`api.client_key`) holds no private key that can be read (expected PEM without a passphrase)",
            path.display()
        ))
    })
}

/// The checks of rustls's own verifier, with an answer to "who is that?". It is composed of the parts
/// that rustls offers for this and not wrapped, because the whole brings revocation lists along, which
/// nobody here can name.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    /// Certificates of `ca_file`.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Signed by an authority that is trusted, and valid for this name now.
    fn check_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    /// A server whose own certificate is in `ca_file` is known without any authority: self-signed
    /// certificates are often marked as authorities, which the ordinary check refuses for a server.
    /// `None`: it is not in there. Dates and name are checked as ever.
    fn check_pinned(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Result<ServerCertVerified, rustls::Error>> {
        if !self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref()) {
            return None;
        }
        let facts = certificate::facts(certificate)?;
        let at = |time: SystemTime| {
            UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
        };
        let (not_before, not_after) = (at(facts.not_before), at(facts.not_after));
        let wrong = if now > not_after {
            CertificateError::ExpiredContext { time: now, not_after }
        } else if now < not_before {
            CertificateError::NotValidYetContext { time: now, not_before }
        } else {
            let named =
                ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, name));
            return Some(named.map(|()| ServerCertVerified::assertion()));
        };
        Some(Err(rustls::Error::InvalidCertificate(wrong)))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked = self.check_chain(end_entity, intermediates, server_name, now);
        let Err(error) = checked else { return checked };
        if let Some(checked) = self.check_pinned(end_entity, server_name, now) {
            return checked;
        }
        Err(match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                // The last certificate that was sent is the nearest to the authority that is missing.
                let last = intermediates.last().unwrap_or(end_entity);
                let untrusted = Untrusted(certificate::facts(last));
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted))))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Nobody trusted vouches for the server; carries the certificate nearest to the missing authority.
#[derive(Debug)]
pub(super) struct Untrusted(pub(super) Option<Facts>);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(facts) if facts.issuer == facts.subject => {
                write!(f, "is signed by itself (`{}`)", facts.subject)
            }
            Some(facts) => write!(f, "was issued by `{}`", facts.issuer),
            None => f.write_str("was issued by an unknown authority"),
        }
    }
}

impl std::error::Error for Untrusted {}
