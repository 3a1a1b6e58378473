//! Trust and the way out: private authorities, bad certificates, client certificates, proxies.
//!
//! Most cases use `runlet machine --check`, which makes one authenticated call and says what is wrong.

use crate::support::control_plane::ControlPlane;
use crate::support::pki::{self, Authority};
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::runner::{Machine, task, task_of};

/// A name that only a proxy can lead to.
const FAR: &str = "https://ci.runlet.invalid";

fn trusting(url: &str, authority: &Authority) -> Machine {
    let machine = Machine::new(url);
    let file = machine.file("ca.pem", &authority.pem).display().to_string();
    machine.api("ca_file", &file)
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    let (status, text) = trusting(&server.url(), &authority).check();
    assert!(status.success(), "{text}");
    let machine = Machine::new(&server.url());
    let file = machine.file("bundle.pem", &authority.pem).display().to_string();
    let (status, text) = machine.variable("SSL_CERT_FILE", &file).check();
    assert!(status.success(), "{text}");
}

#[test]
fn a_task_is_claimed_over_tls() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    server.offer(&task("tls-1"));
    let mut runner = trusting(&server.url(), &authority)
        .setting("mode", "single-task")
        .task_agent("cat > \"$DIR/input\"")
        .start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    let input = std::fs::read_to_string(runner.machine.path("input")).unwrap();
    assert!(input.contains("ca.pem"), "the task agent is told whom to trust");
}

#[test]
fn an_untrusted_issuer_is_named_with_the_setting_to_use() {
    let (known, other) = (Authority::new("Acme Root"), Authority::new("Other Root"));
    let server = ControlPlane::start_tls(pki::server(&other.issue("127.0.0.1", |_| {}), None));
    let (status, text) = trusting(&server.url(), &known).check();
    assert!(!status.success());
    assert!(text.contains("was issued by `CN=Other Root`"), "{text}");
    assert!(text.contains("`api.ca_file` or SSL_CERT_FILE"), "{text}");
}

#[test]
fn of_a_chain_the_authority_that_is_missing_is_named() {
    let root = Authority::new("Acme Root");
    let between = root.intermediate("Acme Servers");
    let mut issued = between.issue("127.0.0.1", |_| {});
    issued.certificate += &between.pem;
    let server = ControlPlane::start_tls(pki::server(&issued, None));
    let (status, text) = trusting(&server.url(), &Authority::new("Other Root")).check();
    assert!(!status.success() && text.contains("was issued by `CN=Acme Root`"), "{text}");
    for trusted in [&root, &between] {
        let (status, text) = trusting(&server.url(), trusted).check();
        assert!(status.success(), "{text}");
    }
    // Without the certificate between them nobody can know the root.
    let alone = between.issue("127.0.0.1", |_| {});
    let server = ControlPlane::start_tls(pki::server(&alone, None));
    let (status, text) = trusting(&server.url(), &root).check();
    assert!(!status.success() && text.contains("was issued by `CN=Acme Servers`"), "{text}");
}

#[test]
fn expired_and_future_certificates_are_named_with_their_dates() {
    let authority = Authority::new("Acme Root");
    let expired = authority.issue("127.0.0.1", |p| p.not_after = rcgen::date_time_ymd(2020, 1, 2));
    let server = ControlPlane::start_tls(pki::server(&expired, None));
    let (status, text) = trusting(&server.url(), &authority).check();
    assert!(!status.success() && text.contains("expired at 2020-01-02T00:00:00Z"), "{text}");
    let future = authority.issue("127.0.0.1", |p| p.not_before = rcgen::date_time_ymd(2999, 1, 2));
    let server = ControlPlane::start_tls(pki::server(&future, None));
    let (status, text) = trusting(&server.url(), &authority).check();
    assert!(!status.success() && text.contains("valid from 2999-01-02T00:00:00Z only"), "{text}");
}

#[test]
fn a_certificate_for_another_host_is_named_with_its_names() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("other.example", |_| {}), None));
    let (status, text) = trusting(&server.url(), &authority).check();
    assert!(!status.success());
    assert!(text.contains("the certificate of `127.0.0.1` is for `other.example`"), "{text}");
}

#[test]
fn a_self_signed_certificate_is_trusted_only_when_it_is_named() {
    let lone = pki::self_signed("127.0.0.1");
    let server = ControlPlane::start_tls(pki::server(&lone, None));
    let (status, text) = trusting(&server.url(), &Authority::new("Acme Root")).check();
    assert!(!status.success() && text.contains("api.ca_file"), "{text}");
    let machine = Machine::new(&server.url());
    let file = machine.file("server.pem", &lone.certificate).display().to_string();
    let (status, text) = machine.api("ca_file", &file).check();
    assert!(status.success(), "{text}");
    let machine = Machine::new(&server.url().replace("127.0.0.1", "localhost"));
    let file = machine.file("server.pem", &lone.certificate).display().to_string();
    let (status, text) = machine.api("ca_file", &file).check();
    assert!(
        !status.success() && text.contains("the certificate of `localhost` is for `127.0.0.1`"),
        "{text}"
    );
}

#[test]
fn without_any_authority_the_message_says_how_to_get_one() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    let bare = |machine: Machine| {
        let file = machine.file("empty.pem", "").display().to_string();
        machine.variable("SSL_CERT_FILE", &file).check()
    };
    let (status, text) = bare(Machine::new(&server.url()));
    assert!(!status.success());
    assert!(text.contains("SSL_CERT_FILE=") && text.contains("`ca-certificates`"), "{text}");
    let (status, text) = bare(trusting(&server.url(), &authority));
    assert!(status.success(), "{text}");
    let plain = ControlPlane::start();
    let (status, text) = bare(Machine::new(&plain.url()));
    assert!(status.success(), "plain HTTP on loopback needs no authority: {text}");
}

#[test]
fn unusable_files_are_named_with_their_setting() {
    let machine = Machine::new("https://127.0.0.1:1");
    let file = machine.file("ca.pem", "not a certificate").display().to_string();
    let (status, text) = machine.api("ca_file", &file).check();
    assert!(!status.success() && text.contains("`api.ca_file`) holds no certificate"), "{text}");
    let (_, text) = Machine::new("https://127.0.0.1:1").api("ca_file", "/nonexistent.pem").check();
    assert!(text.contains("cannot read `/nonexistent.pem` (`api.ca_file`)"), "{text}");
}

#[test]
fn a_client_certificate_is_presented_and_its_absence_explained() {
    let (authority, clients) = (Authority::new("Acme Root"), Authority::new("Acme Runners"));
    let issued = authority.issue("127.0.0.1", |_| {});
    let server = ControlPlane::start_tls(pki::server(&issued, Some(&clients)));
    let (status, text) = trusting(&server.url(), &authority).check();
    assert!(!status.success() && text.contains("demands a client certificate"), "{text}");
    let presenting = |authority_of_client: &Authority| {
        let machine = trusting(&server.url(), &authority);
        let client = authority_of_client.issue("runner", |_| {});
        let certificate = machine.file("client.pem", &client.certificate).display().to_string();
        let key = machine.file("client.key", &client.key).display().to_string();
        machine.api("client_certificate", &certificate).api("client_key", &key).check()
    };
    let (status, text) = presenting(&clients);
    assert!(status.success(), "{text}");
    let (status, text) = presenting(&Authority::new("Strangers"));
    assert!(!status.success() && text.contains("check `api.client_certificate`"), "{text}");
}

#[test]
fn a_proxy_leads_out_and_looks_the_name_up() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("ci.runlet.invalid", |_| {}), None));
    let proxy = Proxy::start(server.address(), None);
    let (status, text) =
        trusting(FAR, &authority).variable("HTTPS_PROXY", &format!("http://{}", proxy.address)).check();
    assert!(status.success(), "{text}");
    assert_eq!(*proxy.tunnels.lock().unwrap(), ["ci.runlet.invalid:443"]);
    let (status, text) = trusting(FAR, &authority)
        .variable("HTTPS_PROXY", &format!("http://{}", proxy.address))
        .variable("NO_PROXY", "runlet.invalid")
        .check();
    assert!(!status.success() && text.contains("`ci.runlet.invalid` cannot be looked up"), "{text}");
    assert_eq!(proxy.tunnels.lock().unwrap().len(), 1);
}

#[test]
fn a_proxy_that_demands_a_login_gets_it_or_is_named() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("ci.runlet.invalid", |_| {}), None));
    // "me:p@ss"
    let proxy = Proxy::start(server.address(), Some("bWU6cEBzcw=="));
    let through = |login: &str| {
        trusting(FAR, &authority).variable("https_proxy", &format!("http://{login}{}", proxy.address)).check()
    };
    let (status, text) = through("");
    assert!(!status.success() && text.contains("demands a login (407); write it into https_proxy"), "{text}");
    let (status, text) = through("me:wrong@");
    assert!(!status.success() && text.contains("refused the login"), "{text}");
    assert!(!text.contains("wrong"), "{text}");
    let (status, text) = through("me:p%40ss@");
    assert!(status.success(), "{text}");
}

/// Runner and task agent make the same way, each by itself.
#[test]
fn a_whole_task_takes_proxy_login_and_client_certificate_along() {
    let (authority, clients) = (Authority::new("Acme Root"), Authority::new("Acme Runners"));
    let issued = authority.issue("ci.runlet.invalid", |_| {});
    let server = ControlPlane::start_tls(pki::server(&issued, Some(&clients)));
    let proxy = Proxy::start(server.address(), Some("bWU6cEBzcw=="));
    let client = clients.issue("runner", |_| {});
    let machine = trusting(FAR, &authority);
    let certificate = machine.file("client.pem", &client.certificate).display().to_string();
    let key = machine.file("client.key", &client.key).display().to_string();
    server.offer(&task_of("way-1", &["seq 1 50000"]));
    let mut runner = machine
        .api("client_certificate", &certificate)
        .api("client_key", &key)
        .variable("HTTPS_PROXY", &format!("http://me:p%40ss@{}", proxy.address))
        .setting("mode", "single-task")
        .start();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    assert_eq!(server.wait_finished("way-1")["status"], "success", "{}", runner.log());
    assert_eq!(server.output("way-1", 1), (1..=50_000).map(|n| format!("{n}\n")).collect::<String>());
    let tunnels = proxy.tunnels.lock().unwrap();
    assert!(tunnels.len() >= 2 && tunnels.iter().all(|host| host == "ci.runlet.invalid:443"), "{tunnels:?}");
    assert!(!runner.log().contains("p%40ss") && !runner.log().contains("p@ss"), "{}", runner.log());
}

#[test]
fn an_intercepting_proxy_is_recognised_by_its_issuer() {
    let (real, corporate) = (Authority::new("Acme Root"), Authority::new("Corporate Inspection CA"));
    let server = ControlPlane::start_tls(pki::server(&corporate.issue("ci.runlet.invalid", |_| {}), None));
    let proxy = Proxy::start(server.address(), None);
    let variable = format!("http://{}", proxy.address);
    let (status, text) = trusting(FAR, &real).variable("HTTPS_PROXY", &variable).check();
    assert!(!status.success());
    assert!(text.contains("was issued by `CN=Corporate Inspection CA`"), "{text}");
    assert!(text.contains(&format!("(through the proxy `{}` of HTTPS_PROXY)", proxy.address)), "{text}");
    let (status, text) = trusting(FAR, &corporate).variable("HTTPS_PROXY", &variable).check();
    assert!(status.success(), "{text}");
}

#[test]
fn a_proxy_with_tls_is_trusted_by_its_own_certificate() {
    let (authority, other) = (Authority::new("Acme Root"), Authority::new("Other Root"));
    let server = ControlPlane::start_tls(pki::server(&authority.issue("ci.runlet.invalid", |_| {}), None));
    let proxy = |by: &Authority| {
        Proxy::start_tls(server.address(), pki::server(&by.issue("127.0.0.1", |_| {}), None))
    };
    let through = |proxy: &Proxy| {
        trusting(FAR, &authority).variable("HTTPS_PROXY", &format!("https://{}", proxy.address)).check()
    };
    let known = proxy(&authority);
    let (status, text) = through(&known);
    assert!(status.success(), "{text}");
    assert_eq!(*known.tunnels.lock().unwrap(), ["ci.runlet.invalid:443"]);
    let unknown = proxy(&other);
    let (status, text) = through(&unknown);
    let wanted = format!(
        "the certificate of the proxy `{}` of HTTPS_PROXY was issued by `CN=Other Root`",
        unknown.address
    );
    assert!(!status.success() && text.contains(&wanted), "{text}");
    let plain = Proxy::start(server.address(), None);
    let (status, text) = through(&plain);
    let wanted = format!("connection to the proxy `{}` of HTTPS_PROXY was cut", plain.address);
    assert!(!status.success() && text.contains(&wanted), "{text}");
    assert!(text.contains("check scheme and port of HTTPS_PROXY"), "{text}");
}

#[test]
fn a_proxy_that_is_down_or_no_proxy_is_named() {
    let port = ports::hold();
    let gone = port.address().to_string();
    let authority = Authority::new("Acme Root");
    let (status, text) = trusting(FAR, &authority).variable("ALL_PROXY", &gone).check();
    let wanted = format!("connection refused: nothing listens at the proxy `{gone}` of ALL_PROXY");
    assert!(!status.success() && text.contains(&wanted), "{text}");
    assert!(!text.contains("is the control plane"), "{text}");
    let (status, text) = trusting(FAR, &authority).variable("HTTPS_PROXY", "proxy.runlet.invalid:1").check();
    assert!(!status.success() && text.contains("`proxy.runlet.invalid` cannot be looked up"), "{text}");
    assert!(text.contains("check HTTPS_PROXY and the name servers"), "{text}");
    let (status, text) = trusting(FAR, &authority).variable("HTTPS_PROXY", "socks5://127.0.0.1:1").check();
    assert!(!status.success() && text.contains("`socks5` proxies are not supported"), "{text}");
}

#[test]
fn tls_and_plain_http_are_told_apart() {
    let plain = ControlPlane::start();
    let authority = Authority::new("Acme Root");
    let (status, text) = trusting(&format!("https://{}", plain.address()), &authority).check();
    assert!(!status.success() && text.contains("check scheme and port of `api.url`"), "{text}");
    let (status, text) = Machine::new("http://ci.runlet.invalid").check();
    assert!(!status.success() && text.contains("refusing to send tokens"), "{text}");
    let (status, text) =
        Machine::new("http://ci.runlet.invalid").variable("RUNLET_ALLOW_PLAINTEXT", "1").check();
    assert!(!status.success() && text.contains("cannot be looked up"), "{text}");
}
