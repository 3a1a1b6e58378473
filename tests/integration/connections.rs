//! Clients that say nothing, half a thing, or take nothing: hundreds of them beside a runner that works.

use crate::faults::address_of;
use crate::server::{ANSWER, Server, runlet};
use crate::support::pki::Authority;
use crate::support::poll;
use runlet::http::{Body, Client, Endpoint, Request};
use runlet::protocol::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A control plane that may have so many files open.
fn with_files(limit: u32) -> Server {
    limited(&format!("ulimit -n {limit}"))
}

/// A control plane behind this command of a shell.
fn limited(limit: &str) -> Server {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("{limit}; exec \"$@\""), "sh"])
        .arg(runlet().get_program())
        .stderr(Stdio::null());
    Server::start_by(command, &[])
}

/// The ways of a client to hold a connection.
const BEGINNINGS: [&str; 5] = [
    "",
    "GET /live HTTP/1.1\r\nHost: x\r\n",
    "POST /api/v2/compile-config-with-defaults HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    "POST /api/v3/runner/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rlc_wrong\r\nContent-Length: 5000\r\n\r\n{",
    "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
];

fn strangers(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |number: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        // A connection that was closed in favour of others is no failure.
        let _ = stream.write_all(BEGINNINGS[number % BEGINNINGS.len()].as_bytes());
        stream
    };
    (0..count).map(connect).collect()
}

/// Whether the other side has not closed it yet; what has come is thrown away.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

const SMALL: &str = "version: 2.1\njobs: {small: {machine: true, resource_class: a/b, steps: [{run: echo small}]}}\nworkflows: {w: {jobs: [small]}}\n";

#[test]
fn as_many_files_may_be_open_as_the_hard_limit_allows() {
    let server = limited("ulimit -Sn 256 && ulimit -Hn 1000");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_ascii_whitespace().take(2).collect::<Vec<_>>(), ["1000", "1000"], "{limits}");
}

#[test]
fn strangers_keep_nobody_out() {
    let server = with_files(256);
    server.project();
    let _runner = server.runner("one", &server.class_token("a/b"));
    let address = address_of(&server);
    let mut crowd = strangers(address, 300);
    for round in 0..3 {
        // Fresh connections, as those of a new client are.
        let client =
            Client::new(&Endpoint { url: server.client.url().to_owned(), ..Endpoint::default() }).unwrap();
        let request =
            Request { method: "GET", path: "/live", token: None, body: Body::Empty, timeout: ANSWER };
        assert_eq!(client.send(&request).unwrap().status, 200);
        let pipeline = server.trigger(SMALL);
        assert_eq!(server.ended(&pipeline)[0]["status"], "success", "round {round}");
        crowd.extend(strangers(address, 60));
    }
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(files < 200, "{files} files are open");
    // A byte now and then changes nothing: whoever has shown no token is gone in the end.
    poll("the end of all strangers", || {
        for stream in &mut crowd {
            let _ = stream.write_all(b"x");
        }
        crowd.retain_mut(is_open);
        if crowd.is_empty() { Ok(()) } else { Err(format!("{} are left", crowd.len())) }
    });
}

/// The client's side of TLS with a server of this authority.
fn tls_client(authority: &Authority) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(runlet::http::tls::provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap()
}

#[test]
fn handshakes_that_do_not_end_and_what_is_quiet_behind_them_are_closed_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("private");
    let server = Server::start_tls(&authority, folder.path());
    let address: SocketAddr = server.client.url().strip_prefix("https://").unwrap().parse().unwrap();

    // A connection of somebody with a token, which is as quiet as the others, stays.
    let since = Instant::now();
    let mut known = rustls::StreamOwned::new(tls_client(&authority), TcpStream::connect(address).unwrap());
    let call =
        format!("GET /api/v2/me HTTP/1.1\r\nHost: x\r\nCircle-Token: {}\r\n\r\n", server.token.expose());
    let mut call_again = || {
        known.write_all(call.as_bytes()).unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"}") {
            let length = known.read(&mut buffer).unwrap();
            assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..length]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    };
    call_again();
    let mut hello = Vec::new();
    tls_client(&authority).write_tls(&mut hello).unwrap();
    let mut crowd: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            match number % 4 {
                // Silent from the start.
                0 => {}
                // The beginning of a handshake.
                1 => stream.write_all(&hello[..hello.len() / 2]).unwrap(),
                // A whole one, and nothing behind it, or half a head.
                kind => {
                    let mut tls = rustls::StreamOwned::new(tls_client(&authority), stream);
                    tls.conn.complete_io(&mut tls.sock).unwrap();
                    if kind == 3 {
                        tls.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n").unwrap();
                    }
                    stream = tls.sock;
                }
            }
            stream
        })
        .collect();
    poll("the end of all strangers", || {
        let endpoint = Endpoint {
            url: server.client.url().to_owned(),
            ca_file: Some(folder.path().join("ca.pem")),
            ..Endpoint::default()
        };
        let request =
            Request { method: "GET", path: "/live", token: None, body: Body::Empty, timeout: ANSWER };
        assert_eq!(Client::new(&endpoint).unwrap().send(&request).unwrap().status, 200);
        crowd.retain_mut(is_open);
        if crowd.is_empty() { Ok(()) } else { Err(format!("{} are left", crowd.len())) }
    });
    // A known client may be quiet for 75 s, longer than strangers; a machine that took so long says nothing.
    if since.elapsed() < Duration::from_secs(60) {
        call_again();
    }
}

#[test]
fn guesses_are_slow_and_logged_and_keep_no_good_token_out() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = runlet();
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::start_by(command, &["--trusted-proxy", "127.0.0.0/8"]);
    let url = server.client.url().to_owned();
    let counted = || {
        let metrics = String::from_utf8(server.text("/metrics")).unwrap();
        let line = metrics.lines().find(|line| line.starts_with("runlet_request_duration_seconds_count "));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let (before, began) = (counted(), Instant::now());
    std::thread::scope(|scope| {
        let guess = |thread| {
            let url = url.clone();
            scope.spawn(move || {
                let client = Client::new(&Endpoint { url, ..Endpoint::default() }).unwrap();
                for guess in 0..2 {
                    let token = Secret::new(format!("rlp_{thread}{guess}"));
                    let (token, body) = (Some(&token), Body::Empty);
                    let request = Request { method: "GET", path: "/api/v2/me", token, body, timeout: ANSWER };
                    assert_eq!(client.send(&request).unwrap().status, 401);
                }
            })
        };
        let guessers: Vec<_> = (0..8).map(guess).collect();
        // Meanwhile, from the same address: one that had to wait behind the guesses would be answered after them.
        server.call("GET", "/api/v2/me", None);
        assert!(guessers.iter().any(|guesser| !guesser.is_finished()), "a good token waited for guesses");
        for _ in 0..19 {
            server.call("GET", "/api/v2/me", None);
        }
    });
    // Sixteen, of which the last six came half a second after each other.
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(counted() - before, 20 + 1, "what waits on purpose is not measured");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("were refused client=127.0.0.1 count=1"), "{text}");
    // Others wait for the body of a call that is refused anyhow.
    let mut stream = TcpStream::connect(address_of(&server)).unwrap();
    stream
        .write_all(
            b"POST /api/v2/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    std::thread::sleep(Duration::from_millis(2200));
    stream.write_all(b"{}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let text = std::fs::read_to_string(&log).unwrap();
    let is_refused = |line: &str| line.contains("status=401") || line.contains("status=404");
    assert!(!text.lines().any(|line| line.contains("a call was slow") && is_refused(line)), "{text}");

    // The word of the proxy counts.
    let mut stream = TcpStream::connect(address_of(&server)).unwrap();
    stream
        .write_all(b"GET /api/v2/me HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.9\r\nCircle-Token: rlp_x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("client=192.0.2.9 count=1"), "{text}");
}

/// A call on a connection of its own; its status, or 0 when the connection was cut.
fn call_once(address: SocketAddr, token: &str) -> u16 {
    let text =
        format!("GET /api/v2/me HTTP/1.1\r\nHost: x\r\nCircle-Token: {token}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return 0 };
    let done = stream.write_all(text.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    let status = done.ok().and_then(|_| answer.split(' ').nth(1)?.parse().ok());
    status.unwrap_or(0)
}

#[test]
fn guessers_that_come_again_at_once_cut_no_fresh_connection_of_who_has_a_token() {
    let server = with_files(256);
    // A machine that takes longer than half a second to read a call cuts one or the other: then that round says nothing.
    poll("a round in which hardly anybody was cut", || {
        let (answered, cut, guesses) = beside_guessers(&server);
        if cut <= 6 {
            Ok(())
        } else {
            Err(format!("{cut} were cut and {answered} answered beside {guesses} guesses"))
        }
    });
}

/// Calls with a token beside guessers that come again at once: how many were answered, and how many cut; and guesses.
fn beside_guessers(server: &Server) -> (usize, usize, usize) {
    let (address, token) = (address_of(server), server.token.expose().to_owned());
    let is_over = AtomicBool::new(false);
    let mut answers = Vec::new();
    let guesses: Vec<u16> = std::thread::scope(|scope| {
        let guess = || {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                answers.push(call_once(address, "rlp_wrong"));
            }
            answers
        };
        // More than there may be unknown connections.
        let guessers: Vec<_> = (0..130).map(|_| scope.spawn(guess)).collect();
        answers.extend((0..120).map(|_| call_once(address, &token)));
        is_over.store(true, Ordering::Relaxed);
        guessers.into_iter().flat_map(|guesser| guesser.join().unwrap()).collect()
    });
    let cut = answers.iter().filter(|status| **status == 0).count();
    assert!(guesses.iter().all(|status| [0, 401].contains(status)), "{guesses:?}");
    assert!(answers.iter().all(|status| [0, 200].contains(status)), "{answers:?}");
    (answers.len() - cut, cut, guesses.len())
}

#[test]
fn a_proxy_that_is_no_address_is_refused() {
    let output = runlet()
        .args(["server", "--data", "/nowhere", "--trusted-proxy", "10.0.0.0/99"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("10.0.0.0/99"), "{text}");
}

/// Connections on which a call with this token was begun; those that are answered at once are idle then.
fn known(address: SocketAddr, token: &str, count: usize, call: &str) -> Vec<TcpStream> {
    let is_claim = call.starts_with("POST");
    let begin = |number| {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("{call} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
        // A connection that was closed in favour of others is no failure.
        let _ = stream.write_all(head.as_bytes());
        let body = format!(
            r#"{{"name":"r-{number}","hostname":"h","version":"0","os":"linux","arch":"x86_64","nonce":"n-{number}"}}"#
        );
        let body = if is_claim { body.as_str() } else { "" };
        let rest = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(rest.as_bytes());
        stream
    };
    let mut crowd = Vec::new();
    while crowd.len() < count {
        // Fewer at once than there may be unknown ones.
        let first = crowd.len();
        crowd.extend((first..first + 15).map(begin));
        for stream in crowd[first..].iter_mut().filter(|_| !is_claim) {
            let _ = stream.read(&mut [0; 4096]);
        }
    }
    crowd
}

#[test]
fn no_holder_of_a_token_keeps_others_out() {
    for (token_of, call) in [("person", "GET /api/v2/me"), ("class", "POST /api/v3/runner/claim?wait=600")] {
        let mut server = with_files(128);
        server.project();
        let others = server.class_token("a/b");
        let token = match token_of {
            "person" => server.token.expose().to_owned(),
            _ => server.class_token("a/greedy"),
        };
        // More than there is room for.
        let crowd = known(address_of(&server), &token, 90, call);
        // The connection of before was idle, and may have made room.
        server.client = server.client.sibling().unwrap();
        let _runner = server.runner("one", &others);
        let client = server.client.sibling().unwrap();
        let request =
            Request { method: "GET", path: "/live", token: None, body: Body::Empty, timeout: ANSWER };
        assert_eq!(client.send(&request).unwrap().status, 200, "{call}");
        let pipeline = server.trigger(SMALL);
        assert_eq!(server.ended(&pipeline)[0]["status"], "success", "{call}");
        drop(crowd);
    }
}
