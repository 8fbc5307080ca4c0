//! Fetches that wait for something to read.
//!
//! A fetch registers with every partition that it asks for and then looks; whoever appends, moves the
//! high watermark or changes the role wakes it. Registering before looking means that no wake-up is
//! lost, so nothing polls.

use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Those who wait for one kind of change of one partition.
#[derive(Default)]
pub struct Waiters {
    list: parking_lot::Mutex<List>,
}

#[derive(Default)]
struct List {
    waiting: Vec<Weak<Notify>>,
    purge_at: usize,
}

impl Waiters {
    /// Wakes `waiter` at the next change, once.
    pub fn register(&self, waiter: &Arc<Notify>) {
        let mut list = self.list.lock();
        if list.waiting.len() >= list.purge_at {
            // Fetches that timed out leave their entry behind; sweeping at twice the living keeps
            // the cost constant per registration.
            list.waiting.retain(|waiter| waiter.strong_count() > 0);
            list.purge_at = (list.waiting.len() * 2).max(16);
        }
        list.waiting.push(Arc::downgrade(waiter));
    }

    /// Wakes everyone who is registered.
    pub fn wake(&self) {
        let waiting = {
            let mut list = self.list.lock();
            if list.waiting.is_empty() {
                return;
            }
            std::mem::take(&mut list.waiting)
        };
        for waiter in waiting {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_registering_and_waiting_is_not_lost() {
        let waiters = Waiters::default();
        let me = Arc::new(Notify::new());
        waiters.register(&me);
        waiters.wake();
        me.notified().await;
    }

    #[test]
    fn waiters_that_went_away_do_not_pile_up() {
        let waiters = Waiters::default();
        let stays = Arc::new(Notify::new());
        waiters.register(&stays);
        for _ in 0..10_000 {
            waiters.register(&Arc::new(Notify::new()));
        }
        assert!(waiters.list.lock().waiting.len() <= 16);
    }
}
