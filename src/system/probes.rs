//! Answers to the probes of a pod, on a thread of its own: `/live`, and `/ready` when something is set.

use super::threads;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long whoever probes may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts to answer at an address: `/ready` says whether `ready` is set. A port that is taken only costs the probes.
pub fn serve(address: &str, ready: Arc<AtomicBool>) {
    // A host without IPv6 has no `[::]`.
    let listener =
        TcpListener::bind(address).or_else(|_| TcpListener::bind(address.replace("[::]", "0.0.0.0")));
    let started = listener.and_then(|listener| {
        let work = move || listener.incoming().flatten().for_each(|probe| drop(answer(probe, &ready)));
        threads::start_small("probes", 64 * 1024, work)
    });
    if let Err(error) = started {
        log::warn!("probes are not answered at {address}: {error}");
    }
}

fn answer(mut probe: TcpStream, ready: &AtomicBool) -> io::Result<()> {
    probe.set_read_timeout(Some(PATIENCE))?;
    probe.set_write_timeout(Some(PATIENCE))?;
    let mut head = [0; 1024];
    let length = probe.read(&mut head)?;
    let asks_ready = head.get(..length).is_some_and(|head| head.starts_with(b"GET /ready"));
    let status = if asks_ready && !ready.load(Ordering::Relaxed) { "503 Not Ready" } else { "200 OK" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    probe.write_all(answer.as_bytes())
}
