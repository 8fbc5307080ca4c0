//! What a topic's configuration asks of its logs: Kafka's keys, typed, with Kafka's defaults.

use crate::batch;

/// Who sets the records' timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    #[default]
    CreateTime,
    /// The leader, at the append.
    LogAppendTime,
}

/// How batches lie on the disk: `compression.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As their producer sent them.
    #[default]
    Producer,
    /// In none.
    Uncompressed,
    /// In gzip.
    Gzip,
    /// In snappy.
    Snappy,
    /// In lz4.
    Lz4,
    /// In zstd.
    Zstd,
}

impl Compression {
    /// The codec's number in a batch's attributes; `None` where it is the producer's.
    pub(crate) fn codec(self) -> Option<i16> {
        match self {
            Self::Producer => None,
            Self::Uncompressed => Some(0),
            Self::Gzip => Some(batch::GZIP),
            Self::Snappy => Some(batch::SNAPPY),
            Self::Lz4 => Some(batch::LZ4),
            Self::Zstd => Some(batch::ZSTD),
        }
    }
}

/// Not one of Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such compression type")]
pub struct UnknownCompression;

impl std::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "producer" => Self::Producer,
            "uncompressed" => Self::Uncompressed,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return Err(UnknownCompression),
        })
    }
}

/// A partition log's settings. `-1` in a retention means "no bound".
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow past this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its first batch is this much older than the next.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much earlier, by a draw for each segment.
    pub segment_jitter_ms: i64,
    /// `preallocate`: the disk's room for a whole segment is taken when it is begun.
    pub preallocate: bool,
    /// `file.delete.delay.ms`: how long a deleted segment's file is kept under another name.
    pub file_delete_delay_ms: i64,
    /// `segment.index.bytes`: a segment is rolled when its offset index is this large.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: one index entry per this many bytes of log.
    pub index_interval_bytes: u32,
    /// `cleanup.policy` names `delete`: retention takes old segments away.
    pub delete: bool,
    /// `cleanup.policy` names `compact`: the cleaner keeps the last record of each key.
    pub compact: bool,
    /// `min.cleanable.dirty.ratio`: the share of bytes not yet compacted above which it is done.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: younger records are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: older ones are, whatever the ratio.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone outlives the records that it deletes.
    pub delete_retention_ms: i64,
    /// `retention.ms`.
    pub retention_ms: i64,
    /// `retention.bytes`.
    pub retention_bytes: i64,
    /// `compression.type`.
    pub compression: Compression,
    /// `compression.gzip.level`, if the leader packs in gzip; -1 for gzip's own default.
    pub gzip_level: i32,
    /// `compression.zstd.level`, if the leader packs in zstd.
    pub zstd_level: i32,
    /// `max.message.bytes`: the largest batch that a leader takes.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record's time may lie behind the leader's.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far it may lie ahead.
    pub timestamp_after_max_ms: i64,
    /// `flush.messages`: fsync after this many records.
    pub flush_messages: i64,
    /// `flush.ms`: fsync what is older than this; see `PartitionLog::flush_if_due`.
    pub flush_ms: i64,
    /// `producer.id.expiration.ms`: an idempotent producer silent for this long is forgotten.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            preallocate: false,
            file_delete_delay_ms: 60 * 1000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            delete: true,
            compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: DAY_MS,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            compression: Compression::Producer,
            gzip_level: -1,
            zstd_level: 3,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            producer_id_expiration_ms: DAY_MS,
        }
    }
}

impl LogConfig {
    /// The age at which a segment is rolled: early enough for `max.compaction.lag.ms`, as the active
    /// segment is never compacted; and less the segment's share of the jitter, by its `draw`.
    pub(crate) fn roll_ms(&self, draw: u64) -> i64 {
        let age = match self.compact {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        };
        let jitter = u64::try_from(self.segment_jitter_ms.min(self.segment_ms)).unwrap_or(0);
        let less = draw.checked_rem(jitter).unwrap_or(0);
        age.saturating_sub(i64::try_from(less).unwrap_or(0)).max(0)
    }

    /// The level at which the leader packs in `codec`, if it has levels.
    pub(crate) fn level(&self, codec: i16) -> Option<i32> {
        match codec {
            batch::GZIP => Some(self.gzip_level),
            batch::ZSTD => Some(self.zstd_level),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_rolls_each_segment_earlier_by_its_draw_and_never_later() {
        let config = |segment_ms, segment_jitter_ms| LogConfig {
            segment_ms,
            segment_jitter_ms,
            ..LogConfig::default()
        };
        for draw in [0, 1, 99, 100, 7_654_321, u64::MAX] {
            assert_eq!(config(1000, 0).roll_ms(draw), 1000);
            let age = config(1000, 100).roll_ms(draw);
            assert_eq!(age, 1000 - (draw % 100) as i64);
            // A jitter longer than the age counts as long as that.
            assert!((1..=10).contains(&config(10, 5000).roll_ms(draw)));
        }
    }
}
