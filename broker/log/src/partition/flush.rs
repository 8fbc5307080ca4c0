//! fsync, the recovery point, and closing.

use super::{PartitionLog, RECOVERY_POINT, offset_line};
use crate::segment::{self, SNAPSHOT};
use crate::{LogError, disk};
use std::sync::Arc;

impl PartitionLog {
    /// fsyncs everything appended so far.
    pub fn flush(&self) -> Result<(), LogError> {
        self.flush_segments(true)
            .map_err(|e| self.failed_or_passing(e))
    }

    /// fsyncs all but the active segment.
    pub(super) fn flush_all_sealed(&self) -> Result<(), LogError> {
        self.flush_segments(false)
            .map_err(|e| self.failed_or_passing(e))
    }

    /// fsyncs if `flush.ms` has passed since a record was first found unflushed here: call it every
    /// so often.
    pub fn flush_if_due(&self, now_ms: i64) -> Result<(), LogError> {
        let flush_ms = self.config().flush_ms;
        {
            let mut writer = self.writer.lock();
            if writer.unflushed_records == 0 {
                writer.unflushed_since_ms = None;
                return Ok(());
            }
            let since = *writer.unflushed_since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since) < flush_ms {
                return Ok(());
            }
        }
        self.flush()
    }

    /// In the background, after a roll: fsyncs the segments before the active one, and writes their
    /// indexes.
    pub(crate) fn flush_sealed(&self) {
        if self.offline().is_some() {
            return;
        }
        let done = self.flush_segments(false);
        if let Err(e) = done.and_then(|()| self.save_recovery_point()) {
            // Whoever uses the log next is told so.
            let _ = self.failed_or_passing(e);
        }
    }

    /// fsyncs the sealed segments that are not yet, with their indexes, and raises the recovery point
    /// to the active segment's start; that one is fsynced if told. Appends go on meanwhile; after a
    /// truncation meanwhile nothing is raised.
    fn flush_segments(&self, active_too: bool) -> Result<(), LogError> {
        let _one_at_a_time = self.flushing.lock();
        let (view, records) = {
            let writer = self.writer.lock();
            self.check_online()?;
            (self.snapshot(), writer.unflushed_records)
        };
        let Some((active, sealed)) = view.segments.split_last() else {
            return Ok(());
        };
        let sealed: Vec<_> = sealed.iter().filter(|s| s.is_unsettled()).collect();
        let flushed = sealed
            .iter()
            .map(|segment| (*segment, segment.sync().and_then(|()| segment.save_index())))
            .chain(active_too.then(|| (active, active.sync())));
        for (segment, flushed) in flushed {
            // Retention or a truncation may have taken the segment away meanwhile.
            if let Err(e) = flushed
                && self
                    .snapshot()
                    .segments
                    .iter()
                    .any(|s| Arc::ptr_eq(s, segment))
            {
                return Err(e);
            }
        }
        disk::sync_folder(&self.folder)?;
        let mut writer = self.writer.lock();
        if self.view.read().generation != view.generation {
            return Ok(());
        }
        for segment in sealed {
            segment.seal();
        }
        writer.recovery_point = writer.recovery_point.max(active.base());
        if active_too {
            writer.unflushed_records -= records;
            writer.unflushed_since_ms = None;
        }
        Ok(())
    }

    /// Writes the recovery point to its file. A truncation at the same time has its own, lower point
    /// win.
    fn save_recovery_point(&self) -> Result<(), LogError> {
        let (generation, point) = {
            let writer = self.writer.lock();
            (self.view.read().generation, writer.recovery_point)
        };
        let mut saved = self.saved_point.lock();
        // A truncation raises the generation before it asks for this lock.
        if *saved >= point || self.view.read().generation != generation {
            return Ok(());
        }
        disk::replace(&self.file(RECOVERY_POINT), offset_line(point).as_bytes())?;
        *saved = point;
        Ok(())
    }

    /// Flushes, writes down all that a start without recovery needs, and refuses everything from
    /// now on. Closing a closed log is no error; closing one that an I/O error took offline is.
    pub fn close(&self) -> Result<(), LogError> {
        const CLOSED: &str = "it was closed";
        let _one_at_a_time = self.flushing.lock();
        let mut writer = self.writer.lock();
        match self.offline() {
            Some(e) if &*e.reason == CLOSED => return Ok(()),
            Some(e) => return Err(e.into()),
            None => {}
        }
        let result = if writer.created && writer.dirty {
            self.settle(&mut writer).map_err(|e| self.failed(e))
        } else {
            Ok(())
        };
        let _ = self.offline.set(self.storage_error(CLOSED));
        for segment in self.view.read().segments.iter() {
            segment.close();
        }
        result
    }

    pub(super) fn settle(&self, writer: &mut super::Writer) -> Result<(), LogError> {
        let view = self.snapshot();
        if self.config().preallocate
            && let Some(active) = view.segments.last()
        {
            active.give_back()?;
        }
        for segment in view.segments.iter().filter(|s| s.is_unsettled()) {
            segment.sync()?;
            segment.save_index()?;
        }
        let snapshot = segment::file(&self.folder, view.end, SNAPSHOT);
        self.save_producers(writer, &snapshot)?;
        // Those that earlier closes left.
        self.remove_snapshots(|at| {
            at != view.end && !view.segments.iter().any(|s| s.base() == at)
        })?;
        disk::sync_folder(&self.folder)?;
        writer.recovery_point = view.end;
        writer.dirty = false;
        let mut saved = self.saved_point.lock();
        let line = offset_line(view.end);
        disk::write_durably(&self.file(RECOVERY_POINT), line.as_bytes())?;
        *saved = view.end;
        Ok(())
    }
}
