//! The results that stay: artifacts and test results in a folder, and the summary table.

use super::render::Screen;
use super::style::seconds;
use crate::http::{Body, Client, Request};
use crate::protocol::Secret;
use crate::server::Running;
use crate::terminal::plain;
use serde::Deserialize;
use std::collections::BTreeSet;
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
    #[serde(default)]
    file: Option<String>,
    /// File and line of a failure.
    #[serde(skip)]
    place: Option<String>,
}

/// So many failed tests are shown, and so many lines of what each says.
const MOST_TESTS: usize = 50;
const MOST_LINES: usize = 10;
/// Longest line of a message, in characters.
const LONGEST_LINE: usize = 1000;

/// Folders of the results, below the one that was chosen.
const ARTIFACTS: &str = "artifacts";
const TEST_RESULTS: &str = "test-results";
/// Says that these folders are a run's, and may be replaced by the next.
const MARKER: &str = ".runlet-results";

/// The folder of results.
pub(super) struct Folder {
    path: PathBuf,
    /// Chosen by nobody: hidden from git.
    own: bool,
}

impl Folder {
    /// The folder that was asked for, else `.runlet` of the repository. Refuses one where results would be
    /// mixed with files of somebody else.
    pub(super) fn open(chosen: Option<&Path>, root: &Path) -> Result<Self, String> {
        let path = chosen.map_or_else(|| root.join(".runlet"), Path::to_owned);
        let folder = Self { path, own: chosen.is_none() };
        if folder.path.exists() && !folder.path.is_dir() {
            return Err(format!(
                "results cannot go to `{}`, which is no folder: name one with `--artifacts`",
                folder.path.display()
            ));
        }
        let taken = [ARTIFACTS, TEST_RESULTS].map(|name| folder.path.join(name));
        match taken.iter().find(|path| path.exists() && !folder.is_marked()) {
            Some(taken) => Err(format!(
                "`{}` is there already and not from an earlier run: move it, or name another folder with `--artifacts`",
                taken.display()
            )),
            None => Ok(folder),
        }
    }

    fn is_marked(&self) -> bool {
        self.path.join(MARKER).exists()
    }

    /// Removes what an earlier run left.
    fn clear(&self) -> Result<(), String> {
        for path in [ARTIFACTS, TEST_RESULTS].map(|name| self.path.join(name)) {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!(
                        "failed to remove the results of an earlier run, `{}`: {error}",
                        path.display()
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes it, once there is something to keep.
    fn prepare(&self) -> Result<(), String> {
        if self.is_marked() {
            return Ok(());
        }
        write(&self.path.join(MARKER), b"Results of `runlet exec`. The next run replaces them.\n")?;
        if self.own { write(&self.path.join(".gitignore"), b"*\n") } else { Ok(()) }
    }
}

/// The outcome of the pipeline.
pub(super) struct Summary {
    /// Failed tests, the table of jobs, and where the artifacts are.
    pub text: String,
    /// Results that could not be kept, a sentence each.
    pub lost: Vec<String>,
}

/// Fetches the results of all jobs into `folder` and sums them up. What an earlier run left there goes
/// first: it would pass for results of this one.
pub(super) fn collect(
    running: &Running,
    client: &Client,
    token: &Secret,
    screen: &Screen,
    folder: &Folder,
) -> Result<Summary, String> {
    folder.clear()?;
    let mut names = BTreeSet::new();
    let mut lost = Vec::new();
    let mut table = vec![["job", "status", "time", "tests", "artifacts"].map(str::to_owned)];
    let (mut failures, mut reasons) = (Vec::new(), Vec::new());
    let mut stored = 0;
    for (id, job) in screen.jobs() {
        let took = match (job.started_at_ms, job.ended_at_ms) {
            (Some(started), Some(ended)) => seconds(ended.saturating_sub(started)),
            _ => String::new(),
        };
        let artifacts: Artifacts = get(client, token, &format!("/api/v3/jobs/{id}/artifacts"))
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()))?;
        let shown = screen.name_of(job);
        let name = own_name(&shown, &mut names);
        let place = folder.path.join(ARTIFACTS).join(&name);
        let several = artifacts.data.iter().any(|artifact| artifact.attributes.execution > 0);
        for artifact in &artifacts.data {
            let Attributes { path, url, execution } = &artifact.attributes;
            let place = if several { place.join(execution.to_string()) } else { place.clone() };
            let kept = inside(&place, path)
                .ok_or_else(|| "it would leave its folder".to_owned())
                .and_then(|target| folder.prepare().and_then(|()| download(client, token, url, &target)));
            match kept {
                Ok(()) => stored += 1,
                Err(why) => lost.push(format!("the artifact `{path}` of {} is not kept: {why}", job.name)),
            }
        }
        let lines = get(client, token, &format!("/api/v3/jobs/{id}/tests"))?;
        let mut tests: Vec<Test> = serde_json::Deserializer::from_slice(&lines)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        if !tests.is_empty() {
            let target = folder.path.join(TEST_RESULTS).join(format!("{name}.ndjson"));
            folder.prepare().and_then(|()| write(&target, &lines)).unwrap_or_else(|why| {
                lost.push(format!("the test results of {} are not kept: {why}", job.name));
            });
        }
        let count = |result: &str| tests.iter().filter(|test| test.result == result).count();
        let mut counts = Vec::new();
        for (result, word) in [("success", "passed"), ("failure", "failed"), ("skipped", "skipped")] {
            if count(result) > 0 {
                counts.push(format!("{} {word}", count(result)));
            }
        }
        let failed = tests.iter_mut().filter(|test| test.result == "failure");
        let places = running.places_of_failed_tests(id).map_err(|e| e.to_string())?;
        failures.extend(failed.zip(places).map(|(test, place)| {
            test.place = place;
            test.failure(&shown)
        }));
        let kept = if artifacts.data.is_empty() { String::new() } else { artifacts.data.len().to_string() };
        // It may have failed for something that it went without.
        if let Some(remark) = job.remark.as_ref().filter(|remark| job.message.as_ref() != Some(*remark)) {
            reasons.push(format!("{shown}: {remark}\n"));
        }
        // The end of a job that ran is told with its steps.
        if let Some(why) =
            job.message.as_ref().filter(|_| job.started_at_ms.is_none() || job.status == "success")
        {
            reasons.push(format!("{shown}: {why}\n"));
        }
        table.push([shown, job.status.replace('_', " "), took, counts.join(", "), kept]);
    }
    let mut text = String::from("\n");
    text.push_str(&screen.failures());
    let more = failures.len().saturating_sub(MOST_TESTS);
    failures.truncate(MOST_TESTS);
    text.push_str(&failures.concat());
    if more > 0 {
        let place = folder.path.join(TEST_RESULTS);
        text.push_str(&format!("and {more} failed tests more, in `{}`\n", place.display()));
    }
    if text.len() > 1 {
        text.push('\n');
    }
    text.push_str(&draw(&table));
    text.push_str(&reasons.concat());
    if stored > 0 {
        text.push_str(&format!("artifacts: {}\n", folder.path.join(ARTIFACTS).display()));
    }
    Ok(Summary { text, lost })
}

impl Test {
    /// The place of a failed test and what it said.
    fn failure(&self, job: &str) -> String {
        let place = self
            .place
            .as_ref()
            .or(self.file.as_ref())
            .into_iter()
            .chain(Some(&self.classname).filter(|class| !class.is_empty()));
        let place: String = place.map(|part| format!("{part} ")).collect();
        // Tests write what they like, and whoever opens a pull request writes tests.
        let clean = |line: &str| {
            let line: String = line.chars().take(LONGEST_LINE).collect();
            plain(&line).replace(['\r', '\n'], " ").trim_end().to_owned() + "\n"
        };
        let mut lines = self.message.lines();
        let first = lines.next().unwrap_or_default();
        let mut text = clean(&format!("failed test in {job}: {place}{}: {first}", self.name));
        for line in lines.take(MOST_LINES - 1) {
            text.push_str(&format!("    {}", clean(line)));
        }
        text
    }
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

/// The path below `place`, unless it would leave it.
fn inside(place: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| place.join(path))
}

/// A folder for the job alone: jobs of two workflows may share their name.
fn own_name(job: &str, taken: &mut BTreeSet<String>) -> String {
    let name = safe_name(job);
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let own =
        std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name);
    taken.insert(own.clone());
    own
}

/// A job name as one part of a path.
fn safe_name(name: &str) -> String {
    let clean: String =
        name.chars().map(|c| if c.is_alphanumeric() || "-_.+ ".contains(c) { c } else { '_' }).collect();
    if clean.chars().all(|c| c == '.') { "_".to_owned() } else { clean }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
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
    fn jobs_of_the_same_name_do_not_share_a_folder() {
        let mut taken = BTreeSet::new();
        let names = ["build", "a/b", "build", "a:b", "build"].map(|job| own_name(job, &mut taken));
        assert_eq!(names, ["build", "a_b", "build-2", "a_b-2", "build-3"]);
    }

    #[test]
    fn what_a_test_says_moves_nothing() {
        let message = format!("\x1b[31mred\x1b[2J\n{}", "x".repeat(2 * LONGEST_LINE));
        let test: Test = serde_json::from_value(serde_json::json!({
            "name": "t\x07\rx", "classname": "c", "result": "failure", "message": message
        }))
        .unwrap();
        let long = "x".repeat(LONGEST_LINE);
        let expected = format!("failed test in job: c t\u{fffd} x: red\u{fffd}[2J\n    {long}\n");
        assert_eq!(test.failure("job"), expected);
    }

    #[test]
    fn columns_line_up() {
        let table = [["job", "status", "", "", ""], ["long name", "ok", "", "1 passed", ""]]
            .map(|row| row.map(str::to_owned));
        assert_eq!(draw(&table), "job        status\nlong name  ok        1 passed\n");
    }
}
