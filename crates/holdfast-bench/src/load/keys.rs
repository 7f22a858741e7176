//! Which keys and values a load touches.

use bytes::Bytes;

/// All keys of a benchmark begin so.
const PREFIX: &str = "/bench/";
/// Behind all of them.
const PREFIX_END: &str = "/bench0";

/// The keys of a load and the size of their values.
#[derive(Debug, Clone)]
pub(crate) struct KeySpace {
    /// How many keys there are.
    pub(crate) keys: u64,
    value: Bytes,
}

/// A place in a key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyNumber(pub(crate) u64);

impl KeySpace {
    /// `keys` keys with values of `value_bytes` bytes that do not compress to nothing.
    pub(crate) fn new(keys: u64, value_bytes: usize) -> Self {
        let mut random = Random::seeded(7);
        let value: Vec<u8> = (0..value_bytes).map(|_| random.byte()).collect();
        Self { keys: keys.max(1), value: value.into() }
    }

    /// The key at a place; keys ascend with their numbers.
    pub(crate) fn key(number: KeyNumber) -> Bytes {
        Bytes::from(format!("{PREFIX}{:012}", number.0))
    }

    /// First key and end of the range of everything.
    pub(crate) fn everything() -> (Bytes, Bytes) {
        (Bytes::from_static(PREFIX.as_bytes()), Bytes::from_static(PREFIX_END.as_bytes()))
    }

    /// Any key.
    pub(crate) fn any(&self, random: &mut Random) -> KeyNumber {
        KeyNumber(random.below(self.keys))
    }

    /// The value of every key.
    pub(crate) fn value(&self) -> Bytes {
        self.value.clone()
    }
}

/// SplitMix64: enough to spread keys, and the same on every run.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Equal seeds give equal sequences.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_within_the_range_of_everything() {
        let (first, end) = KeySpace::everything();
        let keys: Vec<Bytes> = [0, 9, 10, 999_999_999_999].map(|n| KeySpace::key(KeyNumber(n))).to_vec();
        assert!(keys.is_sorted());
        assert!(keys.iter().all(|key| *key > first && *key < end));
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let space = KeySpace::new(10, 16);
        let mut random = Random::seeded(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[usize::try_from(space.any(&mut random).0).unwrap()] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(space.value().len(), 16);
    }
}
