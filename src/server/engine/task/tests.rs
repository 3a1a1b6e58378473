//! Random interleavings of runners, agents, people, restarts, backups and clocks. After each event the machine must say
//! what the table says ([`model`]), and on the hosts nothing may run beside what it was replaced by.
//!
//! The same random numbers again: `RUNLET_SEED=N`.

#![expect(clippy::unwrap_used, reason = "a test without its files should fail loudly")]

mod agents;
mod model;
mod world;

use self::world::World;
use crate::system::seeded;
use proptest::prelude::any;
use std::fs;
use std::path::{Path, PathBuf};

/// Words of what the machine takes from nobody.
const FOREIGN: &[&str] = &[
    "store::",
    "blobs",
    "state::",
    "commit::",
    "handout",
    "Millis::now",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::io",
    "std::net",
    "tokio",
    "rusqlite",
];

/// The machine decides by values alone: of the store it and the graph of a workflow know the words of a status, and but
/// for the row of a task nothing else; they read no clock and no file.
#[test]
fn the_machine_and_the_graph_know_nothing_of_rows_and_clocks() {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/engine");
    let mut files = vec![engine.join("task.rs"), engine.join("graph.rs")];
    files.extend(fs::read_dir(engine.join("task")).unwrap().map(|entry| entry.unwrap().path()));
    let is_code = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        path.is_file() && name != "stored.rs" && name != "tests.rs"
    };
    files.retain(is_code);
    assert!(files.len() >= 5, "{files:?}");
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| *line != "mod tests {");
        for line in lines.filter(|line| !line.trim_start().starts_with("//")) {
            let code = line.replace("crate::server::store::status::", "");
            let found = FOREIGN.iter().find(|word| code.contains(*word));
            assert_eq!(found, None, "{}: {line}", path.display());
        }
    }
}

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
