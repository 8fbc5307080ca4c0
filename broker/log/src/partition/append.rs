//! Appending, as leader and as follower, and beginning an epoch.

use super::{AppendInfo, EPOCHS, PartitionLog, Writer};
use crate::batch::BatchHeader;
use crate::epochs::EpochCache;
use crate::segment::{self, SNAPSHOT, Segment};
use crate::{AppendError, LogConfig, LogError, disk, validate};
use leasehold_types::{LeaderEpoch, Offset};
use std::sync::Arc;

impl PartitionLog {
    /// A new leader's first act: notes that `epoch` starts at the log end offset. Returns that
    /// offset; for the epoch begun last, the offset noted then. Durable when it returns; without a
    /// folder yet, it becomes so with the first append, before any record is written.
    pub fn begin_epoch(&self, epoch: LeaderEpoch) -> Result<Offset, LogError> {
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let view = self.snapshot();
        match view.epochs.last() {
            Some((last, start)) if last == epoch => return Ok(start),
            Some((last, _)) if last > epoch => {
                return Err(LogError::FencedEpoch { last, got: epoch });
            }
            _ => {}
        }
        let known = view.epochs.last().map(|(last, _)| last);
        let mut epochs = EpochCache::clone(&view.epochs);
        epochs.assign(epoch, view.end);
        if writer.created {
            writer.dirty = true;
            epochs
                .save_after(known, &self.file(EPOCHS))
                .map_err(|e| self.failed_or_passing(e))?;
        }
        self.view.write().epochs = Arc::new(epochs);
        Ok(view.end)
    }

    /// Appends one batch as leader: validates it, deduplicates it, gives it the next offsets and
    /// `epoch`, which must have been begun. `batch` is neither copied nor
    /// changed, unless the topic wants another codec.
    pub fn append_leader(
        &self,
        batch: &[u8],
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        let config = self.config();
        // The CRC takes the most time, and needs no lock.
        let valid = validate::leader(batch, &config, now_ms)?;
        let mut header = valid.header;
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let view = self.snapshot();
        match view.epochs.last() {
            Some((last, _)) if last == epoch => {}
            Some((last, _)) if last > epoch => {
                return Err(AppendError::FencedEpoch { last, got: epoch });
            }
            _ => return Err(AppendError::EpochNotBegun(epoch)),
        }
        if let Some(repeat) = writer.producers.check(&header)? {
            return Ok(AppendInfo {
                base_offset: repeat.base_offset,
                last_offset: repeat.last_offset,
                log_append_time: match valid.log_append_time {
                    -1 => -1,
                    _ => repeat.timestamp,
                },
                log_start_offset: view.start,
                duplicate: true,
            });
        }
        header.base_offset = view.end;
        header.leader_epoch = epoch;
        let head = validate::encode_head(&header, batch)?;
        let body = &valid.body;
        let time = match header.max_timestamp {
            -1 => now_ms,
            time => time,
        };
        self.make_room(&mut writer, &config, &view.epochs, &header, time)
            .and_then(|active| self.write(&mut writer, &config, &active, &[header], &head, body))
            .map_err(|e| self.failed_or_passing(e))?;
        self.view.write().end = header.next_offset();
        let flush = writer.unflushed_records >= config.flush_messages;
        drop(writer);
        if flush {
            self.flush()?;
        }
        Ok(AppendInfo {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time: valid.log_append_time,
            log_start_offset: view.start,
            duplicate: false,
        })
    }

    /// Appends whole batches as follower, offsets and epochs kept; checked all before any is
    /// written. None may begin below the end of the one before; the first, below the log end offset.
    /// It may begin above: there the leader's log was compacted. Empty `batches` are an error.
    pub fn append_follower(&self, batches: &[u8]) -> Result<AppendInfo, AppendError> {
        let config = self.config();
        let headers = check_follower(batches)?;
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return Err(AppendError::InvalidRecord("there is no batch".into()));
        };
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let view = self.snapshot();
        if first.base_offset < view.end {
            return Err(AppendError::NotAtEnd {
                end: view.end,
                got: first.base_offset,
            });
        }
        let epochs = with_epochs_of(&view.epochs, &headers)?;
        // Before any record of a new epoch. A folder not yet there is made with all of them.
        let known = view.epochs.last().map(|(epoch, _)| epoch);
        if writer.created && epochs.last().map(|(epoch, _)| epoch) != known {
            epochs
                .save_after(known, &self.file(EPOCHS))
                .map_err(|e| self.failed_or_passing(e))?;
        }
        self.write_runs(&mut writer, &config, &epochs, &headers, batches)
            .map_err(|e| self.failed_or_passing(e))?;
        let flush = writer.unflushed_records >= config.flush_messages;
        drop(writer);
        if flush {
            self.flush()?;
        }
        Ok(AppendInfo {
            base_offset: first.base_offset,
            last_offset: last.last_offset(),
            log_append_time: -1,
            log_start_offset: view.start,
            duplicate: false,
        })
    }

    /// Writes batches, one write per segment that they fall into.
    fn write_runs(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        epochs: &EpochCache,
        mut headers: &[BatchHeader],
        mut bytes: &[u8],
    ) -> Result<(), LogError> {
        while let Some(first) = headers.first() {
            let active = self.make_room(writer, config, epochs, first, first.max_timestamp)?;
            let mut len = first.total_len();
            let mut count = 1;
            for header in &headers[1..] {
                if !fits(&active, config, len + header.total_len(), header) {
                    break;
                }
                len += header.total_len();
                count += 1;
            }
            let (run, later) = headers.split_at(count);
            let (body, rest) = bytes.split_at(len);
            let end = run[count - 1].next_offset();
            self.write(writer, config, &active, run, &[], body)?;
            let mut view = self.view.write();
            if view.epochs.last() != epochs.last() {
                let mut so_far = epochs.clone();
                so_far.truncate_from(end);
                view.epochs = Arc::new(so_far);
            }
            view.end = end;
            (headers, bytes) = (later, rest);
        }
        Ok(())
    }

    /// Writes a run of batches to the active segment and takes note of them. Nobody sees them
    /// before the caller moves the log end.
    fn write(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        active: &Segment,
        run: &[BatchHeader],
        head: &[u8],
        body: &[u8],
    ) -> Result<(), LogError> {
        writer.dirty = true;
        active.write(head, body)?;
        for header in run {
            if active.size() == 0 {
                writer.first_timestamp = Some(header.max_timestamp).filter(|&t| t >= 0);
            }
            active.note(header, config.index_interval_bytes);
            writer.producers.note(header);
            writer.unflushed_records += i64::from(header.last_offset_delta) + 1;
        }
        Ok(())
    }

    /// The segment that takes the next batch, at `time`: the active one, or a new one.
    fn make_room(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        epochs: &EpochCache,
        next: &BatchHeader,
        time: i64,
    ) -> Result<Arc<Segment>, LogError> {
        let active = self.view.read().segments.last().cloned();
        let Some(active) = active else {
            return self.first_segment(writer, epochs);
        };
        let waited = writer
            .first_timestamp
            .is_some_and(|first| time.saturating_sub(first) > config.roll_ms(writer.draw));
        let full = waited
            || active.index_len() >= config.segment_index_bytes as usize
            || !fits(&active, config, next.total_len(), next);
        match full && active.size() > 0 {
            true => self.roll(writer),
            false => Ok(active),
        }
    }

    /// The folder and the first segment. The epochs are on disk before any record can be.
    pub(super) fn first_segment(
        &self,
        writer: &mut Writer,
        epochs: &EpochCache,
    ) -> Result<Arc<Segment>, LogError> {
        if !writer.created {
            disk::create_folder(&self.folder)?;
            epochs.save(&self.file(EPOCHS))?;
        }
        let segment = self.create_segment(writer, self.log_end_offset())?;
        disk::sync_folder(&self.folder)?;
        if !writer.created
            && let Some(parent) = self.folder.parent()
        {
            disk::sync_folder(parent)?;
        }
        writer.created = true;
        writer.dirty = true;
        writer.first_timestamp = None;
        self.view.write().segments = Arc::new(vec![segment.clone()]);
        Ok(segment)
    }

    /// A new segment's file, and its share of the jitter.
    fn create_segment(&self, writer: &mut Writer, base: Offset) -> Result<Arc<Segment>, LogError> {
        let segment = Segment::create(&self.folder, base)?;
        let config = self.config();
        if config.preallocate {
            segment.reserve(config.segment_bytes.into());
        }
        writer.draw = rand::random();
        Ok(Arc::new(segment))
    }

    /// Begins a new segment at the log end; the one before is flushed in the background.
    pub(super) fn roll(&self, writer: &mut Writer) -> Result<Arc<Segment>, LogError> {
        let end = self.log_end_offset();
        let snapshot = segment::file(&self.folder, end, SNAPSHOT);
        writer.producers.save(&snapshot)?;
        let full = self.view.read().segments.last().cloned();
        if let Some(full) = full.filter(|_| self.config().preallocate) {
            full.give_back()?;
        }
        let segment = self.create_segment(writer, end)?;
        writer.dirty = true;
        writer.first_timestamp = None;
        {
            let mut view = self.view.write();
            let mut segments = Vec::clone(&view.segments);
            segments.push(segment.clone());
            view.segments = Arc::new(segments);
        }
        self.shared.flush_later(self.myself.clone());
        if self.config.read().compact {
            self.shared.rolled();
        }
        Ok(segment)
    }
}

/// Whether `more` bytes that end with `last` may go into the active segment.
fn fits(active: &Segment, config: &LogConfig, more: usize, last: &BatchHeader) -> bool {
    active.size() + more as u64 <= u64::from(config.segment_bytes)
        && last.last_offset().0 - active.base().0 <= i64::from(i32::MAX)
}

/// Checks what a leader sent: whole, intact batches, each after the one before.
fn check_follower(mut bytes: &[u8]) -> Result<Vec<BatchHeader>, AppendError> {
    let mut headers: Vec<BatchHeader> = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes)?;
        header.check_crc(bytes)?;
        bytes = &bytes[header.total_len()..];
        if header.leader_epoch.0 < 0 {
            return Err(AppendError::InvalidRecord("no leader epoch".into()));
        }
        if let Some(before) = headers.last()
            && before.next_offset() > header.base_offset
        {
            return Err(AppendError::NotAtEnd {
                end: before.next_offset(),
                got: header.base_offset,
            });
        }
        headers.push(header);
    }
    Ok(headers)
}

/// The epochs as they are once `headers` are appended.
fn with_epochs_of(epochs: &EpochCache, headers: &[BatchHeader]) -> Result<EpochCache, AppendError> {
    let mut epochs = epochs.clone();
    for header in headers {
        let got = header.leader_epoch;
        match epochs.last() {
            Some((last, _)) if last > got => return Err(AppendError::FencedEpoch { last, got }),
            Some((last, _)) if last == got => {}
            _ => drop(epochs.assign(got, header.base_offset)),
        }
    }
    Ok(epochs)
}
