//! The one thread that writes.
//!
//! It takes what is queued, runs each piece of work in a savepoint of one transaction, commits, and only
//! then answers: a lone write waits for nobody, and a burst shares one commit.
//!
//! Only SQLite: `BEGIN IMMEDIATE`, since the whole database has one writer at a time.

use super::{Error, View};
use crate::protocol::TaskId;
use crate::server::ids::PipelineId;
use crate::server::store::status::TaskState;
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most pieces of work in one transaction: bounds how long the first of them waits.
const MAX_GROUP: usize = 128;

/// A change that others are told of once it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A change of this pipeline.
    Changed(PipelineId),
    /// A task entered the queue of this resource class.
    Queued(String),
    /// A task entered the queue of this resource class that one of its runners should not get at once, or lets pass by.
    QueuedForOthers(String),
    /// Cancel was asked for on a claimed task.
    Cancel(TaskId),
    /// A claimed task has ended or went back to its queue: its token is dead.
    Ended(EndedTask),
    /// A runner took a task that had waited this long.
    Claimed(Duration),
    /// A change that a forge told of waits to be worked off.
    ForgeWork,
    /// A project was connected: its refs are to be looked at, and its forge to be told what waits.
    Connected,
    /// Personal tokens were revoked: whoever shows one that was accepted before is checked again.
    Revoked,
}

/// The end of one attempt at a task, as others hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedTask {
    /// Identifies the attempt.
    pub id: TaskId,
    /// Resource class whose runner had it, or that it waited for.
    pub resource_class: String,
    /// How it ended; one that runs again is `retried`.
    pub status: TaskState,
    /// Time from its begin to its end; `None` for one that never began.
    pub ran: Option<Duration>,
}

/// An open transaction. It is a [`View`] as well, so that functions that read take it.
pub struct Tx<'a> {
    connection: &'a View,
    effects: RefCell<Vec<Effect>>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a View) -> Self {
        Self { connection, effects: RefCell::new(Vec::new()) }
    }

    /// Announces something after the commit. The same effect in a row is announced once, except for
    /// [`Effect::Queued`], of which each one wakes a runner, and [`Effect::Claimed`], which are counted.
    pub fn effect(&self, effect: Effect) {
        let mut effects = self.effects.borrow_mut();
        if matches!(effect, Effect::Queued(_) | Effect::Claimed(_)) || !effects.contains(&effect) {
            effects.push(effect);
        }
    }

    /// The effects so far, for tests and for the writer.
    pub fn take_effects(&self) -> Vec<Effect> {
        self.effects.take()
    }
}

impl Deref for Tx<'_> {
    type Target = View;
    fn deref(&self) -> &View {
        self.connection
    }
}

/// The reason why a transaction was not committed.
struct Failed {
    why: String,
    /// The disk is full: trying again later may help.
    no_space: bool,
}

impl Failed {
    fn of(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        Self { why, no_space: matches!(Error::from(error), Error::NoSpace) }
    }

    fn error(&self) -> Error {
        if self.no_space { Error::NoSpace } else { Error::Commit(self.why.clone()) }
    }
}

/// Answers the caller: `Some` is the reason why the commit failed.
type Answer = Box<dyn FnOnce(Option<&Failed>) + Send>;
/// Does the work, or not when there is no transaction to do it in; tells whether to keep it, and how to
/// answer.
type Work = Box<dyn FnOnce(Option<&Tx<'_>>) -> (bool, Answer) + Send>;

#[derive(Clone)]
pub(super) struct WriterThread {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Mutex<Option<Sender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Writes that were lost to the disk or the database, not to what they said.
    failed_writes: Arc<AtomicU64>,
    /// The last of them, and none since, was lost to a full disk.
    is_full: Arc<AtomicBool>,
}

impl WriterThread {
    pub(super) fn start(
        connection: View,
        on_commit: impl Fn(Vec<Effect>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&connection, &receiver, &on_commit))?;
        Ok(Self {
            inner: Arc::new(Inner {
                queue: Mutex::new(Some(sender)),
                thread: Mutex::new(Some(thread)),
                failed_writes: Arc::default(),
                is_full: Arc::default(),
            }),
        })
    }

    pub(super) fn submit<T, F, A>(&self, work: F, answer: A) -> Result<(), Error>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
        A: FnOnce(Result<T, Error>) + Send + 'static,
    {
        let failed_writes = Arc::clone(&self.inner.failed_writes);
        let is_full = Arc::clone(&self.inner.is_full);
        let work: Work = Box::new(move |tx| {
            let result = match tx {
                Some(tx) => work(tx),
                None => Err(Error::Commit(String::new())),
            };
            let keep = result.is_ok();
            let finish: Answer = Box::new(move |failure| {
                let result = match failure {
                    Some(failed) if result.is_ok() || matches!(result, Err(Error::Commit(_))) => {
                        Err(failed.error())
                    }
                    _ => result,
                };
                if failure.is_some() || matches!(result, Err(Error::NoSpace)) {
                    failed_writes.fetch_add(1, Ordering::Relaxed);
                    is_full.store(matches!(result, Err(Error::NoSpace)), Ordering::Relaxed);
                } else if result.is_ok() {
                    is_full.store(false, Ordering::Relaxed);
                }
                answer(result);
            });
            (keep, finish)
        });
        let queue = self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().ok_or(Error::Closed)?.send(work).map_err(|_| Error::Closed)
    }

    pub(super) fn failed_writes(&self) -> u64 {
        self.inner.failed_writes.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.inner.is_full.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        drop(self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn run(connection: &View, queue: &Receiver<Work>, on_commit: &dyn Fn(Vec<Effect>)) {
    while let Ok(first) = queue.recv() {
        // Writes that come while the first is at work are of the group, too.
        let group = std::iter::once(first).chain(queue.try_iter()).take(MAX_GROUP);
        commit_group(connection, group, on_commit);
    }
}

fn commit_group(connection: &View, group: impl Iterator<Item = Work>, on_commit: &dyn Fn(Vec<Effect>)) {
    let mut answers = Vec::new();
    let mut effects = Vec::new();
    let mut failure = connection.run("BEGIN IMMEDIATE").err().map(Failed::of);
    for work in group {
        let tx = Tx::new(connection);
        if failure.is_none() {
            failure = connection.run("SAVEPOINT work").err().map(Failed::of);
        }
        let (keep, answer) = work(failure.is_none().then_some(&tx));
        if failure.is_none() {
            let undone = if keep { Ok(()) } else { connection.run("ROLLBACK TO work") };
            failure = undone.and_then(|()| connection.run("RELEASE work")).err().map(Failed::of);
        }
        if keep {
            effects.append(&mut tx.take_effects());
        }
        answers.push(answer);
    }
    if failure.is_none() {
        failure = connection.run("COMMIT").err().map(Failed::of);
    }
    if let Some(failed) = &failure {
        let help = if failed.no_space { "; make space where the data folder is" } else { "" };
        log::error!("failed to commit {} writes: {}{help}", answers.len(), failed.why);
        // A transaction is open, unless `BEGIN` was what failed.
        if !connection.sql().is_autocommit() {
            let _ = connection.sql().execute_batch("ROLLBACK");
        }
    } else if !effects.is_empty() {
        on_commit(effects);
    }
    for answer in answers {
        answer(failure.as_ref());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its database should fail loudly")]
mod tests {
    use super::*;
    use crate::server::store::{copy, schema};
    use std::sync::mpsc;

    /// Adds users, all of one call or none.
    fn add(logins: &'static [&'static str]) -> impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send {
        move |tx| {
            for login in logins {
                tx.effect(Effect::Changed((*login).into()));
                tx.sql().execute("INSERT INTO users VALUES (?1, ?1, ?1, 0, 0)", [login])?;
            }
            Ok(())
        }
    }

    #[test]
    fn work_that_fails_is_undone_by_itself_whether_it_is_alone_or_in_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        schema::migrate(&connection).unwrap();
        let (announce, announced) = mpsc::channel();
        let on_commit = move |effects| announce.send(effects).unwrap();
        let writer = WriterThread::start(View::new(connection), on_commit).unwrap();
        let (answer, answers) = mpsc::channel();
        let submit = |logins| {
            let answer = answer.clone();
            writer.submit(add(logins), move |result| answer.send(result.is_ok()).unwrap()).unwrap();
        };
        // Each alone: the next comes when the one before was answered.
        let alone = [(&["ada"][..], true), (&["bob", "ada"], false), (&["eve"], true)];
        for (logins, is_kept) in alone {
            submit(logins);
            assert_eq!(answers.recv().unwrap(), is_kept, "{logins:?}");
        }
        // All others wait while one is at work.
        let (go_on, held) = mpsc::channel::<()>();
        let hold = move |_: &Tx<'_>| Ok(held.recv().is_err());
        writer.submit(hold, |_: Result<bool, Error>| ()).unwrap();
        for logins in [&["kim"][..], &["leo", "kim"], &["mia"]] {
            submit(logins);
        }
        drop(go_on);
        assert_eq!([(); 3].map(|()| answers.recv().unwrap()), [true, false, true]);
        writer.close();
        let view = copy::open_read_only(&path).unwrap();
        let count = |sql: &str| view.sql().query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM users WHERE login IN ('ada', 'eve', 'kim', 'mia')"), 4);
        assert_eq!(count("SELECT count(*) FROM users"), 4);
        let told: Vec<Effect> = announced.try_iter().flatten().collect();
        assert_eq!(told, ["ada", "eve", "kim", "mia"].map(|login| Effect::Changed(login.into())));
    }
}
