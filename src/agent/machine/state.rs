//! The memory of a machine runner across restarts: the nonce of the claim it wants, and the task
//! that runs. Also the lock that keeps a second runner of the same name off this host.
//!
//! The state file never holds a token. It is written before a task agent is given its task, so that a later runner
//! knows which task to answer for; also after a power cut, since it is synced while the agent makes itself ready.
//! A task that is forgotten need not be synced: a runner that remembers a task too much asks for it and is told that it
//! has ended. Where the disk takes nothing the operator finds an error in the log, and the task runs all the same.

use crate::protocol::{TaskId, json};
use crate::system::locks::{self, Lock};
use crate::system::opening;
use crate::system::os::{self, DirBuilderExt, MetadataExt, OpenOptionsExt, geteuid};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Largest state file that is believed.
const MAX_STATE_BYTES: u64 = 1024 * 1024;
/// Most of a lock file that is read: two lines, the second with 32 digits.
const MAX_LOCK_BYTES: u64 = 64;

/// The content of the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// Nonce of the claim that is wanted: a claim whose answer was lost is answered again.
    pub(super) nonce: String,
    /// The task that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<RunningTask>,
}

/// A task and the process that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunningTask {
    pub(super) id: TaskId,
    pub(super) job_name: String,
    /// Absent in records of older runners.
    #[serde(default)]
    pub(super) resource_class: String,
    /// Values of variables that processes of this task have in their environment.
    pub(super) markers: super::orphans::Markers,
    /// Allocation that the claim made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) allocation: Option<String>,
    /// When it was claimed, in milliseconds since the start of the system: a clock that nobody sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claimed_since_boot_ms: Option<u64>,
    /// Absent in records of older runners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<AgentProcess>,
}

impl RunningTask {
    /// A task of which nothing but its id is known.
    pub(super) fn unknown(id: TaskId) -> Self {
        Self {
            markers: super::orphans::Markers { task: id.as_str().to_owned() },
            id,
            job_name: String::new(),
            resource_class: String::new(),
            allocation: None,
            claimed_since_boot_ms: None,
            agent: None,
        }
    }
}

/// A process, told apart from a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AgentProcess {
    pub(super) pid: i32,
    /// Start in clock ticks since boot, from `/proc`.
    pub(super) start_time: Option<u64>,
    /// Id of the boot in which it was started.
    pub(super) boot_id: Option<String>,
}

/// The locked state of one runner. Without a directory it remembers nothing.
pub(super) struct RunnerRecord {
    place: Option<RecordFile>,
    pub(super) remembered: Remembered,
    /// The file as it was written last, as long as it is not synced.
    unsynced: Option<File>,
    /// Writing failed and was told.
    broken: bool,
}

struct RecordFile {
    file: PathBuf,
    /// Held as long as the runner lives; closed on exec, so a task agent does not hold it.
    lock: Lock,
    name: String,
    /// Second line of the lock file.
    word: String,
}

/// The directory cannot be used, or another runner uses it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Another process has the lock; what to tell people.
    Taken(String),
    /// Why nothing can be kept there.
    Unusable(String),
}

impl RunnerRecord {
    /// A record that remembers nothing.
    pub(super) fn forgetful() -> Self {
        Self { place: None, remembered: Remembered::default(), unsynced: None, broken: false }
    }

    /// Locks and reads the state of the runner `name` in `directory`, which is created.
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self, OpenError> {
        let unusable = |what: &str, error: &dyn std::fmt::Display| {
            OpenError::Unusable(format!("{what} `{}`: {error}", directory.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| unusable("cannot create the directory", &error))?;
        let owner = fs::metadata(directory).map_err(|error| unusable("cannot look at", &error))?.uid();
        if owner != geteuid().as_raw() && !geteuid().is_root() {
            return Err(unusable("not using", &"it belongs to another user"));
        }
        let lock_path = directory.join(format!("machine-{name}.lock"));
        // A step of the same user may have put a fifo there, on which a runner would wait for ever.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = opening::open(&lock_path, &mut options).map_err(|error| {
            unusable(&format!("cannot use the lock `{}` of", lock_path.display()), &error)
        })?;
        let lock = locks::take(lock).map_err(|held| {
            // An unreadable number only makes the message poorer.
            let [holder, _] = lines(&held);
            let holder = if holder.is_empty() { String::new() } else { format!(" (pid {holder})") };
            OpenError::Taken(format!(
                "a runner named `{name}` is running on this host already{holder}; stop it, or give this one another `runner.name` (lock: `{}`)",
                lock_path.display()
            ))
        })?;
        let [pid, word] = lines(&lock);
        // The marks of a runner without words are those of the file alone, for good.
        let is_old = word.is_empty() && pid.parse::<u32>().is_ok();
        let is_word = word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let word = if is_old || is_word { word } else { crate::system::random_id() };
        // The word is written over itself, so that no end of this process loses it.
        let text = format!("{:<10}\n{word}", std::process::id());
        let mut file: &File = &lock;
        let written = file
            .rewind()
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| lock.set_len(text.len() as u64));
        written.map_err(|error| unusable("cannot write to", &error))?;
        let file = directory.join(format!("machine-{name}.json"));
        let remembered = read(&file);
        let place = Some(RecordFile { file, lock, name: name.to_owned(), word });
        Ok(Self { place, remembered, unsynced: None, broken: false })
    }

    /// The runner as no other one of this host: of its name and of the lock that it holds. The same after a restart;
    /// `None` without a directory. The file of a copied directory has another number; and one that has the number of a
    /// file that is gone has another word.
    pub(super) fn identity(&self) -> Option<String> {
        let place = self.place.as_ref()?;
        let about = place.lock.metadata().ok()?;
        let gap = if place.word.is_empty() { "" } else { "-" };
        Some(format!("{}-{:x}-{:x}{gap}{}", place.name, about.dev(), about.ino(), place.word))
    }

    /// Changes the state and writes it, for any runner that comes after this one while the system runs. A disk that
    /// cannot be written is an error in the log, once; the runner goes on, since its work does not depend on it.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Remembered)) {
        change(&mut self.remembered);
        let Some(place) = &self.place else { return };
        // Not every system replaces a file that is open.
        self.unsynced = None;
        let written = write(&place.file, &self.remembered).map(|file| self.unsynced = Some(file));
        self.tell(written);
    }

    /// Sees to it that the state that was written last survives a power cut.
    pub(super) fn sync(&mut self) {
        let (Some(place), Some(file)) = (&self.place, self.unsynced.take()) else { return };
        let synced = sync(&file, &place.file);
        self.tell(synced);
    }

    fn tell(&mut self, done: std::io::Result<()>) {
        let Some(place) = &self.place else { return };
        match done {
            Ok(()) => self.broken = false,
            Err(error) if !self.broken => {
                self.broken = true;
                log::error!(
                    "cannot write `{}`: {error}; a runner that is restarted during a task will not know of it (make room there, or set `runner.state_directory`)",
                    place.file.display()
                );
            }
            Err(_) => {}
        }
    }
}

/// The lines of a lock file: the process that wrote it, and a word that was made with the file.
fn lines(mut lock: &File) -> [String; 2] {
    let mut text = Vec::new();
    let _ = lock.rewind().and_then(|()| lock.take(MAX_LOCK_BYTES).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let (pid, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let word = rest.split_once('\n').map_or(rest, |(word, _)| word);
    [pid.trim().to_owned(), word.trim().to_owned()]
}

fn read(path: &Path) -> Remembered {
    let mut text = Vec::new();
    match opening::open_regular(path).and_then(|file| file.take(MAX_STATE_BYTES).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Remembered::default(),
        Err(error) => {
            log::warn!("cannot read `{}`: {error}; starting without it", path.display());
            return Remembered::default();
        }
    }
    json::read(&text).unwrap_or_else(|error| {
        log::warn!("`{}` is damaged ({error}); starting without it", path.display());
        Remembered::default()
    })
}

fn write(path: &Path, state: &Remembered) -> std::io::Result<File> {
    let temporary = path.with_extension("json.new");
    // The name is this runner's: what stands there goes.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    fs::rename(&temporary, path)?;
    Ok(file)
}

fn sync(file: &File, path: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    // The new name is on the disk with its folder.
    path.parent().map_or(Ok(()), os::sync_folder)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_next_runner() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a/b");
        let mut record = RunnerRecord::open(&place, "x").unwrap();
        let agent = AgentProcess { pid: 7, start_time: Some(9), boot_id: None };
        let task = RunningTask {
            id: TaskId::new("t-1").unwrap(),
            job_name: "build".into(),
            resource_class: "acme/linux".into(),
            markers: super::super::orphans::Markers::default(),
            allocation: Some("a".into()),
            claimed_since_boot_ms: Some(5),
            agent: Some(agent),
        };
        record.change(|state| *state = Remembered { nonce: "n".into(), task: Some(task) });
        record.sync();
        assert!(record.unsynced.is_none() && !record.broken);
        let written = record.remembered.clone();
        drop(record);
        assert_eq!(RunnerRecord::open(&place, "x").unwrap().remembered, written);
        let mode = fs::metadata(&place).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700);
    }

    #[test]
    fn a_second_runner_of_the_same_name_is_refused_by_pid() {
        let directory = tempfile::tempdir().unwrap();
        let first = RunnerRecord::open(directory.path(), "x").unwrap();
        let Err(OpenError::Taken(message)) = RunnerRecord::open(directory.path(), "x") else {
            unreachable!()
        };
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        let identity = first.identity();
        assert_ne!(RunnerRecord::open(directory.path(), "y").unwrap().identity(), identity);
        drop(first);
        assert_eq!(RunnerRecord::open(directory.path(), "x").unwrap().identity(), identity);
    }

    #[test]
    fn a_runner_is_another_one_than_that_of_a_folder_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("machine-x.lock");
        let identity = || RunnerRecord::open(directory.path(), "x").unwrap().identity().unwrap();
        let first = identity();
        let before = fs::read_to_string(&lock).unwrap();
        // Contents as a new file has them and as others leave them; it stays the same file, and so has the same number.
        for text in ["", "\n", "x\n", "7\nabc\n", &"z".repeat(5000)] {
            fs::write(&lock, text).unwrap();
            let made = identity();
            assert!(made != first && made == identity(), "{text}: {made}");
            assert_eq!(fs::read_to_string(&lock).unwrap().len(), before.len(), "{text}");
        }
        fs::write(&lock, [0xff; 99]).unwrap();
        assert_eq!(identity(), identity());
        fs::write(&lock, before.replace(&std::process::id().to_string(), "7")).unwrap();
        assert_eq!(identity(), first);
        // A runner without words was here: what it left is found by its mark.
        fs::write(&lock, "7\n").unwrap();
        let about = fs::metadata(&lock).unwrap();
        for _again in 0..2 {
            assert_eq!(identity(), format!("x-{:x}-{:x}", about.dev(), about.ino()));
        }
        let copy = directory.path().join("copy");
        fs::create_dir(&copy).unwrap();
        fs::write(&lock, &before).unwrap();
        fs::copy(&lock, copy.join("machine-x.lock")).unwrap();
        assert_ne!(RunnerRecord::open(&copy, "x").unwrap().identity().unwrap(), first);
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut record = RunnerRecord::open(directory.path(), "x").unwrap();
        record.change(|remembered| remembered.nonce = "first".into());
        // A folder in the place of the new file refuses root, too.
        fs::create_dir(directory.path().join("machine-x.json.new")).unwrap();
        record.change(|remembered| remembered.nonce = "second".into());
        assert!(record.broken);
        assert_eq!(read(&directory.path().join("machine-x.json")).nonce, "first");
        fs::remove_dir(directory.path().join("machine-x.json.new")).unwrap();
        record.change(|remembered| remembered.nonce = "third".into());
        assert!(!record.broken);
        assert_eq!(read(&directory.path().join("machine-x.json")).nonce, "third");
    }

    #[test]
    fn a_damaged_file_is_a_fresh_start() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "{", "[]", "{\"nonce\":1}", "{\"nonce\":\"\",\"task\":{\"id\":\"../x\"}}"] {
            fs::write(directory.path().join("machine-x.json"), text).unwrap();
            assert_eq!(
                RunnerRecord::open(directory.path(), "x").unwrap().remembered,
                Remembered::default(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(RunnerRecord::open(&file.join("x"), "x"), Err(OpenError::Unusable(_))));
        let mut record = RunnerRecord::forgetful();
        record.change(|state| state.nonce = "n".into());
        assert_eq!(record.identity(), None);
    }
}
