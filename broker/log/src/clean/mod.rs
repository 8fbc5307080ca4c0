//! Compaction's decisions, without files: what to clean ([`plan`]), which record of a key is the last
//! ([`keys`]), and what is left of a batch ([`filter`]).
//!
//! The rules are Kafka's:
//! - The last record of each key stays, with its offset. Records above what was looked at stay all.
//! - A tombstone stays until its batch's delete horizon. The first cleaning that meets it sets that
//!   horizon, `delete.retention.ms` from then: whoever reads from the start within that time hears of
//!   the deletion.
//! - What an aborted transaction wrote goes at once, and supersedes nothing. A marker goes after the last batch
//!   of its transaction, when a delete horizon has passed that the first cleaning sets which meets it alone.
//! - A batch keeps its offsets, leader epoch and producer fields. The last one of a producer that is
//!   still known stays even if empty, as its sequence is needed; so does the marker of a producer that has none
//!   in its epoch.
//! - The log's start and end do not move.
//!
//! And one of our own, for recovery: the last batch of a segment stays, if need be empty.

mod filter;
mod keys;
mod plan;
mod transactions;

#[cfg(test)]
mod filter_tests;

pub(crate) use filter::{Filtered, Rules, filter, keyed_records};
pub(crate) use keys::LastOffsets;
pub(crate) use plan::{SegmentFacts, Verdict, groups, plan};
pub(crate) use transactions::{Fate, Pass};

/// Whether a log wants to be cleaned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cleanable {
    /// Not before another segment is begun.
    No,
    /// Not yet: when time has passed, or the high watermark has moved.
    Later,
    /// Now.
    Now {
        /// The share of its bytes that no cleaning has seen. The dirtiest log comes first.
        dirty_ratio: f64,
    },
}
