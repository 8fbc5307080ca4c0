//! Where each key occurs last in the part of a log that is to be cleaned.
//!
//! A key is kept as 16 bytes of SHA-256, salted anew for each cleaning, and not whole: keys may be
//! large, and the memory must be known beforehand. Two keys with the same 16 bytes would lose a record.
//! By chance that does not happen (10^9 keys: 1 in 10^20), and nobody who writes keys can bring it about:
//! finding such a pair takes 2^64 tries even for one who knows the salt.

use leasehold_types::Offset;
use leasehold_types::seams::taken_out;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// The last offset of each key, up to a number of keys.
pub(crate) struct LastOffsets {
    salt: [u8; 16],
    max_keys: usize,
    offsets: HashMap<[u8; 16], Offset>,
    end: Offset,
}

impl LastOffsets {
    /// Knows nothing; will know of every record from `start` on up to its end.
    pub fn new(start: Offset, max_keys: usize) -> Self {
        Self {
            salt: leasehold_types::seams::random_u128().to_ne_bytes(),
            max_keys,
            offsets: HashMap::new(),
            end: start,
        }
    }

    /// Notes that `key` occurs at `offset`, which is above those before. `false`: there is no room, and
    /// this record and all after it are unknown.
    pub fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let key = self.digest(key);
        if self.offsets.len() >= self.max_keys && !self.offsets.contains_key(&key) {
            self.end = offset;
            return false;
        }
        self.offsets.insert(key, offset);
        true
    }

    /// All records below `end` are noted.
    pub fn noted_to(&mut self, end: Offset) {
        self.end = end;
    }

    /// Below it, every record is known from the start on.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Whether the record of `key` at `offset` is not the last one of its key, as far as is known.
    pub fn is_superseded(&self, key: &[u8], offset: Offset) -> bool {
        offset < self.end
            && self
                .offsets
                .get(&self.digest(key))
                .is_some_and(|&last| last > offset || taken_out("a-keys-last-record-stays"))
    }

    fn digest(&self, key: &[u8]) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(key);
        let whole: [u8; 32] = hash.finalize().into();
        let [first, _] = whole.as_chunks::<16>().0 else {
            // 32 bytes are two chunks of 16.
            return self.salt;
        };
        *first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_record_of_the_same_key_supersedes() {
        let mut keys = LastOffsets::new(Offset(0), 10);
        assert!(keys.note(b"a", Offset(1)));
        assert!(keys.note(b"", Offset(2)));
        assert!(keys.note(b"a", Offset(5)));
        keys.noted_to(Offset(8));
        assert!(keys.is_superseded(b"a", Offset(1)));
        assert!(!keys.is_superseded(b"a", Offset(5)));
        assert!(!keys.is_superseded(b"", Offset(2)));
        assert!(!keys.is_superseded(b"b", Offset(0)));
    }

    #[test]
    fn what_does_not_fit_ends_what_is_known() {
        let mut keys = LastOffsets::new(Offset(0), 2);
        assert!(keys.note(b"a", Offset(1)));
        assert!(keys.note(b"b", Offset(2)));
        assert!(keys.note(b"a", Offset(3)), "a known key takes no room");
        assert!(!keys.note(b"c", Offset(4)));
        assert_eq!(keys.end(), Offset(4));
        assert!(keys.is_superseded(b"a", Offset(1)));
        assert_eq!(LastOffsets::new(Offset(7), 0).end(), Offset(7));
    }
}
