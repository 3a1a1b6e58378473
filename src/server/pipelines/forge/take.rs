//! Changes that were told of: which of them start something is decided here, and all of them are stored. Nothing is fetched.

use crate::server::ids::{PipelineId, ProjectId};
use crate::server::pipelines::forge::copies;
use crate::server::pipelines::forge::event::{Action, Event, Pull, Push, Same, StoredChange, Teller};
use crate::server::pipelines::forge::rules::{self, BuildDecision, Facts};
use crate::server::store::forge_states::EventState;
use crate::server::store::read::Project;
use crate::server::store::tables::deliveries::{self, NewEvent};
use crate::server::store::tables::forge::{self, OpenPull};
use crate::server::store::tables::projects::{self, ProjectSettings};
use crate::server::store::tables::schedules;
use crate::server::store::{Effect, Error as StoreError, Tx, View};
use crate::server::time::Millis;
use std::time::Duration;

/// Changes that are alike within this time may be the same one, told twice: `copies` says which are.
pub(super) const SAME: Duration = Duration::from_secs(10 * 60);
/// The beginning of the sentence about a change that is known, and about one that later ones were told before.
const TOLD_BEFORE: &str = "the same change was told of before";
const CAME_LATE: &str = "it came late: the pull request has changed since";

/// The delivery that changes are taken from.
pub(super) struct Stored<'a> {
    /// Place of the delivery in the list.
    pub(super) seq: i64,
    /// Project that the delivery is for.
    pub(super) project: &'a Project,
    /// Whether its forge tells of edits as of new heads.
    pub(super) is_cloud: bool,
    /// The teller of its changes.
    pub(super) by: Teller,
    /// Changes that were told of since then may be the same.
    pub(super) since: Millis,
    /// The time of its coming.
    pub(super) now: Millis,
}

/// Fate of a change for now.
pub(super) enum Taken {
    /// The change waits to be worked off; this is the id that its pipeline gets.
    Waits(PipelineId),
    /// The change needs no pipeline, for this reason.
    Skipped(String),
}

/// Decides about a change and stores it, whatever was decided.
pub(super) fn take(tx: &Tx<'_>, of: &Stored<'_>, mut change: Event) -> Result<Taken, StoreError> {
    let project = &of.project.id;
    let settings = projects::settings(tx, project)?.unwrap_or_default();
    let key = change.key();
    let pipeline = PipelineId::fresh();
    let known = match &mut change {
        Event::Push(push) => {
            push.told_by = of.by.clone();
            push.same = told_before(tx, project, push, of.since)?;
            if push.same.is_some() && of.by == Teller::Look {
                // A look has seen where the ref is, also when a webhook told of the push first.
                let object = Some(push.after.as_str()).filter(|_| !push.is_deletion());
                forge::see_ref(tx, project, &push.reference, object)?;
            }
            push.same.map(|_| TOLD_BEFORE)
        }
        Event::Pull(pull) => {
            pull.told_by = of.by.clone();
            let told = pulls_of(tx, project, pull.number, of.since)?;
            let told: Vec<Pull> = told.into_iter().map(|(_, pull)| pull).collect();
            pull.same = copies::same_of_pull(&told, pull);
            let is_late = told.iter().any(|other| pull.is_older_than(other));
            pull.same.map(|_| TOLD_BEFORE).or(is_late.then_some(CAME_LATE))
        }
        Event::Scheduled(_) => {
            let is_known = deliveries::has_key_since(tx, project, &key, of.now.minus(SAME))?;
            is_known.then_some(TOLD_BEFORE)
        }
    };
    if known.is_none() {
        see(tx, of, &mut change)?;
    }
    let decision = match known {
        Some(known) if !may_start_by_now(tx, project, &change)? => BuildDecision::Skip(known.to_owned()),
        known => match (decide(tx, of.project, &settings, &mut change, None)?, known) {
            (BuildDecision::Skip(why), Some(known)) => BuildDecision::Skip(format!("{known}: {why}")),
            (decision, _) => decision,
        },
    };
    let (event_state, sentence) = match &decision {
        BuildDecision::Start => (EventState::Waiting, ""),
        BuildDecision::Skip(why) | BuildDecision::LeaveOut(why) => (EventState::Skipped, why.as_str()),
    };
    let builds = change.builds();
    let new = NewEvent {
        delivery: of.seq,
        project,
        key: &key,
        builds: builds.as_deref(),
        event: &serde_json::to_value(&change)?,
        state: event_state,
        sentence,
        pipeline: &pipeline,
    };
    deliveries::add_event(tx, &new, of.now)?;
    Ok(match decision {
        BuildDecision::Start => Taken::Waits(pipeline),
        BuildDecision::Skip(why) | BuildDecision::LeaveOut(why) => Taken::Skipped(why),
    })
}

/// How a push is known, if it was told of before.
fn told_before(
    view: &View,
    project: &ProjectId,
    push: &Push,
    since: Millis,
) -> Result<Option<Same>, StoreError> {
    let change = Event::Push(push.clone());
    let leads = |builds: String| deliveries::leads_since(view, project, &builds, since);
    let is_like_another = deliveries::has_key_since(view, project, &change.key(), since)?
        || change.builds().map(leads).transpose()?.unwrap_or_default();
    if !is_like_another {
        return Ok(None);
    }
    let told = pushes_of(view, project, &push.reference, since)?;
    let told: Vec<Push> = told.into_iter().map(|(_, push)| push).collect();
    Ok(copies::same(&told, push))
}

/// The pushes of a ref that were told of since, the oldest first; what is damaged says nothing.
pub(super) fn pushes_of(
    view: &View,
    project: &ProjectId,
    reference: &str,
    since: Millis,
) -> Result<Vec<(StoredChange, Push)>, StoreError> {
    let stored = deliveries::of_ref(view, project, reference, since)?.into_iter();
    let pushes = stored.filter_map(|stored: StoredChange| match &stored.event {
        Ok(Event::Push(push)) => Some((push.clone(), stored)),
        _ => None,
    });
    Ok(pushes.map(|(push, stored)| (stored, push)).collect())
}

/// The whole id of the commit of a branch that begins so, as the last push to it told.
pub(super) fn full_id(
    view: &View,
    project: &ProjectId,
    branch: &str,
    head: &str,
) -> Result<Option<String>, StoreError> {
    let pushes = pushes_of(view, project, &format!("refs/heads/{branch}"), Millis(0))?;
    let told = pushes.into_iter().rev().map(|(_, push)| push.commit);
    Ok(told.into_iter().find(|commit| commit.starts_with(head)))
}

/// The changes of a pull request that were told of since, the oldest first.
pub(super) fn pulls_of(
    view: &View,
    project: &ProjectId,
    number: u64,
    since: Millis,
) -> Result<Vec<(StoredChange, Pull)>, StoreError> {
    let stored = deliveries::of_ref(view, project, &format!("pull/{number}"), since)?.into_iter();
    let pulls = stored.filter_map(|stored: StoredChange| match &stored.event {
        Ok(Event::Pull(pull)) => {
            let pull = pull.clone();
            Some((stored, pull))
        }
        _ => None,
    });
    Ok(pulls.collect())
}

/// Whether a change that is known is still how things are, and has started nothing: what was left out for a setting is
/// decided anew when it is told again.
fn may_start_by_now(view: &View, project: &ProjectId, change: &Event) -> Result<bool, StoreError> {
    match change {
        Event::Push(push) if push.is_test || push.is_deletion() => Ok(false),
        Event::Push(push) => {
            let is_there = forge::seen_ref(view, project, &push.reference)?.as_ref() == Some(&push.after);
            let built = |branch| deliveries::building::<Event>(view, project, branch, &push.commit);
            Ok(is_there && push.branch().map(built).transpose()?.is_some_and(|built| built.is_empty()))
        }
        Event::Pull(pull) => {
            Ok(!pull.closes()
                && forge::head_of_pull(view, project, pull.number)?.as_ref() == Some(&pull.head))
        }
        Event::Scheduled(_) => Ok(false),
    }
}

/// Whether a delivery that is sent again is taken anew: nothing of it was built or waits, and something failed, or its ref was
/// gone when it was looked for. Somebody asked the forge for it.
pub(super) fn is_taken_anew(view: &View, project: &ProjectId, delivery: i64) -> Result<bool, StoreError> {
    let counts = deliveries::count_by_state(view, delivery)?;
    let has = |of: EventState| counts.iter().any(|(state, _)| *state == of);
    if has(EventState::Waiting) || has(EventState::Started) {
        return Ok(false);
    }
    let is_gone = |stored: &StoredChange| stored.event.as_ref().is_ok_and(Event::is_gone);
    Ok(has(EventState::Failed) || deliveries::without_pipeline(view, project, delivery)?.iter().any(is_gone))
}

/// The changes of a delivery that started nothing, when they are asked for again.
pub struct Replayed {
    /// The number of those that wait to be worked off again.
    pub waiting: usize,
    /// The reason why the last other one starts nothing by now either.
    pub left: Option<String>,
}

/// Has the changes of a delivery that started nothing be worked off again, those that the rules let start something now.
pub fn replay(tx: &Tx<'_>, project: &Project, delivery: i64, now: Millis) -> Result<Replayed, StoreError> {
    let settings = projects::settings(tx, &project.id)?.unwrap_or_default();
    let mut replayed = Replayed { waiting: 0, left: None };
    for stored in deliveries::without_pipeline(tx, &project.id, delivery)? {
        // An event that cannot be read is said to be so by whoever works it off.
        let decision = match stored.event {
            Ok(mut change) => decide(tx, project, &settings, &mut change, Some(stored.seq))?,
            Err(_) => BuildDecision::Start,
        };
        match decision {
            BuildDecision::Start => {
                deliveries::replay(tx, stored.seq, "waits to be tried again", now)?;
                replayed.waiting += 1;
            }
            BuildDecision::Skip(why) | BuildDecision::LeaveOut(why) => replayed.left = Some(why),
        }
    }
    if replayed.waiting > 0 {
        tx.effect(Effect::ForgeWork);
    }
    Ok(replayed)
}

/// Decides about a change, which is stored at `place` already or about to be.
fn decide(
    tx: &Tx<'_>,
    project: &Project,
    settings: &ProjectSettings,
    change: &mut Event,
    place: Option<i64>,
) -> Result<BuildDecision, StoreError> {
    let mut facts = Facts { default_branch: project.default_branch.clone(), ..Facts::default() };
    let project = &project.id;
    match change {
        Event::Push(push) => {
            if let (Some(branch), true) = (push.branch(), settings.is_build_prs_only) {
                facts.has_pull = !forge::pulls_of_branch(tx, project, branch)?.is_empty();
            }
            facts.is_built = is_built_by_pull(tx, project, push, place)?;
        }
        Event::Pull(pull) if pull.is_fork => facts.is_built = is_fork_built(tx, project, pull)?,
        Event::Pull(pull) => {
            let left_out = left_out(tx, project, pull)?;
            facts.is_left_out = left_out.is_some();
            pull.answers_push = left_out == Some(LeftOut::Newest);
            facts.is_built = forge::has_pipeline(tx, project, &pull.head_branch, &pull.head)?
                || !deliveries::building::<Event>(tx, project, &pull.head_branch, &pull.head)?.is_empty();
        }
        Event::Scheduled(_) => {}
    }
    let decision = rules::decide(settings, &facts, change);
    if let (Event::Push(push), BuildDecision::LeaveOut(_)) = (change, &decision) {
        push.lacks_pull = true;
    }
    Ok(decision)
}

/// Whether the newest thing that is built of a pull request from a fork is the commit that it is at: its head may go back to
/// an earlier one, as a branch may.
fn is_fork_built(view: &View, project: &ProjectId, pull: &Pull) -> Result<bool, StoreError> {
    let built = deliveries::building(view, project, &pull.branch(), "")?;
    let newest = match built.into_iter().next().map(|stored| stored.event) {
        Some(Ok(Event::Pull(built))) => Some(built.head),
        _ => forge::newest_revision(view, project, &pull.branch())?,
    };
    Ok(newest.is_some_and(|newest| newest.starts_with(&pull.head)))
}

/// A push to the head of a pull request that was left out because no pull request was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    /// The branch has not moved since.
    Newest,
    /// Others were told of since.
    Earlier,
}

/// Finds the push to the head of a pull request that was left out, unless something else was built of that commit since. An
/// earlier one counts as long as the pull request was not known: after that every push to it is built by itself, and its
/// new head is what such a push leads to.
fn left_out(view: &View, project: &ProjectId, pull: &Pull) -> Result<Option<LeftOut>, StoreError> {
    if pull.head.is_empty() {
        return Ok(None);
    }
    let mut pushes = pushes_of(view, project, &format!("refs/heads/{}", pull.head_branch), Millis(0))?;
    pushes.retain(|(_, push)| push.same.is_none() && !push.is_test);
    let Some(at) = pushes.iter().rposition(|(_, push)| push.commit.starts_with(&pull.head)) else {
        return Ok(None);
    };
    let (stored, push) = &pushes[at];
    let built = deliveries::building::<Event>(view, project, &pull.head_branch, &pull.head)?;
    let is_left_out = push.lacks_pull
        && stored.state == EventState::Skipped
        && !built.iter().any(|built| built.seq > stored.seq);
    if !is_left_out {
        return Ok(None);
    }
    let newest = pushes.last().map(|(_, push)| &push.after);
    Ok(match at + 1 == pushes.len() {
        true => Some(LeftOut::Newest),
        false => (pull.is_news && pull.before.as_ref() != newest).then_some(LeftOut::Earlier),
    })
}

/// Whether what a push would build was built by its pull request: by one that was told of before its push was, or, where the
/// push had been left out, afterwards. `place` is the one that the push is stored at, if it is.
pub(super) fn is_built_by_pull(
    view: &View,
    project: &ProjectId,
    push: &Push,
    place: Option<i64>,
) -> Result<bool, StoreError> {
    let Some(branch) = push.branch().filter(|_| !push.is_deletion()) else { return Ok(false) };
    let place = place.unwrap_or(i64::MAX);
    let mut ahead = None;
    for stored in deliveries::building(view, project, branch, &push.commit)? {
        // A waiting event may come to nothing: whoever works off the push asks again.
        let Ok(Event::Pull(pull)) = &stored.event else { continue };
        if pull.is_fork || stored.state != EventState::Started {
            continue;
        }
        if stored.seq > place {
            return Ok(true);
        }
        if !pull.answers_push {
            ahead = ahead.max(Some(stored.seq));
        }
    }
    let Some(ahead) = ahead else { return Ok(false) };
    let between = |(stored, other): &(StoredChange, Push)| {
        (ahead + 1..place).contains(&stored.seq) && other.same.is_none() && !other.is_test
    };
    Ok(!pushes_of(view, project, &push.reference, Millis(0))?.iter().any(between))
}

/// Notes what a change says of refs and pull requests, whether it is built or not.
fn see(tx: &Tx<'_>, of: &Stored<'_>, change: &mut Event) -> Result<(), StoreError> {
    match change {
        Event::Push(push) => see_push(tx, of, push),
        Event::Pull(pull) => see_pull(tx, of, pull),
        Event::Scheduled(_) => Ok(()),
    }
}

fn see_push(tx: &Tx<'_>, of: &Stored<'_>, push: &mut Push) -> Result<(), StoreError> {
    let project = &of.project.id;
    if push.is_test {
        return Ok(());
    }
    if push.is_deletion() {
        if let Some(branch) = push.branch() {
            schedules::set_of_branch(tx, project, branch, &[], of.now)?;
        }
        return forge::see_ref(tx, project, &push.reference, None);
    }
    // A push that does not go on from where the ref was seen last may be late: git compares its commit.
    match forge::seen_ref(tx, project, &push.reference)? {
        Some(seen) if seen != push.before && seen != push.after && push.branch().is_some() => {
            push.late_for = Some(seen);
            Ok(())
        }
        _ => forge::see_ref(tx, project, &push.reference, Some(&push.after)),
    }
}

fn see_pull(tx: &Tx<'_>, of: &Stored<'_>, pull: &mut Pull) -> Result<(), StoreError> {
    let project = &of.project.id;
    if pull.closes() {
        return forge::close_pull(tx, project, pull.number);
    }
    let seen = forge::head_of_pull(tx, project, pull.number)?;
    pull.is_news = seen.is_none();
    if of.is_cloud && pull.action == Action::Synchronize && seen.as_ref() == Some(&pull.head) {
        pull.action = Action::Edited;
    }
    let open = OpenPull {
        number: pull.number,
        branch: pull.head_branch.clone(),
        head: pull.head.clone(),
        url: pull.url.clone(),
        is_fork: pull.is_fork,
    };
    forge::open_pull(tx, project, &open)
}
