//! Deliveries of a forge to a control plane that is killed meanwhile, many of them twice and in any order: each push is
//! one pipeline.
//!
//! 300 deliveries, or RUNLET_DELIVERIES of them, ten of each push; RUNLET_SEED repeats a run's order. `ci/deliveries` sends
//! thousands.

use crate::forge::{NONE, push, signed};
use crate::repositories::Work;
use crate::server::{ANSWER, Server, runlet};
use crate::support::{DEADLINE, poll_within, ports};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Deliveries of one push: half of them with the id of the first, the others with an id of their own.
const OF_EACH: usize = 10;

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Sends a delivery as GitHub does; its status, or nothing when nobody answered.
fn deliver(address: &str, path: &str, id: &str, signature: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: {signature}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Makes a branch with a commit of its own for each push; their names and commits.
fn branches(work: &Work, folder: &std::path::Path, count: usize) -> Vec<(String, String)> {
    let root = work.git(&["rev-parse", "HEAD"]);
    let mut stream = String::new();
    for number in 0..count {
        stream.push_str(&format!(
            "commit refs/heads/b{number}\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 2\nb\n\nfrom {root}\nM 100644 inline number\ndata {}\n{number}\n\n",
            number.to_string().len()
        ));
    }
    let mut import = Command::new("git")
        .current_dir(folder.join("repositories/work"))
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    let listed = work.git(&["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/b*"]);
    listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, id)| (name.into(), id.into()))
        .collect()
}

#[test]
fn each_push_is_one_pipeline_whatever_happens_to_the_control_plane() {
    let wanted = number_of("RUNLET_DELIVERIES").unwrap_or(300) as usize;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number_of("RUNLET_SEED").unwrap_or(now.as_nanos() as u64 | 1);
    println!("RUNLET_SEED={seed}");
    let mut state = seed;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };

    let held = ports::hold();
    let address = held.address().to_string();
    let mut server = Server::start_with(&["--listen", &address], None);
    server.project();
    let work = Work::new(server.folder.path());
    let config =
        json!({ "version": 2.1, "workflows": { "w": { "jobs": [{ "hold": { "type": "approval" } }] } } });
    work.commit_config(&config.to_string(), "main");
    let branches = branches(&work, server.folder.path(), wanted.div_ceil(OF_EACH));
    server.register(&work.url());
    let (path, secret) = server.connect(json!({})).parts();

    let mut deliveries = Vec::new();
    for (at, (name, commit)) in branches.iter().enumerate() {
        let body = push(name, NONE, commit).to_string();
        let signature = signed(&secret, &body);
        for copy in 0..OF_EACH {
            let id = if copy % 2 == 0 { format!("push-{at}") } else { format!("push-{at}-{copy}") };
            deliveries.push((id, signature.clone(), body.clone()));
        }
    }
    // The last one that was not moved yet goes to any place before it, or stays.
    for at in (1..deliveries.len()).rev() {
        deliveries.swap(at, below(at + 1));
    }
    let kills: Vec<usize> = (1..=4).map(|part| deliveries.len() * part / 5 + below(10)).collect();
    let (rest, taken) = (Mutex::new(deliveries), AtomicUsize::new(0));
    let total = rest.lock().unwrap().len();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((id, signature, body)) = rest.lock().unwrap().pop() else { return };
                    // A forge that redelivers until it is told that it was taken.
                    poll_within(DEADLINE, "a delivery to be taken", || {
                        match deliver(&address, &path, &id, &signature, &body) {
                            Some(200 | 202) => Ok(()),
                            other => Err(format!("{other:?}")),
                        }
                    });
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for kill in kills {
            while taken.load(Ordering::Relaxed) < kill.min(total) {
                std::thread::sleep(Duration::from_millis(2));
            }
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            let mut command = runlet();
            command.arg("server").arg("--data").arg(server.data()).args(["--listen", &address]);
            server.child = command.stdout(Stdio::null()).spawn().unwrap();
        }
    });

    // Each branch has one pipeline, and nothing is left that would make another.
    let limit = DEADLINE + Duration::from_millis(500 * branches.len() as u64);
    let built = poll_within(limit, "a pipeline for each push", || {
        let mut built: BTreeMap<String, u32> = BTreeMap::new();
        let mut next = String::new();
        loop {
            let path = format!("/api/v2/project/gh/acme/hello/pipeline?page-token={next}");
            let (status, page) = server.answer("GET", &path, None);
            assert_eq!(status, 200, "{page}");
            for pipeline in page["items"].as_array().unwrap() {
                *built.entry(pipeline["vcs"]["branch"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            match page["next_page_token"].as_str() {
                Some(token) => next = token.to_owned(),
                None => break,
            }
        }
        if built.len() == branches.len() {
            Ok(built)
        } else {
            Err(format!("{} of {}", built.len(), branches.len()))
        }
    });
    server.worked_off();
    assert!(built.values().all(|count| *count == 1), "{built:?}");
    println!("{total} deliveries of {} pushes, 4 kills: {} pipelines", branches.len(), built.len());
}
