//! The order of pushes: forges tell of some of them late, and some wait while others are worked off. What is asked for here is
//! decided by the order in which changes are stored, and those of a project are worked off one after the other: whatever
//! comes meanwhile stands behind, and is compared with this one in its turn.
//!
//! A change has been overtaken when one that was stored before it, or that is built, goes on from it, or is at a commit that
//! holds its own; not when it goes on from that one itself, as a branch does that is moved back by force.

use crate::server::pipelines::forge::event::{Event, StoredChange, Unbuilt, is_zeros};
use crate::server::pipelines::forge::take;
use crate::server::pipelines::repository::{Error as ReadError, Missing, Read};
use crate::server::state::Shared;
use crate::server::store::forge_states::EventState;
use crate::server::store::tables::forge;
use crate::server::store::{Error as StoreError, View};
use crate::server::time::Millis;
use std::collections::HashSet;

/// Moves of a ref that are looked at, the newest of them.
const MOST_MOVES: usize = 200;
/// Commits whose history is looked at for the one that is to be built.
const MOST_COMPARED: usize = 8;

/// A move of a ref, or of the head of a pull request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Move {
    /// Place of the change among all.
    place: i64,
    /// The object that the ref was at; empty where the forge does not tell.
    before: String,
    /// The object that it is at; zeros: it is gone.
    after: String,
    /// The commit of that; the beginning of its id where the forge tells no more.
    commit: String,
    /// How far it is worked off.
    state: Option<EventState>,
    /// The reason why nothing was built of it, where that is of use.
    unbuilt: Option<Unbuilt>,
}

impl Move {
    /// Whether it counts for one that is stored at `place` and is being worked off.
    fn counts(&self, place: i64) -> bool {
        let is_built = self.state == Some(EventState::Started);
        let stands_before = self.place < place && self.state != Some(EventState::Failed);
        self.place != place && self.unbuilt != Some(Unbuilt::Late) && (is_built || stands_before)
    }

    /// Whether it goes on from another.
    fn goes_on_from(&self, other: &Self) -> bool {
        !other.after.is_empty() && !is_zeros(&other.after) && self.before == other.after
    }
}

/// The moves of what a change moves, the oldest first, and the one that it is itself.
fn moves(view: &View, stored: &StoredChange, event: &Event) -> Result<(Vec<Move>, Move), StoreError> {
    let of_push = |stored: &StoredChange, push: &super::event::Push| Move {
        place: stored.seq,
        before: push.before.clone(),
        after: push.after.clone(),
        commit: push.commit.clone(),
        state: Some(stored.state),
        unbuilt: push.unbuilt,
    };
    let of_pull = |stored: &StoredChange, pull: &super::event::Pull| Move {
        place: stored.seq,
        before: pull.before.clone().unwrap_or_default(),
        after: pull.head.clone(),
        commit: pull.head.clone(),
        state: Some(stored.state),
        unbuilt: pull.unbuilt,
    };
    let project = &stored.project;
    let pushes = |reference: &str| -> Result<Vec<Move>, StoreError> {
        let mut told = take::pushes_of(view, project, reference, Millis(0))?;
        told.retain(|(_, push)| push.same.is_none() && !push.is_test);
        Ok(told.iter().map(|(stored, push)| of_push(stored, push)).collect())
    };
    let (mut all, this) = match event {
        Event::Push(push) => (pushes(&push.reference)?, of_push(stored, push)),
        Event::Pull(pull) if pull.is_fork => {
            let mut told = take::pulls_of(view, project, pull.number, Millis(0))?;
            told.retain(|(_, pull)| pull.same.is_none());
            (told.iter().map(|(stored, pull)| of_pull(stored, pull)).collect(), of_pull(stored, pull))
        }
        Event::Pull(pull) => (pushes(&format!("refs/heads/{}", pull.head_branch))?, of_pull(stored, pull)),
        Event::Scheduled(_) => (Vec::new(), Move::default()),
    };
    all.drain(..all.len().saturating_sub(MOST_MOVES));
    Ok((all, this))
}

/// The first change of the same ref, or of the same pull request from a fork, that was stored before this one and waits for
/// another try.
pub(super) fn waits_before(
    view: &View,
    stored: &StoredChange,
    event: &Event,
) -> Result<Option<StoredChange>, StoreError> {
    let pushes = |reference: &str| -> Result<Vec<StoredChange>, StoreError> {
        let told = take::pushes_of(view, &stored.project, reference, Millis(0))?;
        Ok(told.into_iter().map(|(stored, _)| stored).collect())
    };
    let all = match event {
        Event::Push(push) => pushes(&push.reference)?,
        Event::Pull(pull) if pull.is_fork => {
            let told = take::pulls_of(view, &stored.project, pull.number, Millis(0))?;
            told.into_iter().map(|(stored, _)| stored).collect()
        }
        Event::Pull(pull) => pushes(&format!("refs/heads/{}", pull.head_branch))?,
        Event::Scheduled(_) => Vec::new(),
    };
    let waits = |one: &StoredChange| one.state == EventState::Waiting && one.attempts > 0;
    Ok(all.into_iter().filter(|one| one.seq < stored.seq && waits(one)).min_by_key(|one| one.seq))
}

/// Whether a move comes after the ref was at `from`, as the moves say that were stored behind `place`.
fn comes_after(all: &[Move], this: &Move, place: i64, from: &str) -> bool {
    let (mut left, mut seen) = (vec![from], HashSet::from([from]));
    while let Some(at) = left.pop() {
        if at == this.before {
            return true;
        }
        let behind = all.iter().filter(|one| one.place > place && one.place != this.place);
        for next in behind.filter(|one| one.before == at && !is_zeros(&one.after)) {
            if seen.insert(&next.after) {
                left.push(&next.after);
            }
        }
    }
    false
}

/// Moves and commits that a change may have been overtaken by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ahead {
    /// A move that goes on from it: it has been overtaken.
    next: Option<String>,
    /// Commits that may hold its own, the likeliest first.
    commits: Vec<String>,
}

/// Finds what a change may have been overtaken by. `seen` are the objects that its ref was at by other news, the newest first.
fn ahead(all: &[Move], this: &Move, seen: &[String]) -> Ahead {
    let counting = || all.iter().rev().filter(|one| one.counts(this.place));
    let is_other = |one: &&Move| !comes_after(all, this, one.place, &one.after);
    if let Some(next) = counting().filter(|one| one.goes_on_from(this)).find(is_other) {
        return Ahead { next: Some(next.after.clone()), commits: Vec::new() };
    }
    let mut commits: Vec<String> = Vec::new();
    let known = seen.iter().filter(|at| !comes_after(all, this, 0, at)).cloned();
    let told = counting().filter(|one| !is_zeros(&one.after)).filter(is_other).map(|one| one.commit.clone());
    for commit in known.chain(told) {
        if !commit.starts_with(&this.commit)
            && !this.commit.starts_with(&commit)
            && !commits.contains(&commit)
        {
            commits.push(commit);
        }
        if commits.len() == MOST_COMPARED {
            break;
        }
    }
    Ahead { next: None, commits }
}

/// The result of a question to history.
pub(super) enum Overtaken {
    /// The change is the last one of its ref, as far as is known.
    No,
    /// Another is ahead of it.
    By {
        /// The object that the ref has gone on to.
        object: String,
        /// A sentence about that.
        why: String,
    },
    /// The repository cannot be asked.
    Unknown(String),
}

/// Finds out whether a change of a branch that has been read has been overtaken.
pub(super) async fn overtaken(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    read: &Read,
    url: &str,
) -> Result<Overtaken, StoreError> {
    let (name, branch, late_for) = match event {
        Event::Push(push) => match push.branch() {
            Some(branch) => (push.reference.clone(), branch.to_owned(), push.late_for.clone()),
            None => return Ok(Overtaken::No),
        },
        Event::Pull(pull) => (pull.branch(), pull.branch(), None),
        Event::Scheduled(_) => return Ok(Overtaken::No),
    };
    let (of, change, commit) = (stored.clone(), event.clone(), read.commit.revision.clone());
    let is_tip = read.is_tip;
    let look = move |view: &View| {
        let newest = forge::newest_revision(view, &of.project, &branch)?;
        if is_tip && newest.as_ref() != Some(&commit) {
            // The branch is here, whatever was told of it.
            return Ok(Ahead::default());
        }
        let (all, mut this) = moves(view, &of, &change)?;
        this.commit = commit;
        let seen: Vec<String> = newest.into_iter().chain(late_for).collect();
        Ok(ahead(&all, &this, &seen))
    };
    let ahead = state.store.read(look).await?;
    if let Some(next) = ahead.next {
        let why = match is_zeros(&next) {
            true => format!("it came late: `{name}` was deleted since"),
            false => format!("it came late: `{name}` has gone on from it to {next}"),
        };
        return Ok(Overtaken::By { object: next, why });
    }
    for newer in ahead.commits {
        let (project, commit) = (stored.project.as_str(), &read.commit.revision);
        match state.settings.mirrors.is_ancestor(project, url, commit, &newer).await {
            Ok(true) => {
                let why = format!("it came late: `{name}` has gone on to {newer}, which holds it");
                return Ok(Overtaken::By { object: newer, why });
            }
            Ok(false) => {}
            Err(ReadError::Failed(why) | ReadError::UnknownRef(why)) => return Ok(Overtaken::Unknown(why)),
            Err(ReadError::Missing(missing)) => return Ok(Overtaken::Unknown(missing.why)),
        }
    }
    Ok(Overtaken::No)
}

/// Fate of a change whose ref or commit the repository does not have.
pub(super) enum Lost {
    /// The ref has moved on or is gone, for this reason.
    Gone(String),
    /// The commit may not have got there yet.
    Awaited,
}

/// Tries after which a ref that was made and that is not there is gone, where its commit is: some 50 seconds.
const NEW_REF_TRIES: u32 = 4;

/// Finds out whether the ref of a change that cannot be read has verifiably moved on. A copy of a repository may lag behind the
/// event: what is merely not there yet is awaited.
pub(super) async fn lost(
    state: &Shared,
    stored: &StoredChange,
    event: &Event,
    missing: &Missing,
    url: &str,
) -> Result<Lost, StoreError> {
    let (of, change) = (stored.clone(), event.clone());
    let look = move |view: &View| {
        let (all, this) = moves(view, &of, &change)?;
        let is_closed = match &change {
            Event::Pull(pull) => forge::head_of_pull(view, &of.project, pull.number)?.is_none(),
            _ => false,
        };
        Ok((all, this, is_closed))
    };
    let (all, this, is_closed) = state.store.read(look).await?;
    let why = &missing.why;
    if is_closed {
        return Ok(Lost::Gone(format!("{why}: the pull request was closed since")));
    }
    let is_deleted = |one: &Move| is_zeros(&one.after) && (one.goes_on_from(&this) || one.place > this.place);
    let Some(tip) = &missing.tip else {
        let was_made = this.before.is_empty() || is_zeros(&this.before);
        let is_fork = matches!(event, Event::Pull(pull) if pull.is_fork);
        let is_gone = all.iter().any(is_deleted)
            || missing.has_commit && !is_fork && (!was_made || stored.attempts >= NEW_REF_TRIES);
        return Ok(if is_gone { Lost::Gone(why.clone()) } else { Lost::Awaited });
    };
    let name = match event {
        Event::Push(push) => push.reference.clone(),
        Event::Pull(pull) => pull.branch(),
        Event::Scheduled(_) => return Ok(Lost::Gone(why.clone())),
    };
    let is_next = |one: &&Move| {
        one.goes_on_from(&this) && (one.commit == *tip || one.state == Some(EventState::Started))
    };
    if let Some(next) = all.iter().find(is_next) {
        return Ok(Lost::Gone(format!("`{name}` has gone on from it to {}", next.after)));
    }
    let mirrors = &state.settings.mirrors;
    match mirrors.is_ancestor(stored.project.as_str(), url, &this.commit, tip).await {
        Ok(true) => Ok(Lost::Gone(format!("`{name}` has gone on to {tip}, which holds it"))),
        _ => Ok(Lost::Awaited),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves by their places, written as `before>after` with a mark of what became of them: `+` built, `?` waits, `-` skipped,
    /// `!` failed, `~` late.
    fn told(words: &[&str]) -> Vec<Move> {
        let one = |(at, word): (usize, &&str)| {
            let (ways, mark) = word.split_at(word.len() - 1);
            let (before, after) = ways.split_once('>').unwrap_or_default();
            let state = match mark {
                "+" => EventState::Started,
                "?" => EventState::Waiting,
                "!" => EventState::Failed,
                _ => EventState::Skipped,
            };
            Move {
                place: i64::try_from(at).unwrap_or_default() + 1,
                before: before.to_owned(),
                after: after.to_owned(),
                commit: after.to_owned(),
                state: Some(state),
                unbuilt: (mark == "~").then_some(Unbuilt::Late),
            }
        };
        words.iter().enumerate().map(one).collect()
    }

    /// Moves and commits that the last one that waits may have been overtaken by.
    fn of(words: &[&str]) -> (Option<String>, Vec<String>) {
        let all = told(words);
        let at = words.iter().rposition(|word| word.ends_with('?')).unwrap_or_default();
        let found = ahead(&all, &all[at], &[]);
        (found.next, found.commits)
    }

    fn none() -> (Option<String>, Vec<String>) {
        (None, Vec::new())
    }

    fn by(next: &str) -> (Option<String>, Vec<String>) {
        (Some(next.to_owned()), Vec::new())
    }

    fn perhaps(commits: &[&str]) -> (Option<String>, Vec<String>) {
        (None, commits.iter().map(|commit| (*commit).to_owned()).collect())
    }

    #[test]
    fn a_push_that_goes_on_from_all_others_is_not_late() {
        assert_eq!(of(&["0>a+", "a>b?"]), none());
        assert_eq!(
            of(&["0>a+", "a>b?", "b>c-"]),
            none(),
            "what is stored behind it and not built does not count"
        );
        assert_eq!(of(&["a>b+", "b>a+", "a>b+", "b>a?"]), none(), "to and fro by force");
        assert_eq!(of(&["a>b+", "c>d+", "b>c~", "d>e?"]), none(), "a late one in between");
        assert_eq!(of(&["a>b+", "c>d+", "b>c~", "d>b?"]), none(), "back by force behind that");
        assert_eq!(of(&["a>b-", "b>c!", "x>b?"]), perhaps(&[]), "what failed does not count");
    }

    #[test]
    fn a_push_that_another_goes_on_from_is_late() {
        assert_eq!(of(&["0>a+", "b>c+", "a>b?"]), by("c"));
        assert_eq!(of(&["0>a+", "b>c-", "a>b?"]), by("c"), "whatever became of that");
        assert_eq!(of(&["c>a+", "a>b+", "b>0+", "c>b?"]), by("0"), "a deletion");
        assert_eq!(of(&["c>a+", "b>c+", "a>b?"]), by("c"), "a way back that was stored before says nothing");
        // A push waited while what came behind it was built.
        let all = told(&["0>a+", "a>b?", "b>c+"]);
        assert_eq!(ahead(&all, &all[1], &[]).next.as_deref(), Some("c"));
        let all = told(&["0>a+", "a>b?", "b>c?"]);
        assert_eq!(ahead(&all, &all[1], &[]), Ahead::default());
    }

    #[test]
    fn where_links_are_missing_git_is_asked() {
        assert_eq!(of(&["0>a+", "c>d+", "a>b?"]), perhaps(&["d"]));
        assert_eq!(of(&["0>a+", "b>c?"]), perhaps(&["a"]));
        let all = told(&["0>a+", "a>b?"]);
        let seen = ["d".to_owned(), "a".to_owned()];
        assert_eq!(ahead(&all, &all[1], &seen).commits, ["d"], "it goes on from the other");
    }
}
