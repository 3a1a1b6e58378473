//! Parts that the tests share: a control plane that plays its part badly on request, a builder of tasks,
//! and the runner as a process.

pub(crate) mod control_plane;
pub(crate) mod pki;
pub(crate) mod ports;
#[cfg_attr(
    not(feature = "server"),
    allow(dead_code, reason = "most of it is for tests of the control plane")
)]
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod runner;
#[cfg(feature = "server")]
pub(crate) mod seen;
pub(crate) mod task_calls;

use std::time::{Duration, Instant};

/// Longest that a test waits for anything. No machine is so slow that it gets there; what never happens
/// is found out late, and only then.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// Polls until there is an answer; panics with `what` and the last state when there is none in time.
pub(crate) fn poll<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    poll_within(DEADLINE, what, look)
}

/// Polls for what takes more than moments on any machine.
pub(crate) fn poll_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(state) if Instant::now() > deadline => panic!("{what} did not happen; last seen:\n{state}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether the runner is emulated (`ci/emulate` says so). A test that asks for it states what the
/// emulator cannot do, and asserts what is left.
pub(crate) fn emulated() -> bool {
    std::env::var_os("RUNLET_EMULATED").is_some()
}
