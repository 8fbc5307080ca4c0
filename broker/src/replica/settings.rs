//! How replicas behave: what the broker's file says, and what is set while it runs.

use super::manager::ReplicaManager;
use leasehold_metadata::dynamic::{
    ALTER_LOG_DIRS_RATE, FOLLOWER_THROTTLED_RATE, LEADER_THROTTLED_RATE, LOG_CLEANER_BACKOFF_MS,
    LOG_CLEANER_THREADS,
};
use leasehold_metadata::image::Image;
use std::time::Duration;

/// How replicas behave; the broker's configuration in the types of this module.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max: Duration,
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `replica.fetch.wait.max.ms`.
    pub fetch_wait_max: Duration,
    /// `replica.fetch.max.bytes`.
    pub fetch_max_bytes: usize,
    /// `replica.fetch.response.max.bytes`.
    pub fetch_response_max_bytes: usize,
    /// `replica.selector.class`: whether consumers are sent to followers in their rack.
    pub closest_replica: bool,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub checkpoint_interval: Duration,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// How soon the cleaner looks again at a log that waits for time to pass or to be committed; as
    /// Kafka's `log.cleaner.backoff.ms`.
    pub cleaner_backoff: Duration,
    /// How many logs the cleaner compacts at a time: Kafka's `log.cleaner.threads`.
    pub cleaner_threads: usize,
    /// How many different keys the cleaner keeps in memory at a time, in about 30 bytes each.
    pub cleaner_keys: usize,
    /// `leader.replication.throttled.rate`, in bytes per second, where it is not set while the broker runs.
    pub leader_throttled_rate: i64,
    /// `follower.replication.throttled.rate`, likewise.
    pub follower_throttled_rate: i64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`, likewise.
    pub log_dirs_rate: i64,
    /// `log.dir.min.free.bytes`; 0 watches nothing.
    pub min_free_bytes: u64,
    /// How long a log folder that was found at the start and belongs to no replica is kept.
    pub stray_delay: Duration,
    /// Threads that write to logs. More than processors: after an election they mostly wait for fsync.
    pub io_threads: usize,
}

impl Default for ReplicaSettings {
    fn default() -> Self {
        Self {
            replica_lag_time_max: Duration::from_secs(30),
            session_timeout: Duration::from_secs(3),
            fetch_wait_max: Duration::from_millis(500),
            fetch_max_bytes: 1 << 20,
            fetch_response_max_bytes: 10 << 20,
            closest_replica: false,
            checkpoint_interval: Duration::from_secs(5),
            retention_check_interval: Duration::from_secs(300),
            cleaner_backoff: Duration::from_secs(15),
            cleaner_threads: 1,
            // A hash table doubles: this is what one of 2^21 places takes before it does.
            cleaner_keys: (1 << 21) / 8 * 7,
            leader_throttled_rate: i64::MAX,
            follower_throttled_rate: i64::MAX,
            log_dirs_rate: i64::MAX,
            min_free_bytes: 0,
            stray_delay: Duration::from_secs(60),
            io_threads: 8,
        }
    }
}

impl ReplicaManager {
    /// How soon the cleaner looks again at a log that waits for time to pass.
    pub(super) fn cleaner_backoff(&self) -> Duration {
        let image = self.last_image();
        let set = image.as_ref().and_then(|image| {
            image
                .dynamic_config(self.id(), LOG_CLEANER_BACKOFF_MS)?
                .parse()
                .ok()
        });
        set.map_or(self.settings().cleaner_backoff, Duration::from_millis)
    }

    /// How many logs the cleaner compacts at a time.
    pub(super) fn cleaner_threads(&self) -> usize {
        let image = self.last_image();
        let set = image.as_ref().and_then(|image| {
            image
                .dynamic_config(self.id(), LOG_CLEANER_THREADS)?
                .parse()
                .ok()
        });
        set.unwrap_or(self.settings().cleaner_threads)
    }

    /// Takes in the limits: of Kafka's what is set for this broker, else for all, else in its file.
    pub(super) fn limit(&self, image: &Image) {
        let (throttles, settings) = (&self.throttles, self.settings());
        for (key, throttle, file) in [
            (
                LEADER_THROTTLED_RATE,
                &throttles.leader,
                settings.leader_throttled_rate,
            ),
            (
                FOLLOWER_THROTTLED_RATE,
                &throttles.follower,
                settings.follower_throttled_rate,
            ),
            (
                ALTER_LOG_DIRS_RATE,
                &throttles.log_dirs,
                settings.log_dirs_rate,
            ),
        ] {
            let set = image.dynamic_config(self.id(), key);
            throttle.set(set.and_then(|value| value.parse().ok()).unwrap_or(file));
        }
        let moves = image.balancing.bytes_per_second;
        let moves = moves.and_then(|limit| i64::try_from(limit).ok());
        throttles.moves.set(moves.unwrap_or(i64::MAX));
    }
}
