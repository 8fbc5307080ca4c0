//! One queue of everything that will be due: a key has at most one deadline, and setting it again
//! moves it. The owner sleeps until [`TimerQueue::next_deadline`]; nothing is ever polled.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Deadlines by key, in milliseconds of the owner's monotonic clock.
#[derive(Debug)]
pub struct TimerQueue<K> {
    by_deadline: BTreeMap<(u64, u64), K>,
    by_key: HashMap<K, (u64, u64)>,
    next: u64,
}

impl<K> Default for TimerQueue<K> {
    fn default() -> Self {
        Self {
            by_deadline: BTreeMap::new(),
            by_key: HashMap::new(),
            next: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> TimerQueue<K> {
    /// `key` is due at `at`, whenever it was due before.
    pub fn set(&mut self, key: K, at: u64) {
        self.cancel(&key);
        // The running number keeps keys of one deadline in the order in which they were set.
        let slot = (at, self.next);
        self.next += 1;
        self.by_deadline.insert(slot, key.clone());
        self.by_key.insert(key, slot);
    }

    /// `key` is not due any more.
    pub fn cancel(&mut self, key: &K) {
        if let Some(slot) = self.by_key.remove(key) {
            self.by_deadline.remove(&slot);
        }
    }

    /// When the first key is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.by_deadline.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first key that is due at `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<K> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, key) = self.by_deadline.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// Whether `key` has a deadline.
    pub fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_the_order_of_their_deadlines_and_only_once() {
        let mut queue = TimerQueue::default();
        queue.set("late", 20);
        queue.set("early", 10);
        queue.set("moved", 5);
        queue.set("moved", 30);
        queue.set("gone", 1);
        queue.cancel(&"gone");
        assert_eq!(queue.next_deadline(), Some(10));
        assert_eq!(queue.pop_due(9), None);
        assert_eq!(queue.pop_due(25), Some("early"));
        assert_eq!(queue.pop_due(25), Some("late"));
        assert_eq!(queue.pop_due(25), None);
        assert_eq!(queue.next_deadline(), Some(30));
    }
}
