//! What this broker sends to followers, or copies, held to a limit. Pure.
//!
//! One is over the replicas that the controller moves to keep brokers even or to empty one, one over what goes from one of the
//! broker's log directories to another (`replica.alter.log.dirs.io.max.bytes.per.second`), two are Kafka's
//! `leader.replication.throttled.rate` and `follower.replication.throttled.rate`, over the replicas that topics name
//! (<https://cwiki.apache.org/confluence/display/KAFKA/KIP-73>). Unlike Kafka's, which let ten seconds' worth go at
//! first, no more than one second's worth and an answer goes beyond it. Who is in sync is never held back.

use crate::quota::rate::{Bucket, Window};
use leasehold_types::BrokerId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// A throttle with its limit, which changes while the broker runs.
pub struct Limited {
    throttle: Throttle,
    /// Bytes per second; [`NO_LIMIT`] for none.
    limit: AtomicU64,
}

const NO_LIMIT: u64 = i64::MAX as u64;

impl Default for Limited {
    fn default() -> Self {
        Self {
            throttle: Throttle::default(),
            limit: AtomicU64::new(NO_LIMIT),
        }
    }
}

impl Limited {
    /// The limit from now on, in bytes per second. Of 0, which would stop all for good, one byte is made.
    pub fn set(&self, limit: i64) {
        let limit = u64::try_from(limit).unwrap_or(0).max(1);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How long to wait, and how many bytes may go at most then; `None` without a limit.
    pub fn wait(&self, now: Instant) -> Option<(Duration, usize)> {
        let limit = self.limit.load(Ordering::Relaxed);
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        (limit < NO_LIMIT).then(|| (self.throttle.wait(limit, now), most))
    }

    /// So many bytes went.
    pub fn sent(&self, bytes: usize) {
        if bytes > 0 {
            self.throttle.sent(bytes);
        }
    }
}

/// All of a broker's.
#[derive(Default)]
pub struct Throttles {
    /// What is sent to newcomers of the controller's moves.
    pub moves: Limited,
    /// What is sent to followers of the leaders that topics name.
    pub leader: Limited,
    /// What is copied as one of the followers that topics name.
    pub follower: Limited,
    /// What is copied from one log directory to another.
    pub log_dirs: Limited,
}

/// The brokers that a topic names for one of its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Named {
    #[default]
    Nobody,
    All,
    These(Vec<BrokerId>),
}

impl Named {
    /// What `list` (`0:1,0:2`, or `*`) says of `partition`. What cannot be read names nobody.
    pub fn of(list: &str, partition: i32) -> Self {
        if list.trim() == "*" {
            return Self::All;
        }
        let pairs = list.split(',').filter_map(|pair| {
            let (of, broker) = pair.trim().split_once(':')?;
            Some((of.parse::<i32>().ok()?, BrokerId(broker.parse().ok()?)))
        });
        let these: Vec<_> = pairs
            .filter(|(of, _)| *of == partition)
            .map(|(_, broker)| broker)
            .collect();
        match these.is_empty() {
            true => Self::Nobody,
            false => Self::These(these),
        }
    }

    pub fn has(&self, broker: BrokerId) -> bool {
        match self {
            Self::Nobody => false,
            Self::All => true,
            Self::These(these) => these.contains(&broker),
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

    #[test]
    fn a_topic_names_pairs_or_everyone() {
        let of = |list: &str, partition, broker| Named::of(list, partition).has(BrokerId(broker));
        assert!(of("0:1, 0:2,3:4", 0, 2) && of("0:1,0:2,3:4", 3, 4));
        assert!(!of("0:1,0:2,3:4", 3, 1) && !of("", 0, 0));
        assert!(of("*", 7, 9));
        assert_eq!(Named::of("0:x,:,1", 0), Named::Nobody);
    }

    #[test]
    fn without_a_limit_nobody_waits_and_of_none_at_all_a_trickle_is_left() {
        let (limited, now) = (Limited::default(), Instant::now());
        assert_eq!(limited.wait(now), None);
        limited.set(0);
        assert_eq!(limited.wait(now), Some((Duration::ZERO, 1)));
        limited.sent(10);
        assert!(
            limited
                .wait(now)
                .is_some_and(|(wait, _)| wait > Duration::from_secs(1))
        );
        limited.set(i64::MAX);
        assert_eq!(limited.wait(now), None);
    }
}
