//! The failures of a run, told once more at its end: the steps that failed, and the last lines of what they said.

use super::{Screen, StepView, first_line};
use std::collections::BTreeSet;

/// Lines of a failed step that are shown once more.
const TAIL_LINES: usize = 20;

impl Screen {
    /// The failed steps of the jobs that count, with the end of what they said.
    pub(in crate::exec) fn failures(&self) -> String {
        let mut text = Vec::new();
        for (id, job) in self.jobs().filter(|(_, job)| job.status != "success") {
            let of_job = self.steps.iter().filter(|((of, ..), _)| of == id);
            // Of a step that was tried again, the last time counts.
            let tries: BTreeSet<(u32, &str, u32)> =
                of_job.clone().map(|((_, node, _), step)| (*node, &*step.title, step.attempt)).collect();
            let is_last = |node: u32, step: &StepView| {
                !tries
                    .iter()
                    .any(|&(of, title, attempt)| of == node && title == step.title && attempt > step.attempt)
            };
            for ((_, execution, _), step) in of_job {
                let is_bad = matches!(step.status.as_str(), "failed" | "timedout" | "infrastructure_fail");
                if !is_bad || !is_last(*execution, step) {
                    continue;
                }
                let node = if job.nodes > 1 { format!("#{execution}") } else { String::new() };
                let title = first_line(&step.name);
                let code = step.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                let head =
                    format!("{}{node}: `{title}` {}{code}", self.name_of(job), step.status.replace('_', " "));
                text.extend_from_slice(self.style.paint("1;31", &head).as_bytes());
                text.push(b'\n');
                let lines: Vec<&[u8]> = step.tail.trim_ascii_end().split(|&byte| byte == b'\n').collect();
                for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                    text.extend_from_slice(b"    ");
                    text.extend_from_slice(&self.style.shown_line(line));
                    text.extend_from_slice(self.style.end_of_line());
                }
                let said = |why: &&String| !step.tail.trim_ascii_end().ends_with(why.trim_end().as_bytes());
                if let Some(why) = step.message.as_ref().filter(said) {
                    text.extend_from_slice(format!("    {why}\n").as_bytes());
                }
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
