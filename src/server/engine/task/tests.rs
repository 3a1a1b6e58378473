//! Random interleavings of runners, agents, people, restarts, backups and clocks. After each event the machine must say
//! what the table says ([`model`]), and on the hosts nothing may run beside what it was replaced by.
//!
//! The same random numbers again: `RUNLET_SEED=N`.
#![expect(clippy::panic, reason = "a test that cannot go on should fail loudly")]

mod agents;
mod model;
mod world;

use self::world::World;
use crate::server::time::Millis;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const INTERLEAVINGS: u32 = 10_000;

fn seed() -> u64 {
    let given = std::env::var("RUNLET_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| Millis::now().0)
}

#[test]
fn whatever_happens_in_whatever_order_the_table_holds() {
    let seed = seed();
    println!("RUNLET_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: INTERLEAVINGS, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let interleaving = proptest::collection::vec(any::<[u8; 3]>(), 0..80);
    let held = runner.run(&interleaving, |events| {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.assert_nothing_is_stuck();
        Ok(())
    });
    if let Err(error) = held {
        panic!("RUNLET_SEED={seed}: {error}");
    }
}
