//! Times before the rows of a log.

use crate::server::time::Millis;
use std::time::Duration;

/// When the output of a step came, as it is shown; none by default.
#[derive(Clone, Debug, Default)]
pub(in crate::server::web) struct Stamps {
    /// Offsets in bytes, each with the time of what begins there.
    times: Vec<(u64, Millis)>,
    /// Times are shown as how much later they are.
    since: Option<Millis>,
}

impl Stamps {
    /// Times of the day, UTC.
    pub(in crate::server::web) fn clock(times: Vec<(u64, Millis)>) -> Self {
        Self { times, since: None }
    }

    /// Time since the beginning of the step.
    pub(in crate::server::web) fn since(times: Vec<(u64, Millis)>, beginning: Millis) -> Self {
        Self { times, since: Some(beginning) }
    }

    /// The texts before the lines of a part of the output that begins at an offset; none where nobody has told.
    pub(super) fn of_lines(&self, bytes: &[u8], offset: u64) -> Vec<String> {
        if self.times.is_empty() {
            return Vec::new();
        }
        let ends = memchr::memchr_iter(b'\n', bytes).map(|end| offset + end as u64 + 1);
        std::iter::once(offset).chain(ends).map(|start| self.at(start)).collect()
    }

    fn at(&self, offset: u64) -> String {
        let passed = self.times.partition_point(|(from, _)| *from <= offset);
        let Some((_, time)) = passed.checked_sub(1).and_then(|last| self.times.get(last)) else {
            return String::new();
        };
        match self.since {
            None => time.to_string().get(11..23).map(|clock| format!("{clock} ")).unwrap_or_default(),
            Some(beginning) => seconds(time.since(beginning)),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:>8.1}s ", time.as_secs_f64())
}
