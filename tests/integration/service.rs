//! A service manager around a runner, played by the test: what it is told, the signals that it sends, what it hands over.

use crate::support::control_plane::ControlPlane;
use crate::support::poll;
use crate::support::runner::{Machine, RUNLET, Running, task, task_of};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

/// Reads its task and ends well once `$DIR/go` exists.
const PATIENT: &str = r#"cat > /dev/null; echo '{"runlet_task":"begun"}'; env > "$DIR/env"; echo $$ > "$DIR/pid"
    while ! test -e "$DIR/go"; do sleep 0.05; done; echo '{"runlet_task":"ended","message":"success"}'; exit 0"#;

/// The listening end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    heard: std::cell::RefCell<String>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: String::new().into() }
    }

    /// The text that was said so far, a line for each assignment, a dash for each message.
    fn heard(&self) -> String {
        let mut buffer = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            let mut heard = self.heard.borrow_mut();
            heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
            heard.push_str("\n-\n");
        }
        self.heard.borrow().clone()
    }

    fn wait(&self, text: &str) {
        poll(&format!("`{text}` to the service manager"), || {
            let heard = self.heard();
            if heard.contains(text) { Ok(()) } else { Err(heard) }
        });
    }
}

/// A runner whose service manager listens in its own directory.
fn managed(machine: Machine) -> (Manager, Machine) {
    let path = machine.path("notify");
    let manager = Manager::at(&path);
    let machine = machine.variable("NOTIFY_SOCKET", path.to_str().unwrap());
    (manager, machine)
}

#[test]
fn a_service_manager_hears_what_a_runner_is_at_and_jobs_do_not_hear_of_it() {
    let server = ControlPlane::start();
    let (manager, machine) = managed(Machine::new(&server.url()).task_agent(PATIENT));
    let mut machine = machine.variable("RUNLET_INSTANCE", "one");
    let others = [
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
        "INVOCATION_ID",
        "STATE_DIRECTORY",
        "MEMORY_PRESSURE_WATCH",
    ];
    for name in others {
        machine = machine.variable(name, "1");
    }
    let mut runner = machine.start();
    server.wait_parked();
    let heard = manager.heard();
    assert!(heard.starts_with("READY=1\nSTATUS=idle, waiting for a task\n-\n"), "{heard}");
    let mut given = task("sm-1");
    given.job_name = "build\nMAINPID=1".to_owned();
    server.offer(&given);
    let environment = runner.wait_file("env");
    manager.wait("STATUS=running acme/linux job build MAINPID=1 since 2");
    for name in others.into_iter().chain(["NOTIFY_SOCKET"]) {
        assert!(!environment.lines().any(|line| line.starts_with(&format!("{name}="))), "{environment}");
    }
    assert!(!manager.heard().contains("EXTEND"), "a runner at work needs no time to stop");
    runner.term();
    manager.wait("STOPPING=1\nEXTEND_TIMEOUT_USEC=");
    manager.wait("STATUS=draining: running acme/linux job build");
    runner.machine.file("go", "");
    assert_eq!(runner.wait(), Some(0));
    assert!(manager.heard().ends_with("STATUS=stopping\n-\n"), "{}", manager.heard());
}

#[test]
#[cfg(target_os = "linux")]
fn a_manager_without_a_file_is_found_and_one_that_is_gone_does_no_harm() {
    use std::os::linux::net::SocketAddrExt;
    let server = ControlPlane::start();
    let name = format!("runlet-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap());
    let mut runner = Machine::new(&server.url()).variable("NOTIFY_SOCKET", &format!("@{name}")).start();
    manager.wait("READY=1\n");
    drop(manager);
    server.wait_parked();
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn nobody_is_ready_whose_settings_are_wrong() {
    let server = ControlPlane::start();
    let (manager, machine) = managed(Machine::new(&server.url()).setting("max_run_time", "soon"));
    assert_eq!(machine.start().wait(), Some(2));
    assert_eq!(manager.heard(), "");
}

#[test]
fn progress_is_reported_whatever_the_network_does() {
    // Nobody listens there.
    let (manager, machine) = managed(Machine::new("http://127.0.0.1:1"));
    let mut runner = machine.variable("WATCHDOG_USEC", "40000").start();
    poll("signs of life", || {
        let heard = manager.heard();
        let count = heard.matches("WATCHDOG=1\n").count();
        let says_so = heard.contains("STATUS=no usable answer from http://127.0.0.1:1 since 2");
        if count > 20 && says_so { Ok(()) } else { Err(heard) }
    });
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn a_journal_gets_levels_and_no_times() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let log = fs::metadata(machine.file("log", "")).unwrap();
    let mut runner = machine.variable("JOURNAL_STREAM", &format!("{}:{}", log.dev(), log.ino())).start();
    server.wait_parked();
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    let log = runner.log();
    assert!(log.contains("\n<6>starting agent version=") || log.starts_with("<6>starting agent"), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<') && line[2..].starts_with('>')), "{log}");
}

/// Puts the program in place of the one of that name, as packages do: by renaming. Another process copies it, lest a
/// child of another test holds the file open for writing.
fn install(machine: &Machine) {
    let fresh = machine.path("fresh");
    assert!(Command::new("cp").arg(RUNLET).arg(&fresh).status().unwrap().success());
    fs::rename(fresh, machine.path("program")).unwrap();
}

/// The service manager's part of an upgrade: the file is new, the main process is told to go, and whatever it leaves
/// behind lives on (`KillMode=process`).
fn upgrade(mut runner: Running) -> Running {
    install(&runner.machine);
    runner.signal(Signal::USR2);
    assert_eq!(runner.wait(), Some(0), "{}", runner.log());
    runner.start_again()
}

#[test]
fn a_job_survives_upgrades_of_its_runner() {
    let times: usize = std::env::var("RUNLET_UPGRADES").map_or(3, |times| times.parse().unwrap());
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    install(&machine);
    let program = machine.path("program");
    let go = machine.path("go");
    let mut runner = machine.program(&program).start();
    let step = format!("echo begun; while ! test -e '{}'; do sleep 0.02; done; echo ended", go.display());
    server.offer(&task_of("up-1", &[&step]));
    poll("output of the step", || {
        let output = server.output("up-1", 1);
        if output == "begun\n" { Ok(()) } else { Err(output) }
    });
    for time in 1..=times {
        runner = upgrade(runner);
        poll("the next runner", || {
            let log = runner.log();
            let found = log.matches("found the running task of an earlier run, waiting for it").count();
            if found == time { Ok(()) } else { Err(log) }
        });
        let running = fs::read_link(format!("/proc/{}/exe", runner.pid()));
        if !crate::support::emulated() {
            assert_eq!(running.unwrap(), fs::canonicalize(&program).unwrap(), "not the new file");
        }
    }
    fs::write(go, "").unwrap();
    let finished = server.wait_finished("up-1");
    assert_eq!(finished["status"], "success", "{finished}");
    assert_eq!(server.output("up-1", 1), "begun\nended\n");
    runner.wait_log("the task agent of an earlier run has ended");
    server.wait_parked();
    // An idle one leaves as well, and says nothing to the control plane that it would have to take back.
    runner = upgrade(runner);
    poll("the last runner", || {
        let log = runner.log();
        if log.matches("starting agent").count() == times + 2 { Ok(()) } else { Err(log) }
    });
    runner.term();
    assert_eq!(runner.wait(), Some(0));
    let finishes = server.requests().iter().filter(|request| request.path.ends_with("/up-1/finish")).count();
    assert_eq!(finishes, 1, "one job, one end");
}

#[test]
fn a_runner_has_started_before_anybody_hears_of_a_task_that_died_with_the_one_before() {
    let server = ControlPlane::start();
    let (manager, machine) = managed(Machine::new(&server.url()).task_agent(PATIENT));
    server.offer(&task("sm-9"));
    let mut runner = machine.start();
    let agent = runner.wait_file("pid").parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    server.answer("/rest", 503, "{}");
    runner.signal(Signal::KILL);
    assert_eq!(runner.wait(), None);
    rustix::process::kill_process(agent, Signal::KILL).unwrap();
    let runner = runner.start_again();
    manager.wait("STATUS=answering for task sm-9");
    assert_eq!(manager.heard().matches("READY=1").count(), 2);
    runner.wait_log("cannot ask for the rest of the task yet");
    server.behave();
    // The agent that sends the rest is this patient one as well.
    runner.machine.file("go", "");
    server.wait_parked();
}

#[test]
fn settings_are_read_again_and_the_log_is_opened_again() {
    let server = ControlPlane::start();
    server.offer(&task("hup-1"));
    let machine = Machine::new(&server.url()).task_agent(PATIENT);
    let log = machine.path("runner.log");
    let mut runner = machine.logging(&["format: text", &format!("file: {}", log.display())]).start();
    runner.wait_file("pid");
    let wait_log = |text: &str| {
        poll(&format!("`{text}` in the log"), || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    };
    let wait_claim = |token: &str| {
        poll(&format!("a claim with `{token}`"), || {
            let requests = server.requests();
            let last = requests.iter().rfind(|request| request.path.contains("claim")).cloned();
            if last.as_ref().is_some_and(|last| last.token == token) {
                Ok(())
            } else {
                Err(format!("{last:?}"))
            }
        });
    };
    let settings = runner.machine.path("config.yaml");
    let text = fs::read_to_string(&settings).unwrap();

    // The log moves as logrotate moves it. A running task ends with what it has begun with.
    let old = runner.machine.path("runner.log.1");
    fs::rename(&log, &old).unwrap();
    fs::write(&settings, text.replace("class-token", "other-token")).unwrap();
    runner.signal(Signal::HUP);
    wait_log("the settings are read again after the running task");
    runner.machine.file("go", "");
    wait_claim("other-token");
    let written = fs::read_to_string(&log).unwrap();
    let (done, read) = (written.find("task done task_id=hup-1"), written.find("read the settings again"));
    assert!(done.is_some() && done < read, "{written}");
    assert!(!fs::read_to_string(&old).unwrap().contains("read again"));

    // Wrong ones change nothing, also where the request comes during a short task, whose runner has a connection left.
    server.wait_parked();
    for name in ["go", "pid"] {
        fs::remove_file(runner.machine.path(name)).unwrap();
    }
    server.offer(&task("hup-2"));
    runner.wait_file("pid");
    fs::write(&settings, "runner: {mode: sometimes}\n").unwrap();
    runner.signal(Signal::HUP);
    poll("a second request to wait for the task", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        if log.matches("the settings are read again after the running task").count() == 2 {
            Ok(())
        } else {
            Err(log)
        }
    });
    runner.machine.file("go", "");
    wait_log("the settings stay as they were: ");
    server.wait_parked();
    // A parked claim makes way for others, and for a level of the log.
    fs::write(&settings, text.replace("class-token", "third-token") + "  level: debug\n").unwrap();
    runner.signal(Signal::HUP);
    wait_claim("third-token");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
fn signals_for_the_whole_service_do_not_end_a_task() {
    let server = ControlPlane::start();
    let machine = Machine::new(&server.url());
    let go = machine.path("go");
    let mut runner = machine.start();
    // Steps are of the job, and take signals as they like.
    let step = format!(
        "trap : HUP USR2; echo $PPID; while ! test -e '{}'; do sleep 0.02; done; echo ended",
        go.display()
    );
    server.offer(&task_of("all-1", &[&step]));
    let agent: i32 = poll("output of the step", || {
        let output = server.output("all-1", 1);
        output.trim().parse().map_err(|_| output)
    });
    let agent = rustix::process::Pid::from_raw(agent).unwrap();
    for signal in [Signal::HUP, Signal::USR2] {
        rustix::process::kill_process(agent, signal).unwrap();
    }
    fs::write(go, "").unwrap();
    let finished = server.wait_finished("all-1");
    assert_eq!(finished["status"], "success", "{finished}");
    runner.term();
    assert_eq!(runner.wait(), Some(0));
}

#[test]
#[cfg(feature = "server")]
fn a_control_plane_says_that_it_listens_and_shows_a_new_certificate() {
    use crate::support::pki::Authority;
    use crate::support::processes::{end, signal, wait_end};
    use runlet::http::{Body, Client, Endpoint, Request};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let manager = Manager::at(&path("notify"));
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let renew = |authority: &Authority| {
        let issued = authority.issue("127.0.0.1", |_| {});
        fs::write(path("chain.pem"), issued.certificate).unwrap();
        fs::write(path("key.pem"), issued.key).unwrap();
    };
    renew(&first);
    /// Ended with the value.
    struct Plane(std::process::Child);
    impl Drop for Plane {
        fn drop(&mut self) {
            end(&mut self.0);
        }
    }
    let child = Command::new(RUNLET)
        .args(["server", "--listen", "127.0.0.1:0", "--data"])
        .arg(path("data"))
        .arg("--tls-cert")
        .arg(path("chain.pem"))
        .arg("--tls-key")
        .arg(path("key.pem"))
        .envs([("NOTIFY_SOCKET", path("notify").to_str().unwrap()), ("WATCHDOG_USEC", "40000")])
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(path("log")).unwrap())
        .spawn()
        .unwrap();
    let mut plane = Plane(child);
    manager.wait("READY=1\nSTATUS=listening on https://127.0.0.1:");
    manager.wait("WATCHDOG=1");
    let heard = manager.heard();
    let url = heard.split("listening on ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let shows = |authority: &Authority| {
        fs::write(path("ca.pem"), &authority.pem).unwrap();
        let endpoint = Endpoint { url: url.clone(), ca_file: Some(path("ca.pem")), client_certificate: None };
        let timeout = std::time::Duration::from_secs(60);
        let request = Request { method: "GET", path: "/live", token: None, body: Body::Empty, timeout };
        Client::new(&endpoint).unwrap().bytes(&request).is_ok()
    };
    assert!(shows(&first) && !shows(&second));
    let wait_log = |text: &str| {
        poll(text, || {
            let log = fs::read_to_string(path("log")).unwrap();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    };
    // A file that is not there, or does not fit, changes nothing.
    fs::write(path("key.pem"), "").unwrap();
    signal(plane.0.id(), Signal::HUP);
    wait_log("the certificate stays what it was");
    assert!(shows(&first));
    renew(&second);
    signal(plane.0.id(), Signal::HUP);
    wait_log("read the certificate again");
    assert!(shows(&second) && !shows(&first));
    signal(plane.0.id(), Signal::TERM);
    manager.wait("STOPPING=1");
    assert!(wait_end(&mut plane.0).success());
}
