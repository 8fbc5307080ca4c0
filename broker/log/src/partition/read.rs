//! Reading: by offset and by time. Takes no writer's lock.

use super::{PartitionLog, TimestampedOffset, View};
use crate::batch::{Batch, BatchHeader};
use crate::segment::Segment;
use crate::{LogError, ReadError};
use bytes::Bytes;
use leasehold_types::Offset;
use std::sync::Arc;

/// What was found in a view; or on which segment it failed.
type Looked<T> = Result<Result<T, ReadError>, (Arc<Segment>, LogError)>;

impl PartitionLog {
    /// Whole batches from the one that holds `from`, or the first after it where compaction left a
    /// hole, up to `max_bytes`, all below `limit` (the high
    /// watermark or the log end). Empty if there are none yet. With `at_least_one`, the first batch
    /// comes whatever its size. The first batch may begin before `from`.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        limit: Offset,
        at_least_one: bool,
    ) -> Result<Bytes, ReadError> {
        self.with_view(|view| self.read_view(view, from, max_bytes, limit, at_least_one))
    }

    pub(super) fn read_view(
        &self,
        view: &View,
        from: Offset,
        max_bytes: usize,
        limit: Offset,
        at_least_one: bool,
    ) -> Looked<Bytes> {
        let interval = self.config.read().index_interval_bytes;
        if from < view.start || from > view.end {
            return Ok(Err(ReadError::OutOfRange {
                from,
                start: view.start,
                end: view.end,
            }));
        }
        let limit = limit.min(view.end);
        if from >= limit {
            return Ok(Ok(Bytes::new()));
        }
        let first = view.index_of(from).unwrap_or(0);
        for segment in view.segments.iter().skip(first) {
            let found = segment.read(from, max_bytes, limit, at_least_one, interval);
            if let Some(bytes) = found.map_err(|e| (segment.clone(), e))? {
                return Ok(Ok(bytes));
            }
        }
        Ok(Ok(Bytes::new()))
    }

    /// The first record at or after `timestamp`, below `limit`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        limit: Offset,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let interval = self.config.read().index_interval_bytes;
        self.with_view(|view| {
            for segment in view.segments.iter() {
                let failed = |e| (segment.clone(), e);
                let max = segment.max_timestamp(interval).map_err(failed)?;
                if max.is_none_or(|(max, _)| max < timestamp) {
                    continue;
                }
                let from = segment.find_time(timestamp, interval).map_err(failed)?;
                let from = from.max(view.start);
                let reaches = |t| t >= timestamp;
                let found = find_record(segment, view, from, interval, reaches).map_err(failed)?;
                if found.is_some() {
                    return Ok(Ok(found.filter(|f| f.offset < limit)));
                }
            }
            Ok(Ok(None))
        })
    }

    /// The record with the greatest timestamp (the first of them); `None` if it is not below `limit`.
    pub fn max_timestamp(&self, limit: Offset) -> Result<Option<TimestampedOffset>, ReadError> {
        let interval = self.config.read().index_interval_bytes;
        self.with_view(|view| {
            let mut greatest: Option<(i64, Offset, &Arc<Segment>)> = None;
            for segment in view.segments.iter() {
                let max = segment.max_timestamp(interval);
                if let Some((time, offset)) = max.map_err(|e| (segment.clone(), e))?
                    && greatest.is_none_or(|(t, ..)| time > t)
                {
                    greatest = Some((time, offset, segment));
                }
            }
            let Some((time, offset, segment)) = greatest else {
                return Ok(Ok(None));
            };
            let from = offset.max(view.start);
            let found = find_record(segment, view, from, interval, |t| t >= time)
                .map_err(|e| (segment.clone(), e))?;
            Ok(Ok(found.filter(|f| f.offset < limit)))
        })
    }

    /// Runs `read` on a snapshot; again, if the log was truncated meanwhile, or the segment that it
    /// stumbled over is no longer part of the log.
    pub(super) fn with_view<T>(&self, read: impl Fn(&View) -> Looked<T>) -> Result<T, ReadError> {
        loop {
            self.check_online()?;
            let view = self.snapshot();
            let result = read(&view);
            let now = self.snapshot();
            if now.generation != view.generation {
                continue;
            }
            match result {
                Ok(result) => return result,
                Err((segment, _)) if !now.segments.iter().any(|s| Arc::ptr_eq(s, &segment)) => {}
                Err((_, e)) => return Err(self.fail_or_pass(&e).into()),
            }
        }
    }
}

/// The first record from `from` on whose time `reaches`.
fn find_record(
    segment: &Segment,
    view: &View,
    from: Offset,
    interval: u32,
    reaches: impl Fn(i64) -> bool,
) -> Result<Option<TimestampedOffset>, LogError> {
    let mut found = None;
    segment.walk(from, interval, |at, header| {
        if header.base_offset >= view.end {
            return Ok(false);
        }
        if header.record_count > 0 && reaches(header.max_timestamp) {
            found = find_in_batch(segment, at, header, from, &reaches)?;
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

fn find_in_batch(
    segment: &Segment,
    at: u64,
    header: &BatchHeader,
    from: Offset,
    reaches: &impl Fn(i64) -> bool,
) -> Result<Option<TimestampedOffset>, LogError> {
    let first = TimestampedOffset {
        timestamp: header.max_timestamp,
        offset: header.base_offset.max(from),
        leader_epoch: header.leader_epoch,
    };
    if header.is_log_append_time() {
        return Ok(Some(first));
    }
    let batch = Batch {
        header: *header,
        bytes: segment.batch(at, header)?,
    };
    // What cannot be unpacked is for the client to see.
    let Ok(records) = batch.unpacked().and_then(|batch| batch.records()) else {
        return Ok(Some(first));
    };
    // A record that cannot be decoded ends the search in this batch; its reader will see it.
    let record = records
        .map_while(Result::ok)
        .find(|r| r.offset >= from && reaches(r.timestamp));
    Ok(record.map(|r| TimestampedOffset {
        timestamp: r.timestamp,
        offset: r.offset,
        leader_epoch: header.leader_epoch,
    }))
}
