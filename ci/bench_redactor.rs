//! Times the masking of a step's output by the number of secrets; `ci/bench-redactor` runs it.
//!
//! It is built as the runner is, and time is what its thread has used of a processor, so that other
//! work on the machine disturbs it little. Three texts: the log of a build, JSON that is mostly white
//! space, and lines of dashes, which begin as every PEM key does.

use runlet::executor::output::redactor::{Redactor, Secrets};
use runlet::protocol::Secret;
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write;
use std::time::Duration;

/// Length of a text.
const TEXT_BYTES: usize = 16 << 20;
/// Most bytes that one read of a pipe gives.
const PIECE_BYTES: usize = 64 << 10;
const RUNS: u32 = 7;
/// MB/s for the log with 50 and with 1,000 secrets.
const TARGETS: [(usize, f64); 2] = [(50, 300.0), (1000, 240.0)];

fn main() {
    println!("{:>8} {:>10} {:>10} {:>10} {:>12}", "secrets", "log MB/s", "JSON MB/s", "dashes", "set up ms");
    let mut missed = false;
    for count in [0, 50, 200, 1000] {
        let values = secrets(count);
        let further: Vec<Secret> = values.iter().map(Secret::new).collect();
        let begun = used();
        let secrets = Secrets::new(&[], &further);
        let set_up = used() - begun;
        let speed = |text: String| speed(&secrets, text.as_bytes());
        let (log, json, dashes) = (speed(log(&values)), speed(json()), speed(dashes()));
        println!("{count:>8} {log:>10.0} {json:>10.0} {dashes:>10.0} {:>12.2}", set_up.as_secs_f64() * 1e3);
        missed |= TARGETS.iter().any(|&(secrets, target)| secrets == count && log < target);
    }
    if missed {
        println!("under the target for logs: {TARGETS:?} (secrets, MB/s)");
        std::process::exit(1);
    }
}

/// Processor time of this thread.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// MB/s of the best run.
fn speed(secrets: &Secrets, text: &[u8]) -> f64 {
    let mut best = Duration::MAX;
    let mut out = Vec::new();
    for _ in 0..RUNS {
        let begun = used();
        let mut redactor = Redactor::new(secrets.clone());
        for piece in text.chunks(PIECE_BYTES) {
            out.clear();
            redactor.push(piece, &mut out);
            std::hint::black_box(&out);
        }
        redactor.finish(&mut out);
        best = best.min(used() - begun);
        if best > Duration::from_secs(1) {
            break;
        }
    }
    text.len() as f64 / 1e6 / best.as_secs_f64()
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }

    fn word(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..length).map(|_| char::from(LETTERS[self.below(LETTERS.len())])).collect()
    }
}

/// Tokens, passwords, addresses with a password in them; every twentieth is a key of 27 lines.
fn secrets(count: usize) -> Vec<String> {
    let mut random = Random(1);
    let one = |index: usize| match index % 20 {
        0 => {
            let lines: Vec<String> = (0..25).map(|_| random.word(64)).collect();
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
        }
        1 => format!("https://user:{}@packages.example.com/simple", random.word(20)),
        2 => format!("ghp_{}", random.word(36)),
        3 => format!("{} {} {}", random.word(3), random.word(2), random.word(9)),
        _ => {
            let length = 8 + random.below(33);
            random.word(length)
        }
    };
    (0..count).map(one).collect()
}

fn log(secrets: &[String]) -> String {
    let mut random = Random(2);
    let mut text = String::with_capacity(TEXT_BYTES + 4096);
    while text.len() < TEXT_BYTES {
        let (a, b, c) = (random.below(1000), random.below(60), random.below(60));
        let _ = match random.below(7) {
            0 => {
                writeln!(text, "   Compiling crate-{a} v{b}.{c}.0 (/home/circleci/project/crates/crate-{a})")
            }
            1 => writeln!(
                text,
                "2026-01-02T03:{b:02}:{c:02}.{a:03}Z INFO  request{{id={a}}}: finished in {b} ms"
            ),
            2 => writeln!(text, "test module_{b}::tests::what_is_written_is_read_{a} ... ok"),
            3 => writeln!(
                text,
                "npm warn deprecated https://registry.npmjs.org/pkg-{a}: use pkg-{b}@{c} instead"
            ),
            4 => writeln!(text, "Step {b}/{c} : RUN apt-get install -y --no-install-recommends lib{a}-dev"),
            5 => writeln!(text, " ---> {a:012x}{b:08x}{c:08x} sha256:{:x}", a * b * c),
            _ => writeln!(text, "\t[{b:3}%] Building CXX object src/CMakeFiles/core.dir/file_{a}.cpp.o"),
        };
        // Now and then a step prints what it should not.
        if !secrets.is_empty() && random.below(500) == 0 {
            let _ = writeln!(text, "token={}", secrets[random.below(secrets.len())]);
        }
    }
    text
}

fn json() -> String {
    let mut random = Random(3);
    let mut text = String::with_capacity(TEXT_BYTES + 4096);
    while text.len() < TEXT_BYTES {
        let depth = 2 + random.below(16);
        let _ = writeln!(text, "{:1$}\"key_{2}\": {{ \"value\": {2} }},", "", 2 * depth, random.below(100));
    }
    text
}

fn dashes() -> String {
    format!("{}\n", "-".repeat(79)).repeat(TEXT_BYTES / 80)
}
