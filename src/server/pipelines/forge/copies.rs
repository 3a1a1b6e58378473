//! Changes that are told of more than once: by forges that send a delivery again, by several webhooks, by looks at refs.
//!
//! A branch may go to and fro between the same commits, so that two pushes are alike in every word. They are told apart by
//! what was told between them: a ref moves by the same push again only after it was away. And each webhook tells of pushes
//! in their order: one that tells of a push that another has told of, or a look has found, since the last one that both
//! know of, tells of one that is known. A pull request that is closed and opened again, or whose head goes to and fro, is
//! known by the same rules. No IO.

use crate::server::pipelines::forge::event::{Action, Pull, Push, Same, Teller};

/// A change of which there may be news.
trait Told {
    /// The teller of it.
    fn teller(&self) -> &Teller;
    /// How it is known, if it was told of before.
    fn known(&self) -> Option<Same>;
    /// Whether it is told in the same words.
    fn is_like(&self, other: &Self) -> bool;
}

impl Told for Push {
    fn teller(&self) -> &Teller {
        &self.told_by
    }

    fn known(&self) -> Option<Same> {
        self.same
    }

    fn is_like(&self, other: &Self) -> bool {
        self.before == other.before && self.after == other.after
    }
}

impl Told for Pull {
    fn teller(&self) -> &Teller {
        &self.told_by
    }

    fn known(&self) -> Option<Same> {
        self.same
    }

    fn is_like(&self, other: &Self) -> bool {
        // Each is opened once. Anything else that happens to it changes the time of its last change.
        let is_same_time = self.updated == other.updated;
        self.action == other.action
            && (self.action == Action::Opened
                || self.head == other.head && self.before == other.before && is_same_time)
    }
}

/// The place behind the next change like one that nobody had told of before. Each webhook tells of changes in their order:
/// what it tells of is sought behind the one that it told of last.
fn next<T: Told>(told: &[&T], from: usize, new: &T) -> Option<usize> {
    let is_it = |known: &&T| known.known().is_none() && known.is_like(new);
    told[from..].iter().position(is_it).map(|at| from + at + 1)
}

/// The place behind all changes that a teller has told of.
fn passed<T: Told>(told: &[&T], by: &Teller) -> usize {
    let mut passed = 0;
    for (at, change) in told.iter().enumerate().filter(|(_, change)| change.teller() == by) {
        match change.known() {
            None => passed = at + 1,
            Some(Same::ByAnother) => passed = next(told, passed, *change).unwrap_or(passed),
            Some(Same::Again) => {}
        }
    }
    passed
}

/// How a push is known, if it was told of before. `before` are the pushes of the same ref that came before it, the oldest
/// first.
pub(super) fn same(before: &[Push], new: &Push) -> Option<Same> {
    // A push that only tries the hook moves nothing.
    let told: Vec<&Push> = before.iter().filter(|push| !push.is_test).collect();
    if new.told_by == Teller::Look {
        // A look finds where a ref is, whichever way it went.
        let last = told.iter().rposition(|push| push.after == new.after)?;
        let has_left = told[last + 1..].iter().any(|push| push.before == new.after);
        return (!has_left).then_some(Same::Again);
    }
    if let Some(behind) = next(&told, passed(&told, &new.told_by), new) {
        // A push that goes on from where the ref is may be late news of what a look has found, or a new push
        // like it. The latter is assumed: to build twice does less harm than to lose a push.
        let goes_on = told.iter().rfind(|push| push.same.is_none()).is_some_and(|at| at.after == new.before);
        if told[behind - 1].told_by != Teller::Look || !goes_on {
            return Some(Same::ByAnother);
        }
        return None;
    }
    let leads_here = |push: &Push| match push.told_by {
        Teller::Look => push.after == new.after && push.same.is_none(),
        _ => push.is_like(new) && push.told_by == new.told_by,
    };
    let last = told.iter().rposition(|push| leads_here(push))?;
    let since = &told[last + 1..];
    let has_left = since.iter().any(|push| push.before == new.after);
    let has_come_back = since.iter().any(|push| push.after == new.before);
    (!(has_left && has_come_back)).then_some(Same::Again)
}

/// How what happened to a pull request is known, if it was told of before. `before` is what happened to the same one before
/// that, the oldest first.
pub(super) fn same_of_pull(before: &[Pull], new: &Pull) -> Option<Same> {
    let told: Vec<&Pull> = before.iter().collect();
    if next(&told, passed(&told, &new.told_by), new).is_some() {
        return Some(Same::ByAnother);
    }
    let last = told.iter().rposition(|pull| pull.is_like(new) && pull.told_by == new.told_by)?;
    let since = &told[last + 1..];
    let is_again = match new.action {
        Action::Opened => true,
        Action::Reopened => !since.iter().any(|pull| pull.closes()),
        Action::Closed => since.iter().all(|pull| pull.closes()),
        Action::Synchronize => {
            let has_left = since.iter().any(|pull| pull.head != new.head);
            let has_come_back = match &new.before {
                Some(before) => since.iter().any(|pull| pull.head == *before),
                None => has_left,
            };
            !(has_left && has_come_back)
        }
        // These may happen again at once.
        Action::ReadyForReview | Action::Labeled | Action::Edited => false,
    };
    is_again.then_some(Same::Again)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::ids::ProjectId;
    use crate::server::pipelines::forge::event::{Event, NO_OBJECT};
    use crate::server::pipelines::forge::take::{Stored, Taken, is_built_by_pull, take};
    use crate::server::store::Store;
    use crate::server::store::forge_states::{DeliverySource, EventState, Verdict};
    use crate::server::store::read;
    use crate::server::store::tables::deliveries::{self, NewDelivery};
    use crate::server::store::tables::forge;
    use crate::server::store::tables::projects::{self, ProjectSettings, ensure_project};
    use crate::server::time::Millis;
    use proptest::prelude::*;

    const REF: &str = "refs/heads/topic";

    /// A branch that moves between three commits, and what is told of it.
    struct World {
        store: Store,
        project: ProjectId,
        now: u64,
        _folder: tempfile::TempDir,
    }

    fn commit(n: usize) -> String {
        ["a", "b", "c"][n].repeat(40)
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("db"), false, |_| ()).unwrap();
            let project = store
                .write_blocking(|tx| Ok(ensure_project(tx, "gh/acme/app", None, Millis(0))?.project))
                .unwrap();
            Self { store, project, now: 1_000_000, _folder: folder }
        }

        /// Tells of a push. True when it is one to build.
        fn tell(&mut self, by: Teller, before: &str, after: &str) -> bool {
            let push = Push {
                reference: REF.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
                commit: after.to_owned(),
                ..Push::default()
            };
            self.tell_of(by, Event::Push(push))
        }

        /// Tells of a change. True when it is one to build.
        fn tell_of(&mut self, by: Teller, change: Event) -> bool {
            self.now += 1;
            let (now, id) = (Millis(self.now), self.project.clone());
            let delivery = self.now.to_string();
            let write = move |tx: &crate::server::store::Tx<'_>| {
                let project = read::project(tx, &id)?.unwrap();
                let new = NewDelivery {
                    project: &id,
                    delivery: &delivery,
                    source: DeliverySource::Webhook,
                    event: "push",
                    verdict: Verdict::Accepted,
                    is_strange: false,
                    sentence: "",
                };
                let seq = deliveries::add(tx, &new, now)?;
                let of = Stored { seq, project: &project, is_cloud: false, by, since: Millis(0), now };
                Ok(matches!(take(tx, &of, change)?, Taken::Waits(_)))
            };
            self.store.write_blocking(write).unwrap()
        }

        /// Changes a setting.
        fn set(&self, change: fn(&mut ProjectSettings)) {
            let id = self.project.clone();
            let write = move |tx: &crate::server::store::Tx<'_>| {
                let mut settings = projects::settings(tx, &id)?.unwrap_or_default();
                change(&mut settings);
                projects::set_settings(tx, &id, &settings)
            };
            self.store.write_blocking(write).unwrap();
        }

        /// Builds what waits, as whoever works it off does. Returns the commits.
        fn work(&self) -> Vec<String> {
            let id = self.project.clone();
            let write = move |tx: &crate::server::store::Tx<'_>| {
                let mut built = Vec::new();
                for stored in deliveries::due_events(tx, &[], Millis(u64::MAX >> 1), 1000)? {
                    let (is_built, commit) = match stored.event.unwrap() {
                        Event::Push(push) => {
                            (is_built_by_pull(tx, &id, &push, Some(stored.seq))?, push.commit)
                        }
                        Event::Pull(pull) => (false, pull.head),
                        Event::Scheduled(_) => continue,
                    };
                    let state = if is_built { EventState::Skipped } else { EventState::Started };
                    deliveries::finish_event(tx, stored.seq, state, "")?;
                    built.extend((!is_built).then_some(commit));
                }
                Ok(built)
            };
            self.store.write_blocking(write).unwrap()
        }

        /// The head of the pull request as it is remembered, if it is open.
        fn remembered(&self) -> Option<String> {
            let id = self.project.clone();
            self.store.read_blocking(move |view| forge::head_of_pull(view, &id, 7)).unwrap()
        }

        /// Looks where the branch is. True when that is one to build.
        fn look(&mut self, at: &str) -> bool {
            let id = self.project.clone();
            let seen = self.store.read_blocking(move |view| forge::seen_ref(view, &id, REF)).unwrap();
            match seen {
                Some(seen) if seen == at => false,
                seen => self.tell(Teller::Look, &seen.unwrap_or_else(|| NO_OBJECT.to_owned()), at),
            }
        }
    }

    /// How a push becomes known.
    #[derive(Clone, Copy, Debug)]
    enum Known {
        Told,
        ToldTwice,
        Looked,
        LookedAndTold,
        ToldAndLooked,
    }

    fn known() -> impl Strategy<Value = Known> {
        prop_oneof![
            3 => Just(Known::Told),
            1 => Just(Known::ToldTwice),
            1 => Just(Known::Looked),
            2 => Just(Known::LookedAndTold),
            2 => Just(Known::ToldAndLooked),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn each_push_is_built_once_whoever_finds_it_first(
            moves in prop::collection::vec((1usize..3, known()), 1..14),
            is_named in any::<bool>(),
        ) {
            let mut world = World::new();
            let hook = if is_named { Teller::Hook("1".to_owned()) } else { Teller::Unnamed };
            let (mut at, mut before) = (0, NO_OBJECT.to_owned());
            for (n, (step, known)) in moves.into_iter().enumerate() {
                at = (at + step) % 3;
                let after = commit(at);
                let tell = |world: &mut World| usize::from(world.tell(hook.clone(), &before, &after));
                let look = |world: &mut World| usize::from(world.look(&after));
                let built = match known {
                    Known::Told => tell(&mut world),
                    Known::ToldTwice => tell(&mut world) + tell(&mut world),
                    Known::Looked => look(&mut world),
                    Known::LookedAndTold => look(&mut world) + tell(&mut world),
                    Known::ToldAndLooked => tell(&mut world) + look(&mut world),
                };
                prop_assert_eq!(built, 1, "push {} to {}, {:?}", n, at, known);
                before = after;
            }
        }

        #[test]
        fn each_push_is_built_once_however_far_webhooks_are_apart(
            moves in prop::collection::vec(1usize..3, 1..14),
            turns in prop::collection::vec(0usize..3, 0..60),
        ) {
            let mut world = World::new();
            let (mut at, mut before, mut ways) = (0, NO_OBJECT.to_owned(), Vec::new());
            for step in moves {
                at = (at + step) % 3;
                ways.push((before, commit(at)));
                before = commit(at);
            }
            let (mut told, mut built) = ([0; 3], Vec::new());
            // Hooks that are left over tell at the end.
            let rest = (0..3).flat_map(|hook| std::iter::repeat_n(hook, ways.len()));
            for hook in turns.into_iter().chain(rest) {
                let Some((before, after)) = ways.get(told[hook]) else { continue };
                told[hook] += 1;
                if world.tell(Teller::Hook(hook.to_string()), before, after) {
                    built.push((before.clone(), after.clone()));
                }
            }
            prop_assert_eq!(built, ways);
        }
    }

    /// A change of the pull request.
    fn pull(action: Action, before: Option<&str>, head: &str) -> Event {
        Event::Pull(Pull {
            action,
            number: 7,
            head_branch: "topic".to_owned(),
            head: head.to_owned(),
            before: before.map(str::to_owned),
            ..Pull::default()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn where_only_pull_requests_are_built_each_push_to_one_is_built_once(
            is_known_late in any::<bool>(),
            has_short_ids in any::<bool>(),
            moves in prop::collection::vec((0usize..3, any::<bool>(), any::<bool>(), any::<bool>()), 1..14),
        ) {
            let mut world = World::new();
            world.set(|settings| settings.is_build_prs_only = true);
            let hook = || Teller::Hook("1".to_owned());
            // A forge may tell the beginning of a commit only, and nothing of the one before.
            let told = |action: Action, before: &str, head: &str| match has_short_ids {
                true => pull(action, None, &head[..12]),
                false => pull(action, (action == Action::Synchronize).then_some(before), head),
            };
            let (mut built, mut expected) = (Vec::new(), Vec::new());
            let (mut at, mut before, mut is_open) = (0, NO_OBJECT.to_owned(), true);
            // The push that its branch is at was left out.
            let mut is_left_out = false;
            // Each has one digit only.
            let full = |commit: String| commit[..1].repeat(40);
            for (n, (step, is_pull_first, works_between, is_told_twice)) in moves.into_iter().enumerate() {
                if step == 0 && n > 0 {
                    // The pull request is closed, or opened again.
                    let action = if is_open { Action::Closed } else { Action::Reopened };
                    if !is_open && is_left_out {
                        expected.push(before.clone());
                        is_left_out = false;
                    }
                    is_open = !is_open;
                    for _ in 0..=usize::from(is_told_twice) {
                        world.tell_of(hook(), told(action, &before, &before));
                    }
                } else {
                    at = (at + step.max(1)) % 3;
                    let after = commit(at);
                    let action = if n == 0 && !is_known_late { Action::Opened } else { Action::Synchronize };
                    let mut turns = vec![None, Some(action)];
                    if is_pull_first {
                        turns.reverse();
                    }
                    // A forge says nothing of the head of one that is closed.
                    turns.retain(|turn| turn.is_none() || is_open);
                    for turn in turns {
                        for _ in 0..=usize::from(is_told_twice) {
                            match turn {
                                None => world.tell(hook(), &before, &after),
                                Some(action) => world.tell_of(hook(), told(action, &before, &after)),
                            };
                        }
                        if works_between {
                            built.extend(world.work().into_iter().map(full));
                        }
                    }
                    before = after;
                    is_left_out = !is_open;
                    expected.extend(is_open.then(|| before.clone()));
                }
                built.extend(world.work().into_iter().map(full));
                prop_assert_eq!(&built, &expected, "after {} moves", n + 1);
                let head = if has_short_ids { &before[..12] } else { before.as_str() };
                prop_assert_eq!(world.remembered(), is_open.then(|| head.to_owned()));
            }
        }

        #[test]
        fn each_head_of_a_fork_is_built_once_however_far_webhooks_are_apart(
            moves in prop::collection::vec((0usize..3, any::<bool>()), 1..12),
            turns in prop::collection::vec(0usize..3, 0..60),
        ) {
            let mut world = World::new();
            world.set(|settings| settings.enable_building_fork_prs = true);
            let fork = |action, before: Option<&str>, head: &str| match pull(action, before, head) {
                Event::Pull(pull) => Event::Pull(Pull {
                    is_fork: true,
                    reference: Some("refs/pull/7/head".to_owned()),
                    ..pull
                }),
                other => other,
            };
            let (mut at, mut is_open) = (0, true);
            let mut events = vec![fork(Action::Opened, None, &commit(0))];
            let mut heads = vec![commit(0)];
            for (step, is_moved) in moves {
                let before = commit(at);
                if step > 0 {
                    if is_open || is_moved {
                        at = (at + step) % 3;
                    }
                    if is_open {
                        events.push(fork(Action::Synchronize, Some(&before), &commit(at)));
                    }
                } else {
                    is_open = !is_open;
                    let action = if is_open { Action::Reopened } else { Action::Closed };
                    events.push(fork(action, None, &commit(at)));
                }
                if is_open && heads.last() != Some(&commit(at)) {
                    heads.push(commit(at));
                }
            }
            let (mut told, mut built) = ([0; 3], Vec::new());
            let rest = (0..3).flat_map(|hook| std::iter::repeat_n(hook, events.len()));
            for hook in turns.into_iter().chain(rest) {
                let Some(event) = events.get(told[hook]) else { continue };
                told[hook] += 1;
                world.tell_of(Teller::Hook(hook.to_string()), event.clone());
                built.extend(world.work());
            }
            prop_assert_eq!(built, heads);
            prop_assert_eq!(world.remembered(), is_open.then(|| commit(at)));
        }
    }

    #[test]
    fn what_was_left_out_for_a_setting_is_built_once_that_is_changed() {
        let mut world = World::new();
        let opened = || match pull(Action::Opened, None, &commit(1)) {
            Event::Pull(pull) => {
                let reference = Some("refs/pull/7/head".to_owned());
                Event::Pull(Pull { is_fork: true, reference, ..pull })
            }
            other => other,
        };
        assert!(!world.tell_of(Teller::Unnamed, opened()), "forks are not built");
        world.set(|settings| settings.enable_building_fork_prs = true);
        assert!(world.tell_of(Teller::Unnamed, opened()) && !world.tell_of(Teller::Unnamed, opened()));
        world.set(|settings| settings.ignore_branches = vec!["topic".to_owned()]);
        assert!(!world.tell(Teller::Unnamed, NO_OBJECT, &commit(1)));
        world.set(|settings| settings.ignore_branches.clear());
        assert!(world.tell(Teller::Unnamed, NO_OBJECT, &commit(1)));
        assert!(!world.tell(Teller::Unnamed, NO_OBJECT, &commit(1)));
    }

    #[test]
    fn what_comes_late_changes_nothing_of_what_is_remembered() {
        let mut world = World::new();
        let mut tell = |action, head: usize, updated: &str| {
            let told = match pull(action, None, &commit(head)) {
                Event::Pull(pull) => Event::Pull(Pull { updated: Some(updated.to_owned()), ..pull }),
                other => other,
            };
            world.tell_of(Teller::Unnamed, told);
            world.remembered()
        };
        assert_eq!(tell(Action::Opened, 0, "2026-01-01T00:00:01Z"), Some(commit(0)));
        assert_eq!(tell(Action::Synchronize, 2, "2026-01-01T00:00:03Z"), Some(commit(2)));
        assert_eq!(tell(Action::Synchronize, 1, "2026-01-01T00:00:02Z"), Some(commit(2)), "it came late");
        assert_eq!(tell(Action::Reopened, 2, "2026-01-01T00:00:06Z"), Some(commit(2)));
        assert_eq!(tell(Action::Closed, 2, "2026-01-01T00:00:05Z"), Some(commit(2)), "it came late");
        assert_eq!(tell(Action::Closed, 2, "2026-01-01T00:00:07Z"), None, "another one");
        assert_eq!(tell(Action::Closed, 2, "2026-01-01T00:00:07Z"), None);
    }

    #[test]
    fn news_of_a_pull_request_that_is_closed_do_not_open_it() {
        let mut world = World::new();
        let labeled = match pull(Action::Labeled, None, &commit(1)) {
            Event::Pull(pull) => Event::Pull(Pull { is_closed: true, ..pull }),
            other => other,
        };
        world.tell_of(Teller::Unnamed, pull(Action::Opened, None, &commit(1)));
        assert_eq!(world.remembered(), Some(commit(1)));
        world.tell_of(Teller::Unnamed, pull(Action::Closed, None, &commit(1)));
        world.tell_of(Teller::Unnamed, labeled);
        assert_eq!(world.remembered(), None);
    }

    #[test]
    fn a_look_over_several_pushes_stands_for_the_last_of_them() {
        let mut world = World::new();
        let hook = || Teller::Hook("1".to_owned());
        assert!(world.look(&commit(2)), "two pushes that nobody told of yet");
        world.tell(hook(), NO_OBJECT, &commit(1));
        assert!(!world.tell(hook(), &commit(1), &commit(2)), "it was found");
        assert!(world.tell(hook(), &commit(2), &commit(1)) && world.tell(hook(), &commit(1), &commit(2)));
        // A try of the hook is no move.
        world.tell(hook(), &commit(2), &commit(2));
        assert!(!world.tell(hook(), &commit(1), &commit(2)));
    }
}
