//! Processes that a task left behind: found in `/proc`, ended, and named in the log.
//!
//! A task agent ends what its steps started. This is for the task agent that could not, because it was killed
//! itself. A process belongs to a task by the control group of its runner, because the kernel gave it to this
//! runner, the sub-reaper, to adopt, and, where the task agent died, by its session or process group or by
//! a variable in its environment.

use super::group::Group;
use crate::logging::record;
use crate::protocol::Task;
use crate::system::os::{self, Pid};
use crate::system::proc::{self, Stat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Set in the environment of the task agent; its steps inherit it unless a `command_prefix` cleans up.
pub(in crate::agent) const TASK_VARIABLE: &str = proc::MARK;

/// How long killed processes may take to be gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Values by which a process of a task is recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Markers {
    /// Value of `RUNLET_TASK_ID`: a process that has it is one of the task.
    pub(super) task: String,
}

impl Markers {
    pub(super) fn of(task: &Task) -> Self {
        Self { task: task.id.as_str().to_owned() }
    }

    fn match_environment(&self, environment: &[u8]) -> bool {
        let has = |name: &str, value: &str| {
            let wanted = [name.as_bytes(), b"=", value.as_bytes()].concat();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
        };
        has(TASK_VARIABLE, &self.task)
    }
}

/// Makes this process the parent of orphans below it; false where the system cannot: they go to init.
pub(super) fn become_reaper() -> bool {
    let adopted = os::adopt_orphans();
    if let Err(error) = &adopted {
        record!(Debug; "cannot become a sub-reaper: {error}");
    }
    adopted.is_ok()
}

/// Marks of the task whose processes are to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep<'a> {
    pub(super) markers: &'a Markers,
    /// The task agent's own process (or its wrapper's), which is gone.
    pub(super) agent: Option<i32>,
    /// Every child of this process belongs to the task, and it adopts orphans.
    pub(super) owns_children: bool,
    /// Every member of this group belongs to the task.
    pub(super) group: Option<&'a Group>,
    /// The task agent could not see to it: processes are looked for by their environment, which costs a look at each
    /// process of the host.
    pub(super) everywhere: bool,
}

/// Ends every process of the task and waits until they are gone. Returns what was ended, as
/// `pid N (name of the program)`.
pub(super) fn sweep(sweep: &Sweep<'_>) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut ended = BTreeMap::new();
    loop {
        let found = members(sweep);
        for stat in &found {
            ended.entry(stat.pid).or_insert_with(|| stat.name.clone());
            let process = Pid::from_raw(stat.pid);
            if let Some(Err(error)) = process.map(os::kill) {
                record!(Debug; "cannot kill pid {}: {error}", stat.pid);
            }
        }
        if found.is_empty() || Instant::now() >= deadline {
            break;
        }
        // Processes that were started meanwhile go as well.
        sweep.group.iter().for_each(|group| group.kill());
        // Between two looks a dying process may still have forked.
        std::thread::sleep(Duration::from_millis(20));
    }
    ended.into_iter().map(|(pid, name)| format!("pid {pid} ({name})")).collect()
}

/// The living processes of the task. Reaps.
fn members(sweep: &Sweep<'_>) -> Vec<Stat> {
    let own = std::process::id() as i32;
    let mut found: Vec<Stat> =
        sweep.group.map(Group::members).unwrap_or_default().into_iter().filter_map(proc::stat).collect();
    found.retain(|stat| stat.pid != own && !stat.zombie);
    // No child at all needs no look at any file.
    if sweep.owns_children && os::has_children() {
        found.extend(proc::descendants(own));
    }
    if sweep.everywhere {
        found.extend(marked(sweep));
    }
    found
}

fn marked(sweep: &Sweep<'_>) -> Vec<Stat> {
    let own = std::process::id() as i32;
    // A number is not given away while its session has members: a process with the agent's number means that the
    // session and group of that number are not the agent's.
    let agent = sweep.agent.filter(|agent| proc::stat(*agent).is_none());
    let belongs = |stat: &Stat| {
        agent.is_some_and(|agent| stat.session == agent || stat.group == agent)
            || proc::environment(stat)
                .is_some_and(|environment| sweep.markers.match_environment(&environment))
    };
    proc::all().filter(|stat| stat.pid != own && !stat.zombie && belongs(stat)).collect()
}

/// A task agent that this runner has started in an earlier life, for one that remembers none: its process, and the
/// task. Both it and its runner are named by its arguments: its environment is kept private. Costs a look at each
/// process of the host.
///
/// Anybody may give a process such arguments, so that only those of these users are believed, and members of the
/// runner's control group, which nobody else may put a process into.
pub(super) fn find_agent(runner: &str, users: &[u32], group: Option<&Group>) -> Option<(i32, String)> {
    let is_believed = |pid: i32| {
        proc::real_user(pid).is_some_and(|user| users.contains(&user))
            || group.is_some_and(|group| group.members().contains(&pid))
    };
    proc::all().filter(|stat| !stat.zombie).find_map(|stat| {
        let arguments = proc::arguments(&stat);
        let mut last = arguments.trim_end_matches('\0').rsplit('\0');
        let is_of_runner = last.next() == Some(runner);
        let task = last.next()?;
        let is_agent = is_of_runner && last.next() == Some("task");
        if is_agent && !is_believed(stat.pid) {
            log::warn!(
                "pid {} has the arguments of a task agent of this runner and is of another user: it is passed over",
                stat.pid
            );
            return None;
        }
        is_agent.then(|| (stat.pid, task.to_owned()))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use std::os::unix::process::CommandExt;

    #[test]
    fn a_process_is_known_by_its_task() {
        let markers = Markers { task: "t-1".into() };
        assert!(markers.match_environment(b"A=b\0RUNLET_TASK_ID=t-1\0"));
        for other in ["", "RUNLET_TASK_ID=t-11", "X=RUNLET_TASK_ID=t-1"] {
            assert!(!markers.match_environment(other.as_bytes()), "{other}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_agent_is_believed_by_its_user_only() {
        let own = rustix::process::getuid().as_raw();
        let runner = format!("r-{}", std::process::id());
        let mut agent = std::process::Command::new("sh")
            .args(["-c", "echo; exec sleep 600 & wait; :", "x", "task", "t-1", &runner])
            .stdout(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = agent.id() as i32;
        // The process has its arguments once it has said something.
        let _ = std::io::Read::read(agent.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert_eq!(find_agent(&runner, &[own], None), Some((pid, "t-1".to_owned())));
        assert_eq!(find_agent(&runner, &[own + 1], None), None);
        assert_eq!(find_agent("r-other", &[own], None), None);
        os::kill_group(Pid::from_raw(pid).unwrap());
        agent.wait().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_with_the_marker_is_ended_and_others_are_not() {
        let task = format!("test-{}", std::process::id());
        let spawn = |value: &str| {
            std::process::Command::new("sleep").arg("600").env(TASK_VARIABLE, value).spawn().unwrap()
        };
        let (mut mine, mut other) = (spawn(&task), spawn("another"));
        let markers = Markers { task };
        let sought = mine.id() as i32;
        // The marker is in `/proc` once the child has become `sleep`.
        let deadline = Instant::now() + Duration::from_secs(300);
        let swept = loop {
            let swept = sweep(&Sweep {
                markers: &markers,
                agent: None,
                owns_children: false,
                group: None,
                everywhere: true,
            });
            if !swept.is_empty() || Instant::now() > deadline {
                break swept;
            }
        };
        assert!(swept.len() == 1 && swept[0].starts_with(&format!("pid {sought} (")), "{swept:?}");
        assert!(!mine.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
