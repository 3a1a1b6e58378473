use super::*;
use crate::agent::pace::REFUSED_WAIT;
use crate::protocol::{Refusal, RefusalCode};

/// A runner and its clock.
struct Scene {
    runner: Lifecycle,
    now: Instant,
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn scene(mode: Mode, idle_timeout: Option<Duration>) -> Scene {
    let now = Instant::now();
    let limits = Limits { mode, idle_timeout, max_run_time: seconds(3600) };
    Scene { runner: Lifecycle::new(limits, now), now }
}

fn idle() -> Scene {
    scene(Mode::Continuous, None)
}

impl Scene {
    fn after(mut self, n: u64) -> Self {
        self.now += seconds(n);
        self
    }
    fn claimed(mut self) -> Self {
        self.runner.claimed(self.now, self.now);
        self
    }
    fn ended(mut self) -> Self {
        self.runner.ended(self.now);
        self
    }
    fn told(mut self, level: Level) -> Self {
        self.runner.stop(level, self.now);
        self
    }
    fn next(&mut self) -> Next {
        self.runner.next(self.now)
    }
    /// A parked claim came to nothing just now.
    fn nothing(&mut self) -> Option<Notice> {
        self.runner.nothing_came(self.now - seconds(50), self.now, 1.0)
    }
    fn fails(&mut self, error: &Error) -> Option<Notice> {
        self.runner.claim_failed(error, self.now, self.now, 1.0)
    }
    fn fails_after(&mut self, error: &Error, n: u64) -> Option<Notice> {
        let started = self.now;
        self.now += seconds(n);
        self.runner.claim_failed(error, started, self.now, 1.0)
    }
}

fn down() -> Error {
    Error::Transport("connection refused".into())
}

fn refused(status: u16, code: Option<RefusalCode>) -> Error {
    let refusal = code.map(|code| Refusal::coded(code, "upgrade the runner"));
    Error::Refused { status, retry_after: None, refusal, message: format!("refused with {status}") }
}

#[test]
fn a_continuous_runner_claims_runs_and_claims_again() {
    let mut scene = idle();
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
    let mut scene = scene.claimed();
    assert!(matches!(scene.next(), Next::Watch(Some(_))));
    assert_eq!(scene.after(60).ended().next(), Next::Claim(CLAIM_WAIT));
}

#[test]
fn a_single_task_runner_exits_after_its_task() {
    let mut scene = scene(Mode::SingleTask, None).claimed().ended();
    assert_eq!(scene.next(), Next::Exit(ExitReason::SingleTask));
}

#[test]
fn the_idle_clock_starts_anew_after_a_task_and_stands_still_during_one() {
    let mut idle = scene(Mode::Continuous, Some(seconds(70)));
    assert_eq!(idle.next(), Next::Claim(CLAIM_WAIT));
    let mut idle = idle.after(50);
    assert_eq!(idle.next(), Next::Claim(seconds(20)));
    let mut idle = idle.claimed().after(600);
    assert!(matches!(idle.next(), Next::Watch(_)));
    let mut idle = idle.ended();
    assert_eq!(idle.next(), Next::Claim(CLAIM_WAIT));
    assert_eq!(idle.after(70).next(), Next::Exit(ExitReason::Idle));
}

#[test]
fn an_idle_timeout_counts_while_the_control_plane_is_away() {
    let mut idle = scene(Mode::Continuous, Some(seconds(10)));
    for _ in 0..4 {
        idle.fails(&down());
    }
    assert_eq!(idle.next(), Next::Sleep(seconds(8)));
    idle.fails(&down());
    assert_eq!(idle.next(), Next::Sleep(seconds(10)), "no longer than the idle timeout");
    assert_eq!(idle.after(10).next(), Next::Exit(ExitReason::Idle));
}

#[test]
fn draining_lets_a_task_finish_and_an_idle_runner_leaves_at_once() {
    assert_eq!(idle().told(Level::Drain).next(), Next::Exit(ExitReason::Stopped));
    let mut running = idle().claimed().told(Level::Drain);
    assert!(matches!(running.next(), Next::Watch(_)));
    assert_eq!(running.after(60).ended().next(), Next::Exit(ExitReason::Stopped));
}

#[test]
fn a_second_request_ends_the_task_with_grace() {
    let mut running = idle().claimed().told(Level::Drain).told(Level::Cancel);
    assert_eq!(running.next(), Next::Term(EndReason::Cancelled));
    assert_eq!(running.next(), Next::Watch(Some(running.now + seconds(30))));
    let mut running = running.after(30);
    assert_eq!(running.next(), Next::Kill(EndReason::Cancelled));
    assert_eq!(running.next(), Next::Watch(None));
    assert_eq!(running.ended().next(), Next::Exit(ExitReason::Stopped));
}

#[test]
fn a_drain_that_outlasts_max_run_time_ends_the_task() {
    let mut running = idle().claimed().after(30).told(Level::Drain);
    let Next::Watch(Some(until)) = running.next() else { unreachable!() };
    assert_eq!(until, running.now + seconds(3600));
    assert_eq!(running.after(3600).next(), Next::Term(EndReason::DrainTooLong));
}

#[test]
fn a_task_agent_that_overruns_its_own_limit_is_ended() {
    let mut running = idle().claimed().after(3659);
    assert!(matches!(running.next(), Next::Watch(Some(_))));
    let mut running = running.after(1);
    assert_eq!(running.next(), Next::Term(EndReason::TooLong));
    assert_eq!(running.after(30).next(), Next::Kill(EndReason::TooLong));
}

#[test]
fn an_adopted_task_has_used_part_of_its_time() {
    let mut scene = idle().after(7200);
    let since = scene.now - seconds(3000);
    scene.runner.claimed(since, scene.now);
    assert_eq!(scene.next(), Next::Watch(Some(since + seconds(3660))));
}

#[test]
fn an_absence_is_told_once_and_its_end_once() {
    let mut scene = idle();
    assert!(matches!(scene.fails(&down()), Some(Notice::Away(text)) if text.contains("refused")));
    assert_eq!(scene.next(), Next::Sleep(seconds(1)));
    for wait in [2, 4, 8, 16, 32, 60, 60] {
        scene.now += seconds(wait);
        assert_eq!(scene.fails(&down()), None);
        assert_eq!(scene.next(), Next::Sleep(seconds(wait)));
    }
    scene.now += seconds(60);
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
    assert_eq!(scene.nothing(), Some(Notice::Back(seconds(242))));
    assert_eq!(scene.nothing(), None);
}

#[test]
fn another_kind_of_cause_is_told_too_once() {
    let mut scene = idle();
    assert!(matches!(scene.fails(&down()), Some(Notice::Away(_))));
    // A load balancer without a control plane behind it, then one that knows the token no more.
    assert!(matches!(scene.fails(&refused(503, None)), Some(Notice::Away(_))));
    assert!(matches!(scene.fails(&refused(401, None)), Some(Notice::Away(text)) if text.contains("token")));
    let page = Error::Undecodable("a page".into());
    assert!(matches!(scene.fails(&page), Some(Notice::Away(_))));
    for error in [down(), refused(502, None), refused(403, None), page] {
        assert_eq!(scene.fails(&error), None, "{error}");
    }
    assert!(matches!(scene.nothing(), Some(Notice::Back(_))));
    assert_eq!(scene.fails(&down()), None, "a stale connection");
    assert!(matches!(scene.fails(&refused(401, None)), Some(Notice::Away(_))), "a new absence");
}

#[test]
fn one_stale_connection_is_no_news() {
    let mut scene = idle();
    scene.nothing();
    assert_eq!(scene.fails(&down()), None);
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT), "at once");
    assert!(matches!(scene.fails(&down()), Some(Notice::Away(_))));
    assert!(matches!(scene.next(), Next::Sleep(_)));
}

#[test]
fn a_wrong_token_is_told_once_and_tried_slowly() {
    let mut scene = idle();
    let Some(Notice::Away(text)) = scene.fails(&refused(401, None)) else { unreachable!() };
    assert!(text.contains("api.auth_token"), "{text}");
    assert_eq!(scene.next(), Next::Sleep(seconds(60)));
    assert_eq!(scene.fails(&refused(401, None)), None);
    scene.runner.claim_failed(&refused(401, None), scene.now, scene.now, 0.0);
    assert_eq!(scene.next(), Next::Sleep(seconds(30)), "never a tight loop");
}

#[test]
fn what_waiting_cannot_change_ends_the_runner() {
    let mut scene = idle();
    scene.fails(&refused(400, Some(RefusalCode::ProtocolMismatch)));
    assert_eq!(scene.next(), Next::Exit(ExitReason::Fatal("upgrade the runner".into())));
    let mut scene = idle();
    scene.fails(&Error::Setup("bad file".into()));
    assert_eq!(scene.next(), Next::Exit(ExitReason::Fatal("bad file".into())));
}

#[test]
fn something_that_cuts_parked_calls_shortens_the_wait() {
    let mut scene = idle();
    scene.nothing();
    assert_eq!(scene.fails_after(&refused(504, None), 40), None, "once may be chance");
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
    assert_eq!(scene.fails_after(&refused(504, None), 40), Some(Notice::Shortened(seconds(30))));
    assert_eq!(scene.next(), Next::Claim(seconds(30)));
    scene.nothing();
    assert_eq!(scene.fails_after(&down(), 20), None);
    assert_eq!(scene.nothing(), None);
    assert_eq!(scene.fails_after(&down(), 20), None, "not twice in a row");
}

#[test]
fn a_claim_cut_by_a_stop_is_no_failure() {
    let mut scene = idle().told(Level::Drain);
    assert_eq!(scene.fails(&down()), None);
    assert_eq!(scene.next(), Next::Exit(ExitReason::Stopped));
}

#[test]
fn a_control_plane_that_does_not_park_claims_is_not_hammered() {
    let mut scene = idle();
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
    scene.runner.nothing_came(scene.now, scene.now, 1.0);
    assert_eq!(scene.next(), Next::Sleep(seconds(5)));
    let mut scene = scene.after(5);
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
    let started = scene.now;
    scene.now += seconds(3);
    scene.runner.nothing_came(started, scene.now, 1.0);
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
}

#[test]
fn a_host_whose_task_agents_die_young_does_not_empty_the_queue() {
    let mut scene = idle().claimed().after(1);
    assert!(scene.runner.lost(scene.now));
    assert_eq!(scene.next(), Next::Sleep(seconds(60)));
    let mut scene = scene.after(60);
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
    let mut scene = scene.claimed().after(30);
    assert!(!scene.runner.lost(scene.now));
    assert_eq!(scene.next(), Next::Claim(CLAIM_WAIT));
}

#[test]
fn limits_of_any_length_are_no_panic() {
    let now = Instant::now();
    let limits =
        Limits { mode: Mode::Continuous, idle_timeout: Some(Duration::MAX), max_run_time: Duration::MAX };
    let mut runner = Lifecycle::new(limits, now);
    assert_eq!(runner.next(now), Next::Claim(CLAIM_WAIT));
    runner.claimed(now, now);
    runner.stop(Level::Drain, now);
    assert_eq!(runner.next(now), Next::Watch(None));
    assert!(runner.claim_failed(&down(), now, now, f64::NAN).is_none());
}

#[test]
fn a_host_that_cannot_begin_tasks_pauses_longer_each_time_until_one_begins() {
    let mut scene = idle();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        scene = scene.claimed();
        assert_eq!(scene.runner.host_pause(), scene.runner.not_begun(scene.now));
        let Next::Sleep(pause) = scene.next() else { unreachable!("it does not pause") };
        pauses.push(pause.as_secs());
        scene = scene.after(pause.as_secs());
        assert!(matches!(scene.next(), Next::Claim(_)));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    scene.runner.begun();
    assert_eq!(scene.runner.host_pause(), seconds(1));
}

#[test]
fn a_delivery_has_no_limit_but_a_drain_and_a_second_request() {
    let mut scene = idle().claimed();
    scene.runner.delivers();
    assert_eq!(scene.next(), Next::Watch(None));
    let mut scene = scene.after(100_000);
    assert_eq!(scene.next(), Next::Watch(None));
    let mut scene = scene.told(Level::Drain);
    assert!(matches!(scene.next(), Next::Watch(Some(_))));
    assert_eq!(scene.told(Level::Cancel).next(), Next::Term(EndReason::Cancelled));
}

#[test]
fn what_a_task_that_ran_too_long_has_said_is_delivered_without_a_limit() {
    let mut scene = idle().claimed().after(100_000);
    assert_eq!(scene.next(), Next::Term(EndReason::TooLong));
    scene.runner.delivers();
    let mut scene = scene.after(100_000);
    assert_eq!(scene.next(), Next::Watch(None));
    // A person who stops the runner a second time wants that to end, too.
    let mut scene = scene.told(Level::Drain).told(Level::Cancel);
    assert_eq!(scene.next(), Next::Term(EndReason::Cancelled));
    scene.runner.delivers();
    assert_eq!(scene.after(100_000).next(), Next::Kill(EndReason::Cancelled));
}

#[test]
fn an_answer_that_is_too_long_is_told_with_its_limit_and_not_asked_for_at_once() {
    let mut scene = idle();
    let notice =
        scene.fails(&Error::TooLong { message: "longer than the 16777216 bytes".into(), claimed: None });
    let told =
        matches!(&notice, Some(Notice::Away(why)) if why.contains("16777216") && why.contains("goes back"));
    assert!(told, "{notice:?}");
    assert_eq!(scene.next(), Next::Sleep(REFUSED_WAIT));
}
