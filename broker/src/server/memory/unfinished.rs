//! Frames that have begun and not ended, and which of them goes when others need its room.

use super::{Lane, Memory, SMALL_FRAME, STALLED};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Bytes per millisecond that a giant must bring while another waits for its place.
const GIANT_RATE: u64 = 1 << 10;

/// A frame that has begun and not ended, as seen by those who look for room.
#[derive(Debug)]
pub(in crate::server) struct Unfinished {
    held: AtomicUsize,
    /// Milliseconds since the memory's start at which bytes last arrived.
    progress: AtomicU64,
    /// Since when it has the giant's place, in the same milliseconds, plus one; 0 if it has not.
    giant_since: AtomicU64,
    /// Whether it waits for room, rather than for its sender.
    pub(in crate::server) waiting: AtomicBool,
    /// Told to its connection when it must go.
    pub(in crate::server) evicted: Notify,
}

impl Memory {
    /// Notes that connection `id` has begun a frame.
    pub(in crate::server) fn begin_unfinished(&self, id: u64) -> Arc<Unfinished> {
        let entry = Arc::new(Unfinished {
            held: AtomicUsize::new(0),
            progress: AtomicU64::new(self.now()),
            giant_since: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        self.table().insert(id, entry.clone());
        entry
    }

    pub(in crate::server) fn progress(&self, entry: &Unfinished, held: usize) {
        entry.held.store(held, Ordering::Relaxed);
        entry.progress.store(self.now(), Ordering::Relaxed);
    }

    /// As [`Self::progress`], of the one that has the giant's place.
    pub(in crate::server) fn progress_of_giant(&self, entry: &Unfinished, held: usize) {
        let since = self.now() + 1;
        let first = entry.giant_since.load(Ordering::Relaxed) == 0;
        if first {
            entry.giant_since.store(since, Ordering::Relaxed);
        }
        self.progress(entry, held);
    }

    pub(in crate::server) fn end_unfinished(&self, id: u64) {
        self.table().remove(&id);
    }

    /// Tells one unfinished frame of `lane` to go: the largest whose sender is silent; if all that are
    /// stalled wait for room themselves, the smallest, so that the one furthest along gets done.
    pub(super) fn evict_for(&self, lane: Lane) {
        let now = self.now();
        let table = self.table();
        let held = |entry: &Arc<Unfinished>| entry.held.load(Ordering::Relaxed);
        let stalled = || {
            table.values().filter(|entry| {
                let since = now.saturating_sub(entry.progress.load(Ordering::Relaxed));
                (held(entry) > SMALL_FRAME) == (lane == Lane::Large)
                    && u128::from(since) >= STALLED.as_millis()
            })
        };
        let waits = |entry: &Arc<Unfinished>| entry.waiting.load(Ordering::Relaxed);
        let silent = stalled()
            .filter(|entry| !waits(entry))
            .max_by_key(|entry| held(entry));
        if let Some(victim) = silent.or_else(|| stalled().min_by_key(|entry| held(entry))) {
            victim.evicted.notify_one();
        }
    }

    /// Tells the giant to go if it is silent, or slower than one that others wait for may be.
    pub(super) fn evict_slow_giant(&self) {
        let now = self.now();
        for entry in self.table().values() {
            let since = entry.giant_since.load(Ordering::Relaxed);
            // Its sender is not to blame while it waits for room itself.
            if since == 0 || entry.waiting.load(Ordering::Relaxed) {
                continue;
            }
            let due = now.saturating_sub(since - 1 + STALLED.as_millis() as u64) * GIANT_RATE;
            let silent = now.saturating_sub(entry.progress.load(Ordering::Relaxed));
            let slow = (entry.held.load(Ordering::Relaxed) as u64) < due;
            if slow || u128::from(silent) >= STALLED.as_millis() {
                entry.evicted.notify_one();
            }
        }
    }
}
