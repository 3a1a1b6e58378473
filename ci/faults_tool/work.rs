//! The work that is done under faults: jobs whose every byte is known before.
//!
//! Every step that prints appends its name to a ledger before, so that one that ran twice is seen, and every line
//! is numbered. `NAME.STEP` is the name of a step; `NAME` is that of its job.

use std::fmt::Write;
use std::path::Path;

/// A step that prints: its record, and how many lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printing {
    pub(crate) record: u32,
    pub(crate) lines: u32,
}

/// Output of the first job of a pipeline, and of the second.
pub(crate) const FIRST: [Printing; 3] = [
    Printing { record: 1, lines: 600 },
    Printing { record: 2, lines: 20 },
    Printing { record: 7, lines: 12_000 },
];
pub(crate) const SECOND: [Printing; 1] = [Printing { record: 3, lines: 300 }];
/// Output of each node of the one that splits tests.
pub(crate) const SPLIT: [Printing; 1] = [Printing { record: 1, lines: 100 }];

/// Name of the job that splits tests: the same in all pipelines, since earlier runs of it are what it goes by.
pub(crate) const SPLITTER: &str = "split";

/// How the command line of a process begins that a step leaves behind.
pub(crate) const LEFT: &str = "/bin/sh -c while :;";

/// Bytes of the artifact: numbers from 1 to this.
const NUMBERS: u32 = 40_000;

/// A process that a step leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    Nothing,
    /// A process in a session of its own.
    Session,
    /// A process that has lost session, environment and both parents.
    Daemon,
}

/// How the work is done.
#[derive(Clone, Debug)]
pub(crate) struct Style<'a> {
    /// Folder of the ledger and of what was written.
    pub(crate) folder: &'a Path,
    pub(crate) class: &'a str,
    /// A process that the first step leaves behind.
    pub(crate) leaves: Leaves,
    /// Pause between pieces of the first step, in milliseconds.
    pub(crate) pause_ms: u32,
    /// Pieces of the first step; each is a twentieth of its lines, and those beyond print nothing new.
    pub(crate) pieces: u32,
    /// A third job splits tests by what they took: [`timings`] has to have run before.
    pub(crate) splits: bool,
}

/// A pipeline that stores what tests took: `a.rb` as long as all others together.
pub(crate) fn timings(class: &str) -> String {
    let case = |name: &str, seconds: u32| {
        format!("<testcase name=\"{name}\" file=\"{name}.rb\" time=\"{seconds}\"/>")
    };
    let cases = [case("a", 9), case("b", 4), case("c", 5)].concat();
    format!(
        "version: 2.1\njobs:\n  {SPLITTER}:\n    machine: true\n    resource_class: {class}\n    steps:\n      - run: echo '<testsuite>{cases}</testsuite>' > t.xml\n      - store_test_results: {{path: t.xml}}\nworkflows: {{w: {{jobs: [{SPLITTER}]}}}}\n"
    )
}

/// A pipeline of two jobs, `NAMEa` and `NAMEb`, and of `split` where its style says so, whose steps are of
/// `NAMEc0` and `NAMEc1`.
pub(crate) fn config(name: &str, style: &Style<'_>) -> String {
    let (first, second) = (format!("{name}a"), format!("{name}b"));
    let class = style.class;
    let mut text = format!(
        "version: 2.1\njobs:\n  {first}:\n    machine: true\n    resource_class: {class}\n    steps:\n"
    );
    run(&mut text, &first, FIRST[0], &format!("{}{}", leave(style), slowly(&first, style)));
    run(
        &mut text,
        &first,
        FIRST[1],
        &format!(
            "mkdir out\nseq 1 {NUMBERS} > out/numbers\necho '<testsuite><testcase name=\"t\"/></testsuite>' > out/t.xml\nseq -f '{first}.2 %.0f' 1 {}\n",
            FIRST[1].lines
        ),
    );
    text.push_str("      - persist_to_workspace: {root: ., paths: [out]}\n");
    let _ = writeln!(text, "      - save_cache: {{key: {name}, paths: [out]}}");
    text.push_str("      - store_artifacts: {path: out/numbers, destination: numbers}\n");
    text.push_str("      - store_test_results: {path: out/t.xml}\n");
    run(&mut text, &first, FIRST[2], &format!("seq -f '{first}.7 %.0f' 1 {}\n", FIRST[2].lines));
    let _ = write!(text, "  {second}:\n    machine: true\n    resource_class: {class}\n    steps:\n");
    text.push_str("      - attach_workspace: {at: got}\n");
    let _ = writeln!(text, "      - restore_cache: {{key: {name}}}");
    run(
        &mut text,
        &second,
        SECOND[0],
        &format!(
            "seq 1 {NUMBERS} | cmp - got/out/numbers\nseq 1 {NUMBERS} | cmp - out/numbers\nseq -f '{second}.3 %.0f' 1 {}\n",
            SECOND[0].lines
        ),
    );
    let mut splitter = "";
    if style.splits {
        splitter = ", split";
        let _ = write!(
            text,
            "  {SPLITTER}:\n    machine: true\n    resource_class: {class}\n    parallelism: 2\n    steps:\n"
        );
        let third = format!("{name}c$CIRCLE_NODE_INDEX");
        let lines = SPLIT[0].lines;
        let share = "$(echo a.rb b.rb c.rb | circleci-agent tests split --split-by=timings)";
        let command = format!(
            "case $CIRCLE_NODE_INDEX in 0) wanted=a.rb ;; *) wanted='b.rb c.rb' ;; esac\n[ \"$(echo {share})\" = \"$wanted\" ]\nseq -f \"{third}.1 %.0f\" 1 {lines}\n"
        );
        run(&mut text, &third, SPLIT[0], &command);
    }
    let _ = writeln!(
        text,
        "workflows: {{w: {{jobs: [{first}, {{{second}: {{requires: [{first}]}}}}{splitter}]}}}}"
    );
    text.replace("LEDGER", &style.folder.join("ledger").display().to_string())
        .replace("WROTE", &style.folder.join("wrote").display().to_string())
}

fn run(text: &mut String, job: &str, step: Printing, command: &str) {
    let _ = writeln!(
        text,
        "      - run:\n          command: |\n            echo {job}.{0} >> LEDGER\n            : > WROTE/{job}.{0}.began",
        step.record
    );
    for line in command.lines() {
        let _ = writeln!(text, "            {line}");
    }
}

fn leave(style: &Style<'_>) -> String {
    let folder = style.folder.display();
    let forever = format!("'while :; do sleep 1; done' {folder} > /dev/null 2>&1 < /dev/null &");
    match style.leaves {
        Leaves::Nothing => String::new(),
        Leaves::Session => format!("setsid /bin/sh -c {forever}\n"),
        Leaves::Daemon => {
            format!("(setsid env -i PATH=\"$PATH\" /bin/sh -c '/bin/sh -c \"$0\" \"$1\" &' {forever}) &\n")
        }
    }
}

/// Prints piece by piece, and notes how far after each.
fn slowly(job: &str, style: &Style<'_>) -> String {
    let piece = FIRST[0].lines / 20;
    format!(
        "i=0\nwhile [ $i -lt {pieces} ]; do\n  if [ $i -lt 20 ]; then seq -f '{job}.1 %.0f' $((i * {piece} + 1)) $((i * {piece} + {piece})); echo $((i * {piece} + {piece})) > WROTE/{job}.1; fi\n  sleep {pause}\n  i=$((i + 1))\ndone\n",
        pieces = style.pieces,
        pause = f64::from(style.pause_ms) / 1000.0,
    )
}

/// The whole output of a step.
pub(crate) fn expected(step: &str, lines: u32) -> String {
    (1..=lines).map(|line| format!("{step} {line}\n")).collect()
}

/// The bytes of the artifact.
pub(crate) fn artifact() -> String {
    (1..=NUMBERS).map(|number| format!("{number}\n")).collect()
}

/// The name of the step, and the number, of the first line of an output of this work.
pub(crate) fn first_line(output: &[u8]) -> Option<(&str, u32)> {
    let line = output[..output.len().min(100)].split(|byte| *byte == b'\n').next()?;
    numbered(line)
}

/// The name of the step, and the number, of a line of this work.
pub(crate) fn numbered(line: &[u8]) -> Option<(&str, u32)> {
    let (step, number) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let is_step = step.starts_with('p') && step.contains('.');
    number.parse().ok().filter(|_| is_step).map(|number| (step, number))
}

/// The name of the job of a step.
pub(crate) fn job_of(step: &str) -> &str {
    step.split('.').next().unwrap_or_default()
}
