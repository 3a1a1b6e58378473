//! What stays: artifacts and test results in a folder, and the summary table.

use super::render::{Screen, seconds};
use crate::http::{Body, Client, Request};
use crate::protocol::Secret;
use serde::Deserialize;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

#[derive(Deserialize)]
struct Artifacts {
    data: Vec<Artifact>,
}

#[derive(Deserialize)]
struct Artifact {
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    path: String,
    url: String,
    execution: u32,
}

#[derive(Deserialize)]
struct Test {
    classname: String,
    name: String,
    result: String,
    message: String,
}

/// Fetches the results of all jobs into `folder` and returns the summary. A folder of our own choosing
/// hides itself from git.
pub(super) fn collect(
    client: &Client,
    token: &Secret,
    screen: &Screen,
    folder: &Path,
    own: bool,
) -> Result<String, String> {
    let mut table = vec![["job", "status", "time", "tests", "artifacts"].map(str::to_owned)];
    let mut failures = Vec::new();
    let mut stored = 0;
    for (id, job) in screen.jobs() {
        let took = match (job.started_at_ms, job.ended_at_ms) {
            (Some(started), Some(ended)) => seconds(ended.saturating_sub(started)),
            _ => String::new(),
        };
        let artifacts: Artifacts = get(client, token, &format!("/api/v3/jobs/{id}/artifacts"))
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()))?;
        let place = folder.join("artifacts").join(safe_name(&job.name));
        for artifact in &artifacts.data {
            let Attributes { path, url, execution } = &artifact.attributes;
            let several = artifacts.data.iter().any(|other| other.attributes.execution > 0);
            let place = if several { place.join(execution.to_string()) } else { place.clone() };
            let target = inside(&place, path)
                .ok_or_else(|| format!("the artifact `{path}` would leave its folder"))?;
            prepare(folder, own)?;
            download(client, token, url, &target)?;
            stored += 1;
        }
        let lines = get(client, token, &format!("/api/v3/jobs/{id}/tests"))?;
        let tests: Vec<Test> = serde_json::Deserializer::from_slice(&lines)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        if !tests.is_empty() {
            prepare(folder, own)?;
            let target = folder.join("test-results").join(format!("{}.ndjson", safe_name(&job.name)));
            write(&target, &lines)?;
        }
        let count = |result: &str| tests.iter().filter(|test| test.result == result).count();
        let mut counts = Vec::new();
        for (result, word) in [("success", "passed"), ("failure", "failed"), ("skipped", "skipped")] {
            if count(result) > 0 {
                counts.push(format!("{} {word}", count(result)));
            }
        }
        for test in tests.iter().filter(|test| test.result == "failure") {
            let first = test.message.lines().next().unwrap_or_default();
            let class =
                if test.classname.is_empty() { String::new() } else { format!("{} ", test.classname) };
            failures.push(format!("failed test in {}: {class}{}: {first}\n", job.name, test.name));
        }
        let kept = if artifacts.data.is_empty() { String::new() } else { artifacts.data.len().to_string() };
        table.push([job.name.clone(), job.status.replace('_', " "), took, counts.join(", "), kept]);
    }
    let mut text = String::from("\n");
    text.push_str(&failures.concat());
    text.push_str(&draw(&table));
    if stored > 0 {
        text.push_str(&format!("artifacts: {}\n", folder.join("artifacts").display()));
    }
    Ok(text)
}

fn draw(table: &[[String; 5]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn get(client: &Client, token: &Secret, path: &str) -> Result<Vec<u8>, String> {
    let timeout = Duration::from_secs(60);
    let request = Request { method: "GET", path, token: Some(token), body: Body::Empty, timeout };
    let answer = client.send(&request).map_err(|e| e.to_string())?;
    if answer.status == 200 {
        Ok(answer.body)
    } else {
        Err(format!("GET `{path}` was refused with status {}", answer.status))
    }
}

fn download(client: &Client, token: &Secret, url: &str, target: &Path) -> Result<(), String> {
    let mut body = client.open(url, token).map_err(|e| e.to_string())?;
    let fail = |e: io::Error| format!("failed to write `{}`: {e}", target.display());
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    let mut file = File::create(target).map_err(fail)?;
    io::copy(&mut body, &mut file).map_err(fail)?;
    Ok(())
}

fn write(target: &Path, bytes: &[u8]) -> Result<(), String> {
    let fail = |e: io::Error| format!("failed to write `{}`: {e}", target.display());
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    fs::write(target, bytes).map_err(fail)
}

fn prepare(folder: &Path, own: bool) -> Result<(), String> {
    let ignore = folder.join(".gitignore");
    if own && !ignore.exists() { write(&ignore, b"*\n") } else { Ok(()) }
}

/// The path below `place`, unless it would leave it.
fn inside(place: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| place.join(path))
}

/// A job name as one part of a path.
fn safe_name(name: &str) -> String {
    let clean: String =
        name.chars().map(|c| if c.is_alphanumeric() || "-_.+ ".contains(c) { c } else { '_' }).collect();
    if clean.chars().all(|c| c == '.') { "_".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside(Path::new("/p"), "a/b"), Some(PathBuf::from("/p/a/b")));
        assert_eq!(inside(Path::new("/p"), "../b"), None);
        assert_eq!(inside(Path::new("/p"), "/b"), None);
        assert_eq!((safe_name("a/b:c"), safe_name("..")), ("a_b_c".to_owned(), "_".to_owned()));
    }

    #[test]
    fn columns_line_up() {
        let table = [["job", "status", "", "", ""], ["long name", "ok", "", "1 passed", ""]]
            .map(|row| row.map(str::to_owned));
        assert_eq!(draw(&table), "job        status\nlong name  ok        1 passed\n");
    }
}
