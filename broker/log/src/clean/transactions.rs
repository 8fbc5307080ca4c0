//! Which batches belong to aborted transactions, and which markers still have something to say: from one
//! pass over the batches in their order.

use crate::aborted::AbortedTxn;
use crate::batch::{BatchHeader, Marker};
use leasehold_types::ProducerId;
use leasehold_types::seams::{HashMap, HashSet};
use std::collections::VecDeque;

/// What the transactions say about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its records count, as far as the keys allow.
    Counts,
    /// Its transaction was aborted: none of its records counts.
    Aborted,
    /// It is a marker; `needed` as long as batches of its transaction were met.
    Marker { needed: bool },
}

/// One pass over a log's batches, from its start.
pub(crate) struct Pass {
    /// By first offset.
    aborted: VecDeque<AbortedTxn>,
    /// Aborted transactions that have begun and not ended, and whether a batch of theirs was met.
    within: HashMap<ProducerId, bool>,
    /// Who has written since its last marker, but in one of those.
    others: HashSet<ProducerId>,
}

impl Pass {
    /// A pass over batches in which these transactions were aborted.
    pub fn new(mut aborted: Vec<AbortedTxn>) -> Self {
        aborted.sort_unstable_by_key(|txn| txn.first_offset);
        Self {
            aborted: aborted.into(),
            within: HashMap::default(),
            others: HashSet::default(),
        }
    }

    /// Judges the next batch; `bytes` are all of it.
    pub fn judge(&mut self, header: &BatchHeader, bytes: &[u8]) -> Fate {
        let end = header.last_offset();
        while let Some(txn) = self.aborted.front().filter(|txn| txn.first_offset <= end) {
            self.within.entry(txn.producer_id).or_insert(false);
            self.aborted.pop_front();
        }
        let id = header.producer_id;
        if header.is_control() {
            let needed = match Marker::parse(header, bytes) {
                // Of a transaction that an earlier cleaning emptied there may be a batch that had to stay, and
                // without its marker that would be an open one.
                Some(_) => {
                    let aborted = self.within.remove(&id) == Some(true);
                    self.others.remove(&id) || aborted
                }
                // Emptied by an earlier cleaning; others are not ours to judge.
                None => header.record_count > 0,
            };
            return Fate::Marker { needed };
        }
        if !header.is_transactional() {
            return Fate::Counts;
        }
        match self.within.get_mut(&id) {
            Some(met) => {
                *met = true;
                Fate::Aborted
            }
            None => {
                self.others.insert(id);
                Fate::Counts
            }
        }
    }
}
