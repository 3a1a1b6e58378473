//! The board: state, task, last decisions and counts of one runner. Shared by the thread that works and the one that
//! answers questions.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Decisions that are remembered.
const DECISIONS: usize = 10;
/// A loop that has not come round for so long while no task runs is stuck: claims wait for a minute and a half at most.
const STUCK: Duration = Duration::from_secs(600);
/// Upper ends of the durations that tasks are counted by, in seconds.
pub(super) const DURATIONS: [u64; 7] = [30, 60, 300, 900, 3600, 7200, 18_000];

/// Present work of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activity {
    /// The runner has not asked for a task yet.
    Starting,
    /// The runner waits for a task.
    Idle,
    /// A task runs.
    Running,
    /// The runner asks again later, because of an error.
    BackingOff,
    /// The runner asks for no task, by its settings or for want of room.
    Closed,
    /// The runner takes no further task.
    Draining,
}

/// Every state, with its word.
pub(super) const STATES: [(Activity, &str); 6] = [
    (Activity::Starting, "starting"),
    (Activity::Idle, "idle"),
    (Activity::Running, "running"),
    (Activity::BackingOff, "backing_off"),
    (Activity::Closed, "closed"),
    (Activity::Draining, "draining"),
];

impl Activity {
    pub(super) fn word(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }
}

/// A decision and when it was made, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PastDecision {
    pub(super) at: u64,
    pub(super) what: String,
}

/// The task that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CurrentTask {
    pub(super) id: String,
    pub(super) job: String,
    /// Seconds since 1970.
    pub(super) since: u64,
}

/// A number by a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) of: String,
    pub(super) count: u64,
}

/// The whole board, as it is sent over the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BoardReport {
    pub(super) name: String,
    pub(super) url: String,
    /// Empty while the control plane has not said it.
    pub(super) resource_class: String,
    pub(super) version: String,
    pub(super) pid: u32,
    /// Seconds since 1970, here and below.
    pub(super) started: u64,
    pub(super) state: Activity,
    /// Reason of the state, in words for people.
    pub(super) reason: String,
    pub(super) since: u64,
    pub(super) task: Option<CurrentTask>,
    /// The last answer of the control plane to a claim.
    pub(super) last_contact: Option<u64>,
    pub(super) decisions: VecDeque<PastDecision>,
    /// Claims by what came of them.
    pub(super) claims: Vec<Count>,
    /// Tasks by how they ended.
    pub(super) tasks: Vec<Count>,
    /// Tasks by duration: one number for each of [`DURATIONS`], and one for those that were longer.
    pub(super) durations: [u64; DURATIONS.len() + 1],
    /// Duration of all tasks together, in seconds.
    pub(super) duration_sum: u64,
}

struct Inner {
    report: BoardReport,
    round: Instant,
}

/// The board of one runner. Copies show the same.
#[derive(Clone)]
pub(super) struct Board(Arc<Mutex<Inner>>);

impl Board {
    pub(super) fn new(name: &str, url: &str) -> Self {
        let now = seconds();
        let report = BoardReport {
            name: name.to_owned(),
            url: url.to_owned(),
            resource_class: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: now,
            state: Activity::Starting,
            reason: String::new(),
            since: now,
            task: None,
            last_contact: None,
            decisions: VecDeque::new(),
            claims: Vec::new(),
            tasks: Vec::new(),
            durations: [0; DURATIONS.len() + 1],
            duration_sum: 0,
        };
        Self(Arc::new(Mutex::new(Inner { report, round: Instant::now() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> BoardReport {
        self.lock().report.clone()
    }

    /// The class of the token.
    pub(super) fn class(&self, class: &str) {
        self.lock().report.resource_class = class.to_owned();
    }

    /// The runner is at something, for a reason; remembered as a decision when either is new.
    pub(super) fn state(&self, state: Activity, reason: &str) {
        let mut inner = self.lock();
        inner.round = Instant::now();
        let report = &mut inner.report;
        if report.state == state && report.reason == reason {
            return;
        }
        let now = seconds();
        if report.state != state {
            report.since = now;
        }
        report.state = state;
        report.reason = reason.to_owned();
        let what =
            if reason.is_empty() { state.word().to_owned() } else { format!("{}: {reason}", state.word()) };
        decide(report, now, what);
    }

    /// The control plane has answered a claim.
    pub(super) fn answered(&self) {
        let mut inner = self.lock();
        inner.report.last_contact = Some(seconds());
    }

    /// A claim came to this.
    pub(super) fn claimed(&self, what: &str) {
        count(&mut self.lock().report.claims, what);
    }

    /// A task was taken, or found running since so long.
    pub(super) fn begun(&self, id: &str, job: &str, age: Duration) {
        let mut inner = self.lock();
        let now = seconds();
        inner.report.task = Some(CurrentTask {
            id: id.to_owned(),
            job: job.to_owned(),
            since: now.saturating_sub(age.as_secs()),
        });
        decide(&mut inner.report, now, format!("task {id} of the job {job}"));
    }

    /// The task is over, in this way.
    pub(super) fn ended(&self, how: &str) {
        let mut inner = self.lock();
        let now = seconds();
        let report = &mut inner.report;
        let Some(task) = report.task.take() else { return };
        let took = now.saturating_sub(task.since);
        let class = DURATIONS.iter().position(|end| took <= *end).unwrap_or(DURATIONS.len());
        report.durations[class] += 1;
        report.duration_sum += took;
        count(&mut report.tasks, how);
        decide(report, now, format!("task {} ended: {how}", task.id));
    }

    /// A task was not run.
    pub(super) fn refused(&self, id: &str, why: &str) {
        decide(&mut self.lock().report, seconds(), format!("task {id} refused: {why}"));
    }

    /// Whether the runner comes round.
    pub(super) fn is_live(&self) -> bool {
        let inner = self.lock();
        inner.report.task.is_some() || inner.round.elapsed() < STUCK
    }

    /// Whether it works for the control plane, or waits for it to say something.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.lock().report.state, Activity::Idle | Activity::Running)
    }
}

fn decide(report: &mut BoardReport, at: u64, what: String) {
    if report.decisions.len() == DECISIONS {
        report.decisions.pop_front();
    }
    report.decisions.push_back(PastDecision { at, what });
}

fn count(counts: &mut Vec<Count>, of: &str) {
    match counts.iter_mut().find(|count| count.of == of) {
        Some(count) => count.count += 1,
        None => counts.push(Count { of: of.to_owned(), count: 1 }),
    }
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_decisions_stay_and_a_state_is_told_once() {
        let board = Board::new("n", "https://ci");
        for _ in 0..3 {
            board.state(Activity::Idle, "");
        }
        assert_eq!(board.report().decisions.len(), 1);
        assert!(board.is_ready() && board.is_live());
        board.begun("t-1", "build", Duration::from_secs(100));
        board.state(Activity::Running, "build");
        board.ended("success");
        let report = board.report();
        assert_eq!(report.tasks, [Count { of: "success".into(), count: 1 }]);
        assert_eq!((report.durations, report.task), ([0, 0, 1, 0, 0, 0, 0, 0], None));
        for n in 0..20 {
            board.state(Activity::BackingOff, &n.to_string());
        }
        let report = board.report();
        assert_eq!(report.decisions.len(), DECISIONS);
        assert_eq!(report.decisions.back().unwrap().what, "backing_off: 19");
        assert!(!board.is_ready());
        assert_eq!(
            serde_json::from_str::<BoardReport>(&serde_json::to_string(&report).unwrap()).unwrap(),
            report
        );
    }
}
