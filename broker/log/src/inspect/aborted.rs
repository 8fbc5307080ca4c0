//! Markers, and the index of aborted transactions, held against the batches as these are walked.

use super::{Finding, Tell, content, damage};
use crate::aborted;
use crate::batch::{BatchHeader, Marker};
use crate::producers::Snapshot;
use crate::segment::{self, SNAPSHOT, TXN_INDEX};
use leasehold_types::seams::{HashMap, HashSet};
use leasehold_types::{Offset, ProducerId};
use std::path::Path;

/// The transactions that are open at one point of a log.
#[derive(Default)]
pub(super) struct Open {
    /// Whether records were met. Of one that began below the log's start, or of which compaction left no
    /// record, an index need not know.
    with_records: HashMap<ProducerId, bool>,
}

impl Open {
    /// Those at the log's start, if a snapshot knows them.
    pub fn at(folder: &Path, start: Offset) -> Self {
        let mut open = Self::default();
        // A damaged one is told of with the other snapshots.
        if let Ok(Some(known)) = Snapshot::load(&segment::file(folder, start, SNAPSHOT)) {
            let known = known.producers.open().map(|(id, ..)| (id, false));
            open.with_records.extend(known);
        }
        open
    }
}

/// One segment's part.
#[derive(Default)]
pub(super) struct Aborted {
    /// The markers that abort something, or nothing.
    markers: HashSet<(ProducerId, Offset)>,
    /// What the index must know of.
    expected: Vec<(ProducerId, Offset)>,
}

impl Aborted {
    /// The next batch; for a control batch, what it says.
    pub fn batch(
        &mut self,
        header: &BatchHeader,
        marker: Option<Marker>,
        open: &mut Open,
        tell: &mut Tell<'_>,
    ) {
        let id = header.producer_id;
        if header.is_transactional() && !header.is_control() && header.record_count > 0 {
            open.with_records.insert(id, true);
        }
        let Some(marker) = marker else {
            return;
        };
        tell(Finding::Marker {
            at: header.base_offset,
            marker,
        });
        let records = open.with_records.remove(&id);
        if !marker.committed {
            self.markers.insert((id, header.base_offset));
            if records == Some(true) {
                self.expected.push((id, header.base_offset));
            }
        }
    }

    /// After the last batch of the segment at `path`, whose index is final.
    pub fn end(self, path: &Path, tell: &mut Tell<'_>) {
        let path = path.with_extension(TXN_INDEX);
        let known = match path.exists().then(|| content(&path, tell)).flatten() {
            None => Vec::new(),
            Some(content) => match aborted::decode(&content) {
                Some(known) => known,
                None => {
                    let what = "its checksum is wrong: it is made anew from the batches";
                    return damage(tell, &path, 0, what);
                }
            },
        };
        for (n, &txn) in known.iter().enumerate() {
            tell(Finding::AbortedTransaction { path: &path, txn });
            if !self.markers.contains(&(txn.producer_id, txn.last_offset)) {
                let (id, at) = (txn.producer_id, txn.last_offset);
                let what = format!(
                    "it has a transaction of producer {id} aborted at {at}: no marker is there"
                );
                damage(tell, &path, (n * aborted::ENTRY_LEN) as u64, what);
            }
        }
        for (id, at) in self.expected {
            let is_known = known
                .iter()
                .any(|txn| (txn.producer_id, txn.last_offset) == (id, at));
            if !is_known {
                let what =
                    format!("it lacks the transaction of producer {id} that was aborted at {at}");
                damage(tell, &path, 0, what);
            }
        }
    }
}
