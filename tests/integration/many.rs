//! Two hundred pipelines through eight runners: every byte arrives, and no process stays, although some
//! steps do what they can to leave one.

use crate::server::{MARK, Runner, Server, config, expected};
use crate::support::processes::{marked, signal};
use rustix::process::Signal;
use std::time::Duration;

const PIPELINES: usize = 200;
const LINES: u32 = 500;
/// Longest that they may take: the first pipeline may well be the last to end.
const LONGEST: Duration = Duration::from_secs(1800);

/// Besides the jobs of [`config`], one whose steps leave processes that are hard to end, and one whose task
/// agent is killed, so that its runner has to end them. `mark` is found in every one of them.
fn leaving(lines: u32, mark: &str) -> String {
    let jobs = r#"
  leaves:
    machine: true
    resource_class: acme/linux
    steps:
      - run: {name: beside, background: true, command: sleep 86400}
      - run: &leave |
          (trap '' TERM; exec sleep 86400) > /dev/null 2>&1 &
          echo $! > left
          setsid sleep 86400 > /dev/null 2>&1 &
          echo $! >> left
          setsid sh -c 'trap "" TERM HUP INT; sleep 86400 & wait; sleep 86400; sleep 86400' &
          echo $! >> left
          setsid env -i /bin/sh -c 'trap "" TERM; sleep 86400; : THE_MARK' > /dev/null 2>&1 &
          echo $! >> left
          until tr '\0' ' ' < /proc/$!/cmdline | grep -q '^/bin/sh .*THE_MARK'; do sleep 0.01; done
      - run: for pid in $(cat left); do kill -0 $pid; echo alive; done
  dies:
    machine: true
    resource_class: acme/linux
    steps:
      - run: *leave
      - run: kill -KILL $PPID; sleep 86400
"#;
    let text =
        config(lines).replace("workflows:\n", &format!("{}workflows:\n", jobs.trim_start_matches('\n')));
    text.replace("      - e\n", "      - e\n      - leaves\n      - dies\n").replace("THE_MARK", mark)
}

#[test]
fn many_pipelines_through_many_runners_lose_and_leave_nothing() {
    let server = Server::start();
    server.project();
    let mark = server.folder.path().display().to_string();
    let token = server.class_token("acme/linux");
    let runners: Vec<Runner> = (0..8).map(|n| server.runner(&format!("r{n}"), &token)).collect();
    let config_of = |n| if n % 20 == 7 { leaving(LINES, &mark) } else { config(LINES) };
    let pipelines: Vec<String> = (0..PIPELINES).map(|n| server.trigger(&config_of(n))).collect();
    for (n, pipeline) in pipelines.iter().enumerate() {
        let jobs = server.ended_within(LONGEST, pipeline);
        assert_eq!(jobs.len(), if n % 20 == 7 { 7 } else { 5 });
        for job in jobs {
            let name = job["name"].as_str().unwrap();
            let status = if name == "dies" { "infrastructure_fail" } else { "success" };
            assert_eq!(job["status"], status, "{job}");
            match name {
                "dies" => {}
                "leaves" => assert_eq!(server.output(&job, 3), "alive\n".repeat(4), "{job}"),
                _ => assert_eq!(server.output(&job, 1), expected(name, LINES)),
            }
        }
    }
    // Runners are found by the mark: so would be whatever they left.
    for runner in &runners {
        assert!(marked(MARK, &mark).iter().any(|process| process.pid == runner.0.id()));
    }
    for runner in &runners {
        signal(runner.0.id(), Signal::TERM);
    }
    for mut runner in runners {
        assert!(runner.0.wait().unwrap().success(), "a drained runner ends well");
    }
    let left: Vec<_> =
        marked(MARK, &mark).into_iter().filter(|process| process.pid != server.child.id()).collect();
    // Not by this test either, when it fails.
    left.iter().for_each(|process| signal(process.pid, Signal::KILL));
    assert!(left.is_empty(), "processes were left behind: {left:?}");
}
