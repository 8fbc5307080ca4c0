//! Fetches that wait for something to read.
//!
//! A fetch arms itself at every partition that it asks for and then looks; whoever appends, moves the
//! high watermark or changes the role wakes it. Arming before looking means that no wake-up is lost,
//! so nothing polls; being armed once per partition means that a fetch of a thousand partitions
//! costs what changed, not a thousand, at each wake-up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// One fetch that waits.
pub struct Waiter {
    notify: Notify,
    /// For each of its partitions, whether that one will wake it.
    armed: Vec<AtomicBool>,
}

impl Waiter {
    /// Someone who asks for `partitions` partitions.
    pub fn new(partitions: usize) -> Arc<Self> {
        Arc::new(Self {
            notify: Notify::new(),
            armed: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// Returns when one of the partitions changed since it was armed.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// Those who wait for one kind of change of one partition.
#[derive(Default)]
pub struct Waiters {
    list: parking_lot::Mutex<List>,
}

#[derive(Default)]
struct List {
    waiting: Vec<(Weak<Waiter>, usize)>,
    purge_at: usize,
}

impl Waiters {
    /// Wakes `waiter`, whose partition number `index` this is, at the next change. `false` if it was
    /// armed already: then nothing has changed since it looked.
    pub fn arm(&self, waiter: &Arc<Waiter>, index: usize) -> bool {
        let Some(armed) = waiter.armed.get(index) else {
            return true;
        };
        if armed.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut list = self.list.lock();
        if list.waiting.len() >= list.purge_at {
            // Fetches that timed out leave their entry behind; sweeping at twice the living keeps
            // the cost constant per registration.
            list.waiting.retain(|(waiter, _)| waiter.strong_count() > 0);
            list.purge_at = (list.waiting.len() * 2).max(16);
        }
        list.waiting.push((Arc::downgrade(waiter), index));
        true
    }

    /// Wakes everyone who is armed. The change itself must be visible before.
    pub fn wake(&self) {
        let waiting = {
            let mut list = self.list.lock();
            if list.waiting.is_empty() {
                return;
            }
            std::mem::take(&mut list.waiting)
        };
        for (waiter, index) in waiting {
            if let Some(waiter) = waiter.upgrade() {
                if let Some(armed) = waiter.armed.get(index) {
                    armed.store(false, Ordering::Release);
                }
                waiter.notify.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_arming_and_waiting_is_not_lost() {
        let waiters = Waiters::default();
        let me = Waiter::new(1);
        assert!(waiters.arm(&me, 0));
        waiters.wake();
        me.woken().await;
        assert!(waiters.arm(&me, 0), "a wake-up disarms");
    }

    #[test]
    fn a_waiter_is_armed_once_until_it_is_woken() {
        let waiters = Waiters::default();
        let me = Waiter::new(1);
        assert!(waiters.arm(&me, 0));
        for _ in 0..100 {
            assert!(!waiters.arm(&me, 0));
        }
        assert_eq!(waiters.list.lock().waiting.len(), 1);
    }

    #[test]
    fn waiters_that_went_away_do_not_pile_up() {
        let waiters = Waiters::default();
        let stays = Waiter::new(1);
        waiters.arm(&stays, 0);
        for _ in 0..10_000 {
            waiters.arm(&Waiter::new(1), 0);
        }
        assert!(waiters.list.lock().waiting.len() <= 16);
    }
}
