//! Compares what happened with the lines of `expect`.

use super::Stage;
use super::expect::Line;
use crate::support::seen::{Seen, SeenJob};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use std::io::Read;

/// `exit: CODE`, `terminal has: TEXT`, `terminal lacks: TEXT`, `terminal file PATH: TEXT`.
pub(super) fn terminal(stage: &Stage<'_>, (code, text): &(i32, String)) {
    for line in &stage.lines {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let good = match words[..] {
            ["exit"] => *code == line.value.parse::<i32>().unwrap(),
            ["terminal", "has"] => text.contains(&line.value),
            ["terminal", "lacks"] => !text.contains(&line.value),
            ["terminal", "file", path] => {
                let path = stage.directory.path().join("results").join(path);
                std::fs::read(path).is_ok_and(|bytes| bytes == line.value.as_bytes())
            }
            _ => true,
        };
        assert!(good, "{}; exit code {code}, the terminal:\n{text}", unmet(line));
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// Checks the pipeline, its jobs, steps and log.
pub(super) fn pipeline(stage: &Stage<'_>, created: &Value, seen: &Seen, log: &str) {
    let state = created["state"].as_str().unwrap_or_default();
    let wanted = stage.values("pipeline").next().unwrap_or("created");
    assert_eq!(state, wanted, "{created}");
    for line in &stage.lines {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let value = line.value.as_str();
        let good = match words[..] {
            ["error"] => created["errors"].to_string().contains(&json_text(value)),
            ["job", name] => seen.job(name).status == value,
            ["job", name, "says"] => seen.job(name).message.contains(value),
            ["steps", name] => titles(seen.job(name)) == value,
            ["step", job, title] => step(seen, job, title, value),
            ["step", job, title, "says"] => found(seen, job, title).message.contains(value),
            ["output", job, title, ref how @ ..] => {
                let output = &found(seen, job, title).output;
                match how {
                    [] => output == value.as_bytes(),
                    ["has"] => contains(output, value),
                    ["lacks"] => !contains(output, value),
                    ["bytes"] => output.len().to_string() == value,
                    ["sum"] => sum(output) == value,
                    _ => panic!("expect:{}: unknown words {words:?}", line.number),
                }
            }
            ["artifacts", job] => {
                // In any order: some are named after folders of this run.
                let names =
                    artifacts(stage, seen, job).into_iter().map(|a| a.0).collect::<Vec<_>>().join(" ");
                let sorted = |names: &str| {
                    let mut names: Vec<String> = names.split(' ').map(str::to_owned).collect();
                    names.sort_unstable();
                    names
                };
                sorted(&names) == sorted(value)
            }
            ["artifact", job, path, ref how @ ..] => {
                let all = artifacts(stage, seen, job);
                let (_, bytes) = all
                    .iter()
                    .find(|artifact| artifact.0 == path)
                    .unwrap_or_else(|| panic!("{}; there is no such artifact", unmet(line)));
                match how {
                    [] => bytes == value.as_bytes(),
                    ["sum"] => sum(bytes) == value,
                    _ => panic!("expect:{}: unknown words {words:?}", line.number),
                }
            }
            ["tests", job] => tests(stage, seen, job) == value,
            ["present"] => std::path::Path::new(value).exists(),
            ["absent"] => !std::path::Path::new(value).exists(),
            // The file names a file that should be gone.
            ["gone"] => !std::path::Path::new(std::fs::read_to_string(value).unwrap().trim()).exists(),
            ["log", "has"] => log.contains(value),
            ["log", "lacks"] => !log.contains(value),
            ["exit" | "exec" | "terminal" | "pipeline", ..] => true,
            ["trigger" | "variable" | "setting" | "runner-variable" | "runner-file" | "cancel-at"] => true,
            _ => panic!("expect:{}: unknown words {words:?}", line.number),
        };
        assert!(good, "{}; the runner's log:\n{log}\nseen:\n{seen}", unmet(line));
    }
    assert!(!log.contains("panicked"), "{log}");
    for job in &seen.jobs {
        for step in &job.steps {
            let path = format!(
                "/api/v3/jobs/{}/stdout?filter%5Bexecution%5D={}&filter%5Bstep_num%5D={}",
                job.id, step.execution, step.record
            );
            assert!(bytes(stage, &path) == step.output, "stored and streamed output differ: {}", step.name);
        }
    }
}

/// A body of any length.
fn bytes(stage: &Stage<'_>, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    stage.server.client.open(path, &stage.server.token).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn unmet(line: &Line) -> String {
    format!("expect:{} is not met: {}: {:?}", line.number, line.words.join(" "), line.value)
}

/// `STATUS`, `STATUS CODE`, and with `background` after them.
fn step(seen: &Seen, job: &str, title: &str, value: &str) -> bool {
    let step = found(seen, job, title);
    let mut words = value.split(' ');
    let status = words.next().unwrap_or_default();
    let mut good = step.status == status;
    for word in words {
        good &= match word {
            "background" => step.background,
            "no-code" => step.exit_code.is_none(),
            code => step.exit_code == Some(code.parse().unwrap()),
        };
    }
    good
}

#[track_caller]
fn found<'a>(seen: &'a Seen, job: &str, title: &str) -> &'a crate::support::seen::SeenStep {
    seen.job(job).step(title).unwrap_or_else(|| panic!("no step `{title}` in\n{seen}"))
}

/// `title, title#2`: the records of the config's steps in order.
fn titles(job: &SeenJob) -> String {
    let own = ["spinup_environment", "cleanup"];
    let mut steps: Vec<_> = job.steps.iter().filter(|step| !own.contains(&step.kind.as_str())).collect();
    // A watcher who comes late is told of a step in the background where it ended.
    steps.sort_by_key(|step| (step.execution, step.record));
    let titles = steps.into_iter().map(|step| match step.attempt {
        1 => step.name.clone(),
        n => format!("{}#{n}", step.name),
    });
    titles.collect::<Vec<_>>().join(", ")
}

fn contains(bytes: &[u8], text: &str) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn sum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json_text(text: &str) -> String {
    serde_json::to_string(text).unwrap().trim_matches('"').to_owned()
}

/// Paths and content, by path; of several nodes, `path@node`.
fn artifacts(stage: &Stage<'_>, seen: &Seen, job: &str) -> Vec<(String, Vec<u8>)> {
    let path = format!("/api/v3/jobs/{}/artifacts", seen.job(job).id);
    let listed: Value = serde_json::from_slice(&stage.server.text(&path)).unwrap();
    let mut all: Vec<_> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|artifact| {
            let attributes = &artifact["attributes"];
            let path = attributes["path"].as_str().unwrap();
            let name = match attributes["execution"].as_u64() {
                None | Some(0) => path.to_owned(),
                Some(node) => format!("{path}@{node}"),
            };
            let url = attributes["url"].as_str().unwrap();
            let url = url.strip_prefix(stage.server.client.url()).unwrap_or(url);
            (name, bytes(stage, url))
        })
        .collect();
    all.sort();
    all
}

/// `class/name=result` of each, in order.
fn tests(stage: &Stage<'_>, seen: &Seen, job: &str) -> String {
    let lines = stage.server.text(&format!("/api/v3/jobs/{}/tests", seen.job(job).id));
    let tests = serde_json::Deserializer::from_slice(&lines).into_iter::<Value>();
    let mut tests: Vec<_> = tests
        .map(|test| test.unwrap())
        .map(|test| {
            let text = |key: &str| test[key].as_str().unwrap_or_default().to_owned();
            format!("{}/{}={}", text("classname"), text("name"), text("result"))
        })
        .collect();
    tests.sort();
    tests.join(" ")
}
