//! Letting go of old segments: by time, by size, and below the log start offset. Time and size count
//! only where `cleanup.policy` names `delete`.

use super::{EPOCHS, LOG_START, PartitionLog, View, offset_line, retire};
use crate::epochs::EpochCache;
use crate::segment::Segment;
use crate::{LogConfig, LogError, disk};
use leasehold_types::Offset;
use leasehold_types::seams::taken_out;
use parking_lot::MutexGuard;
use std::sync::Arc;

impl PartitionLog {
    /// Deletes the segments that the topic's retention no longer wants: whole ones, oldest first,
    /// none that reaches past `high_watermark`. The active one goes only if all of it is too old;
    /// then a new one is begun first. Returns the base offsets of those deleted.
    pub fn apply_retention(
        &self,
        now_ms: i64,
        high_watermark: Offset,
    ) -> Result<Vec<Offset>, LogError> {
        let config = self.config();
        let mut writer = self.writer.lock();
        self.check_writable()?;
        writer
            .producers
            .expire(now_ms, config.producer_id_expiration_ms);
        self.stability.change(|transactions| {
            transactions.expire(now_ms, config.producer_id_expiration_ms);
            transactions.last_stable(high_watermark)
        });
        let view = self.snapshot();
        let count =
            count_expired(&view, &config, now_ms, high_watermark).map_err(|e| self.failed(e))?;
        if count == 0 {
            return Ok(Vec::new());
        }
        if count == view.segments.len() {
            // The new one is there for good before the old ones, with the log's end, are gone.
            self.roll(&mut writer)
                .and_then(|_| disk::sync_folder(&self.folder))
                .map_err(|e| self.failed(e))?;
        }
        self.drop_oldest(writer, count).map_err(|e| self.failed(e))
    }

    /// Moves the log start offset up to `offset`, durably, and deletes the segments below it.
    /// Returns the log start offset.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset, LogError> {
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let view = self.snapshot();
        if offset <= view.start {
            return Ok(view.start);
        }
        if offset > view.end {
            return Err(LogError::OutOfRange {
                offset,
                start: view.start,
                end: view.end,
            });
        }
        writer.dirty = true;
        disk::write_durably(&self.file(LOG_START), offset_line(offset).as_bytes())
            .map_err(|e| self.failed(e))?;
        self.view.write().start = offset;
        let sealed = view.segments.len().saturating_sub(1);
        let count = (0..sealed)
            .take_while(|&i| view.end_of(i) <= offset)
            .count();
        self.drop_oldest(writer, count)
            .map_err(|e| self.failed(e))?;
        Ok(offset)
    }

    /// Takes the `count` oldest segments, never all of them, out of the log. Their bytes are freed
    /// once the writer's lock is given back, or later.
    fn drop_oldest(
        &self,
        writer: MutexGuard<'_, super::Writer>,
        count: usize,
    ) -> Result<Vec<Offset>, LogError> {
        let view = self.snapshot();
        if let Some(first) = view.segments.get(count).filter(|s| s.base() > view.start) {
            // A power cut may bring some of the old segments back and not others: by this the next start
            // knows that they are gone, and does not take a hole among them for the log's end.
            let line = offset_line(first.base());
            disk::write_durably(&self.file(LOG_START), line.as_bytes())?;
        }
        let old: Vec<Arc<Segment>> = {
            let mut view = self.view.write();
            let old = view.segments[..count].to_vec();
            view.segments = Arc::new(view.segments[count..].to_vec());
            if let Some(first) = view.segments.first() {
                view.start = view.start.max(first.base());
            }
            old
        };
        let mut retired = Vec::new();
        for segment in &old {
            retired.push(retire(&self.shared, segment)?);
        }
        let view = self.snapshot();
        let mut epochs = EpochCache::clone(&view.epochs);
        if epochs.truncate_before(view.start) {
            epochs.save(&self.file(EPOCHS))?;
            self.view.write().epochs = Arc::new(epochs);
        }
        drop(writer);
        self.discard(retired)?;
        if !old.is_empty() {
            let bytes: u64 = old.iter().map(|s| s.size()).sum();
            tracing::info!(partition = %self.name, segments = old.len(), bytes, start = %view.start, "deleted old segments");
        }
        Ok(old.iter().map(|s| s.base()).collect())
    }
}

/// How many of the oldest segments are no longer wanted.
fn count_expired(
    view: &View,
    config: &LogConfig,
    now_ms: i64,
    high_watermark: Offset,
) -> Result<usize, LogError> {
    let total: u64 = view.segments.iter().map(|s| s.size()).sum();
    // What may go by size: all that is above the bound.
    let mut excess = match u64::try_from(config.retention_bytes) {
        Ok(bound) if config.delete => total.saturating_sub(bound),
        _ => 0,
    };
    let mut count = 0;
    for (i, segment) in view.segments.iter().enumerate() {
        let (size, end) = (segment.size(), view.end_of(i));
        let beyond = end > high_watermark && !taken_out("retention-ends-at-the-high-watermark");
        if size == 0 || beyond {
            break;
        }
        let by_size = size <= excess || (excess > 0 && taken_out("retention-leaves-its-bytes"));
        if !by_size && end > view.start && !is_too_old(segment, config, now_ms)? {
            break;
        }
        excess = excess.saturating_sub(size);
        count += 1;
    }
    Ok(count)
}

fn is_too_old(segment: &Segment, config: &LogConfig, now_ms: i64) -> Result<bool, LogError> {
    if config.retention_ms < 0 || !config.delete {
        return Ok(false);
    }
    let newest = match segment.max_timestamp(config.index_interval_bytes)? {
        Some((time, _)) => time,
        None => disk::modified_ms(segment.path())?,
    };
    Ok(now_ms.saturating_sub(newest) > config.retention_ms)
}
