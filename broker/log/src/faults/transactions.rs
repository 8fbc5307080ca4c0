//! What must hold of the transactions in a log that a crash or an error left: what its batches and markers say, and
//! no index, snapshot or memory of what the crash took away, decides what a consumer of committed records sees.

use super::scenario::{Failure, header};
use crate::PartitionLog;
use crate::batch::{Marker, batches};
use bytes::Bytes;
use leasehold_types::seams::HashSet;
use leasehold_types::{Offset, ProducerId};

/// Holds the last stable offset, and what consumers of committed records see, against `found`: all batches that are
/// left, of those that there `ever` were.
pub(super) fn transactions(
    log: &PartitionLog,
    found: &[Bytes],
    ever: &[Bytes],
) -> Result<(), Failure> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let stable = log.last_stable_offset(end);
    // Records of an open transaction may have been deleted: then the log's start is where it begins. Or its first
    // batches were cleaned away by a marker that a power cut took: a snapshot from before may still know of them, and
    // what is left does not.
    let first = open_since(found).map_or(end, |o| o.max(start));
    let earlier = open_since(ever).map_or(end, |o| o.max(start));
    if ![first, earlier, start].contains(&stable) {
        return Err(format!(
            "the last stable offset is {stable}, where {first} is right, or {earlier}"
        ));
    }
    let expected: Vec<_> = (0..found.len())
        .filter(|i| {
            let h = header(&found[*i]);
            let counts = !h.is_transactional() || outcome(found, *i) == Some(true);
            !h.is_control() && h.record_count > 0 && h.next_offset() <= stable && counts
        })
        .map(|i| header(&found[i]).base_offset)
        .collect();
    let seen = consumed(log, start, stable)?;
    if seen != expected {
        return Err(format!(
            "committed are {expected:?}, and a consumer sees {seen:?}"
        ));
    }
    Ok(())
}

/// Whether the transaction of the batch at this index was committed; `None` if no marker says.
fn outcome(all: &[Bytes], index: usize) -> Option<bool> {
    let producer = header(&all[index]).producer_id;
    let ends = |b: &Bytes| Marker::parse(&header(b), b).filter(|m| m.producer_id == producer);
    all[index..].iter().find_map(ends).map(|m| m.committed)
}

/// Where the first batch lies whose transaction nothing ends. One that a cleaning emptied counts as well: if a power
/// cut took the marker that it was cleaned by, its transaction is open until that marker comes once more.
fn open_since(all: &[Bytes]) -> Option<Offset> {
    let open = |i: &usize| {
        let h = header(&all[*i]);
        h.is_transactional() && !h.is_control() && outcome(all, *i).is_none()
    };
    let first = (0..all.len()).find(open)?;
    Some(header(&all[first]).base_offset)
}

/// The batches of which a consumer of committed records makes use, by their offsets.
fn consumed(log: &PartitionLog, start: Offset, to: Offset) -> Result<Vec<Offset>, Failure> {
    let mut at = start;
    let mut seen = Vec::new();
    while at < to {
        let read = log
            .read_committed(at, 400, to, true)
            .map_err(|e| e.to_string())?;
        let before = at;
        let mut within: HashSet<ProducerId> = HashSet::default();
        for batch in batches(read.batches) {
            let batch = batch.map_err(|e| e.to_string())?;
            let h = batch.header;
            at = h.next_offset();
            let begun = read.aborted.iter().filter(|txn| {
                txn.first_offset <= h.last_offset() && txn.last_offset >= h.base_offset
            });
            within.extend(begun.map(|txn| txn.producer_id));
            if h.is_control() {
                within.remove(&h.producer_id);
            } else if h.record_count > 0
                && !(h.is_transactional() && within.contains(&h.producer_id))
            {
                seen.push(h.base_offset);
            }
        }
        if at <= before {
            break;
        }
    }
    Ok(seen)
}
