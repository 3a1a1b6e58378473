//! The beginning of a task: the host is made ready, the control plane is asked, and only then steps may run. A
//! task that cannot begin is given back; where that does not work, the runner is told on standard output and
//! does it.

use super::end::StopReason;
use super::output::report::{Begin, GaveBack, Reporter};
use super::prepare::{NotReady, prepare};
use super::task::TaskRun;
use crate::http::retry::Backoff;
use crate::protocol::task_input::Said;
use crate::protocol::{GiveBackReason, RefusalCode};
use std::io::Write;
use std::time::Duration;

/// How the beginning went.
#[derive(Debug)]
pub(super) enum Beginning {
    /// The steps may run.
    Begun,
    /// The task is not this agent's any more: it was given back, or has ended at the control plane.
    Over,
    /// The task has not begun and could not be given back; a sentence for people. The runner has been told,
    /// or learns from the exit code that the task is lost.
    Failed(String),
}

/// Makes the host ready and asks for the beginning.
pub(super) fn begin(task: &mut TaskRun) -> Beginning {
    let TaskRun { input, host, control, records, .. } = task;
    match prepare(input, host, control, records) {
        Ok(spoiled) => task.open_first(spoiled),
        Err(NotReady::Host(why)) => {
            let why = records.secrets.mask(&why);
            return failed(&records.reporter, why, input.pause_seconds);
        }
        Err(NotReady::Stopped(reason)) => return stopped(&records.reporter, &input.runner_name, reason),
    }
    let TaskRun { input, control, records, .. } = task;
    let reporter = &records.reporter;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10), Duration::MAX);
    let mut last = String::new();
    loop {
        if reporter.is_over() {
            return over(reporter);
        }
        if let Some(reason) = control.stopped() {
            return stopped(reporter, &input.runner_name, reason);
        }
        if let Some(why) = reporter.begin_is_late() {
            return tell(format!("{why}: {last}"));
        }
        match reporter.begin(&mut backoff) {
            Begin::Granted => {
                say(Said::Begun, None);
                return Beginning::Begun;
            }
            Begin::Again(wait, error) => {
                log::warn!("{error}; trying again in {} ms", wait.as_millis());
                last = error.to_string();
                control.wait_or_stop(wait);
            }
            Begin::Refused(error) if error.code() == Some(RefusalCode::TaskEnded) => {
                log::warn!("the task does not begin: {error}");
                reporter.over();
                return Beginning::Over;
            }
            Begin::Refused(error) => {
                reporter.over();
                return Beginning::Failed(format!("the control plane does not let it: {error}"));
            }
        }
    }
}

/// Gives a task back that this host cannot run.
pub(super) fn failed(reporter: &Reporter, why: String, pause_seconds: u32) -> Beginning {
    log::error!("the task cannot begin on this host: {why}");
    match reporter.give_back(GiveBackReason::Host, &why, pause_seconds) {
        GaveBack::Done => {
            say(Said::Failed, Some(&why));
            Beginning::Over
        }
        // No beginning was asked for yet, so another agent has begun the task.
        GaveBack::Begun => {
            reporter.over();
            Beginning::Over
        }
        GaveBack::Failed(error) => {
            log::warn!("cannot give the task back: {error}");
            tell(why)
        }
    }
}

fn stopped(reporter: &Reporter, runner: &str, reason: StopReason) -> Beginning {
    if matches!(reason, StopReason::Cancel | StopReason::Ended) {
        // A cancel before the beginning has ended the task at once.
        reporter.over();
        return over(reporter);
    }
    let why = format!("the runner `{runner}` was told to stop before the task had begun");
    match reporter.give_back(GiveBackReason::Runner, &why, 0) {
        GaveBack::Done => {
            log::info!("gave the task back, since the runner stops");
            Beginning::Over
        }
        // The call for the beginning had arrived: the task ends like any other that is stopped.
        GaveBack::Begun => {
            reporter.begun_after_all();
            say(Said::Begun, None);
            Beginning::Begun
        }
        GaveBack::Failed(error) => tell(format!("{why}, and could not be given back: {error}")),
    }
}

/// The end of a task that is not this agent's any more.
fn over(reporter: &Reporter) -> Beginning {
    match reporter.disowned() {
        Some(why) => Beginning::Failed(format!("the control plane refuses its calls: {why}")),
        None => Beginning::Over,
    }
}

/// Leaves the task to the runner.
pub(super) fn tell(why: String) -> Beginning {
    say(Said::Failed, Some(&why));
    Beginning::Failed(why)
}

/// Writes a line for the runner. The task goes on where the runner is gone and reads none.
pub(super) fn say(what: Said, message: Option<&str>) {
    let mut line = what.line(message);
    line.push('\n');
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
