//! What this broker sends to newcomers of the controller's moves, held to a limit. Pure.
//!
//! As Kafka's `leader.replication.throttled.rate`, over the replicas that the controller moves to keep brokers even
//! or to empty one, and no others. Unlike Kafka's, which lets ten seconds' worth go at first, no more than one
//! second's worth and an answer goes beyond it.

use crate::quota::rate::{Bucket, Window};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

const SECOND: Window = Window {
    samples: 1,
    sample: Duration::from_secs(1),
};

/// What was sent lately, to all followers together.
#[derive(Default)]
pub struct Throttle {
    bucket: Mutex<Option<Bucket>>,
}

impl Throttle {
    /// How long to wait before more is sent at `limit` bytes per second.
    pub fn wait(&self, limit: u64, now: Instant) -> Duration {
        let limit = limit as f64;
        let mut bucket = self.bucket.lock();
        let bucket = bucket.get_or_insert_with(|| Bucket::full(SECOND, limit, now));
        bucket.wait(SECOND, limit, now)
    }

    /// So many bytes go.
    pub fn sent(&self, bytes: usize) {
        // Nobody asked yet whether it may wait: nothing limits it.
        if let Some(bucket) = &mut *self.bucket.lock() {
            bucket.draw(bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_long_run_as_much_goes_as_the_limit_allows() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(100) {
            let wait = throttle.wait(1_000, now);
            if wait.is_zero() {
                throttle.sent(700);
                sent += 700;
            }
            now += wait.max(Duration::from_millis(1));
        }
        assert!((99_000..103_000).contains(&sent), "{sent}");
    }

    #[test]
    fn the_first_burst_is_a_second_worth_and_what_is_above_is_waited_for() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert!(throttle.wait(1_000, now).is_zero());
        throttle.sent(1_000);
        assert!(throttle.wait(1_000, now).is_zero());
        throttle.sent(500);
        assert_eq!(throttle.wait(1_000, now), Duration::from_millis(500));
        let later = now + Duration::from_millis(500);
        assert!(throttle.wait(1_000, later).is_zero());
    }

    #[test]
    fn without_a_limit_nothing_is_held_against_anyone_later() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.sent(1 << 40);
        assert!(throttle.wait(1_000, now).is_zero());
    }
}
