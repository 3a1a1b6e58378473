//! Certificates where each family of systems keeps them, and nowhere.

use super::{has_namespaces, inside, machine};
use crate::support::control_plane::ControlPlane;
use crate::support::pki::{self, Authority};

/// Leaves nothing in `/etc`.
const EMPTY: &str = "mount -t tmpfs none /etc";

#[test]
fn each_systems_store_is_found() {
    if !has_namespaces() {
        return;
    }
    let authority = Authority::new("Company Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    let stores = [
        ("Debian", "/etc/ssl/certs/ca-certificates.crt"),
        ("RHEL", "/etc/pki/tls/certs/ca-bundle.crt"),
        ("RHEL since 7", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
        ("SUSE", "/etc/ssl/ca-bundle.pem"),
        ("Alpine", "/etc/ssl/cert.pem"),
        ("a folder of hashed names", "/etc/ssl/certs/0a1b2c3d.0"),
        ("the same on RHEL", "/etc/pki/tls/certs/0a1b2c3d.0"),
    ];
    for (system, path) in stores {
        let machine = machine(&server.url());
        let source = machine.file("authority.pem", &authority.pem);
        let script = format!("{EMPTY}; mkdir -p $(dirname {path}); cp '{}' {path}", source.display());
        let (status, text) = inside(machine, &script).check();
        assert!(status.success(), "{system}: {text}");
    }
}

#[test]
fn no_store_at_all_is_told_with_the_ways_out() {
    if !has_namespaces() {
        return;
    }
    let authority = Authority::new("Company Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    let (status, text) = inside(machine(&server.url()), EMPTY).check();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("the system's certificate store is empty or missing"), "{text}");
    for way in ["the package `ca-certificates`", "`api.ca_file`", "SSL_CERT_FILE"] {
        assert!(text.contains(way), "{way}: {text}");
    }
    for setting in [true, false] {
        let machine = machine(&server.url());
        let file = machine.file("authority.pem", &authority.pem).display().to_string();
        let machine = match setting {
            true => machine.api("ca_file", &file),
            false => machine.variable("SSL_CERT_FILE", &file),
        };
        let (status, text) = inside(machine, EMPTY).check();
        assert!(status.success(), "{text}");
    }
}
