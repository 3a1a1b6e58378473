//! Pushes that are told of more than once: by forges that send a delivery again, by several webhooks, by looks at refs.
//!
//! A branch may go to and fro between the same commits, so that two pushes are alike in every word. They are told apart by
//! what was told between them: a ref moves by the same push again only after it was away. And each webhook tells of pushes
//! in their order: one that tells of a push that another has told of, or a look has found, since the last one that both
//! know of, tells of one that is known. No IO.

use crate::server::pipelines::forge::event::{Push, Same, Teller};

/// How a push is known, if it was told of before. `before` are the pushes of the same ref that came before it, the oldest
/// first.
pub(super) fn same(before: &[Push], new: &Push) -> Option<Same> {
    // One that only tries the hook moves nothing.
    let told: Vec<&Push> = before.iter().filter(|push| !push.is_test).collect();
    let is_like = |push: &Push| push.before == new.before && push.after == new.after;
    if new.told_by == Teller::Look {
        // A look finds where a ref is, whichever way it went.
        let last = told.iter().rposition(|push| push.after == new.after)?;
        let has_left = told[last + 1..].iter().any(|push| push.before == new.after);
        return (!has_left).then_some(Same::Again);
    }
    let by_this = |push: &Push| push.told_by == new.told_by;
    // Each one tells of pushes in their order: what it tells of is sought behind the one that it told of last.
    let next = |from: usize, push: &Push| {
        let is_it =
            |known: &&Push| known.same.is_none() && known.before == push.before && known.after == push.after;
        told[from..].iter().position(is_it).map(|at| from + at + 1)
    };
    let mut passed = 0;
    for (at, push) in told.iter().enumerate().filter(|(_, push)| by_this(push)) {
        match push.same {
            None => passed = at + 1,
            Some(Same::ByAnother) => passed = next(passed, push).unwrap_or(passed),
            Some(Same::Again) => {}
        }
    }
    if let Some(behind) = next(passed, new) {
        // One that goes on from where the ref is may be late news of what a look has found, or a push that is like it. It
        // is taken for the latter: to build twice does less harm than to lose one.
        let goes_on = told.iter().rfind(|push| push.same.is_none()).is_some_and(|at| at.after == new.before);
        if told[behind - 1].told_by != Teller::Look || !goes_on {
            return Some(Same::ByAnother);
        }
        return None;
    }
    let leads_here = |push: &Push| match push.told_by {
        Teller::Look => push.after == new.after && push.same.is_none(),
        _ => is_like(push) && by_this(push),
    };
    let last = told.iter().rposition(|push| leads_here(push))?;
    let since = &told[last + 1..];
    let has_left = since.iter().any(|push| push.before == new.after);
    let has_come_back = since.iter().any(|push| push.after == new.before);
    (!(has_left && has_come_back)).then_some(Same::Again)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::ids::ProjectId;
    use crate::server::pipelines::forge::event::{Event, NO_OBJECT};
    use crate::server::pipelines::forge::receive::{Stored, Taken, take};
    use crate::server::store::Store;
    use crate::server::store::read;
    use crate::server::store::status::{DeliverySource, Verdict};
    use crate::server::store::tables::deliveries::{self, NewDelivery};
    use crate::server::store::tables::forge;
    use crate::server::store::tables::projects::ensure_project;
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
            self.now += 1;
            let (now, id) = (Millis(self.now), self.project.clone());
            let delivery = self.now.to_string();
            let push = Push {
                reference: REF.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
                commit: after.to_owned(),
                ..Push::default()
            };
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
                Ok(matches!(take(tx, &of, Event::Push(push))?, Taken::Waits(_)))
            };
            self.store.write_blocking(write).unwrap()
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
            // Whoever is left over tells at the end.
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
