//! The service manager that started this process: what it is told, and what of the environment it meant for this
//! process alone.
//!
//! The protocol is that of systemd's `sd_notify`: a datagram of `KEY=value` lines to the socket in `NOTIFY_SOCKET`.
//! Without that variable nothing is said, and a manager that does not listen is no failure: work goes on.

use std::io;
use std::time::Duration;

/// Variables that a service manager sets for the process that it starts. What that process starts in turn must not
/// have them: a job could tell the manager tales, and would find the credentials of its runner.
pub const VARIABLES: [&str; 20] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "FDSTORE",
    "CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "LOG_NAMESPACE",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
];

/// Longest that a message waits for the service manager to take it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a service manager wants to be told anything.
pub fn is_listening() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|address| !address.is_empty())
}

/// Tells the service manager lines of `KEY=value`.
pub fn tell(lines: &str) {
    let Ok(address) = std::env::var("NOTIFY_SOCKET") else { return };
    // A busy one may take its time, but one that does not read must not hold anything up for long.
    if let Err(error) = super::os::send_datagram(&address, lines.as_bytes(), PATIENCE) {
        log::info!("cannot tell the service manager at `{address}`: {error}");
    }
}

/// The time within which the service manager wants to hear of progress again and again; `None`: not at all.
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|time| *time > 0 && is_meant).map(Duration::from_micros)
}

/// Whether standard error is the journal's.
pub fn logs_to_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    super::os::number_of(&io::stderr()).is_some_and(|(device, number)| format!("{device}:{number}") == stream)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use crate::system::os::socket_address;

    #[test]
    fn addresses_are_paths_or_names_without_a_file() {
        assert_eq!(socket_address("/run/x").unwrap().as_pathname(), Some(std::path::Path::new("/run/x")));
        assert!(socket_address(&"x".repeat(200)).is_err());
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let address = socket_address("@runlet/x").unwrap();
            assert_eq!(address.as_abstract_name(), Some(&b"runlet/x"[..]));
        }
    }
}
