//! One partition's log.

use crate::{AppendError, LogConfig, LogError, ReadError, StorageError};
use bytes::Bytes;
use leasehold_types::{LeaderEpoch, Offset, TopicId};

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// The first record's offset.
    pub base_offset: Offset,
    /// The last record's.
    pub last_offset: Offset,
    /// The time set by the leader; -1 unless the topic has LogAppendTime.
    pub log_append_time: i64,
    /// The log start offset at the append.
    pub log_start_offset: Offset,
    /// The batch had been appended already, at these offsets; nothing was appended now.
    pub duplicate: bool,
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its timestamp.
    pub timestamp: i64,
    /// Its offset. In a compressed batch: the batch's first, as this crate has no codecs.
    pub offset: Offset,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
}

/// One partition's log: `Send + Sync`, one writer at a time, readers never wait for a writer's I/O.
pub struct PartitionLog {}

#[allow(unused_variables)]
impl PartitionLog {
    /// Which partition.
    pub fn id(&self) -> (TopicId, i32) {
        todo!()
    }

    /// The first offset that can be read.
    pub fn log_start_offset(&self) -> Offset {
        todo!()
    }

    /// The offset of the next record. Counts only what `write()` returned for.
    pub fn log_end_offset(&self) -> Offset {
        todo!()
    }

    /// Why the log is offline, if it is.
    pub fn offline(&self) -> Option<StorageError> {
        todo!()
    }

    /// Appends one batch as leader: validates it, deduplicates it, gives it the next offsets and
    /// `epoch`, which must have been begun. `batch` is not copied and not changed.
    pub fn append_leader(
        &self,
        batch: &[u8],
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        todo!()
    }

    /// Appends whole batches as follower, offsets and epochs kept; all or nothing. The first must
    /// begin at the log end offset. Empty `batches` are an error.
    pub fn append_follower(&self, batches: &[u8]) -> Result<AppendInfo, AppendError> {
        todo!()
    }

    /// Whole batches from the one that holds `from`, up to `max_bytes`, all below `limit` (the high
    /// watermark or the log end). Empty if there are none yet. With `at_least_one`, the first batch
    /// comes whatever its size. The first batch may begin before `from`.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        limit: Offset,
        at_least_one: bool,
    ) -> Result<Bytes, ReadError> {
        todo!()
    }

    /// A new leader's first act: notes that `epoch` starts at the log end offset, durably. Returns
    /// that offset; for the epoch begun last, the offset noted then.
    pub fn begin_epoch(&self, epoch: LeaderEpoch) -> Result<Offset, LogError> {
        todo!()
    }

    /// The last leader epoch in this log.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        todo!()
    }

    /// Kafka's OffsetForLeaderEpoch: the greatest epoch not above `epoch`, and where it ends. `None`
    /// if `epoch` is newer than the last one here, or there is none.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        todo!()
    }

    /// Where `epoch` starts in this log.
    pub fn epoch_start(&self, epoch: LeaderEpoch) -> Option<Offset> {
        todo!()
    }

    /// The leader epoch of the record at `offset` (of the next one, for the log end offset).
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        todo!()
    }

    /// Removes everything from `offset` on, epochs that start there included. A batch that holds
    /// `offset` goes as a whole. Below the log start it is `reset_to`. Returns the new log end.
    pub fn truncate_to(&self, offset: Offset) -> Result<Offset, LogError> {
        todo!()
    }

    /// Removes everything, and starts empty at `offset`.
    pub fn reset_to(&self, offset: Offset) -> Result<(), LogError> {
        todo!()
    }

    /// The first record at or after `timestamp`, below `limit`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        limit: Offset,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        todo!()
    }

    /// The record with the greatest timestamp (the first of them), below `limit`.
    pub fn max_timestamp(&self, limit: Offset) -> Result<Option<TimestampedOffset>, ReadError> {
        todo!()
    }

    /// Deletes the segments that the topic's retention no longer wants: whole ones, oldest first,
    /// none that reaches past `high_watermark`. Returns the base offsets of those deleted.
    pub fn apply_retention(
        &self,
        now_ms: i64,
        high_watermark: Offset,
    ) -> Result<Vec<Offset>, LogError> {
        todo!()
    }

    /// Moves the log start offset up to `offset`, durably, and deletes the segments below it.
    /// Returns the log start offset.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset, LogError> {
        todo!()
    }

    /// fsyncs everything appended so far.
    pub fn flush(&self) -> Result<(), LogError> {
        todo!()
    }

    /// fsyncs if `flush.ms` has passed since the oldest record not yet flushed.
    pub fn flush_if_due(&self, now_ms: i64) -> Result<(), LogError> {
        todo!()
    }

    /// Flushes, and refuses everything from now on.
    pub fn close(&self) -> Result<(), LogError> {
        todo!()
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// The settings in force.
    pub fn config(&self) -> LogConfig {
        todo!()
    }

    /// Changes the settings, from the next operation on.
    pub fn set_config(&self, config: LogConfig) {
        todo!()
    }
}
