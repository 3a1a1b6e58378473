//! Random numbers that a seed decides: the same seed, name and number give the same one, whatever ran before.

/// A seed, and the name of what is decided by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(name.bytes().fold(seed, |sum, byte| mix(sum ^ u64::from(byte))))
    }

    /// The `number`-th one.
    pub(crate) fn roll(self, number: u64) -> u64 {
        mix(self.0 ^ mix(number))
    }

    /// The `number`-th one, from `low` to `high - 1`.
    pub(crate) fn between(self, number: u64, low: u64, high: u64) -> u64 {
        low + self.roll(number) % (high - low)
    }

    /// Dice for a part of what this decides.
    pub(crate) fn part(self, name: &str) -> Self {
        Self::new(self.0, name)
    }
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A seed that nobody knows before.
pub(crate) fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    mix(u64::from(since.subsec_nanos()) ^ since.as_secs() ^ u64::from(std::process::id())) % 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_whatever_ran_before_and_on_whatever_machine() {
        let dice = Dice::new(7, "x");
        let rolls: Vec<u64> = (0..3).map(|number| dice.roll(number)).collect();
        assert_eq!(rolls, [0xe9fa_2149_0a8c_28c1, 0x10d2_dc6c_78d6_2c0d, 0xefb2_7b23_70a7_8a69]);
        assert_eq!(dice.between(1, 10, 20), 10 + rolls[1] % 10);
        assert_ne!(Dice::new(8, "x").roll(0), rolls[0]);
        assert_ne!(dice.part("line").roll(0), rolls[0]);
    }
}
