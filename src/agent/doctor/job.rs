//! Look at the host for jobs, by the task agent's program, started behind `runner.command_prefix` as a task is. On the way
//! it is seen whether the prefix keeps its contract: standard input and output, signals and the exit code.

use crate::agent::machine;
use crate::agent::settings::Settings;
use crate::protocol::finding::{FindingLevel, Findings};
use crate::protocol::json;
use crate::protocol::task_input::{PROBE_EXIT, Probe, ProbeAnswer, ProbeInput};
use crate::system::command;
use crate::system::os::{self, Pid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::process::Child;
use std::time::{Duration, Instant};

/// Longest wait for the prefix to start, and for the look itself.
const LOOK: Duration = Duration::from_secs(12);
/// Longest wait for TERM to arrive, and for the exit code.
const END: Duration = Duration::from_secs(3);

pub(super) fn look(settings: &Settings, found: &mut Findings) {
    let program = match machine::tools::own_program() {
        Ok(program) => program,
        Err(error) => {
            let text = format!("this program cannot be found: {error}");
            return found.add(
                "job",
                FindingLevel::Skipped,
                text,
                "mount /proc, or call the program by its path",
            );
        }
    };
    let mut command = machine::agent_command(settings, &program);
    os::lead_group(&mut command);
    let id = if settings.command_prefix.is_empty() { "job" } else { "command_prefix" };
    match command.spawn() {
        Ok(mut child) => {
            examine(settings, &mut child, id, found);
            // Processes that a prefix has left behind are in its group.
            if let Some(pid) = Pid::from_raw(child.id() as i32) {
                os::kill_group(pid);
            }
            let _ = child.wait();
        }
        Err(error) => {
            let first = command.get_program().to_string_lossy();
            let text = format!("`{first}` cannot be started: {error}");
            found.add(id, FindingLevel::Fail, text, "install it, or correct runner.command_prefix");
        }
    }
}

fn examine(settings: &Settings, child: &mut Child, id: &str, found: &mut Findings) {
    let probe = Probe {
        working_directory: settings.working_directory.clone(),
        tool_directory: settings.task_agent_directory.clone().filter(|folder| folder.is_dir()),
    };
    let input = serde_json::to_vec(&ProbeInput { runlet_probe: probe }).unwrap_or_default();
    if let Some(mut stdin) = child.stdin.take() {
        // A prefix that does not read it is found out by what it says, or does not say.
        let _ = stdin.write_all(&input);
    }
    let line = first_line(child);
    let answer = line.as_deref().and_then(|line| json::read::<ProbeAnswer>(line.as_bytes()).ok());
    let Some(answer) = answer else {
        let ended = command::wait(child, END);
        let said = command::text(child.stderr.take());
        let (text, advice) = silent(line, ended, &said);
        return found.add(id, FindingLevel::Fail, text, advice);
    };
    found.0.extend(answer.runlet_probe);
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let _ = os::stop(pid);
    }
    let started = Instant::now();
    let ended = command::wait(child, END);
    let (text, advice) = match ended {
        Ok(Some(code)) if code == i32::from(PROBE_EXIT) => {
            return found.fine(
                id,
                format!("it passes input, TERM ({} ms) and exit codes", started.elapsed().as_millis()),
            );
        }
        Ok(Some(code)) => (
            format!("the exit code is {code} where the task agent had {PROBE_EXIT}"),
            "the prefix must end with the code of what it started: begin its last command with `exec`",
        ),
        Ok(None) => (
            "the prefix ends by TERM and does not pass it on".to_owned(),
            "jobs could not be stopped in good order: begin its last command with `exec`, or use `sudo`",
        ),
        Err(_) => (
            format!("TERM does not reach the task agent within {} s", END.as_secs()),
            "the prefix must pass signals on: begin its last command with `exec`, or use `sudo`",
        ),
    };
    found.add(id, FindingLevel::Fail, text, advice);
}

/// Explains that no look was made.
fn silent(line: Option<String>, ended: std::io::Result<Option<i32>>, said: &str) -> (String, &'static str) {
    let said = match (said.lines().last(), line) {
        (Some(last), _) => format!(": {last}"),
        (None, Some(line)) => format!(": {line}"),
        (None, None) => String::new(),
    };
    let lower = said.to_ascii_lowercase();
    match ended {
        Ok(_) if lower.contains("password") || lower.contains("tty") => (
            format!("the prefix wants a person{said}"),
            "a line for sudoers: `RUNNER ALL=(JOBS) NOPASSWD: ALL` and `Defaults:RUNNER !requiretty`; and `sudo -n`",
        ),
        Ok(_) if lower.contains("new privileges") => (
            format!("the prefix gets no other rights{said}"),
            "take NoNewPrivileges= and all that implies it out of the unit",
        ),
        Ok(_) if lower.contains("standard input") => {
            (format!("standard input does not arrive{said}"), "the prefix must pass standard input on")
        }
        Ok(code) => {
            let code = code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
            let advice = "the prefix must start the words that follow it; what it says is also in the log of the runner";
            (format!("no task agent came up, the end was {code}{said}"), advice)
        }
        Err(_) => (
            format!("the task agent says nothing within {} s{said}", LOOK.as_secs()),
            "the prefix must not wait for anything, and must pass standard input and output on",
        ),
    }
}

/// The first line of standard output that comes in time; what else it says is not waited for.
fn first_line(child: &mut Child) -> Option<String> {
    let mut out = os::hear(child.stdout.take()?.into()).ok()?;
    let (deadline, mut text) = (Instant::now() + LOOK, Vec::new());
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok()?;
        let ready = poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&left));
        if matches!(ready, Ok(0)) {
            return None;
        }
        // An interrupted wait is a short one: there may be nothing to read.
        if ready.is_err() && Instant::now() < deadline {
            continue;
        }
        let mut bytes = [0; 4096];
        let read = out.read(&mut bytes).unwrap_or(0);
        text.extend(&bytes[..read]);
        while let Some(at) = text.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&text.drain(..=at).collect::<Vec<u8>>()).into_owned();
            if line.starts_with('{') {
                return Some(line);
            }
        }
        if read == 0 {
            return (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned());
        }
    }
}
