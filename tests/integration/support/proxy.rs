//! A CONNECT proxy on loopback: sends every tunnel to one place, whatever name is asked for, and
//! demands a login, or speaks TLS itself, when told to.

use rustls::{ServerConfig, ServerConnection};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The proxy, and what it was asked.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// `host:port` of each CONNECT that was let through.
    pub(crate) tunnels: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `login` is the value expected after `Basic `.
    pub(crate) fn start(target: SocketAddr, login: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = Arc::new(Mutex::new(Vec::new()));
        let seen = tunnels.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || {
                    let _ = tunnel(client, target, login, &seen);
                });
            }
        });
        Self { address, tunnels }
    }

    /// Starts a proxy that is spoken to over TLS.
    pub(crate) fn start_tls(target: SocketAddr, config: ServerConfig) -> Self {
        let inner = Self::start(target, None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (plain, config) = (inner.address, Arc::new(config));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let config = config.clone();
                std::thread::spawn(move || unwrap_tls(client, plain, config));
            }
        });
        Self { address, tunnels: inner.tunnels }
    }
}

/// Takes the TLS off a connection and hands what is inside to `plain`, until one side has enough.
fn unwrap_tls(mut client: TcpStream, plain: SocketAddr, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut server = TcpStream::connect(plain)?;
    // Both ways in one thread: each is asked for a moment.
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(std::time::Duration::from_millis(5)))?;
    }
    let mut buffer = [0; 16 * 1024];
    loop {
        match tls.read_tls(&mut client) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                let state = tls.process_new_packets().map_err(std::io::Error::other);
                tls.write_tls(&mut client)?;
                let amount = state?.plaintext_bytes_to_read();
                std::io::copy(&mut tls.reader().take(amount as u64), &mut server)?;
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
        match server.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(amount) => tls.writer().write_all(&buffer[..amount])?,
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn tunnel(
    client: TcpStream,
    target: SocketAddr,
    login: Option<&str>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut request, mut authorized) = (String::new(), login.is_none());
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if let Some(value) = header.trim_end().strip_prefix("Proxy-Authorization: Basic ") {
            authorized |= login == Some(value);
        }
    }
    let mut client = client;
    if !authorized {
        return client
            .write_all(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n");
    }
    let host = request.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(host);
    let server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Go\r\n\r\n")?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let mut server = server;
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
    Ok(())
}
