//! How things are shown: statuses as glyph, word and colour, times, durations, sizes, addresses.

use crate::server::api::shared::failure::{Answer, ApiError};
use crate::server::store::read::{Pipeline, RunStatus};
use crate::server::store::status::{JobStatus, StepState, TaskState, TestResult, WorkflowStatus};
use crate::server::time::Millis;
use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use std::fmt;
use std::time::Duration;

/// Renders a page.
pub(super) fn page(template: &impl Template) -> Answer<Response> {
    let text = template.render().map_err(|error| {
        log::error!("failed to render a page: {error}");
        ApiError::internal()
    })?;
    Ok(Html(text).into_response())
}

/// A status: never by colour alone, and in words that text browsers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Class of the style sheet.
    pub(super) class: &'static str,
    /// Glyph that stands for the status without its word: one character.
    pub(super) glyph: &'static str,
    /// The status in words.
    pub(super) word: &'static str,
}

impl Mark {
    fn of(word: &'static str) -> Self {
        let (class, glyph) = match word {
            "success" => ("ok", "✓"),
            "failed" | "timedout" | "error" | "failure" => ("bad", "✗"),
            "failing" => ("bad", "● ✗"),
            "unauthorized" => ("bad", "⛔"),
            "infrastructure_fail" | "terminated-unknown" => ("infra", "⚠"),
            "running" => ("run", "●"),
            "queued" => ("wait", "◷"),
            "on_hold" => ("hold", "‖"),
            "canceled" => ("idle", "⊘"),
            "blocked" => ("idle", "○"),
            _ => ("idle", "–"),
        };
        let word = match word {
            "timedout" => "timed out",
            "infrastructure_fail" => "runner failure",
            "terminated-unknown" => "ended for unknown reasons",
            "on_hold" => "on hold",
            "not_run" => "not run",
            word => word,
        };
        Self { class, glyph, word }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.glyph, self.word)
    }
}

macro_rules! marks {
    ($($status:ident),+) => {
        $(impl From<$status> for Mark {
            fn from(status: $status) -> Self {
                Self::of(status.as_str())
            }
        })+
    };
}

marks!(WorkflowStatus, JobStatus, StepState, TestResult);

impl From<RunStatus> for Mark {
    fn from(status: RunStatus) -> Self {
        Self::of(status.word())
    }
}

impl From<TaskState> for Mark {
    fn from(state: TaskState) -> Self {
        Self::of(if state.is_with_a_runner() { "running" } else { state.as_str() })
    }
}

/// A time to the second, UTC.
pub(super) fn moment(time: Millis) -> String {
    let text = time.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// How long something took, or takes until now; empty when it has not begun.
pub(super) fn took(started: Option<Millis>, stopped: Option<Millis>) -> String {
    started.map_or_else(String::new, |started| span(stopped.unwrap_or_else(Millis::now).since(started)))
}

/// A duration in at most two units.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        s @ 1..=59 => format!("{s}s"),
        s @ 60..=3599 => format!("{}m{:02}s", s / 60, s % 60),
        s @ 3600..=86_399 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        s => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A duration as [`span`] shows it, with tenths of the seconds of a short one: tests are compared by them.
pub(super) fn fine_span(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis() / 100) {
        (seconds @ 1..=59, tenths @ 1..) => format!("{seconds}.{tenths}s"),
        _ => span(time),
    }
}

/// A size in bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=1_048_575 => format!("{} KB", bytes / 1024),
        1_048_576..=1_073_741_823 => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GB", bytes as f64 / 1_073_741_824.0),
    }
}

/// The commit of a pipeline in a line: branch or tag, short revision.
pub(super) fn source(pipeline: &Pipeline) -> (String, String) {
    let place = match (&pipeline.branch, &pipeline.tag) {
        (Some(branch), _) => branch.clone(),
        (None, Some(tag)) => format!("tag {tag}"),
        (None, None) => String::new(),
    };
    let revision = pipeline.revision.as_deref().unwrap_or_default();
    (place, revision.chars().take(7).collect())
}

/// A text as the value of a query.
pub(super) fn query_value(text: &str) -> String {
    encoded(text, b"-._~/")
}

/// A text as one part of a path.
pub(super) fn path_part(text: &str) -> String {
    encoded(text, b"-._~@+:,=")
}

fn encoded(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_short() {
        let span = |ms| span(Duration::from_millis(ms));
        let shown = [span(999), span(59_999), span(182_000), span(3_700_000), span(90_000_000)];
        assert_eq!(shown, ["999ms", "59s", "3m02s", "1h01m", "1d01h"]);
        let fine = [900, 1500, 2040, 59_999, 60_500].map(|ms| fine_span(Duration::from_millis(ms)));
        assert_eq!(fine, ["900ms", "1.5s", "2s", "59.9s", "1m00s"]);
        assert_eq!([size(7), size(2048), size(3 << 20)], ["7 B", "2 KB", "3.0 MB"]);
        assert_eq!(moment(Millis(1_700_000_000_123)), "2023-11-14 22:13:20");
        assert_eq!(query_value("/a?b=c&d é"), "/a%3Fb%3Dc%26d%20%C3%A9");
        assert_eq!(Mark::from(TaskState::Unreachable).to_string(), "● running");
        assert_eq!(Mark::from(JobStatus::InfrastructureFail).class, "infra");
    }
}
