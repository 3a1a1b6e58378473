//! The results that stay: artifacts and test results in a folder, and the summary table.

use super::render::Screen;
use super::style::seconds;
use crate::http::Client;
use crate::protocol::Secret;
use crate::server::{Running, StoredArtifact};
use crate::terminal::plain;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};

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

/// Most failed tests that are shown, and most lines of what each says.
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
    /// Sentences about what else went wrong while it was made: none of that is about how jobs ended.
    pub notes: Vec<String>,
}

/// Puts the results of all jobs into `folder` and sums them up. What an earlier run left there goes first: it would pass
/// for results of this one.
pub(super) fn collect(
    running: &Running,
    client: &Client,
    token: &Secret,
    screen: &Screen,
    folder: &Folder,
) -> Summary {
    let mut collector = Collector {
        running,
        client,
        token,
        folder,
        cleared: folder.clear(),
        stored: 0,
        lost: Vec::new(),
        notes: Vec::new(),
        failures: Vec::new(),
        more_failures: 0,
    };
    if let Err(why) = &collector.cleared {
        collector.notes.push(why.clone());
    }
    let mut names = BTreeSet::new();
    let mut table = vec![["job", "status", "time", "tests", "artifacts"].map(str::to_owned)];
    let mut reasons = Vec::new();
    for (id, job) in screen.jobs() {
        let took = match (job.started_at_ms, job.ended_at_ms) {
            (Some(started), Some(ended)) => seconds(ended.saturating_sub(started)),
            _ => String::new(),
        };
        let shown = screen.name_of(job);
        let name = own_name(&shown, &mut names);
        let kept = collector.artifacts(id, &shown, &name);
        let counts = collector.tests(id, &shown, &name);
        // The job may have failed for something that it went without.
        if let Some(remark) = job.remark.as_ref().filter(|remark| job.message.as_ref() != Some(*remark)) {
            reasons.push(format!("{shown}: {remark}\n"));
        }
        // The end of a job that ran is told with its steps.
        if let Some(why) =
            job.message.as_ref().filter(|_| job.started_at_ms.is_none() || job.status == "success")
        {
            reasons.push(format!("{shown}: {why}\n"));
        }
        table.push([shown, job.status.replace('_', " "), took, counts, kept]);
    }
    let Collector { failures, more_failures, stored, lost, notes, .. } = collector;
    let mut text = String::from("\n");
    text.push_str(&screen.failures());
    text.push_str(&failures.concat());
    if more_failures > 0 {
        let place = folder.path.join(TEST_RESULTS);
        text.push_str(&format!("and {more_failures} failed tests more, in `{}`\n", place.display()));
    }
    if text.len() > 1 {
        text.push('\n');
    }
    text.push_str(&draw(&table));
    text.push_str(&reasons.concat());
    if stored > 0 {
        text.push_str(&format!("artifacts: {}\n", folder.path.join(ARTIFACTS).display()));
    }
    Summary { text, lost, notes }
}

/// Takes results out of the control plane, job by job.
struct Collector<'a> {
    running: &'a Running,
    client: &'a Client,
    token: &'a Secret,
    folder: &'a Folder,
    /// Whether the folder can have results of this run.
    cleared: Result<(), String>,
    /// Artifacts that are kept.
    stored: usize,
    lost: Vec<String>,
    notes: Vec<String>,
    /// Messages of the first failed tests.
    failures: Vec<String>,
    /// Failed tests beyond these.
    more_failures: usize,
}

impl Collector<'_> {
    /// Makes the folder ready to keep something.
    fn prepare(&self) -> Result<(), String> {
        self.cleared.clone().and_then(|()| self.folder.prepare())
    }

    /// Keeps the artifacts of a job. Returns how many it has, in words.
    fn artifacts(&mut self, id: &str, shown: &str, name: &str) -> String {
        let artifacts = self.running.artifacts(id).unwrap_or_else(|error| {
            self.notes.push(format!("failed to list the artifacts of {shown}: {error}"));
            Vec::new()
        });
        let place = self.folder.path.join(ARTIFACTS).join(name);
        let several = artifacts.iter().any(|artifact| artifact.execution > 0);
        for StoredArtifact { path, url, execution } in &artifacts {
            let place = if several { place.join(execution.to_string()) } else { place.clone() };
            let kept = inside(&place, path).ok_or_else(|| "it would leave its folder".to_owned()).and_then(
                |target| self.prepare().and_then(|()| download(self.client, self.token, url, &target)),
            );
            match kept {
                Ok(()) => self.stored += 1,
                Err(why) => self.lost.push(format!("the artifact `{path}` of {shown} is not kept: {why}")),
            }
        }
        if artifacts.is_empty() { String::new() } else { artifacts.len().to_string() }
    }

    /// Keeps the test results of a job, and what the first failed ones said. Returns how many there are of each, in words.
    fn tests(&mut self, id: &str, shown: &str, name: &str) -> String {
        let target = self.folder.path.join(TEST_RESULTS).join(format!("{name}.ndjson"));
        let mut file = None;
        let mut counts = [("success", "passed", 0), ("failure", "failed", 0), ("skipped", "skipped", 0)];
        let read = self.running.each_test(id, &mut |said, place| {
            let file =
                file.get_or_insert_with(|| self.prepare().and_then(|()| create(&target)).map(BufWriter::new));
            if let Ok(out) = file {
                if let Err(error) = writeln!(out, "{said}") {
                    *file = Err(unwritten(&target)(error));
                }
            }
            let Ok(test) = Test::deserialize(said) else { return };
            for (result, _, count) in &mut counts {
                *count += usize::from(test.result == *result);
            }
            match (test.result == "failure", self.failures.len() < MOST_TESTS) {
                (true, true) => self.failures.push(Test { place, ..test }.failure(shown)),
                (true, false) => self.more_failures += 1,
                (false, _) => {}
            }
        });
        if let Err(error) = read {
            self.notes.push(format!("failed to read the test results of {shown}: {error}"));
        }
        let kept = file.map(|file| file.and_then(|mut out| out.flush().map_err(unwritten(&target))));
        if let Some(Err(why)) = kept {
            self.lost.push(format!("the test results of {shown} are not kept: {why}"));
        }
        let counts = counts.iter().filter(|(_, _, count)| *count > 0);
        counts.map(|(_, word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    }
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
        // Reports keep the sentence and the text that follows it apart; here the indent does.
        for line in lines.skip_while(|line| line.trim().is_empty()).take(MOST_LINES - 1) {
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

fn download(client: &Client, token: &Secret, url: &str, target: &Path) -> Result<(), String> {
    let mut body = client.open(url, token).map_err(|e| e.to_string())?;
    let mut file = create(target)?;
    io::copy(&mut body, &mut file).map(drop).map_err(unwritten(target))
}

fn write(target: &Path, bytes: &[u8]) -> Result<(), String> {
    create(target)?.write_all(bytes).map_err(unwritten(target))
}

/// Makes a file, and the folders that it is in.
fn create(target: &Path) -> Result<File, String> {
    let made = target.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| File::create(target)).map_err(unwritten(target))
}

fn unwritten(target: &Path) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("failed to write `{}`: {error}", target.display())
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
        let message = format!("\x1b[31mred\x1b[2J\n\n{}", "x".repeat(2 * LONGEST_LINE));
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
