//! Random interleavings of runners, agents, people, restarts, backups and clocks. After each event the machine must say
//! what the table says ([`model`]), and on the hosts nothing may run beside what it was replaced by.
//!
//! The same random numbers again: `RUNLET_SEED=N`.

mod agents;
mod model;
mod world;

use self::world::World;
use crate::system::seeded;
use proptest::prelude::any;

#[test]
fn whatever_happens_in_whatever_order_the_table_holds() {
    let interleaving = proptest::collection::vec(any::<[u8; 3]>(), 0..80);
    seeded::check(&interleaving, |events| {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.assert_nothing_is_stuck();
        Ok(())
    });
}
