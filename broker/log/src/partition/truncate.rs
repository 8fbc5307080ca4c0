//! Cutting the log's end off, and starting it anew.

use super::open::{first_timestamp, rebuild_producers, snapshots};
use super::{
    CLEANED_TO, EPOCHS, LOG_START, PartitionLog, RECOVERY_POINT, View, Writer, offset_line, retire,
};
use crate::epochs::EpochCache;
use crate::producers::Producers;
use crate::segment::{self, SNAPSHOT};
use crate::transactions::Transactions;
use crate::{LogError, disk};
use leasehold_types::Offset;
use std::sync::Arc;

impl PartitionLog {
    /// Removes everything from `offset` on, epochs that start there included. A batch that holds
    /// `offset` goes as a whole. Below the log start it is `reset_to`. Returns the new log end.
    pub fn truncate_to(&self, offset: Offset) -> Result<Offset, LogError> {
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let view = self.snapshot();
        if offset > view.end {
            return Ok(view.end);
        }
        let result = if offset < view.start {
            self.restart_at(&mut writer, offset).map(|()| offset)
        } else if offset == view.end {
            // Nothing to cut, but an epoch begun here without records must not be claimed.
            self.truncate_epochs(&mut writer, offset).map(|()| offset)
        } else {
            self.cut(&mut writer, &view, offset)
        };
        result.map_err(|e| self.failed(e))
    }

    /// Removes everything, and starts empty at `offset`.
    pub fn reset_to(&self, offset: Offset) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        self.check_writable()?;
        self.restart_at(&mut writer, offset)
            .map_err(|e| self.failed(e))
    }

    fn cut(&self, writer: &mut Writer, view: &View, offset: Offset) -> Result<Offset, LogError> {
        let config = self.config();
        let interval = config.index_interval_bytes;
        let Some(i) = view.index_of(offset) else {
            return self.restart_at(writer, offset).map(|()| offset);
        };
        let last = &view.segments[i];
        let position = match last.locate(offset, interval)? {
            Some((at, _)) => at,
            None => last.size(),
        };
        // Where the last batch left ends, as a restart will find it: compaction may have left a hole
        // between that and `offset`.
        let (index, end) = last.index_until(position, interval)?;
        let aborted = self.look_aborted(view, i, <[_]>::to_vec)?;
        tracing::info!(partition = %self.name, from = %view.end, to = %end, "truncating the log");
        writer.dirty = true;
        // Readers first: who sees the new view stays below the cut, who saw the old one looks again.
        {
            let mut view = self.view.write();
            view.generation += 1;
            last.set_size(position);
            view.segments = Arc::new(view.segments[..=i].to_vec());
            view.start = view.start.min(end);
            view.end = end;
        }
        self.lower_recovery_point(writer, end)?;
        self.lower_cleaned_to(writer, end)?;
        let mut retired = Vec::new();
        // From the end, so that what a crash leaves is a log without a hole.
        for segment in view.segments[i + 1..].iter().rev() {
            retired.push(retire(&self.shared, segment)?);
        }
        last.shorten(index)?;
        last.cut_aborted(aborted, end);
        self.remove_snapshots(|at| at > end)?;
        // Before anything takes the place of what was cut off, an epoch or a batch: a power cut could bring
        // the old back, to be taken for the new epoch's, or behind its batches.
        last.sync()?;
        disk::sync_folder(&self.folder)?;
        if end < view.start {
            // What is appended from here on was never deleted; what was is gone for good by now.
            disk::write_durably(&self.file(LOG_START), offset_line(end).as_bytes())?;
        }
        self.truncate_epochs(writer, end)?;
        if !writer.producers.is_empty() {
            let view = self.snapshot();
            let (segments, end) = (&view.segments, view.end);
            let rebuilt = rebuild_producers(&self.folder, segments, end, interval, end)?;
            writer.producers = rebuilt.producers;
            self.stability.change(|t| t.replace(rebuilt.transactions));
        }
        if position == 0 {
            writer.first_timestamp = None;
        } else if i + 1 < view.segments.len() {
            writer.first_timestamp = first_timestamp(last, interval)?;
        }
        self.discard(retired)?;
        Ok(end)
    }

    fn truncate_epochs(&self, writer: &mut Writer, offset: Offset) -> Result<(), LogError> {
        let mut epochs = EpochCache::clone(&self.view.read().epochs);
        if epochs.truncate_from(offset) {
            writer.dirty = true;
            if writer.created {
                epochs.save(&self.file(EPOCHS))?;
            }
            self.view.write().epochs = Arc::new(epochs);
        }
        Ok(())
    }

    pub(super) fn restart_at(&self, writer: &mut Writer, offset: Offset) -> Result<(), LogError> {
        tracing::info!(partition = %self.name, at = %offset, "starting the log anew");
        writer.dirty = true;
        let old = {
            let mut view = self.view.write();
            view.generation += 1;
            view.start = offset;
            view.end = offset;
            view.epochs = Arc::default();
            std::mem::take(&mut view.segments)
        };
        writer.producers = Producers::default();
        self.stability
            .change(|t| t.replace(Transactions::default()));
        writer.first_timestamp = None;
        if writer.created {
            self.lower_recovery_point(writer, Offset(0))?;
            self.lower_cleaned_to(writer, Offset(0))?;
            // Oldest first: what a crash leaves is the end of the old log, without a hole.
            let mut retired = Vec::new();
            for segment in old.iter() {
                retired.push(retire(&self.shared, segment)?);
            }
            self.remove_snapshots(|_| true)?;
            EpochCache::default().save(&self.file(EPOCHS))?;
            self.discard(retired)?;
        }
        self.first_segment(writer, &EpochCache::default())?;
        if disk::exists(&self.file(LOG_START))? {
            // Not before all that it hides is gone for good.
            disk::remove(&self.file(LOG_START))?;
            disk::sync_folder(&self.folder)?;
        }
        Ok(())
    }

    /// Before a file is cut below the recovery point, the point's file must say so.
    fn lower_recovery_point(&self, writer: &mut Writer, to: Offset) -> Result<(), LogError> {
        writer.recovery_point = writer.recovery_point.min(to);
        let mut saved = self.saved_point.lock();
        if *saved > to {
            let path = self.file(RECOVERY_POINT);
            disk::write_durably(&path, offset_line(to).as_bytes())?;
            *saved = to;
        }
        Ok(())
    }

    /// What is appended above `to` from here on was never compacted.
    fn lower_cleaned_to(&self, writer: &mut Writer, to: Offset) -> Result<(), LogError> {
        if writer.cleaned_to > to {
            let path = self.file(CLEANED_TO);
            disk::write_durably(&path, offset_line(to).as_bytes())?;
            writer.cleaned_to = to;
        }
        Ok(())
    }

    /// Removes the producer snapshots at the offsets that `doomed` picks.
    pub(super) fn remove_snapshots(&self, doomed: impl Fn(Offset) -> bool) -> Result<(), LogError> {
        for at in snapshots(&self.folder)? {
            if doomed(at) {
                disk::remove(&segment::file(&self.folder, at, SNAPSHOT))?;
            }
        }
        Ok(())
    }
}
