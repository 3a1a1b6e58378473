//! The systemd unit of the runner: whether a stop, a restart and a killed step end as docs/runner.md says. Anyone may ask.

use crate::agent::settings::Settings;
use crate::protocol::finding::{FindingLevel, Findings};
use crate::system::command;
use std::process::Command;
use std::time::Duration;

/// Time that `systemctl` has for an answer.
const SHORT: Duration = Duration::from_secs(3);
/// Time that a stop needs beside the longest task.
const MARGIN: Duration = Duration::from_secs(120);
const PROPERTIES: &str =
    "TimeoutStopUSec,KillMode,OOMPolicy,Delegate,Restart,NoNewPrivileges,TasksMax,LoadState";

pub(super) fn look(settings: &Settings, unit: Option<&str>, found: &mut Findings) {
    let own = || unit_of(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let Some(unit) = unit.map(str::to_owned).or_else(own) else {
        let text = "this is not a service of systemd: what it does at a stop is not known";
        return found.add("unit", FindingLevel::Skipped, text, "name the unit with --unit, if there is one");
    };
    let mut command = Command::new("systemctl");
    command.args(["show", "-p", PROPERTIES, "--", &unit]);
    let said = match command::run(&mut command, SHORT) {
        Ok(said) if said.code == Some(0) => said.out,
        Ok(said) => {
            let text = format!("systemctl does not show `{unit}`: {}", said.err);
            return found.add("unit", FindingLevel::Skipped, text, "");
        }
        Err(error) => {
            return found.add("unit", FindingLevel::Skipped, format!("systemctl cannot be run: {error}"), "");
        }
    };
    judge(settings, &unit, &said, found);
}

/// The service that a process is in, by its control groups.
fn unit_of(groups: &str) -> Option<String> {
    let parts = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'));
    let mut units = parts.filter(|part| part.ends_with(".service"));
    // A session of somebody is in the service of their manager.
    units.find(|unit| !unit.starts_with("user@")).map(str::to_owned)
}

fn judge(settings: &Settings, unit: &str, said: &str, found: &mut Findings) {
    let get = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if get("LoadState").is_some_and(|state| state != "loaded") {
        let text = format!("there is no unit `{unit}`");
        return found.add("unit", FindingLevel::Warn, text, "see `systemctl list-units 'runlet*'`");
    }
    let before = found.0.len();
    let mut wrong = |id: &str, level: FindingLevel, text: &str, advice: &str| {
        let advice = format!("`systemctl edit {unit}`: [Service] {advice}");
        found.add(id, level, format!("`{unit}` {text}"), &advice);
    };
    let wanted = settings.max_run_time + MARGIN;
    if get("TimeoutStopUSec").and_then(span).is_some_and(|stop| stop < wanted) {
        let text = format!(
            "is killed {} after a stop, jobs may take longer",
            get("TimeoutStopUSec").unwrap_or_default()
        );
        wrong("stop_timeout", FindingLevel::Warn, &text, &format!("TimeoutStopSec={}", wanted.as_secs()));
    }
    match get("KillMode") {
        Some("mixed") => wrong(
            "kill_mode",
            FindingLevel::Warn,
            "has KillMode=mixed: jobs are killed when the runner is",
            "KillMode=process",
        ),
        Some(mode @ ("control-group" | "none")) => {
            wrong(
                "kill_mode",
                FindingLevel::Warn,
                &format!("has KillMode={mode}: a stop ends jobs at once or leaves all behind"),
                "KillMode=process",
            );
        }
        _ => {}
    }
    if matches!(get("OOMPolicy"), Some("stop" | "kill")) {
        wrong(
            "oom_policy",
            FindingLevel::Warn,
            "is stopped when the kernel kills one process of one job",
            "OOMPolicy=continue",
        );
    }
    if matches!(get("Restart"), Some("no")) && settings.mode == crate::agent::settings::Mode::Continuous {
        wrong(
            "restart",
            FindingLevel::Warn,
            "is not started again when the runner dies",
            "Restart=always and RestartSec=5",
        );
    }
    if get("NoNewPrivileges") == Some("yes") {
        let level = match settings.command_prefix.first() {
            Some(first) if first.ends_with("sudo") => FindingLevel::Fail,
            _ => FindingLevel::Warn,
        };
        wrong(
            "new_privileges",
            level,
            "has NoNewPrivileges: sudo and rootless containers fail",
            "NoNewPrivileges=no, and nothing that implies it",
        );
    }
    if get("TasksMax").and_then(|most| most.parse::<u64>().ok()).is_some_and(|most| most < 4096) {
        wrong(
            "tasks_max",
            FindingLevel::Warn,
            "has few tasks: builds start many processes",
            "TasksMax=16384",
        );
    }
    if found.0.len() == before {
        found.fine("unit", format!("`{unit}` is set up for a runner"));
    }
}

/// A time as systemd shows it: `5h 5min`, `1min 30s`, `infinity`.
fn span(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    let mut total = 0;
    for word in text.split_whitespace() {
        let digits = word.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = word.split_at(digits);
        let seconds = match unit {
            "month" => 2_629_800,
            "w" => 7 * 86_400,
            "d" => 86_400,
            "h" => 3600,
            "min" => 60,
            "s" => 1,
            "ms" | "us" => 0,
            _ => return None,
        };
        total += number.parse::<u64>().ok()?.checked_mul(seconds)?;
    }
    Some(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Endpoint;
    use crate::protocol::Secret;

    #[test]
    fn a_unit_is_found_by_the_groups_of_the_process() {
        assert_eq!(
            unit_of("0::/system.slice/system-runlet.slice/runlet-machine@a.service/x\n").as_deref(),
            Some("runlet-machine@a.service")
        );
        assert_eq!(unit_of("0::/user.slice/user-0.slice/user@0.service/app.slice/x.scope\n"), None);
        assert_eq!(
            unit_of("0::/user.slice/user@0.service/app.slice/r.service\n").as_deref(),
            Some("r.service")
        );
        assert_eq!(unit_of("0::/\n"), None);
    }

    #[test]
    fn times_of_systemd_are_read() {
        for (text, seconds) in [("1min 30s", 90), ("5h 5min", 18_300), ("500ms", 0), ("1d 2h", 93_600)] {
            assert_eq!(span(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!((span("infinity"), span("soon")), (Some(Duration::MAX), None));
    }

    #[test]
    fn a_unit_of_defaults_is_not_for_a_runner() {
        let mut settings = Settings::new(Secret::new("t"), Endpoint::default(), "n".into(), "/w".into());
        let judged = |settings: &Settings, said: &str| {
            let mut found = Findings::default();
            judge(settings, "u.service", said, &mut found);
            found.0.iter().map(|finding| (finding.id.clone(), finding.result)).collect::<Vec<_>>()
        };
        let defaults = "TimeoutStopUSec=1min 30s\nKillMode=control-group\nOOMPolicy=stop\nDelegate=no\nRestart=no\nNoNewPrivileges=yes\nTasksMax=512\nLoadState=loaded";
        settings.command_prefix = vec!["/usr/bin/sudo".into()];
        let ids: Vec<_> = judged(&settings, defaults).iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(
            ids,
            ["stop_timeout", "kill_mode", "oom_policy", "restart", "new_privileges", "tasks_max"]
        );
        let good = "TimeoutStopUSec=5h 5min\nKillMode=process\nOOMPolicy=continue\nRestart=always\nNoNewPrivileges=no\nTasksMax=infinity\nLoadState=loaded";
        assert_eq!(judged(&settings, good), [("unit".to_owned(), FindingLevel::Ok)]);
        assert_eq!(judged(&settings, "LoadState=not-found"), [("unit".to_owned(), FindingLevel::Warn)]);
    }
}
