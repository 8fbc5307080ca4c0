//! What is counted, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Sums since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of record batches appended for producers.
    pub bytes_in: Counter,
    /// Record batches appended for producers.
    pub batches_in: Counter,
    /// Bytes of record batches sent to clients.
    pub bytes_out: Counter,
    /// Bytes of record batches copied from leaders.
    pub replication_bytes_in: Counter,
    /// Bytes of record batches sent to followers.
    pub replication_bytes_out: Counter,
    /// ISR changes, of partitions led here, that took a member out.
    pub isr_shrinks: Counter,
    /// ISR changes, of partitions led here, that brought a member in.
    pub isr_expands: Counter,
    /// Logs cut because they had parted from their leader's.
    pub truncations: Counter,
    /// Follower fetches that failed as a whole.
    pub fetch_errors: Counter,
    /// Logs compacted.
    pub cleaner_runs: Counter,
    /// Bytes that those had before, as far as they were looked at.
    pub cleaner_bytes_before: Counter,
    /// Bytes that they had afterwards.
    pub cleaner_bytes_after: Counter,
    /// Compactions that failed; the log stays as it was.
    pub cleaner_failures: Counter,
}
