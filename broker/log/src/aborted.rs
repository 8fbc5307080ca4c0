//! The aborted transactions of a segment: what a consumer that reads committed records must skip.
//!
//! The file `<base>.txnindex` has Kafka's entries (34 bytes each, KIP-98) in the order of their markers, and
//! after them their CRC32C, which Kafka's own readers take for an entry that is cut short and pass over.
//! A segment without aborted transactions has no file.

use bytes::Buf;
use leasehold_types::{Offset, ProducerId};

const VERSION: i16 = 0;
pub(crate) const ENTRY_LEN: usize = 2 + 4 * 8;
const CRC_LEN: usize = 4;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Whose.
    pub producer_id: ProducerId,
    /// Its first record here.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
    /// Where the first undecided transaction began when it was aborted; after the marker, if there was none.
    /// No transaction that ends later has records below this.
    pub last_stable_offset: Offset,
}

impl AbortedTxn {
    /// Whether it has records within two offsets.
    pub(crate) fn touches(&self, from: Offset, to: Offset) -> bool {
        self.last_offset >= from && self.first_offset < to
    }
}

/// The file's content.
pub(crate) fn encode(aborted: &[AbortedTxn]) -> Vec<u8> {
    let mut out = Vec::with_capacity(aborted.len() * ENTRY_LEN + CRC_LEN);
    for txn in aborted {
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&txn.producer_id.0.to_be_bytes());
        for offset in [txn.first_offset, txn.last_offset, txn.last_stable_offset] {
            out.extend_from_slice(&offset.0.to_be_bytes());
        }
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// The entries in a file; `None` if it is damaged.
pub(crate) fn decode(content: &[u8]) -> Option<Vec<AbortedTxn>> {
    let (entries, mut crc) = content.split_at_checked(content.len().checked_sub(CRC_LEN)?)?;
    let (entries, rest) = entries.as_chunks::<ENTRY_LEN>();
    let damaged = entries.is_empty() || !rest.is_empty();
    if damaged || crc.get_u32() != crc32c::crc32c(entries.as_flattened()) {
        return None;
    }
    entries.iter().map(|entry| entry_of(entry)).collect()
}

fn entry_of(mut entry: &[u8]) -> Option<AbortedTxn> {
    (entry.get_i16() == VERSION).then(|| AbortedTxn {
        producer_id: ProducerId(entry.get_i64()),
        first_offset: Offset(entry.get_i64()),
        last_offset: Offset(entry.get_i64()),
        last_stable_offset: Offset(entry.get_i64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(n: i64) -> AbortedTxn {
        AbortedTxn {
            producer_id: ProducerId(n),
            first_offset: Offset(10 * n),
            last_offset: Offset(10 * n + 5),
            last_stable_offset: Offset(10 * n + 6),
        }
    }

    #[test]
    fn the_file_has_kafkas_entries_and_any_damage_is_found() {
        let all: Vec<_> = (1..4).map(txn).collect();
        let content = encode(&all);
        assert_eq!(decode(&content), Some(all));
        assert_eq!(content.len(), 3 * 34 + 4);
        assert_eq!(content[..10], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for len in 0..content.len() {
            assert_eq!(decode(&content[..len]), None);
        }
        for at in 0..content.len() {
            let mut flipped = content.clone();
            flipped[at] ^= 4;
            assert_eq!(decode(&flipped), None);
        }
    }
}
