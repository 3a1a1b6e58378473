//! A fake control plane: an HTTP/1.1 server on loopback, with or without TLS, that hands out tasks,
//! records every request and answers as it is told.

use super::task_calls::Tasks;
use runlet::protocol::{CLAIMED_HEADER, PROTOCOL_HEADER, PROTOCOL_VERSION, TASK_HEADER, Task};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Ids of tasks are as the test wrote them.
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) body: Vec<u8>,
    /// Calls without an answer whose clients were still waiting when it arrived.
    pub(crate) held: usize,
}

impl Recorded {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Answer instead of the ordinary one.
#[derive(Clone)]
pub(crate) struct Canned {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Whether the protocol's header is on it.
    ours: bool,
    /// Whether its last byte is held back.
    stalls: bool,
    /// Further lines of its head.
    head: String,
}

/// The status of a call that gets no answer.
const NO_ANSWER: u16 = 0;

#[derive(Default)]
struct State {
    tasks: Tasks,
    offered: VecDeque<String>,
    requests: Vec<Recorded>,
    /// Applies to paths that contain the text.
    canned: Vec<(String, Canned)>,
    parked: usize,
    /// Connections of calls that get no answer.
    held: Vec<TcpStream>,
    over: bool,
    /// Limit of a proxy in between, and its status for larger bodies.
    body_limit: Option<(usize, u16)>,
}

/// The server; it ends with the value.
pub(crate) struct ControlPlane {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl ControlPlane {
    /// Starts a control plane on a free port, with plain HTTP.
    pub(crate) fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), None)
    }

    /// Plain HTTP at this address.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::listen(TcpListener::bind(address).unwrap(), None)
    }

    pub(crate) fn start_tls(config: ServerConfig) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), Some(Arc::new(config)))
    }

    fn listen(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let for_server = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if lock(&for_server).over {
                    break;
                }
                let (shared, tls) = (for_server.clone(), tls.clone());
                let Ok(socket) = socket else { continue };
                std::thread::spawn(move || {
                    let Ok(beside) = socket.try_clone() else { return };
                    let _ = match tls {
                        None => serve(socket, &beside, &shared),
                        Some(tls) => serve_tls(socket, &beside, tls, &shared),
                    };
                });
            }
        });
        Self { address, scheme, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Puts a task into the queue.
    pub(crate) fn offer(&self, task: &Task) {
        let mut state = lock(&self.shared);
        state.tasks.offered(task);
        state.offered.push_back(serde_json::to_string(task).unwrap());
        drop(state);
        self.shared.1.notify_all();
    }

    /// Answers calls whose path contains `path` so from now on.
    pub(crate) fn answer(&self, path: &str, status: u16, body: &str) {
        self.can(
            path,
            Canned { status, body: body.to_owned(), ours: true, stalls: false, head: String::new() },
        );
    }

    /// Has something between the runner and the control plane answer, without the header of the protocol.
    pub(crate) fn intercept(&self, path: &str, status: u16, body: &str) {
        self.can(
            path,
            Canned { status, body: body.to_owned(), ours: false, stalls: false, head: String::new() },
        );
    }

    /// Redirects calls whose path contains `path`, with everything that an answer of the control plane has.
    pub(crate) fn redirect(&self, path: &str, status: u16, to: &str) {
        let head = format!("Location: {to}\r\nServer: acme-gateway\r\n");
        self.can(path, Canned { status, body: String::new(), ours: true, stalls: false, head });
    }

    /// Puts a proxy in between that answers bodies of more bytes than this with a status of its own.
    pub(crate) fn limit_bodies(&self, bytes: usize, status: u16) {
        lock(&self.shared).body_limit = Some((bytes, status));
    }

    /// Leaves calls whose path contains `path` without an answer until it behaves again.
    pub(crate) fn swallow(&self, path: &str) {
        self.can(
            path,
            Canned { status: NO_ANSWER, body: String::new(), ours: true, stalls: false, head: String::new() },
        );
    }

    /// Answers with the header that hands out a task.
    pub(crate) fn hand_out(&self, claimed: &str, body: &str) {
        let head = format!("{CLAIMED_HEADER}: {claimed}\r\n");
        self.can("claim", Canned { status: 200, body: body.to_owned(), ours: true, stalls: false, head });
    }

    /// Answers but for the last byte, which is held back until the server behaves again.
    pub(crate) fn stall(&self, path: &str, status: u16, body: &str) {
        self.can(
            path,
            Canned { status, body: body.to_owned(), ours: true, stalls: true, head: String::new() },
        );
    }

    fn can(&self, path: &str, canned: Canned) {
        lock(&self.shared).canned.push((path.to_owned(), canned));
        self.shared.1.notify_all();
    }

    /// Somebody cancels a task.
    pub(crate) fn cancel(&self, id: &str) {
        lock(&self.shared).tasks.cancel(id);
    }

    /// A task ends without its agent. With `late` its output is still taken.
    pub(crate) fn end(&self, id: &str, late: bool) {
        lock(&self.shared).tasks.end(id, late);
    }

    /// Takes back every [`ControlPlane::answer`].
    pub(crate) fn behave(&self) {
        lock(&self.shared).canned.clear();
        self.shared.1.notify_all();
    }

    /// Takes back what was said of `path` alone.
    pub(crate) fn release(&self, path: &str) {
        lock(&self.shared).canned.retain(|(part, _)| part != path);
        self.shared.1.notify_all();
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared).requests.clone()
    }

    /// Waits for a request whose path ends in `end`, and returns it.
    pub(crate) fn wait_for(&self, end: &str) -> Recorded {
        super::poll(&format!("a request to `{end}`"), || {
            let requests = self.requests();
            let found = requests.iter().find(|request| request.path.ends_with(end)).cloned();
            found.ok_or_else(|| requests.iter().map(|r| format!("{} {}\n", r.method, r.path)).collect())
        })
    }

    /// Waits until a claim is parked.
    pub(crate) fn wait_parked(&self) {
        super::poll("a parked claim", || match lock(&self.shared).parked {
            0 => Err("none is parked".to_owned()),
            _ => Ok(()),
        });
    }

    pub(crate) fn claims(&self) -> usize {
        self.requests().iter().filter(|request| request.path.contains("/runner/claim")).count()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
        self.shared.1.notify_all();
        // Wakes the accepting thread, which closes the port.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(shared: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve_tls(
    mut socket: TcpStream,
    beside: &TcpStream,
    tls: Arc<ServerConfig>,
    shared: &(Mutex<State>, Condvar),
) -> std::io::Result<()> {
    let mut connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            // Closing with unread bytes would reset the connection and lose the alert on the way.
            socket.shutdown(std::net::Shutdown::Write)?;
            let _ = std::io::copy(&mut socket, &mut std::io::sink());
            return Err(error);
        }
    }
    serve(StreamOwned::new(connection, socket), beside, shared)
}

/// Whether the client waits for more on a connection on which it has said everything.
fn is_open(connection: &TcpStream) -> bool {
    let would_block = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    connection.peek(&mut [0]).is_err_and(would_block)
}

/// `beside` is the connection under the stream.
fn serve<S: Read + Write>(
    stream: S,
    beside: &TcpStream,
    shared: &(Mutex<State>, Condvar),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        if stream.fill_buf()?.first().is_some_and(|byte| !byte.is_ascii_alphabetic()) {
            return stream.get_mut().write_all(b"HTTP/1.1 400 What\r\nContent-Length: 0\r\n\r\n");
        }
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Recorded {
            method: method.to_owned(),
            path: super::runner::without_suffix(path),
            token: String::new(),
            body: Vec::new(),
            held: 0,
        };
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "authorization" => request.token = value.trim().trim_start_matches("Bearer ").to_owned(),
                _ => {}
            }
        }
        request.body = vec![0; length];
        stream.read_exact(&mut request.body)?;
        request.held = lock(shared).held.iter().filter(|connection| is_open(connection)).count();
        let (Canned { status, body, ours, stalls, head: more }, news) = answer(request, shared);
        if lock(shared).over {
            return Ok(());
        }
        let misbehaves = |state: &mut State| !state.over && !state.canned.is_empty();
        if status == NO_ANSWER {
            beside.set_nonblocking(true)?;
            lock(shared).held.push(beside.try_clone()?);
            drop(shared.1.wait_while(lock(shared), misbehaves));
            return beside.shutdown(std::net::Shutdown::Both);
        }
        let length =
            if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let mut head = format!("HTTP/1.1 {status} Said\r\n{length}Content-Type: application/json\r\n");
        if ours {
            head += &format!("{PROTOCOL_HEADER}: {PROTOCOL_VERSION}\r\n");
        }
        if let Some(news) = news {
            head += &format!("{TASK_HEADER}: {news}\r\n");
        }
        head += &format!("{more}\r\n");
        let out = stream.get_mut();
        out.write_all(head.as_bytes())?;
        if stalls {
            out.write_all(&body.as_bytes()[..body.len() - 1])?;
            out.flush()?;
            drop(shared.1.wait_while(lock(shared), misbehaves));
            return Ok(());
        }
        if status != 204 {
            out.write_all(body.as_bytes())?;
        }
        out.flush()?;
    }
}

/// The path at which a runner asks for its class.
const ABOUT: &str = "/api/v3/runner/self";

fn about(request: &Recorded) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    serde_json::json!({
        "resource_class": "acme/linux", "version": "0.1.0", "time_ms": now as u64,
        "padding": request.json()["padding"].as_str().unwrap_or_default(),
    })
    .to_string()
}

fn answer(request: Recorded, shared: &(Mutex<State>, Condvar)) -> (Canned, Option<&'static str>) {
    let path = request.path.clone();
    let mut state = lock(shared);
    if let Some((_, status)) = state.body_limit.filter(|(bytes, _)| request.body.len() > *bytes) {
        return (
            Canned {
                status,
                body: "<html></html>".to_owned(),
                ours: false,
                stalls: false,
                head: String::new(),
            },
            None,
        );
    }
    let canned_self = state.canned.iter().any(|(part, _)| path.contains(part));
    if path == ABOUT && !canned_self {
        // Asked once at the start, whatever a test is about.
        return (
            Canned { status: 200, body: about(&request), ours: true, stalls: false, head: String::new() },
            None,
        );
    }
    state.requests.push(request);
    let canned = |state: &State| {
        state.canned.iter().rev().find(|(part, _)| path.contains(part)).map(|(_, canned)| canned.clone())
    };
    if let Some(canned) = canned(&state) {
        return (canned, None);
    }
    if !path.contains("/runner/claim") {
        let request = state.requests.last().expect("it was just pushed").clone();
        let (status, body, news) = state.tasks.answer(&request);
        return (Canned { status, body, ours: true, stalls: false, head: String::new() }, news);
    }
    let wait = path.split_once("wait=").and_then(|(_, text)| text.parse().ok()).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_secs(wait);
    state.parked += 1;
    let answer = loop {
        if let Some(canned) = canned(&state) {
            break canned;
        }
        if let Some(task) = state.offered.pop_front() {
            break Canned { status: 200, body: task, ours: true, stalls: false, head: String::new() };
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || state.over {
            break Canned {
                status: 204,
                body: String::new(),
                ours: true,
                stalls: false,
                head: String::new(),
            };
        }
        state = shared.1.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
    };
    state.parked -= 1;
    (answer, None)
}
