//! HTTP/1.1 over TLS, a thread for each connection.

use super::{Shared, api};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request to the API server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// The bearer token.
    pub(crate) token: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// An answer of the API server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u32>,
    pub(crate) body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Json(Value),
    Text(String),
    /// Changes, until the time is over.
    Watch(Watch),
    /// The output of a container, from a time on, while it comes.
    Log(Log),
    /// The connection ends without an answer.
    Cut,
}

/// A request to watch a kind of objects.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) kind: String,
    pub(crate) from: u64,
    pub(crate) labels: String,
    pub(crate) fields: String,
    pub(crate) seconds: u64,
    pub(crate) bookmarks: bool,
}

/// The output of a container.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) file: std::path::PathBuf,
    pub(crate) pod: String,
    pub(crate) since: String,
}

impl Reply {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, retry_after: None, body: Body::Json(body) }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, retry_after: None, body: Body::Text(body.to_owned()) }
    }
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

pub(super) fn listen(tls: ServerConfig, shared: Arc<Shared>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = Arc::new(tls);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            if shared.lock().over {
                return;
            }
            let (shared, tls) = (Arc::clone(&shared), Arc::clone(&tls));
            std::thread::spawn(move || {
                let Ok(connection) = ServerConnection::new(tls) else { return };
                let mut stream = BufReader::new(StreamOwned::new(connection, socket));
                while serve(&mut stream, &shared).unwrap_or(false) {}
            });
        }
    });
    port
}

/// Answers one request; true when there may be another one.
fn serve(stream: &mut BufReader<Stream>, shared: &Shared) -> std::io::Result<bool> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let mut words = line.split_whitespace();
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        ..Asked::default()
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => asked.token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    asked.body = vec![0; length];
    stream.read_exact(&mut asked.body)?;
    let cuts = shared.lock().cuts;
    let reply = api::answer(shared, &asked);
    if shared.lock().over || matches!(reply.body, Body::Cut) {
        return Ok(false);
    }
    let out = stream.get_mut();
    let (kind, text) = match &reply.body {
        Body::Json(body) => ("application/json", format!("{body}\n")),
        Body::Text(text) => ("text/plain; charset=utf-8", text.clone()),
        Body::Watch(watch) => {
            write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )?;
            return follow(out, shared, watch, cuts);
        }
        Body::Log(log) => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            return follow_log(out, shared, log, cuts);
        }
        Body::Cut => return Ok(false),
    };
    let retry = reply.retry_after.map_or_else(String::new, |after| format!("Retry-After: {after}\r\n"));
    let head = match reply.status {
        204 => String::new(),
        _ => format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", text.len()),
    };
    write!(out, "HTTP/1.1 {} X\r\n{retry}{head}\r\n{text}", reply.status)?;
    out.flush()?;
    Ok(true)
}

/// Sends what changes. In pieces: a line may come in three, and two lines in one.
fn follow(out: &mut Stream, shared: &Shared, watch: &Watch, cuts: u64) -> std::io::Result<bool> {
    let until = Instant::now() + Duration::from_secs(watch.seconds);
    let mut from = watch.from;
    let mut chunk = |text: &str| -> std::io::Result<()> {
        if !text.is_empty() {
            write!(out, "{:x}\r\n{text}\r\n", text.len())?;
            out.flush()?;
        }
        Ok(())
    };
    let mut bookmark_at = Instant::now() + Duration::from_millis(500);
    loop {
        let mut state = shared.lock();
        if state.over || state.cuts != cuts {
            return Ok(false);
        }
        let (lines, next) = state.changes(watch, from);
        let is_stale = lines.iter().any(|line| line["type"] == "ERROR");
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        from = next;
        if watch.bookmarks && Instant::now() > bookmark_at && !is_stale {
            bookmark_at = Instant::now() + Duration::from_millis(500);
            text.push_str(&format!("{}\n", state.bookmark(&watch.kind)));
        }
        if text.is_empty() {
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            if left.is_zero() {
                drop(state);
                write!(out, "0\r\n\r\n")?;
                out.flush()?;
                return Ok(true);
            }
            state = shared.changed.wait_timeout(state, left).unwrap().0;
            drop(state);
            continue;
        }
        drop(state);
        let third = (0..=text.len() / 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        chunk(&text[..third])?;
        chunk(&text[third..])?;
        if is_stale {
            write!(out, "0\r\n\r\n")?;
            out.flush()?;
            return Ok(true);
        }
    }
}

/// Sends the lines of a log; each has a second of its own, by its number.
fn follow_log(out: &mut Stream, shared: &Shared, log: &Log, cuts: u64) -> std::io::Result<bool> {
    let mut sent = 0;
    loop {
        let (over, is_there) = {
            let state = shared.lock();
            (state.over || state.cuts != cuts, state.get("pods", &log.pod).is_some())
        };
        if over {
            return Ok(false);
        }
        let text = std::fs::read_to_string(&log.file).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate();
        let lines =
            whole.map(|(n, line)| (n, format!("2026-01-01T00:{:02}:{:02}.5Z {line}", n / 60, n % 60)));
        // A time is cut to its second.
        let second = |time: &str| time.get(..19).unwrap_or_default().to_owned();
        let new = lines.filter(|(n, line)| *n >= sent && second(line) >= second(&log.since));
        let new: Vec<_> = new.map(|(_, line)| line).collect();
        sent = text.matches('\n').count();
        let text = new.concat();
        if !text.is_empty() {
            write!(out, "{:x}\r\n{text}\r\n", text.len())?;
            out.flush()?;
        } else if !is_there {
            write!(out, "0\r\n\r\n")?;
            out.flush()?;
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
