//! `runlet exec` at a terminal: a question that a person answers, or does not.

use crate::exec::{folder, steps};
use crate::support::poll;
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A run at a terminal of its own.
struct AtTerminal {
    child: Child,
    /// The side of the terminal at which the person sits.
    person: File,
    /// The text that the person has seen.
    seen: String,
}

impl AtTerminal {
    fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    fn start_with(folder: &Path, variables: &[(&str, &Path)]) -> Self {
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let terminal = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        // The first terminal that the leader of a session opens is the one whose end it is told of.
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", "exec \"$0\" exec \"$1\" <>\"$TERMINAL\" >&0 2>&0"]);
        command.arg(env!("CARGO_BIN_EXE_runlet")).arg(folder).env("TERMINAL", terminal);
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("BASH_ENV");
        command.envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, person: File::from(person), seen: String::new() }
    }

    /// Reads until the question is there.
    fn is_asked(&mut self) {
        let question = "`hold` waits for approval. Approve it? [y/N] ";
        while !self.seen.ends_with(question) {
            assert!(self.reads(), "the question did not come: {}", self.seen);
        }
    }

    fn answers(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    /// Reads a piece; false when nobody is at the other side any more.
    fn reads(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // The other side is closed: Linux calls that an error.
        let count = self.person.read(&mut bytes).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }

    fn ends(mut self) -> (Option<i32>, String) {
        while self.reads() {}
        (self.child.wait().unwrap().code(), self.seen)
    }

    /// Closes the terminal, as a window does.
    fn closes(self) -> ExitStatus {
        let Self { mut child, person, .. } = self;
        drop(person);
        child.wait().unwrap()
    }
}

fn held() -> tempfile::TempDir {
    folder(
        "version: 2.1
jobs:
  first: {machine: true, steps: [run: 'true']}
  last: {machine: true, steps: [run: echo word-is-$((1 + 1))]}
workflows: {w: {jobs: [first, hold: {type: approval, requires: [first]}, last: {requires: [hold]}]}}
",
    )
}

#[test]
fn a_person_at_a_terminal_is_asked_for_an_approval() {
    let folder = held();
    for (answer, code, ran) in
        [("y\n", 0, true), ("yes\n", 0, true), ("n\n", 1, false), ("\n", 1, false), ("\x04", 1, false)]
    {
        let mut run = AtTerminal::start(folder.path());
        run.is_asked();
        run.answers(answer);
        let (ended, seen) = run.ends();
        assert_eq!(ended, Some(code), "{answer:?}: {seen}");
        assert_eq!(seen.contains("word-is-2"), ran, "{answer:?}: {seen}");
        assert_eq!(
            seen.contains("jobs wait for an approval that was not given (`--approve hold`)"),
            !ran,
            "{seen}"
        );
    }
}

#[test]
fn a_run_whose_terminal_goes_away_while_it_asks_ends() {
    let folder = held();
    let mut run = AtTerminal::start(folder.path());
    run.is_asked();
    assert_eq!(run.closes().code(), Some(129));
}

#[test]
fn a_control_c_at_the_question_ends_the_run() {
    let folder = held();
    let mut run = AtTerminal::start(folder.path());
    run.is_asked();
    run.answers("\x03");
    let (ended, seen) = run.ends();
    assert_eq!(ended, Some(130), "{seen}");
}

#[test]
fn a_second_control_c_at_a_terminal_ends_steps_that_do_not_listen() {
    let script = "- run: |\n    trap 'touch \"$ASKED\"' TERM\n    echo word-is-$((1 + 1))\n    while true; do sleep 0.1 || true; done";
    let folder = folder(&steps(script));
    let asked = folder.path().join("asked");
    let mut run = AtTerminal::start_with(folder.path(), &[("ASKED", &asked)]);
    while !run.seen.contains("word-is-2") {
        assert!(run.reads(), "the step did not begin: {}", run.seen);
    }
    run.answers("\x03");
    poll("the wish that the step ends", || if asked.exists() { Ok(()) } else { Err(String::new()) });
    run.answers("\x03");
    let (ended, seen) = run.ends();
    assert_eq!(ended, Some(130), "{seen}");
    assert_eq!(seen.matches("once more to stop at once").count(), 1, "{seen}");
    assert!(seen.contains("stopping at once: what still runs is killed"), "{seen}");
    // What the terminal echoes of the keys does not stand in a line of ours.
    let mut shown = seen.lines().filter_map(|line| line.rsplit('\r').next());
    assert!(!shown.any(|line| line.contains("^C") && line.contains("runlet:")), "{seen}");
}
