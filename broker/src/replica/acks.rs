//! Acknowledgements that wait for the high watermark.
//!
//! A queue belongs to one (partition, leader epoch): it lives inside that leadership and is failed
//! as a whole when the leadership ends, so that no record of one epoch is ever acknowledged by the
//! high watermark of another.

use leasehold_types::Offset;
use std::collections::BTreeMap;

/// Waiting acknowledgements, ordered by the last offset that each needs committed.
#[derive(Clone, Debug, Hash)]
pub struct AckQueue<T> {
    waiting: BTreeMap<(Offset, u64), T>,
    arrivals: u64,
}

impl<T> Default for AckQueue<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            arrivals: 0,
        }
    }
}

impl<T> AckQueue<T> {
    /// Waits until the record at `last` is below the high watermark.
    pub fn push(&mut self, last: Offset, waiter: T) {
        // A duplicate of an idempotent producer may wait for an older offset, so order by offset.
        self.waiting.insert((last, self.arrivals), waiter);
        self.arrivals += 1;
    }

    /// Takes those whose records all lie below `high_watermark`.
    pub fn committed(&mut self, high_watermark: Offset) -> Vec<T> {
        let mut done = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 >= high_watermark {
                break;
            }
            done.push(first.remove());
        }
        done
    }

    /// Takes all: the leadership that they belong to is over.
    pub fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Forgets those for which nobody waits any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.waiting.retain(|_, waiter| wanted(waiter));
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_waits_until_its_last_record_is_below_the_high_watermark() {
        let mut queue = AckQueue::default();
        queue.push(Offset(4), "late");
        queue.push(Offset(1), "duplicate of an older batch");
        assert!(queue.committed(Offset(1)).is_empty());
        assert_eq!(queue.committed(Offset(4)), ["duplicate of an older batch"]);
        assert_eq!(queue.committed(Offset(5)), ["late"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn waiters_for_one_offset_are_answered_in_the_order_of_their_arrival() {
        let mut queue = AckQueue::default();
        queue.push(Offset(1), 'a');
        queue.push(Offset(1), 'b');
        assert_eq!(queue.committed(Offset(2)), ['a', 'b']);
    }
}
