//! A short command and what it says, within a time.

use super::os;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Pause between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);
/// Most of an output that is read, in bytes.
const MOST_OUTPUT: u64 = 64 * 1024;

/// The end of a command that ended by itself: its exit code (`None` for a signal) and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Exit code; `None`: a signal.
    pub code: Option<i32>,
    /// Text on standard output.
    pub out: String,
    /// Text on standard error.
    pub err: String,
}

/// Runs a command without input. One that takes longer is killed, which is an error of kind `TimedOut`.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<CommandEnd> {
    // An empty pipe: there are hosts without `/dev/null`.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    drop(child.stdin.take());
    let code = wait(&mut child, limit)?;
    Ok(CommandEnd { code, out: text(child.stdout.take()), err: text(child.stderr.take()) })
}

/// Waits for the end of a child; one that takes longer is killed, which is an error of kind `TimedOut`.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<i32>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(LOOK);
    }
}

/// Reads all that is in a pipe now. Other processes that hold its other end are not waited for.
pub fn text(pipe: Option<impl Into<os::OwnedPipe>>) -> String {
    let bytes = pipe.map_or_else(Vec::new, |pipe| os::read_now(pipe.into(), MOST_OUTPUT));
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_ended_and_the_rest_is_heard() {
        let shell = |script: &str, limit| run(Command::new("/bin/sh").args(["-c", script]), limit);
        let said = shell("echo out; echo err >&2; exit 37", Duration::from_secs(300)).unwrap();
        assert_eq!(said, CommandEnd { code: Some(37), out: "out".into(), err: "err".into() });
        let error = shell("exec sleep 600", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let left = shell("sleep 600 & echo $!", Duration::from_secs(300)).unwrap();
        let pid = rustix::process::Pid::from_raw(left.out.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(run(&mut Command::new("/nonexistent"), Duration::ZERO).is_err());
    }
}
