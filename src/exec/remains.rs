//! The temporary folder of a run, and the promise that nothing of a run outlives it: neither processes of jobs nor
//! copies of sources, whatever ends this process.
//!
//! A guard, this program again in a session of its own, waits for the end of a pipe that only this process has
//! open. Where that was killed too, the next run finds the folder without an owner.

use crate::protocol::task_input::TaskInput;
use crate::system::proc;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Beginning of the name of every such folder.
const PREFIX: &str = "runlet-exec-";
/// A file in the folder that its owner has locked.
const OWNED: &str = "owned";
/// A folder without that file is being made, unless it is older than this.
const MAKING: Duration = Duration::from_secs(60);
/// Files that are removed before this process ends, at most; more are left to the guard: people wait for the prompt.
const MOST_REMOVED: usize = 2000;
/// Between two looks for folders of jobs that have ended.
const LOOK: Duration = Duration::from_millis(100);
/// How long killed processes may take to be gone, and the lock of one that is about to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A temporary folder that goes away with its owner.
pub(super) struct Scratch {
    /// Folder, which is removed when this is dropped.
    pub path: PathBuf,
    /// Every task agent has ended by itself, and with it what it had started: nobody is looked for.
    pub is_quiet: bool,
    /// The guard is started beside other work: whoever starts a program waits until that has begun.
    starting: Option<JoinHandle<std::io::Result<Child>>>,
    guard: Option<Child>,
    owned: File,
    removal: Arc<Removal>,
    remover: Option<JoinHandle<()>>,
}

/// A removal that ends with its budget.
struct Removal {
    /// Files that may be removed.
    budget: AtomicUsize,
    is_over: AtomicBool,
}

impl Removal {
    /// Removes the working directories of jobs that have ended, as they are put aside in `scratch`, until it is over.
    fn tidy(&self, scratch: &Path) {
        while !self.is_over.load(Ordering::SeqCst) {
            for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|end| end == TaskInput::ASIDE) {
                    self.remove(&entry.path());
                }
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Removes a folder; false when the budget did not last for all of it.
    fn remove(&self, folder: &Path) -> bool {
        if !self.take(folder) {
            return false;
        }
        // Files that could not be read or opened so are few.
        let _ = remove(folder);
        true
    }

    /// Removes what is in the folder of a run but the file that says whose it is; false when the budget did not last.
    fn clear(&self, scratch: &Path) -> bool {
        let mut entries = fs::read_dir(scratch).into_iter().flatten().flatten();
        entries.all(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => self.take(&entry.path()),
            // The few files go with the folder.
            false => true,
        })
    }

    fn take(&self, folder: &Path) -> bool {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder {
                if !self.take(&entry.path()) {
                    return false;
                }
                continue;
            }
            let taken =
                self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if taken.is_err() {
                return false;
            }
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(folder);
        true
    }
}

impl Scratch {
    /// Makes the folder, and begins to start its guard.
    pub(super) fn create() -> Result<Self, String> {
        let place = place();
        let path = place.join(format!("{PREFIX}{}", uuid::Uuid::new_v4()));
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| {
            format!("failed to create `{}`: {e} (set TMPDIR to a writable folder)", path.display())
        })?;
        let (file, name) = (path.join("making"), path.join(OWNED));
        let fail = |e: std::io::Error| format!("failed to lock `{}`: {e}", file.display());
        let owned = File::create(&file).map_err(fail)?;
        flock(&owned, FlockOperation::NonBlockingLockExclusive).map_err(|e| fail(e.into()))?;
        // By its name it is locked from the start: another run could be looking.
        fs::rename(&file, &name).map_err(fail)?;
        let guarded = path.clone();
        let start = move || {
            let mut guard = Command::new(std::env::current_exe()?);
            guard.args(["exec", "--guard"]).arg(&guarded).current_dir("/");
            guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        };
        let starting = std::thread::Builder::new().name("guard".into()).spawn(start);
        let removal =
            Arc::new(Removal { budget: AtomicUsize::new(usize::MAX), is_over: AtomicBool::new(false) });
        let (tidy, scratch) = (removal.clone(), path.clone());
        let remover = std::thread::Builder::new().name("remover".into()).spawn(move || tidy.tidy(&scratch));
        Ok(Self {
            path,
            is_quiet: false,
            starting: starting.ok(),
            guard: None,
            owned,
            removal,
            remover: remover.ok(),
        })
    }

    /// Waits until the guard is there: before the first process of a job is. Without a guard there is still the next run.
    pub(super) fn wait_for_guard(&mut self) {
        if let Some(starting) = self.starting.take() {
            self.guard = starting.join().ok().and_then(Result::ok);
        }
    }

    /// Kills whatever was started for jobs.
    pub(super) fn end_processes(&self) {
        end_processes(&self.path);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.wait_for_guard();
        if !self.is_quiet {
            end_processes(&self.path);
        }
        self.removal.budget.store(MOST_REMOVED, Ordering::SeqCst);
        self.removal.is_over.store(true, Ordering::SeqCst);
        if let Some(remover) = self.remover.take() {
            remover.thread().unpark();
            let _ = remover.join();
        }
        let is_removed = self.removal.clear(&self.path);
        let mut guard = self.guard.as_mut().filter(|_| !is_removed);
        let is_there = guard.as_mut().is_some_and(|guard| matches!(guard.try_wait(), Ok(None)));
        if let Some(guard) = guard.filter(|_| is_there) {
            // The guard says when the folder is its own: no run that comes next takes it for one without an owner.
            let _ = flock(&self.owned, FlockOperation::Unlock);
            drop(guard.stdin.take());
            let _ = guard.stdout.take().map(|mut said| said.read(&mut [0]));
            return;
        }
        if let Err(error) = remove(&self.path) {
            super::tell::tell(format_args!("runlet: failed to remove `{}`: {error}", self.path.display()));
        }
        if let Some(guard) = &mut self.guard {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

fn place() -> PathBuf {
    fs::canonicalize(std::env::temp_dir()).unwrap_or_else(|_| std::env::temp_dir())
}

/// The guard of the folder: waits for the end of standard input, and cleans up if the owner has not.
pub(super) fn guard(folder: &Path) {
    // Away from the terminal and the process group of the owner, whose signals are not meant for it.
    let _ = rustix::process::setsid();
    let mut nothing = Vec::new();
    let _ = std::io::stdin().take(1).read_to_end(&mut nothing);
    if folder.exists() {
        clean(folder, PATIENCE, || drop(std::io::stdout().write_all(b"mine\n")));
    }
}

/// Cleans up after runs that were killed together with their guards. Returns the folders that were removed.
pub(super) fn clean_others() -> Vec<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let mut removed = Vec::new();
    for entry in fs::read_dir(place()).into_iter().flatten().flatten() {
        // The folder is that of many others, who have many files there.
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() && about.uid() == own && clean(&entry.path(), Duration::ZERO, || ()) {
            removed.push(entry.path());
        }
    }
    removed
}

/// Ends the processes of a run that has no owner any more and removes its folder, after it is `taken`. False when it has an
/// owner.
fn clean(folder: &Path, patience: Duration, taken: impl FnOnce()) -> bool {
    let deadline = Instant::now() + patience;
    let owned = match File::options().write(true).open(folder.join(OWNED)) {
        Ok(owned) => owned,
        Err(_) => {
            let made = fs::metadata(folder).and_then(|about| about.modified()).ok();
            if made.and_then(|made| made.elapsed().ok()).is_none_or(|age| age < MAKING) {
                return false;
            }
            return remove(folder).is_ok();
        }
    };
    while flock(&owned, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    taken();
    end_processes(folder);
    remove(folder).is_ok()
}

fn remove(folder: &Path) -> std::io::Result<()> {
    let mut removed = fs::remove_dir_all(folder);
    if removed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        // Jobs may leave folders that nobody may write to: the module cache of Go is one.
        open_up(folder);
        removed = fs::remove_dir_all(folder);
    }
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Ends what a run has started: its processes have the folder in their environment, and its task agents, which are
/// marked as such, have files of it open.
fn end_processes(folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut alive = false;
        for process in proc::all().filter(|process| belongs(process, folder)) {
            let Some(pid) = Pid::from_raw(process.pid) else { continue };
            alive = true;
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        // Between two looks a dying process may still have forked.
        if !alive || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn belongs(process: &proc::Stat, folder: &Path) -> bool {
    let pid = process.pid;
    if pid == std::process::id() as i32 {
        return false;
    }
    let Some(environment) = proc::environment(process) else { return false };
    let is_task = environment.split(|byte| *byte == 0).any(|one| one.starts_with(b"RUNLET_TASK_ID="));
    let name = folder.as_os_str().as_bytes();
    is_task && (environment.windows(name.len()).any(|part| part == name) || has_open_below(pid, folder))
}

/// Whether a process has a file or folder open that is in `folder`.
fn has_open_below(pid: i32, folder: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.flat_map(|entry| fs::read_link(entry.path())).any(|target| target.starts_with(folder))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot make a folder should fail loudly")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_with_an_owner_stays_and_one_without_goes() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("runlet-exec-x");
        fs::create_dir(&folder).unwrap();
        let clean = |folder: &Path, patience| clean(folder, patience, || ());
        assert!(!clean(&folder, Duration::ZERO), "it is being made");
        let owned = File::create(folder.join(OWNED)).unwrap();
        flock(&owned, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!clean(&folder, Duration::ZERO));
        flock(&owned, FlockOperation::Unlock).unwrap();
        assert!(clean(&folder, PATIENCE) && !folder.exists());
    }

    #[test]
    fn a_removal_ends_with_its_budget() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("x");
        let removal = |budget| Removal { budget: AtomicUsize::new(budget), is_over: AtomicBool::new(false) };
        let make = || {
            fs::create_dir_all(folder.join("a/b")).unwrap();
            for name in ["a/1", "a/b/2", "3"] {
                fs::write(folder.join(name), "").unwrap();
            }
        };
        make();
        assert!(!removal(2).remove(&folder) && folder.exists());
        make();
        assert!(removal(3).remove(&folder) && !folder.exists());
        make();
        fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        assert!(removal(9).remove(&folder) && !folder.exists());
        make();
        fs::write(folder.join(OWNED), "").unwrap();
        assert!(!removal(1).clear(&folder) && removal(9).clear(&folder));
        assert!(folder.join(OWNED).exists() && !folder.join("a").exists());
    }
}
