//! `tests split`: the share of one node. All nodes compute alike, so their shares fit together.

use super::options::{SplitBy, SuiteOptions};
use super::speak::say;
use super::{names, weights};
use crate::outcome::{self, Failure, Outcome};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::OsString;

/// Prints the share of this node.
pub(super) fn print(options: &SuiteOptions, variable: &dyn Fn(&str) -> Option<OsString>) -> Outcome {
    let names = names::read(options.file.as_deref(), options.verbose).map_err(Failure::new)?;
    if names.is_empty() {
        say(NO_NAMES);
    }
    let mut out = String::new();
    for name in of_node(&names, options, variable).map_err(Failure::new)? {
        out.push_str(name);
        out.push('\n');
    }
    outcome::print(&out)
}

/// Message for when there is nothing to split.
pub(super) const NO_NAMES: &str = "No test names found in input source: nothing to do.";

/// The share of this node, sorted. `names` are sorted and each there once.
pub(super) fn of_node<'a>(
    names: &'a [String],
    options: &SuiteOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<&'a str>, String> {
    // A single node takes everything, whatever it weighs.
    let weights = if options.total > 1 && !names.is_empty() {
        weights::of(names, options, variable)?
    } else {
        vec![1; names.len()]
    };
    let share: Vec<&str> =
        share(&weights, options.index, options.total).into_iter().map(|at| names[at].as_str()).collect();
    if options.show_counts || options.verbose {
        let by = match options.by {
            SplitBy::Name => "name",
            SplitBy::Filesize => "filesize",
            SplitBy::Timings => "timings",
        };
        say(&format!(
            "split by {by}: {} of {} names for node {} of {}",
            share.len(),
            names.len(),
            options.index,
            options.total
        ));
    }
    Ok(share)
}

/// Positions in `weights` that node `index` of `total` gets, ascending: from the heaviest on, each goes to
/// the node with the least so far, the first of them when there are several.
fn share(weights: &[u64], index: u32, total: u32) -> Vec<usize> {
    // There are fewer names than a `u32` counts: they are read from some MB.
    let count = u32::try_from(weights.len()).unwrap_or(u32::MAX);
    // Heaps of one kind, not a sort: that would be several times the code. Heaviest first, then by name.
    let mut order = BinaryHeap::new();
    for (at, weight) in (0..count).zip(weights) {
        order.push(Reverse((u64::MAX - weight, at)));
    }
    // Nodes are taken in order as long as there are empty ones, so no more are needed than there are names.
    let mut least = BinaryHeap::new();
    for node in 0..total.min(count) {
        least.push(Reverse((0, node)));
    }
    let mut is_own = vec![false; weights.len()];
    while let (Some(Reverse((lightness, at))), Some(Reverse((sum, node)))) = (order.pop(), least.pop()) {
        is_own[at as usize] = node == index;
        // A sum beyond all bounds only makes the shares uneven.
        least.push(Reverse((u64::saturating_add(sum, u64::MAX - lightness), node)));
    }
    (0..weights.len()).filter(|&at| is_own[at]).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(weights: &[u64], total: u32) -> Vec<Vec<usize>> {
        (0..total).map(|index| share(weights, index, total)).collect()
    }

    #[test]
    fn equal_weights_go_round() {
        assert_eq!(shares(&[1; 5], 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(shares(&[1; 2], 4), [vec![0], vec![1], vec![], vec![]]);
        assert_eq!(shares(&[], 2), [Vec::<usize>::new(), vec![]]);
    }

    #[test]
    fn heavy_ones_come_first_and_to_whom_has_least() {
        // 9 | 5 | 4, then 3 to the third, 2 to the second, 1 to the second or third: both have 7.
        assert_eq!(shares(&[1, 2, 3, 4, 5, 9], 3), [vec![5], vec![0, 1, 4], vec![2, 3]]);
        assert_eq!(shares(&[u64::MAX, u64::MAX, 1, 0], 1), [vec![0, 1, 2, 3]]);
    }

    #[test]
    fn five_names_over_two_nodes() {
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        let of = |index: &str| {
            let options = SuiteOptions::parse(false, &["--index", index, "--total=2"], &|_| None).unwrap();
            of_node(&names, &options, &|_| None).unwrap()
        };
        assert_eq!((of("0"), of("1")), (vec!["a", "c", "e"], vec!["b", "d"]));
    }

    /// The rule, without any cleverness.
    fn plainly(weights: &[u64], total: u32) -> Vec<Vec<usize>> {
        let mut nodes = vec![(0u64, Vec::new()); total as usize];
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].cmp(&weights[a]).then(a.cmp(&b)));
        for at in order {
            let least = nodes.iter().map(|node| node.0).min().unwrap();
            let node = nodes.iter_mut().find(|node| node.0 == least).unwrap();
            node.0 = node.0.saturating_add(weights[at]);
            node.1.push(at);
        }
        nodes.iter_mut().for_each(|node| node.1.sort_unstable());
        nodes.into_iter().map(|node| node.1).collect()
    }

    proptest! {
        #[test]
        fn shares_are_disjoint_complete_and_by_the_rule(
            weights in prop::collection::vec(prop_oneof![0u64..4, any::<u64>()], 0..40),
            total in 1u32..12,
        ) {
            let shares = shares(&weights, total);
            prop_assert_eq!(&shares, &plainly(&weights, total));
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..weights.len()).collect::<Vec<_>>());
        }

        #[test]
        fn a_node_beyond_all_names_gets_nothing(count in 0usize..5, total in any::<u32>()) {
            let total = total.max(6);
            prop_assert_eq!(share(&vec![1; count], total - 1, total), Vec::<usize>::new());
        }
    }
}
