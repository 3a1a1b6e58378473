//! Trust: which certificates are believed. The only place that names a TLS provider.

use super::{Endpoint, Error};

/// The TLS settings of a client.
pub(super) fn config(_endpoint: &Endpoint) -> Result<ureq::tls::TlsConfig, Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build())
}
