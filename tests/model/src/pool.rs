//! Values known by small numbers, so that a state of the search is a few bytes and two states are compared
//! by comparing numbers.
//!
//! Promise: equal fingerprints get equal numbers, and a number stays what it is. Fingerprints have 64 bits; two
//! values that share one by chance would be taken for one (with a million of them, one chance in 30 million).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A map from small keys.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// A fast hasher for short keys of plain numbers; nothing here comes from outside.
#[derive(Clone, Copy, Default)]
pub struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let left = self.0.rotate_left(23) ^ 0x9e37_79b9_7f4a_7c15;
        let right = word ^ 0xd1b5_4a32_d192_ed03;
        let product = u128::from(left) * u128::from(right);
        let (low, high) = (product as u64, (product >> 64) as u64);
        self.0 = low ^ high.rotate_left(17) ^ word;
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mut last = *self;
        last.mix(0x2545_f491_4f6c_dd1d);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
}

/// 64 bits that stand for `value`.
pub fn fingerprint<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = Mixer::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// All values of one kind that were met, each with what must be known of it often.
pub struct Pool<T, F> {
    values: Vec<(T, F)>,
    ids: Map<u64, u32>,
}

impl<T, F> Default for Pool<T, F> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            ids: Map::default(),
        }
    }
}

impl<T, F> Pool<T, F> {
    /// The number of `value`; `facts` is asked once.
    pub fn id(&mut self, fingerprint: u64, value: T, facts: impl FnOnce(&T) -> F) -> u32 {
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let id = *self.ids.entry(fingerprint).or_insert(next);
        if id == next {
            let facts = facts(&value);
            self.values.push((value, facts));
        }
        id
    }

    /// What has this number.
    pub fn value(&self, id: u32) -> &T {
        &self.values[id as usize].0
    }

    /// What must be known of it often.
    pub fn facts(&self, id: u32) -> &F {
        &self.values[id as usize].1
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was met yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_number_and_different_values_have_others() {
        let mut pool: Pool<String, usize> = Pool::default();
        let mut id = |text: &str| pool.id(fingerprint(text), text.to_owned(), String::len);
        let numbers = [id("a"), id("bb"), id("a"), id(""), id("bb")];
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        assert_eq!((pool.value(1).as_str(), *pool.facts(1)), ("bb", 2));
    }

    #[test]
    fn small_differences_change_the_whole_fingerprint() {
        let mut seen = std::collections::HashSet::new();
        for a in 0..64_u8 {
            for b in 0..64_u8 {
                for c in 0..16_u32 {
                    assert!(seen.insert(fingerprint(&([a, b], c, [0_u8; 3]))));
                }
            }
        }
    }
}
