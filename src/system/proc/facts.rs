//! Facts about a process.

/// Variable in the environment of a task agent, and so of its steps: the id of their task.
pub const MARK: &str = "RUNLET_TASK_ID";

/// The part of a process that is kept beside its facts: nothing, where `/proc` tells it when it is wanted, and where nobody
/// does.
#[cfg(not(all(unix, not(target_os = "linux"))))]
type Beside = ();
#[cfg(all(unix, not(target_os = "linux")))]
type Beside = Told;

/// The words of `ps` about a process beside its facts.
#[cfg(any(test, all(unix, not(target_os = "linux"))))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Arguments, with a space after each.
    pub(super) arguments: String,
    /// The environment, the same way; empty for processes of others.
    pub(super) environment: String,
}

/// The facts of a process that are needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat<T = Beside> {
    /// Id of the process.
    pub pid: i32,
    /// Process id of the parent.
    pub parent: i32,
    /// Id of its process group.
    pub group: i32,
    /// Id of its session; 0 where that is not told.
    pub session: i32,
    /// True when it has ended and waits to be reaped.
    pub zombie: bool,
    /// True while a signal keeps it from running.
    pub stopped: bool,
    /// When it was started: in clock ticks since the start of the system on Linux, in Unix seconds on other Unix
    /// systems, in units of 100 ns on Windows.
    pub start_time: u64,
    /// Name of its program, as the kernel has it.
    pub name: String,
    /// The words of the system beside that.
    pub(super) told: T,
}
