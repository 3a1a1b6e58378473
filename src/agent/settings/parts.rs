//! Parts of the settings that belong together and go to one place.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Limits of the tasks of a runner on the host; `None` is no limit. `runner.quota.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Share of the processors beside others of the host: 1 to 10000, where 100 is what everything has.
    pub cpu_weight: Option<u64>,
}

impl Quotas {
    /// Whether any is set.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// Ways in which others learn what a runner does. `status.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Path of the local socket; `None` is the first of the usual places that can be written to.
    pub socket: Option<PathBuf>,
    /// Permissions of the socket.
    pub mode: u32,
    /// Group of the socket, by name or number.
    pub group: Option<String>,
    /// Address for `/live`, `/ready` and `/metrics`.
    pub listen: Option<SocketAddr>,
    /// File of metrics, for the textfile collector of node_exporter.
    pub textfile: Option<PathBuf>,
}

impl Default for Status {
    fn default() -> Self {
        Self { socket: None, mode: 0o600, group: None, listen: None, textfile: None }
    }
}
