//! Trust: which certificates are believed, and what is said about one that is not. The only place
//! that names a TLS provider.
//!
//! Believed are the authorities of the system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR` name
//! another one), those of `ca_file`, and a server certificate that is itself in `ca_file`, as
//! self-signed ones are. There is no switch that turns the check off.

use super::endpoint::Endpoint;
use super::error::Error;
use super::{certificate, rejected};
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
    // A single control plane needs few sessions; the default sets room for 256 aside.
    config.resumption = Resumption::in_memory_sessions(4);
    Ok(Arc::new(config))
}

fn warn_once(ignored: usize, errors: &[rustls_native_certs::Error]) {
    static WARNED: Once = Once::new();
    if ignored > 0 || !errors.is_empty() {
        WARNED.call_once(|| {
            let first = errors.first().map_or_else(String::new, |error| format!(": {error}"));
            log::warn!(
                "{} certificates of the system's store cannot be used and are not trusted{first}",
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

    /// Whether the server's certificate was signed by another key than that of the certificate which it
    /// sent along as the issuer's.
    fn is_broken(
        &self,
        certificate: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(sent.iter().cloned());
        let algorithms = self.provider.signature_verification_algorithms.all;
        let checked = ParsedCertificate::try_from(certificate).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)
        });
        matches!(checked, Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature)))
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
            // Says by itself what is needed.
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => error,
            rustls::Error::InvalidCertificate(error) => {
                let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
                let broken = || self.is_broken(end_entity, intermediates, now);
                let rejected = rejected::diagnose(error, &chain, &self.roots, &self.pinned, broken);
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
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

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::super::explain::{Peer, tls};
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use std::time::Duration;

    /// Time of the tests: 2026-11-25.
    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_795_600_000));

    /// The message about this chain, the server's own certificate first, by a host with this `ca_file`.
    fn said(chain: &[CertificateDer<'static>], ca_file: &[CertificateDer<'static>]) -> String {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(ca_file.iter().cloned());
        let verifier = Verifier { roots, pinned: ca_file.to_vec(), provider: provider() };
        let name = ServerName::try_from("ci.example").unwrap();
        let error = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], NOW).unwrap_err();
        tls(&error, Peer::ControlPlane("ci.example"), false)
    }

    /// An authority: its certificate, and the means to issue others.
    fn authority(
        name: &str,
        key: KeyPair,
        by: Option<&Issuer<'_, KeyPair>>,
        expires: i32,
    ) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut parameters = CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_after = rcgen::date_time_ymd(expires, 1, 2);
        let made = match by {
            Some(issuer) => parameters.signed_by(&key, issuer),
            None => parameters.self_signed(&key),
        };
        (made.unwrap().der().clone(), Issuer::new(parameters, key))
    }

    fn server(by: &Issuer<'_, KeyPair>) -> CertificateDer<'static> {
        let parameters = CertificateParams::new(vec!["ci.example".to_owned()]).unwrap();
        parameters.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
    }

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    #[test]
    fn an_authority_made_again_under_its_old_name_is_recognised() {
        let (old, _) = authority("Acme Root", key(), None, 2099);
        let (_, new) = authority("Acme Root", key(), None, 2099);
        let wanted = "the certificate of `ci.example` was signed by another key than the `CN=Acme Root` in `api.ca_file`; was that authority renewed?";
        let text = said(&[server(&new)], std::slice::from_ref(&old));
        assert!(text.starts_with(wanted), "{text}");
        // With a key of another kind, and with a certificate between them.
        let (_, new) =
            authority("Acme Root", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), None, 2099);
        let text = said(&[server(&new)], std::slice::from_ref(&old));
        assert!(text.starts_with(wanted), "{text}");
        let (between, issuer) = authority("Acme Servers", key(), Some(&new), 2099);
        let text = said(&[server(&issuer), between], std::slice::from_ref(&old));
        assert!(
            text.contains("`CN=Acme Servers`, which `ci.example` sends along, was signed by another"),
            "{text}"
        );
    }

    #[test]
    fn of_a_chain_the_certificate_that_expired_is_named() {
        let (root, issuer) = authority("Acme Root", key(), None, 2099);
        let (between, issuer) = authority("Acme Servers", key(), Some(&issuer), 2021);
        let text = said(&[server(&issuer), between], &[root]);
        let wanted = "the certificate `CN=Acme Servers`, which `ci.example` sends along, expired at 2021-01-02T00:00:00Z";
        assert!(text.starts_with(wanted), "{text}");
    }

    #[test]
    fn a_server_that_sends_the_wrong_certificate_along_is_told_apart() {
        let (root, issuer) = authority("Acme Root", key(), None, 2099);
        let (between, _) = authority("Acme Servers", key(), Some(&issuer), 2099);
        let (_, other) = authority("Acme Servers", key(), Some(&issuer), 2099);
        let text = said(&[server(&other), between], &[root]);
        assert!(
            text.contains("another key than the `CN=Acme Servers` that the server sends along"),
            "{text}"
        );
    }

    #[test]
    fn kinds_of_keys_and_certificates_that_are_not_accepted_are_named() {
        for (pem, wanted) in [
            (
                include_str!("../../tests/certificates/rsa-1024.pem"),
                "was signed by `CN=rsa-1024 authority` with an RSA key of 1024 bits",
            ),
            (
                include_str!("../../tests/certificates/p-521.pem"),
                "was signed by `CN=p-521 authority` in a way that is not accepted",
            ),
            (include_str!("../../tests/certificates/version-1.pem"), "is of an X.509 version before 3"),
        ] {
            let both: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
            let text = said(&both[..1], &both[1..]);
            assert!(text.starts_with("the certificate of `ci.example` ") && text.contains(wanted), "{text}");
        }
    }
}
