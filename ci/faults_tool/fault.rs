//! The faults: their names, and what each does.

/// Kind of call between a runner and the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Claim,
    Begin,
    Output,
    Events,
    Heartbeat,
    Finish,
    Unclaim,
    Lost,
    Rest,
    Fail,
    Myself,
    Uploads,
    Artifacts,
    Caches,
    Workspace,
    TestResults,
    TestTimings,
    Other,
}

impl Call {
    /// All that can be lost by name.
    pub(crate) const NAMED: [(Call, &str); 17] = [
        (Call::Claim, "claim"),
        (Call::Begin, "begin"),
        (Call::Output, "output"),
        (Call::Events, "events"),
        (Call::Heartbeat, "heartbeat"),
        (Call::Finish, "finish"),
        (Call::Unclaim, "unclaim"),
        (Call::Lost, "lost"),
        (Call::Rest, "rest"),
        (Call::Fail, "fail"),
        (Call::Myself, "self"),
        (Call::Uploads, "uploads"),
        (Call::Artifacts, "artifacts"),
        (Call::Caches, "caches"),
        (Call::Workspace, "workspace"),
        (Call::TestResults, "test-results"),
        (Call::TestTimings, "test-timings"),
    ];

    /// The kind of a call to this path.
    pub(crate) fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let word = match words.as_slice() {
            ["api", "v3", "runner", "tasks", _, "steps", ..] => "output",
            ["api", "v3", "runner", "tasks", _, word, ..]
            | ["api", "v3", "runner", word, ..]
            | ["api", "v2", "task", "event", word] => word,
            _ => "",
        };
        Self::NAMED.iter().find(|(_, name)| *name == word).map_or(Call::Other, |(call, _)| *call)
    }
}

/// Deed of a line to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hurt {
    /// The call waits before it is passed on.
    Delay,
    /// The answer ends in the middle, and with it the connection.
    Truncate,
    /// The answer stops in the middle and the connection stays.
    Stall,
    /// The call is made twice at the same time; the first answer counts.
    Duplicate,
    /// The connection is reset before anything is passed on.
    ResetBefore,
    /// The connection is reset when the answer has come.
    ResetAfter,
    /// Half of the call is passed on, then both connections end.
    HalfRequest,
    /// Answered in place of the control plane: sometimes with its header, always without what was asked for.
    Status(u16),
    /// A page of something in between.
    Html,
    /// A refusal of something in between.
    Foreign(u16),
    /// The call, or its answer, is lost.
    Lost,
    /// The call is taken and goes nowhere, and the connection stays.
    Swallow,
}

/// Victim of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Server,
    Runner,
    Agent,
    Step,
}

impl Victim {
    /// All of them in their order, as people call them.
    pub(crate) const NAMED: [(Victim, &str); 4] = [
        (Victim::Server, "control plane"),
        (Victim::Runner, "runner"),
        (Victim::Agent, "task agent"),
        (Victim::Step, "step"),
    ];
}

/// A disk that is full for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Under the data folder of the control plane.
    Data,
    /// Under the spool of the runners.
    Spool,
}

/// Place of runners among the control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nowhere: no control group is to be had.
    Bare,
    /// In a group of their own, in which they may make others.
    Group,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Connections are refused for a while, again and again.
    Refuse,
    /// Packets are swallowed for a while, again and again.
    Vanish,
    /// Some calls of a kind, or of every kind, are hurt.
    Calls(Option<Call>, &'static [Hurt]),
    /// Processes are killed.
    Kill(&'static [Victim]),
    /// Processes are killed, while every job leaves a daemon behind that has lost all marks of its job.
    Daemons(&'static [Victim], Room),
    /// A disk is full for a while, again and again.
    Full(Disk),
    /// Jobs are cancelled, while some calls of a kind, or of every kind, are hurt; without any hurts, while packets are
    /// swallowed.
    Cancel(Option<Call>, &'static [Hurt]),
}

const SERVER: &[Victim] = &[Victim::Server];
const RUNNER: &[Victim] = &[Victim::Runner];
const AGENT: &[Victim] = &[Victim::Agent];
const STEP: &[Victim] = &[Victim::Step];
const SERVER_RUNNER: &[Victim] = &[Victim::Server, Victim::Runner];
const SERVER_AGENT: &[Victim] = &[Victim::Server, Victim::Agent];
const SERVER_STEP: &[Victim] = &[Victim::Server, Victim::Step];
const RUNNER_AGENT: &[Victim] = &[Victim::Runner, Victim::Agent];
const RUNNER_STEP: &[Victim] = &[Victim::Runner, Victim::Step];
const AGENT_STEP: &[Victim] = &[Victim::Agent, Victim::Step];

/// Hurts that end soon, together.
const SHORT: &[Hurt] =
    &[Hurt::Delay, Hurt::Truncate, Hurt::ResetBefore, Hurt::ResetAfter, Hurt::Lost, Hurt::Status(503)];

impl Fault {
    /// The processes that it kills.
    pub(crate) fn victims(self) -> Option<&'static [Victim]> {
        match self {
            Fault::Kill(victims) | Fault::Daemons(victims, _) => Some(victims),
            // The calls that these rows lose are made for an agent that was killed, for one whose runner has lost its
            // task's token with its own life, and at the start of a runner.
            Fault::Calls(Some(Call::Lost), _) => Some(AGENT),
            Fault::Calls(Some(Call::Rest), _) => Some(RUNNER_AGENT),
            Fault::Calls(Some(Call::Myself), _) => Some(RUNNER),
            Fault::Refuse | Fault::Vanish | Fault::Calls(..) | Fault::Full(_) | Fault::Cancel(..) => None,
        }
    }

    /// Whether it is one of the network.
    pub(crate) fn is_of_network(self) -> bool {
        matches!(self, Fault::Refuse | Fault::Vanish | Fault::Calls(..))
    }

    /// How often it is to be there, so that of all rows together every part is killed so many times, alone and in
    /// pairs, and the network hurt so many times. `None`: this row has no part in it.
    pub(crate) fn goal(self, kills: u64, network: u64) -> Option<u64> {
        let goal = match self {
            // Each part is killed in four rows: alone, and beside each of the others.
            Fault::Kill(_) => kills.div_ceil(4),
            Fault::Daemons(..) | Fault::Full(_) | Fault::Cancel(..) => kills.div_ceil(50),
            // Whole lines, calls that are rare, and calls of which each takes a minute.
            Fault::Refuse | Fault::Vanish | Fault::Calls(None, &[Hurt::Stall]) | Fault::Calls(Some(_), _) => {
                network.div_ceil(100)
            }
            // Eleven rows.
            Fault::Calls(None, _) => network.div_ceil(11),
        };
        (goal > 0).then_some(goal)
    }
}

/// Every fault with its name. Those that take long to get over come first.
pub(crate) fn all() -> Vec<(String, Fault)> {
    let calls = |hurts: &'static [Hurt]| Fault::Calls(None, hurts);
    let mut all: Vec<(String, Fault)> = [
        ("vanish", Fault::Vanish),
        ("stall", calls(&[Hurt::Stall])),
        ("cancel-vanish", Fault::Cancel(None, &[])),
        ("cancel-stall", Fault::Cancel(None, &[Hurt::Stall, Hurt::Swallow])),
        ("cancel-output", Fault::Cancel(Some(Call::Output), &[Hurt::Stall, Hurt::Swallow])),
        ("cancel-uploads", Fault::Cancel(Some(Call::Uploads), &[Hurt::Stall, Hurt::Swallow])),
        ("cancel-finish", Fault::Cancel(Some(Call::Finish), &[Hurt::Stall, Hurt::Swallow])),
        ("cancel", Fault::Cancel(None, SHORT)),
        ("kill-runner-agent", Fault::Kill(RUNNER_AGENT)),
        ("kill-agent", Fault::Kill(AGENT)),
        ("kill-server-agent", Fault::Kill(SERVER_AGENT)),
        ("kill-agent-step", Fault::Kill(AGENT_STEP)),
        ("kill-runner", Fault::Kill(RUNNER)),
        ("kill-server-runner", Fault::Kill(SERVER_RUNNER)),
        ("kill-runner-step", Fault::Kill(RUNNER_STEP)),
        ("kill-server", Fault::Kill(SERVER)),
        ("kill-server-step", Fault::Kill(SERVER_STEP)),
        ("kill-step", Fault::Kill(STEP)),
        ("daemons-agent", Fault::Daemons(AGENT, Room::Bare)),
        ("daemons-runner", Fault::Daemons(RUNNER, Room::Bare)),
        ("daemons-agent-grouped", Fault::Daemons(AGENT, Room::Group)),
        ("daemons-runner-agent-grouped", Fault::Daemons(RUNNER_AGENT, Room::Group)),
        ("full-data", Fault::Full(Disk::Data)),
        ("full-spool", Fault::Full(Disk::Spool)),
        ("refuse", Fault::Refuse),
        ("delay", calls(&[Hurt::Delay])),
        ("truncate", calls(&[Hurt::Truncate])),
        ("duplicate", calls(&[Hurt::Duplicate])),
        ("reset-before", calls(&[Hurt::ResetBefore])),
        ("reset-after", calls(&[Hurt::ResetAfter])),
        ("half-request", calls(&[Hurt::HalfRequest])),
        ("500", calls(&[Hurt::Status(500)])),
        ("503", calls(&[Hurt::Status(503)])),
        ("408", calls(&[Hurt::Status(408)])),
        ("429", calls(&[Hurt::Status(429)])),
        ("html", calls(&[Hurt::Html])),
        (
            "foreign-4xx",
            calls(&[Hurt::Foreign(404), Hurt::Foreign(401), Hurt::Foreign(403), Hurt::Foreign(409)]),
        ),
        ("redirect", calls(&[Hurt::Foreign(301), Hurt::Foreign(302), Hurt::Foreign(307)])),
    ]
    .into_iter()
    .map(|(name, fault)| (name.to_owned(), fault))
    .collect();
    all.extend(
        Call::NAMED
            .iter()
            .map(|(call, name)| (format!("lost-{name}"), Fault::Calls(Some(*call), &[Hurt::Lost]))),
    );
    all
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Calls that no row makes, and that integration tests lose: of runners in clusters a pod that reads its task, and
    /// containers beside the steps (pods_faults.rs); of a task that is cancelled while its output hangs, that its steps have
    /// stopped (cancel.rs).
    const ELSEWHERE: [&str; 3] = [
        "/api/v3/runner/tasks/{id}",
        "/api/v3/runner/tasks/{id}/beside/{n}",
        "/api/v3/runner/tasks/{id}/stopped",
    ];

    /// The paths of the runner API, as the files that serve it spell them.
    fn routes() -> BTreeSet<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/api/runner");
        let mut routes = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for call in text.split(".route(").skip(1) {
                let path = call.split(',').next().unwrap();
                let path =
                    path.trim().trim_start_matches("&format!(").trim_end_matches(')').trim_matches('"');
                let task = "/api/v3/runner/tasks/{id}";
                let path = if path == "task" { task.to_owned() } else { path.replace("{task}", task) };
                routes.insert(path.replace("{{", "{").replace("}}", "}"));
            }
        }
        routes
    }

    #[test]
    fn every_call_of_a_runner_has_its_row_and_every_row_its_call() {
        let routes = routes();
        assert!(routes.len() > 20 && ELSEWHERE.iter().all(|path| routes.contains(*path)), "{routes:?}");
        let mut seen = BTreeSet::new();
        for path in &routes {
            assert!(path.starts_with("/api/"), "a path that cannot be read: `{path}`");
            let call = Call::of(path);
            let is_named = Call::NAMED.iter().any(|(named, _)| *named == call);
            assert_eq!(is_named, !ELSEWHERE.contains(&path.as_str()), "`{path}` is {call:?}");
            seen.insert(call);
        }
        for (call, name) in Call::NAMED {
            assert!(seen.contains(&call), "no path is of the call `{name}`");
        }
    }

    #[test]
    fn the_goals_of_all_rows_come_to_what_was_asked_for() {
        let all: Vec<Fault> = all().into_iter().map(|(_, fault)| fault).collect();
        for (victim, name) in Victim::NAMED {
            let rows =
                all.iter().filter(|fault| matches!(fault, Fault::Kill(victims) if victims.contains(&victim)));
            let kills: u64 = rows.filter_map(|fault| fault.goal(1_000, 5_000)).sum();
            assert!(kills >= 1_000, "{kills} of {name}");
        }
        let network = all.iter().filter(|fault| fault.is_of_network());
        let faults: u64 = network.filter_map(|fault| fault.goal(1_000, 5_000)).sum();
        assert!((5_000..7_000).contains(&faults), "{faults}");
        assert!(all.iter().all(|fault| fault.goal(1_000, 5_000).is_some()));
        assert!(all.iter().all(|fault| fault.goal(0, 5_000).is_some() == fault.is_of_network()));
    }
}
