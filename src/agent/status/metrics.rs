//! The board as metrics in the text format of Prometheus, version 0.0.4. No job, project or branch is a label: there is no
//! end to these.

use crate::agent::board::{Board, DURATIONS, STATES, seconds};
use crate::metrics::Page;
use std::path::Path;

/// The page, given the file system of which folder is watched.
pub(super) fn page(board: &Board, working_directory: &Path) -> String {
    let report = board.report();
    let mut page = Page::default();
    page.head("runlet_build_info", "gauge", "Version of the runner.");
    let labels = [
        ("version", report.version.as_str()),
        ("name", &report.name),
        ("resource_class", &report.resource_class),
    ];
    page.sample("runlet_build_info", &labels, 1);
    page.one("runlet_start_time_seconds", "gauge", "Start of the runner.", report.started);
    page.one("runlet_heartbeat_timestamp_seconds", "gauge", "Time of these figures.", seconds());
    if let Some(contact) = report.last_contact {
        let help = "Last answer of the control plane to a claim.";
        page.one("runlet_last_contact_timestamp_seconds", "gauge", help, contact);
    }
    page.head("runlet_state", "gauge", "1 for what the runner is at.");
    for (state, word) in STATES {
        page.sample("runlet_state", &[("state", word)], u64::from(state == report.state));
    }
    let counters = [
        ("runlet_claims_total", "Claims by what came of them.", "result", &report.claims),
        ("runlet_tasks_total", "Tasks that have ended, by how.", "result", &report.tasks),
    ];
    for (name, help, label, counts) in counters {
        page.head(name, "counter", help);
        for count in counts {
            page.sample(name, &[(label, &count.of)], count.count);
        }
    }
    let name = "runlet_task_duration_seconds";
    page.head(name, "histogram", "Durations of tasks, from the claim.");
    let mut sum = 0;
    let ends = DURATIONS.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
    for (end, count) in ends.zip(report.durations) {
        sum += count;
        page.sample(&format!("{name}_bucket"), &[("le", &end)], sum);
    }
    page.sample(&format!("{name}_sum"), &[], report.duration_sum);
    page.sample(&format!("{name}_count"), &[], sum);
    if let Some((all, free)) = crate::agent::gates::room_of(working_directory) {
        page.one("runlet_working_directory_size_bytes", "gauge", "Size of its file system.", all);
        page.one("runlet_working_directory_free_bytes", "gauge", "Room left on it.", free);
    }
    page.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::board::Activity;
    use std::time::Duration;

    #[test]
    fn a_page_has_heads_samples_and_escaped_labels() {
        let board = Board::new("n", "https://ci");
        board.class("a/\"b\\");
        board.state(Activity::Idle, "");
        board.claimed("nothing");
        board.begun("t", "j", Duration::from_secs(45));
        board.ended("failed");
        let page = page(&board, Path::new("/"));
        for line in [
            "runlet_build_info{version=\"0.1.0\",name=\"n\",resource_class=\"a/\\\"b\\\\\"} 1",
            "runlet_state{state=\"idle\"} 1",
            "runlet_state{state=\"running\"} 0",
            "runlet_claims_total{result=\"nothing\"} 1",
            "runlet_tasks_total{result=\"failed\"} 1",
            "runlet_task_duration_seconds_bucket{le=\"30\"} 0",
            "runlet_task_duration_seconds_bucket{le=\"60\"} 1",
            "runlet_task_duration_seconds_bucket{le=\"+Inf\"} 1",
            "runlet_task_duration_seconds_count 1",
            "# TYPE runlet_task_duration_seconds histogram",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(page.ends_with('\n') && page.lines().all(|line| !line.is_empty()));
    }
}
