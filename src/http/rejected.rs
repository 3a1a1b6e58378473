//! Why the certificate of a server is not believed: the library says what is wrong, this says with
//! which certificate, and who issued it. Looked at only after the check has failed; decides nothing.

use super::certificate::{self, CertificateFacts};
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, RootCertStore};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Findings about a certificate.
#[derive(Debug)]
pub(super) struct Rejected {
    /// The owner of the certificate, when it is not the server's own but one that leads to it.
    pub(super) of: Option<String>,
    /// Name of its issuer.
    pub(super) issuer: String,
    pub(super) why: CertificateFault,
}

/// Fault of a certificate.
#[derive(Debug)]
pub(super) enum CertificateFault {
    /// No trusted issuer vouches for the certificate.
    Untrusted,
    /// The certificate vouches for itself, and no issuer does.
    Lone,
    /// An issuer of that name is known, from this place, but with another key.
    OtherKey(&'static str),
    /// The issuer's RSA key has only so many bits.
    Weak(usize),
    /// The kind of key or signature of the issuer is not known here.
    Algorithm,
    /// The certificate is no X.509 of version 3.
    Version,
    /// Any other fault, in the words of the library.
    Other(CertificateError),
}

/// Shortest RSA key that is accepted.
const RSA_BITS: usize = 2048;
/// How the names of all algorithms on elliptic curves begin.
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d];

/// Looks at the server's certificate and those that it sent along, in this order in `chain`. `broken` says
/// whether the first does not fit to the others.
pub(super) fn diagnose(
    error: CertificateError,
    chain: &[&CertificateDer<'_>],
    roots: &RootCertStore,
    pinned: &[CertificateDer<'_>],
    broken: impl FnOnce() -> bool,
) -> Rejected {
    use CertificateError as E;
    let chain: Vec<CertificateFacts> = chain.iter().map_while(|der| certificate::facts(der)).collect();
    let dated = |at: Duration, date: fn(&CertificateFacts) -> SystemTime| {
        chain.iter().position(|facts| date(facts) == SystemTime::UNIX_EPOCH + at)
    };
    let (at, why) = match error {
        // The last certificate that was sent is the nearest to the authority that is missing; the server's
        // own is always spoken of.
        E::UnknownIssuer => {
            let last = chain.last();
            let lone = last.is_some_and(|facts| facts.issuer == facts.subject);
            let issuer = last.map_or_else(unknown, |facts| facts.issuer.clone());
            return Rejected {
                of: None,
                issuer,
                why: if lone { CertificateFault::Lone } else { CertificateFault::Untrusted },
            };
        }
        E::ExpiredContext { not_after, .. } => (
            dated(Duration::from_secs(not_after.as_secs()), |facts| facts.not_after),
            CertificateFault::Other(error),
        ),
        E::NotValidYetContext { not_before, .. } => (
            dated(Duration::from_secs(not_before.as_secs()), |facts| facts.not_before),
            CertificateFault::Other(error),
        ),
        E::UnsupportedSignatureAlgorithmContext { .. } => {
            (issued(&chain, roots, pinned).map(|found| found.0), CertificateFault::Algorithm)
        }
        E::BadSignature if broken() => (Some(0), CertificateFault::OtherKey("that the server sends along")),
        E::BadSignature | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            match (issued(&chain, roots, pinned), &error) {
                (Some((at, Some(bits), _)), _) if bits < RSA_BITS => (Some(at), CertificateFault::Weak(bits)),
                // Keys of one kind, of which one size is not known.
                (
                    found,
                    E::UnsupportedSignatureAlgorithmForPublicKeyContext {
                        signature_algorithm_id: signature,
                        public_key_algorithm_id: key,
                    },
                ) if [signature, key]
                    .iter()
                    .all(|id| id.windows(ELLIPTIC.len()).any(|id| id == ELLIPTIC)) =>
                {
                    (found.map(|found| found.0), CertificateFault::Algorithm)
                }
                (Some((at, _, place)), _) => (Some(at), CertificateFault::OtherKey(place)),
                (None, _) => (None, CertificateFault::Other(error)),
            }
        }
        E::Other(ref other) if other.to_string().contains("UnsupportedCertVersion") => {
            (chain.iter().position(|facts| !facts.is_version_3), CertificateFault::Version)
        }
        other => (None, CertificateFault::Other(other)),
    };
    let at = at.unwrap_or(0);
    let facts = chain.get(at);
    Rejected {
        of: facts.filter(|_| at > 0).map(|facts| facts.subject.clone()),
        issuer: facts.map_or_else(unknown, |facts| facts.issuer.clone()),
        why,
    }
}

fn unknown() -> String {
    "an unknown authority".to_owned()
}

/// The certificate that a trusted authority should have signed, by the name: its place in the chain, the
/// bits of the authority's key if it is RSA, and where that is from.
fn issued(
    chain: &[CertificateFacts],
    roots: &RootCertStore,
    pinned: &[CertificateDer<'_>],
) -> Option<(usize, Option<usize>, &'static str)> {
    chain.iter().enumerate().find_map(|(at, facts)| {
        let of_issuer = |name: Option<String>| name.as_ref() == Some(&facts.issuer);
        let root = roots.roots.iter().find(|root| of_issuer(certificate::name(&root.subject)))?;
        let own = pinned.iter().any(|der| of_issuer(certificate::facts(der).map(|facts| facts.subject)));
        let place = if own { "in `api.ca_file`" } else { "of the system's store" };
        Some((at, certificate::rsa_bits(&root.subject_public_key_info), place))
    })
}

/// The end of a sentence that begins with whose certificate it is, and what to do.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuer = &self.issuer;
        match &self.why {
            CertificateFault::Untrusted | CertificateFault::Lone => {
                let by = if matches!(self.why, CertificateFault::Lone) { "is signed by itself (" } else { "was issued by " };
                let end = if matches!(self.why, CertificateFault::Lone) { ")" } else { "" };
                write!(
                    f,
                    "{by}`{issuer}`{end}, which this host does not trust; put the certificate of that authority (PEM) into a file and name it in `api.ca_file` or SSL_CERT_FILE"
                )
            }
            CertificateFault::OtherKey(place) => write!(
                f,
                "was signed by another key than the `{issuer}` {place}; was that authority renewed? Its new certificate belongs there"
            ),
            CertificateFault::Weak(bits) => write!(
                f,
                "was signed by `{issuer}` with an RSA key of {bits} bits, and less than {RSA_BITS} are not accepted; have it issued by an authority with a longer key"
            ),
            CertificateFault::Algorithm => write!(
                f,
                "was signed by `{issuer}` in a way that is not accepted; have it issued by an authority with a key that is (RSA with SHA-2, P-256, P-384, Ed25519)"
            ),
            CertificateFault::Version => f.write_str(
                "is of an X.509 version before 3, which has no place for the names of hosts; have one with a subjectAltName issued",
            ),
            CertificateFault::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => f.write_str(
                "is marked as an authority; name that very certificate in `api.ca_file`, or have one issued for the server",
            ),
            CertificateFault::Other(error) => write!(f, "(issued by `{issuer}`) is not accepted: {error}"),
        }
    }
}

impl std::error::Error for Rejected {}
