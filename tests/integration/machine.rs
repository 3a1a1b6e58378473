//! The machine runner against a fake control plane, with shell scripts in place of the task agent.
//!
//! Task ids differ between the tests: a runner ends whatever carries the id of its task.

use crate::support::control_plane::ControlPlane;
use crate::support::pki::{self, Authority};
use crate::support::runner::{Machine, RUNLET, id_suffix, task, task_of};
use crate::support::{emulated, poll, ports};
use runlet::agent::settings::Settings;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::process::Command;

/// Reads its task, says that it has begun and how it has ended, and leaves what it was given.
const GOOD: &str = r#"cat > "$DIR/input"; echo '{"runlet_task":"begun"}'; echo "$@" > "$DIR/argv"; env > "$DIR/env"; echo $$ > "$DIR/pid"; echo '{"runlet_task":"ended","message":"success"}'; exit 0"#;

/// Reads its task, says that it has begun, and ends well once `$DIR/go` exists.
const PATIENT: &str = r#"cat > /dev/null; echo '{"runlet_task":"begun"}'; echo $$ > "$DIR/pid"; while ! test -e "$DIR/go"; do sleep 0.05; done; echo '{"runlet_task":"ended","message":"success"}'; exit 0"#;

/// Waits for the end of a process: one that was killed is gone only when the kernel comes to it.
fn wait_gone(pid: &str) {
    poll("the end of the process", || if is_gone(pid) { Ok(()) } else { Err(format!("pid {pid}")) });
}

fn is_gone(pid: &str) -> bool {
    let pid: i32 = pid.trim().parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    test_kill_process(Pid::from_raw(pid).unwrap()).is_err() || zombie
}

#[test]
fn a_single_task_is_claimed_run_and_left() {
    let server = ControlPlane::start();
    server.offer(&task("a-1"));
    let mut runner = Machine::new(&server.url())
        .setting("mode", "single-task")
        .setting("max_run_time", "1h")
        .task_agent(GOOD)
        .variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", "variable-token")
        .start();
    assert_eq!(runner.wait(), Some(0));
    let claim = server.wait_for("claim?wait=50");
    assert_eq!(claim.token, "variable-token");
    assert_eq!(claim.json()["name"], "tester");
    assert_eq!(claim.json()["arch"], std::env::consts::ARCH);
    let input: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(runner.machine.path("input")).unwrap()).unwrap();
    assert_eq!(input["task"]["id"], format!("a-1{}", id_suffix()));
    assert_eq!(input["task"]["token"], "task-token-of-a-1");
    assert_eq!(input["max_run_time_ms"], 3_600_000);
    assert_eq!(input["runner_name"], "tester");
    assert_eq!(input["tool_directory"], serde_json::Value::Null, "a home is not for another user");
    let argv = runner.wait_file("argv");
    let id = input["task"]["id"].as_str().unwrap();
    let (program, runner_identity) = argv.rsplit_once(' ').unwrap();
    assert_eq!(program, format!("{RUNLET} task {id}"));
    assert!(runner_identity.starts_with("tester-"), "{argv}");
    let environment = runner.wait_file("env");
    for secret in ["variable-token", "class-token", "task-token"] {
        assert!(!environment.contains(secret), "{environment}");
        assert!(!runner.log().contains(secret));
    }
    assert!(environment.contains("RUNLET_TASK_ID=a-1"));
    assert!(runner.log().contains("starting agent version="), "{}", runner.log());
    assert!(server.requests().iter().all(|request| !request.path.ends_with("/lost")));
}

#[test]
fn a_continuous_runner_takes_one_task_after_the_other_and_drains_at_once_when_idle() {
    let server = ControlPlane::start();
    let mut runner = Machine::new(&server.url()).task_agent(GOOD).start();
    for id in ["b-1", "b-2"] {
        server.wait_parked();
        server.offer(&task(id));
        runner.wait_log(&format!("task done task_id={id}"));
    }
    server.wait_parked();
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    let nonces: Vec<_> = server.requests().iter().map(|request| request.json()["nonce"].clone()).collect();
    assert_eq!(nonces.len(), 3);
    assert!(nonces[0] != nonces[1] && nonces[1] != nonces[2], "{nonces:?}");
    assert!(!runner.machine.path("tools/circleci-agent").exists(), "a prefix means another user");
}

#[test]
fn the_in_job_commands_are_linked_to_the_program() {
    let server = ControlPlane::start();
    let mut runner = Machine::new(&server.url()).start();
    server.wait_parked();
    for name in ["circleci", "circleci-agent"] {
        let target = fs::read_link(runner.machine.path("tools").join(name)).unwrap();
        assert_eq!(target, fs::canonicalize(RUNLET).unwrap());
    }
    runner.signal(Signal::INT);
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn draining_lets_the_running_task_finish() {
    let server = ControlPlane::start();
    server.offer(&task("d-1"));
    let mut runner = Machine::new(&server.url()).task_agent(PATIENT).start();
    runner.wait_file("pid");
    server.offer(&task("d-2"));
    runner.term();
    runner.wait_log("draining: no further tasks; the running one may finish");
    runner.machine.file("go", "");
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("task done task_id=d-1"));
    assert_eq!(server.claims(), 1);
}

#[test]
fn a_second_term_is_passed_on_and_the_task_is_answered_for() {
    let server = ControlPlane::start();
    server.offer(&task("e-1"));
    let script = r#"trap 'echo TERM > "$DIR/signal"; exit 75' TERM; cat > /dev/null; echo $$ > "$DIR/pid"
        while :; do sleep 0.05; done"#;
    let mut runner = Machine::new(&server.url()).task_agent(script).start();
    runner.wait_file("pid");
    runner.term();
    runner.wait_log("draining");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(runner.wait_file("signal"), "TERM");
    let lost = server.wait_for("/tasks/e-1/lost");
    assert_eq!(lost.token, "class-token");
    let message = lost.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("could not report the outcome after being told to end"), "{message}");
}

#[test]
fn a_runner_that_is_stopped_for_good_says_so_in_its_job() {
    let server = ControlPlane::start();
    server.offer(&task_of("e-2", &["echo begun; sleep 600", "true"]));
    let mut runner = Machine::new(&server.url()).start();
    poll("output of the step", || {
        let output = server.output("e-2", 1);
        if output == "begun\n" { Ok(()) } else { Err(output) }
    });
    runner.term();
    runner.wait_log("draining");
    runner.term();
    let finished = server.wait_finished("e-2");
    let message = finished["message"].as_str().unwrap_or_default();
    assert_eq!(finished["status"], "infrastructure_fail", "nobody cancelled it: {finished}");
    assert!(message.contains("the runner `tester` was told to stop before the job had ended"), "{message}");
    let events = server.events("e-2");
    let ended = |step: u64| {
        let mut ends = events.iter().filter(|event| event["event"] == "step_finished");
        ends.find(|event| event["step"] == step).unwrap()
    };
    assert_eq!(
        (&ended(1)["status"], &ended(2)["status"]),
        (&"infrastructure_fail".into(), &"not_run".into())
    );
    assert_eq!(ended(1)["message"], "stopped: the runner was told to stop");
    assert_eq!(runner.wait(), Some(0));
    assert!(server.requests().iter().all(|request| !request.path.ends_with("/lost")));
}

#[test]
fn a_deaf_task_agent_is_killed_after_its_time() {
    let script = r#"trap '' TERM; cat > /dev/null; echo $$ > "$DIR/pid"; while :; do sleep 0.05; done"#;
    // The runner steps in after twice this. On a host where the script has not become deaf by then it
    // hears the first signal, which shows nothing: it gets more time.
    for limit in ["2s", "20s", "100s"] {
        let server = ControlPlane::start();
        server.offer(&task("f-1"));
        let mut runner = Machine::new(&server.url())
            .setting("mode", "single-task")
            .setting("max_run_time", limit)
            .task_agent(script)
            .start();
        assert_eq!(runner.wait(), Some(0));
        let message = server.wait_for("/tasks/f-1/lost").json()["message"].to_string();
        assert!(message.contains("runner.max_run_time"), "{message}");
        if runner.machine.path("pid").exists() {
            wait_gone(&runner.wait_file("pid"));
            assert!(message.contains("signal 9"), "{message}");
            return;
        }
    }
    panic!("the script has not become deaf in minutes");
}

#[test]
fn an_idle_runner_leaves_after_its_timeout() {
    let server = ControlPlane::start();
    let mut runner = Machine::new(&server.url()).setting("idle_timeout", "3s").start();
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("no task within `runner.idle_timeout`"));
    // Less than 3 where the start took long; then perhaps none was asked for at all.
    let requests = server.requests();
    let waits: Vec<_> = requests.iter().filter_map(|r| r.path.split_once("claim?wait=")).collect();
    assert!(waits.iter().all(|(_, wait)| ["1", "2", "3"].contains(wait)), "{waits:?}");
}

#[test]
fn what_a_killed_task_agent_leaves_behind_is_killed_and_named() {
    let server = ControlPlane::start();
    server.offer(&task("h-1"));
    let script = r#"cat > /dev/null
        sleep 1001 &
        echo $! > "$DIR/child"
        setsid env -i /bin/sh -c "echo \$\$ > '$DIR/escaped'; exec sleep 1002" &
        while ! test -s "$DIR/escaped"; do sleep 0.05; done
        for pid in $(cat "$DIR/child" "$DIR/escaped"); do
            until grep -q sleep /proc/$pid/comm; do sleep 0.05; done
        done
        kill -KILL $$"#;
    let mut runner = Machine::new(&server.url()).setting("mode", "single-task").task_agent(script).start();
    assert_eq!(runner.wait(), Some(0));
    wait_gone(&runner.wait_file("child"));
    assert!(runner.log().contains("killed a process that the task left behind: pid "), "{}", runner.log());
    assert!(runner.log().contains("(sleep)"), "{}", runner.log());
    let escaped = runner.wait_file("escaped");
    if emulated() {
        // qemu-user refuses PR_SET_CHILD_SUBREAPER, so what left its session and its environment behind
        // is adopted by somebody else and cannot be found: only the rest is asserted.
        let _ = kill_process(Pid::from_raw(escaped.parse().unwrap()).unwrap(), Signal::KILL);
    } else {
        wait_gone(&escaped);
        assert!(runner.log().matches("(sleep)").count() > 1, "{}", runner.log());
    }
    let message = server.wait_for("/tasks/h-1/lost").json()["message"].to_string();
    assert!(message.contains("the task agent died (signal 9)"), "{message}");
}

#[test]
fn a_restarted_runner_waits_for_the_task_of_the_one_before() {
    let server = ControlPlane::start();
    server.offer(&task("i-1"));
    let runner = Machine::new(&server.url()).task_agent(PATIENT).start();
    let pid = runner.wait_file("pid");
    let state = fs::read_to_string(runner.machine.path("state/machine-tester.json")).unwrap();
    assert!(!state.contains("token"), "{state}");
    let mut runner = runner.crash_and_restart();
    runner.wait_log("found the running task of an earlier run");
    assert!(!is_gone(&pid));
    assert_eq!(server.claims(), 1);
    runner.machine.file("go", "");
    let lost = server.wait_for("/tasks/i-1/lost");
    assert_eq!(lost.token, "class-token");
    server.wait_parked();
    assert_eq!(server.claims(), 2);
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn the_age_of_an_adopted_task_counts_from_its_claim_by_a_clock_that_nobody_sets() {
    let server = ControlPlane::start();
    server.offer(&task("i-2"));
    let runner = Machine::new(&server.url()).setting("max_run_time", "1m").task_agent(PATIENT).start();
    let pid = runner.wait_file("pid");
    runner.signal(Signal::KILL);
    // The claim looks as old as the start of the system, which is longer ago than a task may run.
    let state = "state/machine-tester.json";
    let text = fs::read_to_string(runner.machine.path(state)).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(record["task"]["claimed_since_boot_ms"].is_u64(), "{text}");
    record["task"]["claimed_since_boot_ms"] = 0.into();
    runner.machine.file(state, &record.to_string());
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let mut runner = runner.crash_and_restart();
    runner.wait_log("found the running task of an earlier run");
    if uptime > 130.0 {
        runner.wait_log("ending the task: the task runs longer than `runner.max_run_time`");
        wait_gone(&pid);
        // For the one that sends the rest.
        runner.machine.file("go", "");
        server.wait_for("/tasks/i-2/lost");
    }
    runner.machine.file("go", "");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_restarted_runner_answers_for_a_task_whose_agent_is_gone() {
    let server = ControlPlane::start();
    server.offer(&task("j-1"));
    let runner = Machine::new(&server.url()).task_agent(PATIENT).start();
    let pid: i32 = runner.wait_file("pid").parse().unwrap();
    runner.signal(Signal::KILL);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // For the one that sends the rest.
    runner.machine.file("go", "");
    let runner = runner.crash_and_restart();
    let message = server.wait_for("/tasks/j-1/lost").json()["message"].to_string();
    assert!(message.contains("gone when the runner started again"), "{message}");
    drop(runner);
}

#[test]
fn a_second_runner_of_the_same_name_is_refused() {
    let server = ControlPlane::start();
    let first = Machine::new(&server.url()).start();
    server.wait_parked();
    let state = first.machine.path("state").display().to_string();
    let mut second = Machine::new(&server.url()).variable("CIRCLECI_RUNNER_STATE_DIRECTORY", &state).start();
    assert_eq!(second.wait(), Some(1));
    assert!(second.log().contains(&format!("(pid {})", first.pid())), "{}", second.log());
}

#[test]
fn a_control_plane_that_is_down_is_told_once_and_found_again() {
    let port = ports::hold();
    let address = port.address();
    let mut runner = Machine::new(&format!("http://{address}")).task_agent(GOOD).start();
    runner.wait_log("cannot claim tasks, trying on quietly");
    let server = ControlPlane::start_at(address);
    server.offer(&task("l-11"));
    runner.wait_log("claims are answered again after");
    runner.wait_log("task done task_id=l-11");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(runner.log().matches("cannot claim tasks").count(), 1, "{}", runner.log());
    assert!(runner.log().contains("connection refused"), "{}", runner.log());
}

#[test]
fn a_wrong_token_is_explained_and_not_hammered_with() {
    let server = ControlPlane::start();
    server.answer("claim", 401, r#"{"message":"unknown token"}"#);
    let mut runner = Machine::new(&server.url()).start();
    let log = runner.wait_log("cannot claim tasks");
    assert!(
        log.contains("unknown token; the resource class token is not known there: check `api.auth_token`"),
        "{log}"
    );
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    assert_eq!(server.claims(), 1);
}

#[test]
fn another_protocol_is_the_end() {
    let server = ControlPlane::start();
    server.answer("claim", 400, r#"{"message":"upgrade the runner to 2.0","code":"protocol_mismatch"}"#);
    let mut runner = Machine::new(&server.url()).start();
    assert_eq!(runner.wait(), Some(1));
    assert!(runner.log().contains("upgrade the runner to 2.0"), "{}", runner.log());
}

#[test]
fn a_prefix_that_cannot_be_started_gives_the_task_back_with_the_reason() {
    let server = ControlPlane::start();
    server.offer(&task("o-1"));
    let mut runner = Machine::new(&server.url())
        .setting("mode", "single-task")
        .setting("command_prefix", "[/nonexistent/sudo, --]")
        .start();
    assert_eq!(runner.wait(), Some(0));
    // A statically linked program under emulation sees the failure as exit code 127.
    if !emulated() {
        let back = server.wait_for("/unclaim").json();
        let message = back["message"].as_str().unwrap();
        assert!(message.contains("check `runner.command_prefix`"), "{message}");
        assert_eq!((&back["reason"], &back["pause_seconds"]), (&"host".into(), &1.into()));
        assert!(runner.log().contains("pausing for 1s, since a task could not begin"), "{}", runner.log());
    }
}

#[test]
fn a_working_directory_is_cleaned_when_the_task_agent_could_not() {
    let server = ControlPlane::start();
    server.offer(&task("p-1"));
    let mut runner = Machine::new(&server.url())
        .setting("mode", "single-task")
        .setting("cleanup_working_directory", "true")
        .task_agent(r#"cat > /dev/null; cd "$DIR"; mkdir -p work/left; exit 3"#)
        .start();
    assert_eq!(runner.wait(), Some(0));
    assert!(!runner.machine.path("work").exists());
    let message = server.wait_for("/unclaim").json()["message"].to_string();
    assert!(message.contains("exit code 3"), "{message}");
}

#[test]
fn a_report_is_repeated_until_it_is_heard() {
    let server = ControlPlane::start();
    server.answer("/lost", 503, "<html>busy</html>");
    server.offer(&task("q-1"));
    let mut runner = Machine::new(&server.url())
        .setting("mode", "single-task")
        .task_agent("cat > /dev/null; kill -KILL $$")
        .start();
    runner.wait_log("cannot report the lost task yet");
    server.behave();
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("told the control plane that the task agent is gone task_id=q-1"));
}

#[test]
fn a_read_only_or_missing_home_is_no_obstacle() {
    let server = ControlPlane::start();
    server.offer(&task("r-1"));
    // A file in place of a directory refuses root too, which permissions would not.
    let machine = Machine::new(&server.url()).setting("mode", "single-task").task_agent(GOOD);
    let blocked = machine.file("blocked", "").display().to_string();
    let temporary = machine.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut runner = machine
        .variable("CIRCLECI_RUNNER_STATE_DIRECTORY", &format!("{blocked}/state"))
        .variable("CIRCLECI_RUNNER_TASK_AGENT_DIRECTORY", &format!("{blocked}/tools"))
        .variable("TMPDIR", &temporary.display().to_string())
        .start();
    assert_eq!(runner.wait(), Some(0));
    assert!(runner.log().contains("keeping state in"), "{}", runner.log());
}

#[test]
fn log_lines_are_objects_or_text_or_nothing_and_may_go_to_a_file() {
    let server = ControlPlane::start();
    server.answer("claim", 400, r#"{"message":"no","code":"protocol_mismatch"}"#);
    let mut json = Machine::new(&server.url()).logging(&["format: json"]).start();
    assert_eq!(json.wait(), Some(1));
    let log = json.log();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&first["message"], &first["name"]), (&"starting agent".into(), &"tester".into()));

    let mut none = Machine::new(&server.url()).logging(&["format: none"]).start();
    assert_eq!(none.wait(), Some(1));
    assert_eq!(none.log(), "runlet: no\n");

    let machine = Machine::new(&server.url());
    let file = machine.path("agent.log").display().to_string();
    let mut filed = machine.logging(&["format: text", "level: warn", &format!("file: {file}")]).start();
    assert_eq!(filed.wait(), Some(1));
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains("ERROR no") && !text.contains("starting agent"), "{text}");
}

/// Returns the log of the runner and of its task agent, which is told the same.
fn log_of_a_task(format: &str) -> String {
    let server = ControlPlane::start();
    // The task agent speaks up when a call fails.
    server.answer("/tasks/1/events", 503, "{}");
    server.offer(&task_of("1", &["echo hello"]));
    let machine = Machine::new(&server.url()).setting("mode", "single-task").logging(&[format]);
    let file = machine.path("agent.log");
    let file = if format.contains("file") { file } else { machine.path("log") };
    let logging = format.replace("FILE", &file.display().to_string());
    let lines: Vec<&str> = logging.split("; ").collect();
    let mut runner = machine.logging(&lines).start();
    server.wait_for("/tasks/1/events");
    server.behave();
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    assert_eq!(server.wait_finished("1")["status"], "success");
    fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn the_task_agent_logs_as_the_runner_does() {
    for format in ["format: json", "format: json; level: debug; file: FILE"] {
        let log = log_of_a_task(format);
        let objects: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let told = |part: &str| objects.iter().any(|o| o["message"].as_str().unwrap().contains(part));
        assert!(told("starting agent") && told("was refused with status 503"), "{log}");
        assert!(!log.contains("task-token-of-1") && !log.contains("class-token"), "{log}");
    }
    let text = log_of_a_task("format: text");
    let line = text.lines().find(|line| line.contains("was refused with status 503")).expect(&text);
    assert!(line.contains("Z WARN  "), "{text}");
    assert_eq!(log_of_a_task("format: none"), "");
    let errors = log_of_a_task("level: error; format: text");
    assert_eq!(errors, "", "warnings are below the level");
}

#[test]
fn wrong_settings_are_told_before_anything_starts() {
    let output = Command::new(RUNLET).args(["machine", "--config", "/nonexistent.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot read the settings file `/nonexistent.yaml`")
    );
    let mut runner = Machine::new("http://127.0.0.1:1").setting("mode", "sometimes").start();
    assert_eq!(runner.wait(), Some(2));
    let log = runner.log();
    assert!(log.contains("`runner.mode` is `sometimes`: expected `continuous` or `single-task`"), "{log}");
    let mut runner = Machine::new("http://127.0.0.1:1")
        .variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", "<< AUTH_TOKEN >>")
        .start();
    assert_eq!(runner.wait(), Some(2));
    assert!(runner.log().contains("still the placeholder"), "{}", runner.log());
    let help = Command::new(RUNLET).args(["machine", "--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--config FILE"));
}

#[test]
fn a_check_says_whether_the_control_plane_agrees() {
    let server = ControlPlane::start();
    let (status, text) = Machine::new(&server.url()).check();
    assert!(status.success() && text.contains("accepts the token"), "{text}");
    server.answer("/runner/self", 401, r#"{"message":"unknown token"}"#);
    let (status, text) = Machine::new(&server.url()).check();
    assert!(!status.success() && text.contains("check `api.auth_token`"), "{text}");
    server.answer("/runner/self", 404, "<html>not here</html>");
    let (status, text) = Machine::new(&server.url()).check();
    assert!(!status.success() && text.contains("address of a Runlet control plane"), "{text}");
    // A control plane of the version before does not know the call; a path that it does not serve is none.
    server.answer("/runner/self", 404, r#"{"message":"no such call"}"#);
    let (status, text) = Machine::new(&server.url()).check();
    assert!(!status.success() && text.contains("without a path that it does not serve"), "{text}");
}

#[test]
fn several_runners_share_a_process_and_a_request_to_stop() {
    let server = ControlPlane::start();
    let directory = tempfile::tempdir().unwrap();
    let stop = runlet::agent::Stop::new();
    std::thread::scope(|scope| {
        let start = |name: &str| {
            let endpoint = runlet::http::Endpoint { url: server.url(), ..Default::default() };
            let token = runlet::protocol::Secret::new("class-token");
            let work = directory.path().join(name);
            let mut settings = Settings::new(token, endpoint, name.to_owned(), work);
            settings.command_prefix =
                ["/bin/sh", "-c", "cat > /dev/null; exit 0", "--"].map(str::to_owned).to_vec();
            let stop = stop.clone();
            scope.spawn(move || runlet::agent::machine::run(settings, &stop))
        };
        let runners = [start("one"), start("two")];
        server.offer(&task("shared-1"));
        server.offer(&task("shared-2"));
        poll("both tasks taken and both runners parked again", || match server.claims() {
            4 => Ok(()),
            n => Err(format!("{n} claims")),
        });
        stop.request(runlet::agent::Level::Drain);
        for runner in runners {
            assert_eq!(runner.join().unwrap().unwrap(), runlet::agent::ExitReason::Stopped);
        }
    });
}

/// Connections over TCP of a process, those that are established.
#[cfg(target_os = "linux")]
fn connections(process: &str) -> usize {
    let sockets: Vec<String> = fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("{process}/net/tcp")).unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    lines.filter(|line| line[3] == "01" && sockets.iter().any(|socket| socket == line[9])).count()
}

/// The promise of a parked runner: two threads, one connection, and no work but the long poll.
#[test]
#[cfg(target_os = "linux")]
fn a_parked_runner_is_idle() {
    let authority = Authority::new("Acme Root");
    let server = ControlPlane::start_tls(pki::server(&authority.issue("127.0.0.1", |_| {}), None));
    let machine = Machine::new(&server.url());
    let file = machine.file("ca.pem", &authority.pem).display().to_string();
    let runner = machine.api("ca_file", &file).start();
    server.wait_parked();
    let process = format!("/proc/{}", runner.pid());
    // qemu-user has a thread of its own, which sleeps too.
    let most = if emulated() { 3 } else { 2 };
    // The thread that looks a name up ends shortly after its answer.
    poll("no thread too many", || {
        let threads = fs::read_dir(format!("{process}/task")).unwrap().count();
        if threads <= most { Ok(()) } else { Err(format!("{threads} threads")) }
    });
    let switches = || -> u64 {
        let tasks = fs::read_dir(format!("{process}/task")).unwrap();
        tasks
            .map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
                line.split_ascii_whitespace().last().unwrap().parse::<u64>().unwrap()
            })
            .sum()
    };
    // The server has the claim before the runner has gone to sleep, by how much nobody can say; the next
    // claim is 50 seconds away. Nothing that wakes it by itself at least every ten seconds gets past this,
    // however long one waits; what is slower ci/footprint counts.
    let (mut before, mut quiet) = ((server.claims(), switches()), 0);
    poll("ten seconds in which nothing wakes it", || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let now = (server.claims(), switches());
        quiet = if now == before { quiet + 1 } else { 0 };
        let woken = now.1.abs_diff(std::mem::replace(&mut before, now).1);
        if quiet == 10 { Ok(()) } else { Err(format!("woken {woken} times in the last second")) }
    });
    assert_eq!(connections(&process), 1);
}
