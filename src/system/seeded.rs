//! Random stories of tests: 10,000 in every run, unless each takes long. The seed is printed; the same stories again:
//! `RUNLET_SEED=N`. More of them, or fewer: `RUNLET_STORIES=N`.
#![expect(clippy::panic, reason = "a test that cannot go on should fail loudly")]

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::time::{SystemTime, UNIX_EPOCH};

const STORIES: u32 = 10_000;

fn seed() -> u64 {
    let given = std::env::var("RUNLET_SEED").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    given.unwrap_or(now.as_nanos() as u64)
}

fn count(usual: u32) -> u32 {
    std::env::var("RUNLET_STORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Fails with the seed, and the shortest story found, when `holds` does not hold of one.
pub fn check<S: Strategy>(stories: &S, holds: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    check_some(STORIES, stories, holds);
}

/// The work of [`check`] on fewer stories, of which each takes longer.
pub fn check_some<S: Strategy>(
    count: u32,
    stories: &S,
    holds: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let seed = seed();
    println!("RUNLET_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: self::count(count), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(error) = runner.run(stories, holds) {
        panic!("RUNLET_SEED={seed}: {error}");
    }
}
