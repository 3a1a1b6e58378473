//! Remains of tasks: found whoever was killed, at a cost that does not grow with the host's processes.

use crate::hostile::{has_strace, skip};
use crate::support::control_plane::ControlPlane;
use crate::support::processes::{child_with, coming_child_with, signal};
use crate::support::runner::{Machine, Running, as_ordinary_user, task_of};
use crate::support::{emulated, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Has itself and a child of its child outlive everything that could tell whose they are.
const DAEMONS: &str = "setsid env -i /bin/sh -c 'echo $$ > one.new; mv one.new one; exec sleep 3001' &
(env -i setsid /bin/sh -c '(echo $$ > /dev/null; sleep 3002 & echo $! > two.new; mv two.new two) &') &
until test -s one && test -s two; do sleep 0.05; done; touch ready; sleep 600";

fn is_gone(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn wait_ready(runner: &Running) -> Vec<String> {
    let work = runner.machine.path("work");
    poll("the daemons", || if work.join("ready").exists() { Ok(()) } else { Err(runner.log()) });
    let read = |name: &str| fs::read_to_string(work.join(name)).unwrap().trim().to_owned();
    vec![read("one"), read("two")]
}

#[test]
fn daemons_are_ended_after_a_kill_of_runner_and_agent() {
    for keeps_record in [true, false] {
        let server = ControlPlane::start();
        if !daemons_are_ended(&server, Machine::new(&server.url()), "o-1", keeps_record) {
            skip(
                "the runner may make no control group (run the tests as root, or in a unit with `Delegate=yes`)",
            );
        }
    }
}

/// Whether the runner had a control group. Without one daemons are not found when both were killed.
pub(crate) fn daemons_are_ended(
    server: &ControlPlane,
    machine: Machine,
    id: &str,
    keeps_record: bool,
) -> bool {
    server.offer(&task_of(id, &[DAEMONS]));
    let runner = machine.start();
    let daemons = wait_ready(&runner);
    let has_group = !runner.log().contains("no control group is to be had");
    let agent = coming_child_with(runner.pid() as u32, "task");
    runner.signal(Signal::KILL);
    signal(agent, Signal::KILL);
    if !keeps_record {
        fs::remove_file(runner.machine.path("state/machine-tester.json")).unwrap();
    }
    let mut runner = runner.crash_and_restart();
    server.wait_parked();
    for daemon in &daemons {
        if has_group {
            assert!(is_gone(daemon), "{daemon} {}", runner.log());
            assert!(runner.log().contains(&format!("left behind: pid {daemon} (sleep")), "{}", runner.log());
        } else {
            signal(daemon.parse().unwrap(), Signal::KILL);
        }
    }
    // The group goes with the runner.
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    has_group
}

#[test]
fn a_runner_whose_working_directory_was_taken_answers_for_its_task_before_it_is_refused() {
    let server = ControlPlane::start();
    server.answer("/steps/1/output", 503, "{}");
    let machine = Machine::new(&server.url()).setting("cleanup_working_directory", "true");
    let work = machine.path("work").display().to_string();
    let command = "echo $$ > ../pid.new; mv ../pid.new ../pid; touch kept; echo begun; exec sleep 300";
    server.offer(&task_of("o-31", &[command]));
    let runner = machine.start();
    let step = runner.wait_file("pid");
    server.wait_for("/tasks/o-31/steps/1/output?offset=0");
    let agent = coming_child_with(runner.pid() as u32, "task");
    runner.signal(Signal::KILL);
    signal(agent, Signal::KILL);
    server.behave();
    poll("the end of both", || if is_gone(&agent.to_string()) { Ok(()) } else { Err(runner.log()) });
    let other = ControlPlane::start();
    let second =
        Machine::new(&other.url()).setting("name", "second").setting("working_directory", &work).start();
    other.wait_parked();
    let mut runner = runner.crash_and_restart();
    assert_eq!(runner.wait(), Some(1), "{}", runner.log());
    let log = runner.log();
    assert!(log.contains(&format!("is that of another runner with pid {}", second.pid())), "{log}");
    assert!(is_gone(step.trim()), "{log}");
    assert_eq!(server.output("o-31", 1), "begun\n", "{log}");
    let claims = server.claims();
    assert!(server.wait_for("/tasks/o-31/lost").json()["message"].is_string() && claims == 1, "{log}");
    assert!(Path::new(&work).join("kept").exists(), "it is the other one's now: {log}");
}

#[test]
fn a_runner_without_its_record_finds_the_agent_that_still_runs() {
    let stale = json!({ "nonce": "n", "task": { "id": "o-1", "job_name": "build", "markers": { "task": "o-1" },
        "agent": { "pid": i32::MAX, "start_time": 1, "boot_id": null } } });
    // A record that was cut, and one of the task before, as on a disk that took nothing.
    for record in ["{".to_owned(), stale.to_string()] {
        agent_is_found(&record);
    }
}

/// Checks as an ordinary user, who may not read the environment of a task agent.
fn agent_is_found(record: &str) {
    let server = ControlPlane::start();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    let Some(machine) = as_ordinary_user(Machine::at(folder, &server.url()), &place) else { return };
    let go = machine.path("go");
    let command = format!("echo begun; until test -e '{}'; do sleep 0.05; done", go.display());
    server.offer(&task_of("o-2", &[&command]));
    let runner = machine.start();
    poll("the step", || if server.output("o-2", 1) == "begun\n" { Ok(()) } else { Err(runner.log()) });
    runner.signal(Signal::KILL);
    fs::write(runner.machine.path("state/machine-tester.json"), record).unwrap();
    let runner = runner.crash_and_restart();
    runner.wait_log("found a task agent that the record does not know of");
    fs::write(&go, "").unwrap();
    assert_eq!(server.wait_finished("o-2")["status"], "success");
    server.wait_parked();
    assert_eq!(server.claims(), 2, "it claimed while the task ran: {}", runner.log());
}

/// A task that checks a commit of a repository on this host out, and says so.
fn task_at(id: &str, repository: &str, revision: &str) -> runlet::protocol::Task {
    use runlet::protocol::{CheckoutMethod, Source, StepAction};
    let mut task = task_of(id, &["checkout"]);
    task.source = Some(Source {
        repository_url: format!("file://{repository}"),
        revision: revision.to_owned(),
        branch: Some("main".to_owned()),
        tag: None,
        reference: None,
        default_branch: Some("main".to_owned()),
    });
    task.job.steps[0].action = StepAction::Checkout { path: ".".to_owned(), method: CheckoutMethod::Full };
    task
}

#[test]
fn folders_that_another_user_has_are_named_and_nothing_is_thrown_away_for_them() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = ControlPlane::start();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    let make = "git init -q -b main origin && cd origin && git config user.name a && git config user.email a@b \
        && mkdir sub && echo 1 > sub/x && git add . && git commit -qm 1 && git rev-parse HEAD \
        && echo 2 > sub/x && git commit -qam 2 && git rev-parse HEAD";
    let made = Command::new("sh").args(["-ec", make]).current_dir(&place).output().unwrap();
    let commits = String::from_utf8(made.stdout).unwrap();
    let (first, second) = commits.trim().split_once('\n').unwrap();
    let repository = place.join("origin").display().to_string();
    let machine = Machine::at(folder, &server.url());
    let Some(machine) = as_ordinary_user(machine, &place) else { return };
    let work = machine.path("work");
    server.offer(&task_at("f-1", &repository, first));
    let runner = machine.start();
    assert_eq!(server.wait_finished("f-1")["status"], "success", "{}", runner.log());
    for (number, taken) in [(2, "sub"), (3, ".git/refs")] {
        // As a container that runs as root leaves it.
        let path = work.join(taken);
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        let id = format!("f-{number}");
        server.offer(&task_at(&id, &repository, second));
        let finish = server.wait_finished(&id);
        let message = finish["message"].as_str().unwrap_or_default();
        let words = format!("/{taken}` is owned by another user (uid 0, and this runner has uid 65534)");
        assert!(message.contains(&words), "{finish} {}", runner.log());
        assert!(work.join(".git/objects").read_dir().unwrap().count() > 2, "{finish}");
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    }
    server.offer(&task_at("f-4", &repository, second));
    assert_eq!(server.wait_finished("f-4")["status"], "success", "{}", runner.log());
}

/// The names by which a task agent holds a folder are Linux's.
#[test]
#[cfg(target_os = "linux")]
fn a_working_directory_that_a_job_has_made_anew_is_no_other_ones() {
    let server = ControlPlane::start();
    let first = Machine::new(&server.url()).setting("cleanup_working_directory", "true");
    let (work, go) = (first.path("work"), first.path("go"));
    let shown = work.display();
    let remake = format!(
        "cd /; rm -rf '{shown}'; mkdir '{shown}'; touch '{shown}/own'; echo begun; until test -e '{}'; do sleep 0.05; done",
        go.display()
    );
    server.offer(&task_of("w-1", &[&remake, "ls"]));
    let first = first.setting("mode", "single-task").start();
    poll("the step", || if server.output("w-1", 1) == "begun\n" { Ok(()) } else { Err(first.log()) });
    let agent = coming_child_with(first.pid() as u32, "task");
    first.signal(Signal::KILL);
    // Of another name, with another state: it knows nothing of the first one.
    let other = ControlPlane::start();
    let second = Machine::new(&other.url())
        .setting("name", "second")
        .setting("max_run_time", "12s")
        .setting("mode", "single-task")
        .setting("working_directory", &shown.to_string());
    other.offer(&task_of("w-2", &["echo never"]));
    let mut second = second.start();
    let back = other.wait_for("/unclaim").json();
    let message = back["message"].as_str().unwrap();
    assert!(message.contains(&format!("is in use by the task of pid {agent} (`")), "{message}");
    assert_eq!(second.wait(), Some(0));
    fs::write(&go, "").unwrap();
    assert_eq!(server.wait_finished("w-1")["status"], "success");
    assert_eq!(server.output("w-1", 2), "own\n");
    poll("the end of the agent", || if is_gone(&agent.to_string()) { Ok(()) } else { Err(first.log()) });
    assert!(!work.exists(), "it is cleaned up");
}

/// The names that steps hold after their agent are Linux's.
#[test]
#[cfg(target_os = "linux")]
fn a_working_directory_is_held_as_long_as_a_step_of_a_killed_agent_lives() {
    let server = ControlPlane::start();
    let first = Machine::new(&server.url()).setting("cleanup_working_directory", "true");
    let work = first.path("work");
    // Scripts use the lower descriptors as they like.
    let command = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; echo $$ > pid; echo begun; while :; do : > alive; sleep 0.02; done";
    server.offer(&task_of("h-11", &[command]));
    let first = first.start();
    poll("the step", || if server.output("h-11", 1) == "begun\n" { Ok(()) } else { Err(first.log()) });
    let step = fs::read_to_string(work.join("pid")).unwrap().trim().to_owned();
    let agent = coming_child_with(first.pid() as u32, "task");
    first.signal(Signal::KILL);
    signal(agent, Signal::KILL);
    poll("the end of the agent", || if is_gone(&agent.to_string()) { Ok(()) } else { Err(first.log()) });
    for place in ["work", "work/inner", ""] {
        let other = ControlPlane::start();
        let second = Machine::new(&other.url())
            .setting("name", "second")
            .setting("max_run_time", "15s")
            .setting("mode", "single-task")
            .setting("cleanup_working_directory", "true")
            .setting("working_directory", first.machine.path(place).to_str().unwrap());
        other.offer(&task_of("h-2", &["echo never"]));
        let mut second = second.start();
        let back = other.wait_for("/unclaim").json();
        let message = back["message"].as_str().unwrap();
        assert!(
            message.contains("is in use by the task of a killed task agent, which left pid "),
            "{message}"
        );
        // Beside what the step runs just now; numbers begin anew when they have all been given out.
        assert!(message.contains(&format!(" pid {step} (`")), "{message}");
        assert_eq!(second.wait(), Some(0));
        assert!(work.join("pid").exists() && !is_gone(&step), "{}", second.log());
    }
    // The runner of the task ends what is left, and then the folder is free.
    let mut first = first.crash_and_restart();
    server.wait_parked();
    assert!(is_gone(&step), "{}", first.log());
    assert!(first.log().contains(&format!("left behind: pid {step} (")), "{}", first.log());
    first.term();
    assert_eq!(first.wait(), Some(0));
    let server = ControlPlane::start();
    let third = Machine::new(&server.url()).setting("working_directory", work.to_str().unwrap());
    server.offer(&task_of("h-3", &["echo free"]));
    let _third = third.setting("name", "third").start();
    assert_eq!(server.wait_finished("h-3")["status"], "success");
}

#[test]
#[cfg(target_os = "linux")]
fn a_step_has_one_descriptor_of_its_agent_which_leads_nowhere() {
    let server = ControlPlane::start();
    server.offer(&task_of(
        "f-1",
        &["{ readlink /proc/self/fd/* || :; } | grep -v '^pipe:\\|^/dev/null\\|/proc/' | sed 's/[0-9]*//g'"],
    ));
    let _runner = Machine::new(&server.url()).start();
    server.wait_finished("f-1");
    assert_eq!(server.output("f-1", 1), "socket:[]\n");
}

#[test]
fn a_working_directory_that_another_process_has_made_its_own_is_left_to_it() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url())
        .setting("cleanup_working_directory", "true")
        .setting("mode", "single-task");
    let (work, go) = (machine.path("work"), machine.path("go"));
    let command = format!("echo begun; until test -e '{}'; do sleep 0.05; done", go.display());
    server.offer(&task_of("w-3", &[&command, "echo never"]));
    let mut runner = machine.start();
    poll("the step", || if server.output("w-3", 1) == "begun\n" { Ok(()) } else { Err(runner.log()) });
    // A lock like that of a task in a container, which sees the folder and not the names of this host.
    fs::remove_dir(&work).unwrap();
    fs::create_dir(&work).unwrap();
    fs::write(work.join("theirs"), "").unwrap();
    let held = fs::File::open(&work).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    fs::write(&go, "").unwrap();
    let end = server.wait_finished("w-3");
    assert_eq!(end["status"], "infrastructure_fail", "{end}");
    assert!(end["message"].as_str().unwrap().contains("was made anew, and the task of "), "{end}");
    assert_eq!(runner.wait(), Some(0));
    assert!(work.join("theirs").exists());
}

#[test]
fn a_working_directory_that_another_task_holds_is_left_alone() {
    let server = ControlPlane::start();
    server.offer(&task_of("p-2", &["echo never"]));
    let machine = Machine::new(&server.url()).setting("mode", "single-task");
    let work = machine.path("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("theirs"), "").unwrap();
    let held = fs::File::open(&work).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut runner = machine.setting("cleanup_working_directory", "true").start();
    runner.wait_log("waiting for the working directory");
    let agent = coming_child_with(runner.pid() as u32, "task");
    signal(agent, Signal::KILL);
    assert_eq!(runner.wait(), Some(0));
    assert!(work.join("theirs").exists(), "{}", runner.log());
    assert!(runner.log().contains("another task is at work there"), "{}", runner.log());
}

/// A shell function that makes this many processes which end when their input does. They are copies of the shell:
/// thousands of programs would take their time to start.
const MANY: &str = "many() { n=0; while [ $n -lt $1 ]; do (read nothing <&3) & n=$((n + 1)); done; }";

/// Processes that are none of the task's business.
struct Strangers(Child);

impl Strangers {
    fn start(count: u32) -> Self {
        let script = format!("exec 3<&0; {MANY}; many {count}; echo there; wait");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        shell.stdout.take().unwrap().read_exact(&mut [0; 6]).unwrap();
        Self(shell)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_task_opens_as_many_files_of_processes_however_many_there_are() {
    // An emulator has no reaper of orphans: there the environments have to be read.
    if emulated() {
        return;
    }
    if !has_strace() {
        return;
    }
    let (mut few, mut many) = (opened_by_a_task(10), opened_by_a_task(3_000));
    // The task agent is looked at whenever it says something: lines that come together cost one look less.
    assert!(many.len().abs_diff(few.len()) < 10, "{few:?} {many:?}");
    // These tables are as long as the host has sockets and mounts. That of the mounts is read for the ways that lead to the
    // working directory, and before anything is removed.
    let opened = |table: &str| few.iter().filter(|path| path.ends_with(table)).count();
    assert_eq!((opened("/net/unix"), opened("/mountinfo")), (1, 2), "{few:?}");
    few.dedup();
    many.dedup();
    assert_eq!(few, many);
    assert!(few.iter().all(|path| !path.contains("environ")), "{few:?}");
}

/// The order in which the record of a task is written and handed to the disk.
#[test]
fn the_record_of_a_task_is_written_before_it_is_handed_over_and_synced_at_once() {
    // The order of calls is the same everywhere, and the calls of an emulator are not those of the program.
    if emulated() || !has_strace() {
        return;
    }
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let trace = machine.path("trace");
    let trace_text = trace.display().to_string();
    let calls = "trace=rename,renameat,renameat2,write,fsync,fdatasync";
    let mut runner = machine.wrapper(&["strace", "-f", "-qq", "-y", "-e", calls, "-o", &trace_text]).start();
    server.offer(&task_of("o-6", &["echo short"]));
    assert_eq!(server.wait_finished("o-6")["status"], "success");
    poll("the next claim", || if server.claims() == 2 { Ok(()) } else { Err(runner.log()) });
    signal(coming_child_with(runner.pid() as u32, "machine"), Signal::TERM);
    runner.wait();
    let text = fs::read_to_string(&trace).unwrap();
    let calls: Vec<&str> = text.lines().filter_map(act).collect();
    let task = ["written", "handed over", "synced", "folder synced"];
    assert_eq!(calls, [&["written"][..], &task, &["written"]].concat(), "nonce, task, next nonce: {text}");
}

/// The part that a line of a trace has in keeping a record.
fn act(line: &str) -> Option<&'static str> {
    let call = line.split_once(' ')?.1.trim_start();
    if call.starts_with("rename") && call.contains("/state/machine-tester.json\"") {
        Some("written")
    } else if call.starts_with("write(") && call.contains("<pipe:") && call.contains("endpoint") {
        Some("handed over")
    } else if !call.starts_with("fsync(") && !call.starts_with("fdatasync(") {
        None
    } else if call.contains("/state/machine-tester.json") {
        Some("synced")
    } else {
        call.contains("/state>").then_some("folder synced")
    }
}

#[test]
fn thousands_of_processes_that_a_task_left_are_ended() {
    if emulated() {
        // No descendants are to be had: qemu-user refuses PR_SET_CHILD_SUBREAPER.
        return;
    }
    let server = ControlPlane::start();
    let runner = Machine::new(&server.url()).start();
    // Nobody writes to the input, and whoever holds it could.
    let script = format!("mkfifo input; exec 3<>input; {MANY}; many 2000; echo $! > last");
    server.offer(&task_of("o-4", &[&script]));
    assert_eq!(server.wait_finished("o-4")["status"], "success");
    let last = fs::read_to_string(runner.machine.path("work/last")).unwrap();
    assert!(is_gone(last.trim()), "{}", runner.log());
    let told = server.output("o-4", 2);
    assert_eq!(told.lines().filter(|line| line.starts_with("stopped pid ")).count(), 2000, "{told}");
}

/// The files under `/proc` that runner and agent open for one task, numbers of processes taken out.
fn opened_by_a_task(strangers: u32) -> Vec<String> {
    let _strangers = Strangers::start(strangers);
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let trace = machine.path("trace");
    let trace_text = trace.display().to_string();
    let words = ["strace", "-f", "-qq", "-e", "trace=open,openat", "-o", &trace_text];
    let mut runner = machine.wrapper(&words).start();
    server.wait_parked();
    // The start looks at everything once.
    let before = fs::read_to_string(&trace).unwrap().len();
    server.offer(&task_of("o-3", &["echo short"]));
    assert_eq!(server.wait_finished("o-3")["status"], "success");
    poll("the next claim", || if server.claims() == 2 { Ok(()) } else { Err(runner.log()) });
    let text = fs::read_to_string(&trace).unwrap().split_off(before);
    let tracee = child_with(runner.pid() as u32, "machine").unwrap();
    signal(tracee, Signal::TERM);
    runner.wait();
    let mut opened: Vec<String> = text
        .lines()
        .filter_map(|line| {
            line.split_once("\"/proc").map(|(_, rest)| rest.split('"').next().unwrap_or_default())
        })
        .map(|path| {
            path.split('/')
                .map(|part| if part.parse::<u32>().is_ok() { "PID" } else { part })
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect();
    opened.sort();
    opened
}
