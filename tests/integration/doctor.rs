//! `runlet doctor` against hosts with planted faults: each is found by its check, with a word of advice, and a host
//! without faults raises no alarm.

use crate::support::DEADLINE;
use crate::support::control_plane::ControlPlane;
use crate::support::emulated;
use crate::support::pki::{self, Authority};
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::runner::Machine;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A name that only a proxy can lead to.
const FAR: &str = "https://ci.runlet.invalid";
/// The call by which the control plane is asked.
const CALL: &str = "/runner/self";

/// A host with a fault, the check that finds it, how bad it is, and words of the evidence or the advice.
struct Fault {
    plant: fn(&ControlPlane) -> Machine,
    id: &'static str,
    result: &'static str,
    words: &'static str,
}

fn fault(
    id: &'static str,
    result: &'static str,
    words: &'static str,
    plant: fn(&ControlPlane) -> Machine,
) -> Fault {
    Fault { plant, id, result, words }
}

fn host(server: &ControlPlane) -> Machine {
    Machine::new(&server.url())
}

/// A host whose prefix is this script; `"$@"` is the task agent.
fn prefixed(server: &ControlPlane, script: &str) -> Machine {
    let machine = host(server);
    let path = machine.file("prefix.sh", script);
    machine.setting("command_prefix", &format!("[/bin/sh, {}]", path.display()))
}

fn limited(server: &ControlPlane, limit: &str) -> Machine {
    host(server).wrapper(&["/bin/sh", "-c", &format!("{limit}; exec \"$@\""), "sh"])
}

/// A host with this program in front of all others.
fn with_program(server: &ControlPlane, name: &str, script: &str) -> Machine {
    let machine = host(server);
    fs::create_dir(machine.path("bin")).unwrap();
    let path = machine.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap());
    machine.variable("PATH", &path)
}

fn answers(server: &ControlPlane, member: &str, value: Value) -> Machine {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let mut answer = json!({ "resource_class": "acme/linux", "version": "0.1.0", "time_ms": now as u64 });
    answer[member] = value;
    server.answer(CALL, 200, &answer.to_string());
    host(server)
}

fn faults() -> Vec<Fault> {
    vec![
        // Settings.
        fault("settings", "fail", "did you mean `runner.max_run_time`?", |s| {
            host(s).setting("maxx_run_time", "1h")
        }),
        fault("settings", "fail", "expected `continuous` or `single-task`", |s| {
            host(s).setting("mode", "once")
        }),
        fault("settings", "fail", "still the placeholder", |s| {
            host(s).variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", "<< AUTH_TOKEN >>")
        }),
        fault("settings", "warn", "can be read by everyone", |s| {
            let machine = host(s);
            let file = machine.file("token", "class-token\n");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            machine.variable("CIRCLECI_RUNNER_API_AUTH_TOKEN_FILE", &file.display().to_string())
        }),
        // The folders.
        fault(
            "working_directory",
            "warn",
            "work` is a link to `disk`: it is emptied after a job, but not after a kill",
            |s| {
                let machine = host(s).setting("cleanup_working_directory", "true");
                fs::create_dir(machine.path("disk")).unwrap();
                symlink("disk", machine.path("work")).unwrap();
                machine
            },
        ),
        // The token and whoever answers.
        fault("token", "fail", "CIRCLECI_RESOURCE_CLASS is `acme/other`", |s| {
            host(s).variable("CIRCLECI_RESOURCE_CLASS", "acme/other")
        }),
        fault("token", "fail", "check `api.auth_token`", |s| {
            s.answer(CALL, 401, r#"{"message":"unknown token"}"#);
            host(s)
        }),
        fault("control_plane", "fail", "without a path that it does not serve", |s| {
            s.answer("/", 404, r#"{"message":"no such call"}"#);
            host(s)
        }),
        fault("control_plane", "fail", "no Runlet control plane", |s| {
            s.intercept(CALL, 200, "<html>welcome</html>");
            host(s)
        }),
        fault("protocol", "fail", "upgrade the runner", |s| {
            s.answer(CALL, 400, r#"{"code":"protocol_mismatch","message":"upgrade the runner"}"#);
            host(s)
        }),
        fault("name_clash", "warn", "runner.name of its own", |s| {
            answers(s, "seen", json!({ "hostname": "elsewhere", "seconds_ago": 3 }))
        }),
        fault("clock", "fail", "s off that of the control plane", |s| answers(s, "time_ms", json!(1_000))),
        fault("large_calls", "fail", "lower the MTU", |s| {
            s.limit_bodies(4096, 413);
            host(s)
        }),
        // The way there.
        fault("name", "fail", "`ci.runlet.invalid` cannot be looked up", |_| {
            Machine::new("http://ci.runlet.invalid").variable("RUNLET_ALLOW_PLAINTEXT", "1")
        }),
        fault("connection", "fail", "that something listens there", |_| {
            Machine::new(&format!("http://{}", ports::hold().address()))
        }),
        fault("control_plane", "fail", "over plain HTTP", |_| Machine::new("http://ci.runlet.invalid")),
        fault("control_plane", "fail", "does not speak TLS", |s| {
            let machine = Machine::new(&format!("https://{}", s.address()));
            let file = machine.file("ca.pem", &Authority::new("Any").pem).display().to_string();
            machine.api("ca_file", &file)
        }),
        fault("control_plane", "fail", "was issued by `CN=Other Root`", |_| {
            let (known, other) = (Authority::new("Acme Root"), Authority::new("Other Root"));
            let server = ControlPlane::start_tls(pki::server(&other.issue("127.0.0.1", |_| {}), None));
            let machine = Machine::new(&server.url());
            let file = machine.file("ca.pem", &known.pem).display().to_string();
            // The server answers for as long as the test runs.
            std::mem::forget(server);
            machine.api("ca_file", &file)
        }),
        fault("control_plane", "fail", "`/nonexistent.pem` (`api.ca_file`)", |_| {
            Machine::new("https://127.0.0.1:1").api("ca_file", "/nonexistent.pem")
        }),
        fault("control_plane", "fail", "demands a login (407)", |s| {
            let proxy = Proxy::start(s.address(), Some("bWU6cEBzcw=="));
            let variable = format!("http://{}", proxy.address);
            std::mem::forget(proxy);
            let machine = Machine::new(FAR);
            let file = machine.file("ca.pem", &Authority::new("Any").pem).display().to_string();
            machine.api("ca_file", &file).variable("HTTPS_PROXY", &variable)
        }),
        fault("control_plane", "fail", "`socks5` proxies are not supported", |_| {
            Machine::new(FAR).variable("HTTPS_PROXY", "socks5://127.0.0.1:1")
        }),
        fault("proxy", "warn", "HTTPS_PROXY and https_proxy differ", |s| {
            host(s).variable("HTTPS_PROXY", "http://a:1").variable("https_proxy", "http://b:1")
        }),
        fault("proxy", "warn", "write `@` as %40", |s| {
            host(s).variable("ALL_PROXY", "http://me:p@ss@proxy:3128")
        }),
        // Folders and files of the runner.
        fault("log", "fail", "the folder `/nonexistent` does not exist", |s| {
            host(s).logging(&["file: /nonexistent/runlet.log"])
        }),
        fault("textfile", "fail", "(status.textfile) cannot be written", |s| {
            host(s).variable("CIRCLECI_RUNNER_STATUS_TEXTFILE", "/nonexistent/runlet.prom")
        }),
        fault("state_directory", "warn", "set runner.state_directory", |s| {
            host(s).variable("CIRCLECI_RUNNER_STATE_DIRECTORY", "/dev/null/state")
        }),
        fault("status_socket", "warn", "is longer than 107 bytes", |s| {
            host(s).variable("CIRCLECI_RUNNER_STATUS_SOCKET", &format!("/tmp/{}", "x".repeat(200)))
        }),
        fault("status_socket", "warn", "the group of status.group does not exist", |s| {
            host(s).variable("CIRCLECI_RUNNER_STATUS_GROUP", "no-such-group")
        }),
        // Gates that keep it from claiming.
        fault("gates", "warn", "quiet hours", |s| {
            host(s).variable("CIRCLECI_RUNNER_QUIET_HOURS", "00:00-12:00 12:00-00:00")
        }),
        fault("gates", "warn", "less than `runner.min_free_disk`", |s| {
            host(s).variable("CIRCLECI_RUNNER_MIN_FREE_DISK", "900000T")
        }),
        // The prefix and its contract.
        fault("command_prefix", "fail", "`/nonexistent/sudo` cannot be started", |s| {
            host(s).setting("command_prefix", "[/nonexistent/sudo, --]")
        }),
        fault("command_prefix", "fail", "standard input does not arrive", |s| {
            prefixed(s, "exec \"$@\" < /dev/null")
        }),
        fault("command_prefix", "fail", "the prefix ends by TERM and does not pass it on", |s| {
            prefixed(s, "\"$@\"\nexit $?")
        }),
        fault("command_prefix", "fail", "TERM does not reach the task agent", |s| {
            prefixed(s, "trap : TERM\n\"$@\"\nexit $?")
        }),
        fault("command_prefix", "fail", "the exit code is 1 where", |s| {
            let forwards = "exec 3<&0\n\"$@\" <&3 &\ntrap \"kill $!\" TERM\nwait $!\nwait $!\nexit 1";
            prefixed(s, forwards)
        }),
        fault("command_prefix", "fail", "NOPASSWD", |s| {
            prefixed(s, "echo 'sudo: a password is required' >&2; exit 1")
        }),
        fault("command_prefix", "fail", "NoNewPrivileges=", |s| {
            prefixed(s, "echo 'sudo: The \"no new privileges\" flag is set' >&2; exit 1")
        }),
        fault("command_prefix", "fail", "must start the words that follow it", |s| prefixed(s, "echo done")),
        // Findings for jobs.
        fault("working_directory", "fail", "cannot be made", |s| {
            host(s).variable("CIRCLECI_RUNNER_WORK_DIR", "/dev/null/work")
        }),
        fault("temporary_folder", "fail", "TMPDIR is `/nonexistent`", |s| {
            host(s).variable("TMPDIR", "/nonexistent")
        }),
        fault("job_home", "warn", "the home `/nonexistent` of jobs", |s| {
            host(s).variable("HOME", "/nonexistent")
        }),
        fault("locale", "warn", "set LANG=C.UTF-8", |s| host(s).variable("LC_ALL", "de_DE.ISO-8859-1")),
        fault("umask", "warn", "the umask 0077", |s| limited(s, "umask 077")),
        fault("limits", "warn", "may open 256 files", |s| limited(s, "ulimit -n 256")),
        fault("limits", "warn", "LimitFSIZE=infinity", |s| limited(s, "ulimit -f 100000")),
        fault("git", "note", "`checkout` needs it", |s| host(s).variable("PATH", "/nonexistent")),
        fault("ssh", "note", "repositories by ssh", |s| host(s).variable("PATH", "/nonexistent")),
        fault("git", "warn", "git 2.18 or newer", |s| with_program(s, "git", "echo git version 1.8.3.1")),
        // The unit.
        fault("kill_mode", "warn", "jobs are killed when the runner is", |s| {
            with_program(s, "systemctl", "echo KillMode=mixed; echo LoadState=loaded")
        }),
        fault("stop_timeout", "warn", "TimeoutStopSec=18120", |s| {
            with_program(s, "systemctl", "echo 'TimeoutStopUSec=1min 30s'; echo LoadState=loaded")
        }),
        fault("oom_policy", "warn", "OOMPolicy=continue", |s| {
            with_program(s, "systemctl", "echo OOMPolicy=stop; echo LoadState=loaded")
        }),
        fault("unit", "warn", "there is no unit `runlet-machine@x`", |s| {
            with_program(s, "systemctl", "echo LoadState=not-found")
        }),
    ]
}

fn examine(machine: &Machine) -> (Option<i32>, Vec<Value>, String) {
    let (code, out, err) = machine.ask(&["doctor", "--json", "--unit", "runlet-machine@x"]);
    let found = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    (code, found, out + &err)
}

fn is_bad(finding: &Value) -> bool {
    matches!(finding["result"].as_str(), Some("warn" | "fail"))
}

/// Each takes up to three seconds, mostly of waiting: they run side by side.
#[test]
fn planted_faults_are_found_each_by_its_check() {
    let mut faults = faults();
    if emulated() {
        // qemu-user starts programs by a fork: one that is missing looks like one that ends with exit code 127.
        faults.retain(|fault| fault.id != "ssh" && fault.words != "`/nonexistent/sudo` cannot be started");
    }
    assert!(faults.len() >= 30);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let server = ControlPlane::start();
                    let machine = (fault.plant)(&server);
                    let (code, found, text) = examine(&machine);
                    let is_it = |finding: &&Value| {
                        let said =
                            format!("{} {}", finding["evidence"], finding["advice"]).replace("\\\"", "\"");
                        finding["id"] == fault.id
                            && finding["result"] == fault.result
                            && said.contains(fault.words)
                    };
                    let expected = match (fault.id, fault.result) {
                        ("settings", "fail") => 2,
                        (_, "fail") => 1,
                        // An answer that is always the same has lost its padding.
                        ("name_clash", _) => 1,
                        _ => 0,
                    };
                    let leaks = ["class-token", "p@ss"].iter().any(|secret| text.contains(secret));
                    if !found.iter().any(|finding| is_it(&finding)) || code != Some(expected) || leaks {
                        missed
                            .lock()
                            .unwrap()
                            .push(format!("{} ({}): {code:?} {text}", fault.id, fault.words));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn a_host_without_faults_raises_no_alarm_and_learns_its_class() {
    let server = ControlPlane::start();
    // Without a service manager, as in a container.
    let (code, out, err) = host(&server).ask(&["doctor", "--json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let found: Vec<Value> = serde_json::from_str(&out).unwrap();
    // A disk of the host that runs this test may be full indeed.
    let alarms: Vec<_> =
        found.iter().filter(|one| is_bad(one) && !one["id"].as_str().unwrap().ends_with("_room")).collect();
    assert!(alarms.is_empty(), "{alarms:?}");
    let token = found.iter().find(|finding| finding["id"] == "token").unwrap();
    assert!(token["evidence"].as_str().unwrap().contains("class `acme/linux`"), "{token}");
    let unit = found.iter().find(|finding| finding["id"] == "unit").unwrap();
    assert_eq!(unit["result"], "skipped");
    let (status, text) = host(&server).check();
    assert!(status.success() && text.contains("accepts the token: class `acme/linux`"), "{text}");
    let (_, text, _) = host(&server).ask(&["doctor"]);
    assert!(text.contains("checks: 0 failed, "), "{text}");
}

#[test]
fn nobody_waits_for_a_pipe_in_the_place_of_the_lock() {
    let server = ControlPlane::start();
    let machine = host(&server);
    fs::create_dir(machine.path("state")).unwrap();
    let lock = machine.path("state/machine-tester.lock");
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(examine(&machine).1.len()).unwrap());
    let findings = ended.recv_timeout(DEADLINE);
    // Whoever waits for the pipe after all goes on.
    let _end = fs::File::options().read(true).write(true).open(&lock);
    assert!(findings.is_ok_and(|findings| findings > 5));
}

#[test]
fn a_prefix_is_looked_at_without_the_secrets_of_the_runner() {
    let server = ControlPlane::start();
    let machine = prefixed(&server, "env > \"$0.seen\"; exec \"$@\"")
        .variable("CIRCLECI_RUNNER_API_AUTH_TOKEN", "class-token")
        .variable("CREDENTIALS_DIRECTORY", "/credentials");
    let (code, found, _) = examine(&machine);
    assert_eq!(code, Some(0), "{found:?}");
    assert!(found.iter().any(|one| one["id"] == "command_prefix" && one["result"] == "ok"), "{found:?}");
    let seen = fs::read_to_string(machine.path("prefix.sh.seen")).unwrap();
    assert!(
        seen.contains("HOME=") && !seen.contains("class-token") && !seen.contains("CREDENTIALS"),
        "{seen}"
    );
}

#[test]
fn without_a_network_everything_else_is_looked_at() {
    let machine = Machine::new(&format!("http://{}", ports::hold().address()));
    let (code, found, _) = examine(&machine);
    assert_eq!(code, Some(1));
    for id in ["state_directory", "working_directory", "limits", "umask", "job"] {
        assert!(
            found.iter().any(|finding| finding["id"] == id && finding["result"] == "ok"),
            "{id}: {found:?}"
        );
    }
}

#[test]
fn a_second_runner_on_a_working_directory_is_refused_and_found() {
    let server = ControlPlane::start();
    let mut first = host(&server).start();
    server.wait_parked();
    let second = || {
        let work = first.machine.path("work").display().to_string();
        host(&server).variable("CIRCLECI_RUNNER_WORK_DIR", &work).variable("CIRCLECI_RUNNER_NAME", "other")
    };
    let (code, found, _) = examine(&second());
    let sharing = found.iter().find(|finding| finding["id"] == "sharing").unwrap();
    assert!(sharing["evidence"].as_str().unwrap().contains(&format!("pid {}", first.pid())), "{sharing}");
    assert_eq!((code, sharing["result"].as_str()), (Some(1), Some("fail")));
    let mut refused = second().start();
    assert_eq!(refused.wait(), Some(1));
    let log = refused.log();
    assert!(log.contains(&format!("with pid {}", first.pid())), "{log}");
    assert!(log.contains("give this one a `runner.working_directory` of its own"), "{log}");
    // The runner itself is no reason for alarm.
    let (code, found, _) = examine(&first.machine);
    assert_eq!(code, Some(0), "{found:?}");
    assert!(found.iter().any(|finding| finding["id"] == "runner"), "{found:?}");
    first.term();
    assert_eq!(first.wait(), Some(0));
}

/// A file stands where the working directory would be made, which holds off root as well.
fn with_blocked_folder(server: &ControlPlane) -> Machine {
    let machine = host(server);
    let work = machine.file("blocked", "").join("work").display().to_string();
    machine.setting("working_directory", &work)
}

/// The working directory is a link that leads nowhere.
fn with_lost_folder(server: &ControlPlane) -> Machine {
    let machine = host(server);
    symlink("nowhere", machine.path("work")).unwrap();
    machine
}

fn log_of_a_start(server: &ControlPlane, machine: Machine) -> String {
    let mut runner = machine.start();
    server.wait_parked();
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    runner.log()
}

#[test]
fn a_start_says_before_there_is_a_task_why_none_will_begin() {
    let prefixed: fn(&ControlPlane) -> Machine = |s| host(s).setting("command_prefix", "[/nonexistent]");
    for (plant, told, checked) in [
        (with_blocked_folder as fn(&ControlPlane) -> Machine, "blocked`: it is no folder", "cannot be made"),
        (with_lost_folder, "work`: it is no folder", "cannot be made"),
        (
            prefixed,
            "`/nonexistent` of `runner.command_prefix` is no program",
            "`/nonexistent` cannot be started",
        ),
    ] {
        let server = ControlPlane::start();
        let log = log_of_a_start(&server, plant(&server));
        let is_it = |line: &str| line.contains("not begin here: ") && line.contains(told);
        assert!(log.lines().any(is_it), "{told}: {log}");
        let (status, text) = plant(&server).check();
        assert!(emulated() || text.contains(checked), "{checked}: {text}");
        assert!(!status.success() && text.contains("this runner cannot work here as it is"), "{text}");
    }
    let server = ControlPlane::start();
    let log = log_of_a_start(&server, host(&server));
    assert!(!log.contains("cannot be used") && !log.contains("will not begin here"), "{log}");
}
