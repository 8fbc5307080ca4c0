//! Appending, as leader and as follower, and beginning an epoch.

use super::{AppendInfo, EPOCHS, LOG_START, PartitionLog, View, Writer, offset_line};
use crate::batch::{BatchHeader, Marker};
use crate::epochs::EpochCache;
use crate::segment::{self, SNAPSHOT, Segment};
use crate::transactions::{Noted, VerificationGuard};
use crate::{AppendError, LogConfig, LogError, disk, validate};
use leasehold_types::seams::taken_out;
use leasehold_types::{LeaderEpoch, Offset};
use parking_lot::MutexGuard;
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
        self.append_verified(batch, epoch, now_ms, None)
    }

    /// As [`Self::append_leader`], with the guard that was asked for before the transaction coordinator said
    /// that the batch belongs to an open transaction; see [`Self::begin_verification`].
    pub fn append_verified(
        &self,
        batch: &[u8],
        epoch: LeaderEpoch,
        now_ms: i64,
        guard: Option<VerificationGuard>,
    ) -> Result<AppendInfo, AppendError> {
        self.append_from(Origin::Client, batch, epoch, now_ms, guard)
    }

    /// As [`Self::append_verified`], for the broker's own coordinators: what they write as part of a producer's
    /// transaction has no sequence of its own, so it is neither a repeat nor out of order.
    pub fn append_coordinator(
        &self,
        batch: &[u8],
        epoch: LeaderEpoch,
        now_ms: i64,
        guard: Option<VerificationGuard>,
    ) -> Result<AppendInfo, AppendError> {
        self.append_from(Origin::Coordinator, batch, epoch, now_ms, guard)
    }

    fn append_from(
        &self,
        origin: Origin,
        batch: &[u8],
        epoch: LeaderEpoch,
        now_ms: i64,
        guard: Option<VerificationGuard>,
    ) -> Result<AppendInfo, AppendError> {
        let config = self.config();
        // The CRC takes the most time, and needs no lock.
        let valid = validate::leader(batch, &config, now_ms)?;
        let mut header = valid.header;
        let writer = self.writer.lock();
        let view = self.check_leads(epoch)?;
        let verified = match header.is_transactional() {
            true => self.guarded(&header, guard),
            false => None,
        };
        let repeat = match origin {
            Origin::Client => writer.producers.check(&header, verified)?,
            Origin::Coordinator => {
                writer.producers.check_coordinator(&header, verified)?;
                None
            }
        };
        if let Some(repeat) = repeat {
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
        header.leader_epoch = epoch;
        let set_by_leader = valid.log_append_time;
        let body = (&valid.body[..], None);
        self.append_checked(
            writer,
            &config,
            &view,
            (header, batch),
            body,
            (now_ms, set_by_leader),
        )
    }

    /// Whether this broker may append as leader of `epoch`, and what readers see now.
    pub(super) fn check_leads(&self, epoch: LeaderEpoch) -> Result<View, AppendError> {
        self.check_writable()?;
        let view = self.snapshot();
        match view.epochs.last() {
            Some((last, _)) if last == epoch => Ok(view),
            Some((last, _)) if last > epoch => Err(AppendError::FencedEpoch { last, got: epoch }),
            _ => Err(AppendError::EpochNotBegun(epoch)),
        }
    }

    fn guarded(&self, header: &BatchHeader, guard: Option<VerificationGuard>) -> Option<i32> {
        let (producer, epoch) = (header.producer_id, header.producer_epoch);
        self.stability.look(|t| t.guarded(producer, epoch, guard))
    }

    /// Writes a batch that a leader may append: its header as it shall be but for the base offset, the bytes
    /// that the header came from, and what follows them; for a marker, what that says.
    pub(super) fn append_checked(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        config: &LogConfig,
        view: &View,
        (mut header, sent): (BatchHeader, &[u8]),
        (body, marker): (&[u8], Option<Marker>),
        (now_ms, log_append_time): (i64, i64),
    ) -> Result<AppendInfo, AppendError> {
        header.base_offset = view.end;
        let head = validate::encode_head(&header, sent)?;
        let time = match header.max_timestamp {
            -1 => now_ms,
            time => time,
        };
        let run = Run {
            headers: &[header],
            head: &head,
            body,
            marker,
        };
        self.make_room(&mut writer, config, &view.epochs, &header, time)
            .and_then(|active| self.write(&mut writer, config, &active, &run))
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
            log_append_time,
            log_start_offset: view.start,
            duplicate: false,
        })
    }

    /// Appends whole batches as follower, offsets and epochs kept; checked all before any is
    /// written. None may begin below the end of the one before; the first, below the log end offset.
    /// It may begin above: there the leader's log was compacted. An empty log may begin in the midst of the first
    /// batch, as the leader's does after a deletion: it takes the batch whole, and begins where it did. Empty
    /// `batches` are an error.
    pub fn append_follower(&self, batches: &[u8]) -> Result<AppendInfo, AppendError> {
        let config = self.config();
        let headers = check_follower(batches)?;
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return Err(AppendError::InvalidRecord("there is no batch".into()));
        };
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let mut view = self.snapshot();
        let start = view.start;
        let begins_within = first.base_offset < view.end;
        if begins_within {
            let reaches = first.last_offset() >= view.end;
            if view.start < view.end || !reaches || taken_out("a-log-may-begin-within-a-batch") {
                return Err(AppendError::NotAtEnd {
                    end: view.end,
                    got: first.base_offset,
                });
            }
            self.restart_at(&mut writer, first.base_offset)
                .map_err(|e| self.failed(e))?;
            view = self.snapshot();
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
        if begins_within {
            disk::write_durably(&self.file(LOG_START), offset_line(start).as_bytes())
                .map_err(|e| self.failed(e))?;
            self.view.write().start = start;
        }
        let flush = writer.unflushed_records >= config.flush_messages;
        drop(writer);
        if flush {
            self.flush()?;
        }
        Ok(AppendInfo {
            base_offset: first.base_offset,
            last_offset: last.last_offset(),
            log_append_time: -1,
            log_start_offset: start,
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
            let (here, later) = headers.split_at(count);
            let (body, rest) = bytes.split_at(len);
            let end = here[count - 1].next_offset();
            let run = Run {
                headers: here,
                head: &[],
                body,
                marker: None,
            };
            self.write(writer, config, &active, &run)?;
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
        run: &Run<'_>,
    ) -> Result<(), LogError> {
        writer.dirty = true;
        active.write(run.head, run.body)?;
        let mut rest = run.body;
        for header in run.headers {
            if active.size() == 0 {
                writer.first_timestamp = Some(header.max_timestamp).filter(|&t| t >= 0);
            }
            active.note(header, config.index_interval_bytes);
            let mut marker = run.marker;
            if run.head.is_empty() {
                marker = Marker::parse(header, rest);
                rest = rest.get(header.total_len()..).unwrap_or_default();
            }
            let noted = writer.producers.note(header, marker);
            if noted != Noted::Nothing
                && let Some(aborted) = self.stability.change(|t| t.note(noted))
            {
                active.note_aborted(aborted);
            }
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
        writer.draw = leasehold_types::seams::random_u128() as u64;
        Ok(Arc::new(segment))
    }

    /// Begins a new segment at the log end; the one before is flushed in the background.
    pub(super) fn roll(&self, writer: &mut Writer) -> Result<Arc<Segment>, LogError> {
        let end = self.log_end_offset();
        let snapshot = segment::file(&self.folder, end, SNAPSHOT);
        self.save_producers(writer, &snapshot)?;
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

/// Who wrote a batch.
#[derive(Clone, Copy)]
enum Origin {
    Client,
    Coordinator,
}

/// Batches on their way to the active segment: their headers, and their bytes in two parts.
struct Run<'a> {
    headers: &'a [BatchHeader],
    /// The one header's bytes, if they are not with the others.
    head: &'a [u8],
    body: &'a [u8],
    /// What the one batch says, if it is a marker and its header is apart.
    marker: Option<Marker>,
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
