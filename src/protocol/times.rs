//! When the output of a step came: marks of offset and time, as close as their number allows. A step that prints for
//! long has fewer of them in a minute than one that is short. The runner marks what it reads, and the control plane what
//! arrives: its marks are shown until the step has ended and the runner has told its own.

use crate::protocol::limits::OUTPUT_TIMES;

/// Time between two marks at first, in milliseconds.
const CLOSEST_MS: u64 = 100;

/// The marks of one output.
#[derive(Clone, Debug)]
pub struct Times {
    /// Offsets in bytes, each with the Unix time in milliseconds at which what begins there came.
    marks: Vec<(u64, u64)>,
    /// Least time between two marks, in milliseconds.
    apart_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { marks: Vec::new(), apart_ms: CLOSEST_MS }
    }
}

impl Times {
    /// Output from `offset` on has come at this Unix time in milliseconds. A clock that was set back is waited for.
    pub fn came(&mut self, offset: u64, at_ms: u64) {
        let due = self.marks.last().is_none_or(|(_, last)| at_ms >= last.saturating_add(self.apart_ms));
        if !due {
            return;
        }
        if self.marks.len() == OUTPUT_TIMES {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.apart_ms *= 2;
        }
        self.marks.push((offset, at_ms));
    }

    /// The marks so far.
    pub fn marks(&self) -> &[(u64, u64)] {
        &self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_close_at_first_and_never_too_many() {
        let mut times = Times::default();
        for n in 0..10 {
            times.came(n, 1_000 + n * 50);
        }
        assert_eq!(times.marks(), [(0, 1_000), (2, 1_100), (4, 1_200), (6, 1_300), (8, 1_400)]);
        times.came(10, 7);
        assert_eq!(times.marks().len(), 5, "the clock was set back");
        for n in 10..100_000 {
            times.came(n, 1_000 + n * 50);
            assert!(times.marks().len() <= OUTPUT_TIMES);
        }
        let marks = times.marks();
        assert!(marks.len() > OUTPUT_TIMES / 2 && marks[0] == (0, 1_000));
        assert!(marks.iter().all(|(offset, at_ms)| *at_ms == 1_000 + offset * 50));
        // Evenly: no stretch without a mark is much longer than another.
        let gaps = marks.windows(2).map(|two| two[1].1 - two[0].1);
        assert!(gaps.max() <= Some(3 * 5_000_000 / marks.len() as u64));
    }
}
