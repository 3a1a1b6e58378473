//! The ways to the board: a local socket, an HTTP listener and a file. They have no thread of their own: whoever waits
//! for something else polls them as well, and lets them answer when somebody came.
//!
//! An answer is given at once or not at all: a caller who does not read or write holds nobody up for long.

use super::metrics;
use super::socket::{self, Listener};
use crate::agent::board::Board;
use crate::agent::settings::{Settings, Status};
use crate::logging::record;
use crate::system::opening;
use crate::system::os::{Access, access, set_mode};
use rustix::fd::{AsFd, BorrowedFd};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pause between two files of metrics.
const TEXTFILE: Duration = Duration::from_secs(30);
/// How long a caller may take to ask, and to read.
const PATIENCE: Duration = Duration::from_millis(500);
/// More than the head of any question here, in bytes.
const LONGEST_QUESTION: usize = 4096;

/// The doors of one runner.
pub(in crate::agent) struct Doors {
    board: Board,
    socket: Option<(Listener, PathBuf)>,
    listener: Option<TcpListener>,
    textfile: Option<(PathBuf, Instant)>,
    working_directory: PathBuf,
}

impl Doors {
    /// Opens what the settings name. What cannot be opened is told in the log, and the runner works without.
    pub(in crate::agent) fn open(settings: &Settings, board: &Board) -> Self {
        let Status { listen, textfile, .. } = &settings.status;
        let mut made = None;
        for path in candidates(settings) {
            if socket::connect(&path).is_ok() {
                record!(Debug; "another runner of this name answers at `{}`", path.display());
                break;
            }
            match socket::bind(&path, &settings.status) {
                Ok(listener) => {
                    made = Some((listener, path));
                    break;
                }
                Err(error) => {
                    record!(Debug; "no status socket at `{}`: {error}", path.display())
                }
            }
        }
        if made.is_none() {
            log::warn!(
                "`runlet status` will not find this runner: no socket can be made; set `status.socket`"
            );
        }
        let listener = listen.and_then(|address| {
            let made = TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            made.inspect(|listener| {
                if let Ok(address) = listener.local_addr() {
                    log::info!("answering at http://{address}/ready, /live and /metrics");
                }
            })
            .inspect_err(|error| log::error!("cannot listen on {address} (`status.listen`): {error}"))
            .ok()
        });
        Self {
            board: board.clone(),
            socket: made,
            listener,
            textfile: textfile.clone().map(|path| (path, Instant::now())),
            working_directory: settings.working_directory.clone(),
        }
    }

    /// The path of the socket.
    pub(in crate::agent) fn path(&self) -> Option<PathBuf> {
        self.socket.as_ref().map(|(_, path)| path.clone())
    }

    /// Returns the sockets to wait for.
    pub(in crate::agent) fn waits(&self) -> Vec<BorrowedFd<'_>> {
        let socket = self.socket.as_ref().map(|(socket, _)| socket.as_fd());
        socket.into_iter().chain(self.listener.as_ref().map(AsFd::as_fd)).collect()
    }

    /// The time after which they want to be asked to answer even if nobody came.
    pub(in crate::agent) fn patience(&self) -> Option<Duration> {
        self.textfile.as_ref().map(|(_, next)| next.saturating_duration_since(Instant::now()))
    }

    /// Answers those who came, and writes the file when it is time.
    pub(in crate::agent) fn answer(&mut self) {
        if let Some((socket, _)) = &self.socket {
            while let Ok((caller, _)) = socket.accept() {
                let text = serde_json::to_vec(&self.board.report()).unwrap_or_default();
                // A caller that has gone away misses it.
                let _ = caller
                    .set_nonblocking(false)
                    .and_then(|()| caller.set_write_timeout(Some(PATIENCE)))
                    .and_then(|()| (&caller).write_all(&text));
            }
        }
        if let Some(listener) = &self.listener {
            while let Ok((mut caller, _)) = listener.accept() {
                let _ = caller.set_nonblocking(false);
                let timed = caller
                    .set_read_timeout(Some(PATIENCE))
                    .and_then(|()| caller.set_write_timeout(Some(PATIENCE)));
                let question = timed.and_then(|()| question(&mut caller));
                let _ = question.and_then(|path| caller.write_all(self.page(&path).as_bytes()));
            }
        }
        let Some((path, next)) = &mut self.textfile else { return };
        if *next > Instant::now() {
            return;
        }
        *next = Instant::now() + TEXTFILE;
        if let Err(error) = write_file(path, &metrics::page(&self.board, &self.working_directory)) {
            log::warn!("cannot write `{}` (`status.textfile`): {error}", path.display());
        }
    }

    /// The answer to `GET path`.
    fn page(&self, path: &str) -> String {
        let said = |good: bool| {
            if good { ("200 OK", "ok\n".to_owned()) } else { ("503 Service Unavailable", "no\n".to_owned()) }
        };
        let (status, body) = match path {
            "/live" => said(self.board.is_live()),
            "/ready" => said(self.board.is_ready()),
            "/metrics" => ("200 OK", metrics::page(&self.board, &self.working_directory)),
            _ => ("404 Not Found", "there are /live, /ready and /metrics\n".to_owned()),
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

/// The path of a question, once its head is there.
fn question(caller: &mut impl Read) -> io::Result<String> {
    let (mut head, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = caller.read(&mut bytes)?;
        head.extend(&bytes[..read]);
        if read == 0 || head.len() > LONGEST_QUESTION || Instant::now() > deadline {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.split_ascii_whitespace();
    let path = words.next().filter(|method| matches!(*method, "GET" | "HEAD")).and(words.next());
    let path = path.and_then(|path| path.split('?').next());
    path.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Readers see the whole file or the one before.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    opening::write(&temporary, text.as_bytes())?;
    set_mode(&temporary, 0o644)?;
    fs::rename(&temporary, path)
}

/// The folders in which sockets are looked for, the usual one of services first.
pub(super) fn folders(state_directory: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/run/runlet")];
    folders.extend(std::env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("runlet")));
    folders.extend(state_directory.map(Path::to_owned));
    folders
}

/// Lists the places for the socket of a runner: the named one only, or else the first folder that can be written to.
pub(super) fn candidates(settings: &Settings) -> Vec<PathBuf> {
    match &settings.status.socket {
        Some(path) => vec![path.clone()],
        None => {
            let name = format!("{}.sock", settings.name);
            folders(settings.state_directory.as_deref()).iter().map(|folder| folder.join(&name)).collect()
        }
    }
}

/// Whether a socket can be had. The error is for people.
pub(in crate::agent) fn check(settings: &Settings) -> Result<(), String> {
    let paths = candidates(settings);
    let longest = socket::longest_path();
    let fits = |path: &PathBuf| path.as_os_str().len() <= longest;
    if !paths.iter().any(fits) {
        let shown = paths.last().map(|path| path.display().to_string()).unwrap_or_default();
        return Err(format!("the path of the status socket is longer than {longest} bytes: `{shown}`"));
    }
    if let (Some(path), Some(folder)) =
        (&settings.status.socket, paths.first().and_then(|path| path.parent()))
    {
        if access(folder, Access::WRITE_OK).is_err() {
            return Err(format!("`{}` (status.socket) cannot be made", path.display()));
        }
    }
    if settings.status.group.as_deref().is_none_or(socket::has_group) {
        return Ok(());
    }
    Err("the group of status.group does not exist".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_short_and_whole() {
        let asked = |text: &str| question(&mut text.as_bytes()).ok();
        assert_eq!(asked("GET /live?x HTTP/1.1\r\nHost: a\r\n\r\n").as_deref(), Some("/live"));
        for bad in ["", "GET /live HTTP/1.1\r\n", "POST / HTTP/1.1\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
        assert_eq!(asked(&"x".repeat(10_000)), None);
    }
}
