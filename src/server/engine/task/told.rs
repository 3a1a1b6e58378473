//! The end of a task in one sentence, where it is not the end of its job's own commands: the event, its time and place,
//! and what people can do about it.

use super::words::{BUDGET_MARGIN, Unaccounted};
use crate::protocol::duration;
use crate::server::store::status::{EndedBy, TaskState};
use crate::server::time::Millis;
use std::time::Duration;

/// The reason of a runner that gives none.
pub(super) const NO_REASON: &str = "the runner could not do its part, and did not say why";

/// The sentence of an end; that of an agent that has run the job to its own end stays as it is.
pub(super) fn end(
    message: &str,
    (by, status): (EndedBy, TaskState),
    runner: Option<&str>,
    now: Millis,
) -> String {
    let Some(advice) = advice(by, status) else { return message.to_owned() };
    let place = runner.filter(|_| !names_its_runner(by));
    let place = place.map_or_else(String::new, |runner| format!(" on the runner `{runner}`"));
    format!("{message}; {} {now}{place}: {advice}", known(by))
}

/// Whether the sentence of an end of this kind, which is one of this file, says which runner it was. A sentence that a runner or
/// its agent has sent may name anything.
fn names_its_runner(by: EndedBy) -> bool {
    match by {
        EndedBy::GivenBack | EndedBy::Lapsed | EndedBy::Silence | EndedBy::ClassDeleted => true,
        EndedBy::Finish
        | EndedBy::Cancel
        | EndedBy::Lost
        | EndedBy::HostRestart
        | EndedBy::HandOut
        | EndedBy::Administrator => false,
    }
}

/// How the time is called: of what others have seen only the time is known at which they told it.
fn known(by: EndedBy) -> &'static str {
    match by {
        EndedBy::Finish | EndedBy::GivenBack | EndedBy::Lost | EndedBy::HostRestart => "told at",
        _ => "that was at",
    }
}

/// The sentence of an end after which the task runs again, because its class wants that.
pub(super) fn unsafe_retry(message: &str, runner: &str, times: (u32, u32), now: Millis) -> String {
    format!(
        "{message}; known since {now}, on the runner `{runner}`: the task had begun, and runs again because its resource class wants unsafe retries ({} of {})",
        times.0, times.1
    )
}

/// The sentence of an end that comes with none, unless it is that of the job's own commands.
pub(super) fn without_reason(status: TaskState, had_begun: bool, now: Millis) -> Option<String> {
    match status {
        TaskState::Canceled => Some(canceled(had_begun, None, now)),
        TaskState::Timedout => {
            Some(format!("the job was stopped at {now}, as it ran longer than its runner allows"))
        }
        TaskState::InfrastructureFail => Some(NO_REASON.to_owned()),
        _ => None,
    }
}

/// The sentence of a cancelled task that ended in another way than by hearing of that: `how`, where that is known.
pub(super) fn canceled(had_begun: bool, how: Option<&str>, now: Millis) -> String {
    let how = match how {
        Some(how) => format!("; the task had ended like this: {how}"),
        None if had_begun => "; its steps had ended by themselves".to_owned(),
        None => String::new(),
    };
    let when = if had_begun { "" } else { ", before it had begun" };
    format!("the job was canceled, and ended at {now}{when}{how}")
}

/// The sentence of a task that was cancelled while its agent reported this end.
pub(super) fn canceled_meanwhile(status: TaskState, message: Option<&str>, now: Millis) -> Option<String> {
    match status {
        // The agent has heard of the cancel, and says so.
        TaskState::Canceled => message.map(str::to_owned),
        _ => Some(canceled(true, message, now)),
    }
}

/// The sentence of a cancelled task whose steps have stopped before all that they had said was here.
pub(super) fn stopped(runner: &str, now: Millis) -> String {
    format!(
        "the job was canceled, and its steps had stopped by {now} on the runner `{runner}`: what is not here yet of its log follows when the line to that runner lets it through"
    )
}

/// The sentence of a cancelled task whose agent does not answer. It keeps its steps running until the fence at most.
pub(super) fn canceled_unheard(runner: &str, fence: Millis, now: Millis) -> String {
    format!(
        "the job was canceled and counts as ended since {now}, while nothing is heard of the runner `{runner}`: its steps are stopped when that hears of it, or by themselves before {fence}; the rest of its log follows when it is back"
    )
}

/// The sentence of a cancelled task that had not begun as a restored backup says, and may have since.
pub(super) fn canceled_held(runner: &str, fence: Millis, now: Millis) -> String {
    format!(
        "the job was canceled, and ended at {now}; the backup that was restored may be older than its begin: what the runner `{runner}` runs of it is stopped when that hears of it, or by itself before {fence}"
    )
}

/// The reason why a task cannot have succeeded, though its agent says so.
pub(super) fn overlooked(step: Unaccounted<'_>) -> String {
    let Unaccounted { step, name, bytes } = step;
    let what = match bytes {
        None => format!("step {step} (`{name}`) had not ended"),
        Some(bytes) => format!("it did not account for {bytes} bytes of output of step {step} (`{name}`)"),
    };
    format!("the task agent said that the job had succeeded, but {what}")
}

/// The sentence of a task of whose agent nothing is heard, while that may come back.
pub(super) fn unreachable(runner: &str, since: Millis, budget: Duration) -> String {
    let within = match budget.saturating_sub(BUDGET_MARGIN).as_secs() {
        60 => "1 minute".to_owned(),
        seconds if seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    };
    format!(
        "the runner `{runner}` has not been heard of since {since}: the job goes on when it is back, and fails when it is not within {within}"
    )
}

/// The sentence of a task whose agent is back.
pub(super) fn heard_again(runner: &str, since: Millis) -> String {
    format!("the runner `{runner}` is heard of again; it had not been since {since}")
}

/// The sentence of a task of whose agent nothing was heard for too long.
pub(super) fn silent(runner: &str, since: Millis) -> String {
    format!("the runner `{runner}` has not been heard of since {since}: it was stopped, or lost the network")
}

/// The sentence of a task that nobody will ever claim.
pub(super) fn class_deleted(class: &str) -> String {
    format!("the resource class `{class}` was deleted while the task waited for a runner of it")
}

/// The sentence of a task that waited longer than its class lets it.
pub(super) fn waited_too_long(class: &str, limit: Duration) -> String {
    let limit = duration::format(limit);
    format!(
        "no runner of `{class}` took the job within {limit}, which is as long as jobs may wait there (`runlet admin runner list {class}` tells why)"
    )
}

/// The sentence of a new start of the host that had a task, as a claim of the runner `told_by` says.
pub(super) fn host_restarted(runner: &str, told_by: &str) -> String {
    let message = "the host was restarted while it had this task";
    if runner == told_by {
        return message.to_owned();
    }
    format!(
        "{message} (the runner `{told_by}` says so, which has the same machine id; hosts that are copies of each other need ids of their own: see systemd-machine-id-setup)"
    )
}

/// The sentence of a task that was claimed as often as it is, and never began.
pub(super) fn never_begun(runner: &str, by: EndedBy, why: &str) -> String {
    let last = match by {
        EndedBy::Lapsed => "did not",
        _ => "gave it back",
    };
    format!("no runner could begin this task; the last one, `{runner}`, {last}: {why}")
}

/// The sentence of an attempt that never began, and is followed by another one.
pub(super) fn back(runner: &str, by: EndedBy, why: &str) -> String {
    let left = if by == EndedBy::Lapsed { "did not begin it" } else { "gave it back" };
    format!("the runner `{runner}` {left}: {why}")
}

/// The sentence of a task that came back to the queue of a class that is gone.
pub(super) fn back_to_no_class(runner: &str, by: EndedBy, why: &str, class: &str) -> String {
    format!(
        "{}; no other one can have it, as the resource class `{class}` was deleted",
        back(runner, by, why)
    )
}

/// The sentence of a claim that ran out before the task began.
pub(super) fn lapsed(is_too_late: bool) -> &'static str {
    match is_too_late {
        true => "it had not begun in the time that its class allows after a claim",
        false => "the runner was not heard of any more",
    }
}

fn advice(by: EndedBy, status: TaskState) -> Option<&'static str> {
    match by {
        EndedBy::Finish if status == TaskState::InfrastructureFail => {
            Some("see to that runner and its host, then rerun the workflow from what failed")
        }
        EndedBy::Finish | EndedBy::Cancel => None,
        EndedBy::GivenBack | EndedBy::Lapsed => Some(
            "`runlet doctor` on the hosts of this class tells what is wrong there; then rerun the workflow from what failed",
        ),
        EndedBy::Silence => Some(
            "see whether its host runs and reaches this control plane (`runlet doctor` there), then rerun the workflow from what failed",
        ),
        EndedBy::Lost => Some(
            "see the log of that runner, and whether its host ran out of memory or disk, then rerun the workflow from what failed",
        ),
        EndedBy::HostRestart => Some("rerun the workflow from what failed"),
        EndedBy::HandOut => Some("rerun the workflow from what failed when that is mended"),
        EndedBy::ClassDeleted => Some(
            "make the class again with `runlet admin resource-class create` or name another one, then rerun the workflow",
        ),
        EndedBy::Administrator => Some("rerun the workflow if it is still wanted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_not_the_jobs_own_says_when_and_where_and_what_to_do() {
        let at = Millis(1_000);
        let all = [
            EndedBy::Finish,
            EndedBy::GivenBack,
            EndedBy::Lapsed,
            EndedBy::Silence,
            EndedBy::Lost,
            EndedBy::Cancel,
            EndedBy::HostRestart,
            EndedBy::HandOut,
            EndedBy::ClassDeleted,
            EndedBy::Administrator,
        ];
        for by in all {
            let told = end("it broke", (by, TaskState::InfrastructureFail), Some("r1"), at);
            let is_own = by == EndedBy::Cancel;
            let place = if names_its_runner(by) { "" } else { " on the runner `r1`" };
            let begins =
                told.starts_with(&format!("it broke; {} 1970-01-01T00:00:01.000Z{place}: ", known(by)));
            assert_eq!(begins, !is_own, "{told}");
            assert_eq!(told.contains("rerun the workflow"), !is_own, "{told}");
        }
        assert_eq!([known(EndedBy::Finish), known(EndedBy::Silence)], ["told at", "that was at"]);
        let own = (EndedBy::Finish, TaskState::Failed);
        let lapsed = never_begun("r1", EndedBy::Lapsed, lapsed(false));
        assert!(lapsed.ends_with("`r1`, did not: the runner was not heard of any more"), "{lapsed}");
        assert_eq!(end("exited with code 1", own, Some("r1"), at), "exited with code 1");
        for (budget, within) in [(60, "1 minute"), (90, "90 seconds"), (7200, "120 minutes")] {
            let told = unreachable("r1", at, Duration::from_secs(budget) + BUDGET_MARGIN);
            assert!(told.ends_with(&format!("fails when it is not within {within}")), "{told}");
        }
        let named = [
            (EndedBy::Silence, silent("r1", at)),
            (EndedBy::Lapsed, never_begun("r1", EndedBy::Lapsed, "w")),
            (EndedBy::GivenBack, never_begun("r1", EndedBy::GivenBack, "w")),
            (EndedBy::ClassDeleted, back_to_no_class("r1", EndedBy::Lapsed, "w", "a/b")),
            (EndedBy::HostRestart, host_restarted("r1", "r1")),
            (EndedBy::HostRestart, host_restarted("r1", "r2")),
            (EndedBy::Lost, "killed beside `r1`".to_owned()),
        ];
        for (by, message) in named {
            let told = end(&message, (by, TaskState::InfrastructureFail), Some("r1"), at);
            let times = told.matches("the runner `r1`").count() + told.matches("one, `r1`").count();
            assert_eq!(times, 1, "{told}");
        }
    }
}
