//! fsync, the recovery point, and closing.

use super::open::snapshots;
use super::{PartitionLog, RECOVERY_POINT, offset_line};
use crate::segment::{self, SNAPSHOT};
use crate::{LogError, disk};
use leasehold_types::Offset;
use std::sync::Arc;

/// Producer snapshots at or below the recovery point that are kept: recovery begins at or after
/// the last, and the one before stands in for it if it is torn.
const KEPT_SNAPSHOTS: usize = 2;

impl PartitionLog {
    /// fsyncs everything appended so far.
    pub fn flush(&self) -> Result<(), LogError> {
        self.flush_segments(true)
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

    /// fsyncs the segments above the recovery point and raises it: to the log end, or to the active
    /// segment's start. Appends go on meanwhile; after a truncation meanwhile nothing is raised.
    fn flush_segments(&self, active_too: bool) -> Result<(), LogError> {
        let _one_at_a_time = self.flushing.lock();
        let (view, point, records) = {
            let writer = self.writer.lock();
            self.check_online()?;
            let point = writer.recovery_point;
            (self.snapshot(), point, writer.unflushed_records)
        };
        let Some(active) = view.segments.last() else {
            return Ok(());
        };
        let target = match active_too {
            true => view.end,
            false => active.base(),
        };
        if target <= point {
            return Ok(());
        }
        let mut sealed = Vec::new();
        for (i, segment) in view.segments.iter().enumerate() {
            if view.end_of(i) <= point || segment.base() >= target {
                continue;
            }
            let synced = segment
                .sync()
                .and_then(|()| match i + 1 < view.segments.len() {
                    true => {
                        sealed.push(segment.clone());
                        segment.save_index()
                    }
                    false => Ok(()),
                });
            if let Err(e) = synced {
                // Retention or a truncation may have taken the segment away meanwhile.
                if self
                    .snapshot()
                    .segments
                    .iter()
                    .any(|s| Arc::ptr_eq(s, segment))
                {
                    return Err(e);
                }
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
        writer.recovery_point = writer.recovery_point.max(target);
        if active_too {
            writer.unflushed_records -= records;
            writer.unflushed_since_ms = None;
        }
        Ok(())
    }

    /// Writes the recovery point to its file, and removes the producer snapshots that no recovery
    /// needs any more. A truncation at the same time has its own, lower point win.
    fn save_recovery_point(&self) -> Result<(), LogError> {
        let (generation, point) = {
            let writer = self.writer.lock();
            (self.view.read().generation, writer.recovery_point)
        };
        {
            let mut saved = self.saved_point.lock();
            // A truncation raises the generation before it asks for this lock.
            if *saved >= point || self.view.read().generation != generation {
                return Ok(());
            }
            disk::replace(&self.file(RECOVERY_POINT), offset_line(point).as_bytes())?;
            *saved = point;
        }
        let mut older: Vec<Offset> = snapshots(&self.folder)?;
        older.retain(|&at| at <= point);
        older.sort_unstable();
        let gone = older.len().saturating_sub(KEPT_SNAPSHOTS);
        for &at in &older[..gone] {
            disk::remove(&segment::file(&self.folder, at, SNAPSHOT))?;
        }
        Ok(())
    }

    /// Flushes, writes down all that a start without recovery needs, and refuses everything from
    /// now on. Closing a closed log is no error; closing one that an I/O error took offline is.
    pub fn close(&self) -> Result<(), LogError> {
        const CLOSED: &str = "it was closed";
        let _one_at_a_time = self.flushing.lock();
        let mut writer = self.writer.lock();
        match self.offline.get() {
            Some(e) if &*e.reason == CLOSED => return Ok(()),
            Some(e) => return Err(e.clone().into()),
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

    fn settle(&self, writer: &mut super::Writer) -> Result<(), LogError> {
        let view = self.snapshot();
        let active = view.segments.len().saturating_sub(1);
        for (i, segment) in view.segments.iter().enumerate() {
            if i == active || view.end_of(i) > writer.recovery_point {
                segment.sync()?;
                segment.save_index()?;
            }
        }
        let snapshot = segment::file(&self.folder, view.end, SNAPSHOT);
        writer.producers.save(&snapshot)?;
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
