//! Holding a log still while its files are copied to another place.
//!
//! Promise: as long as a [`Still`] lives, no file of the log changes but those that are on their way out, and they are as
//! after a clean close: whoever opens a copy of them need recover nothing. Reads go on.

use super::{PartitionLog, Writer};
use crate::LogError;
use parking_lot::MutexGuard;
use std::path::Path;

/// A log that nobody changes.
pub(crate) struct Still<'a> {
    log: &'a PartitionLog,
    _locks: (
        MutexGuard<'a, ()>,
        MutexGuard<'a, ()>,
        MutexGuard<'a, Writer>,
    ),
}

impl PartitionLog {
    /// Waits for whoever appends, and writes down what a start without recovery needs. `None` while somebody compacts
    /// the log or flushes old segments: that may take long, and those who append wait for whoever asks here.
    pub(crate) fn hold_still(&self) -> Result<Option<Still<'_>>, LogError> {
        let Some(cleaning) = self.cleaning.try_lock() else {
            return Ok(None);
        };
        let Some(flushing) = self.flushing.try_lock() else {
            return Ok(None);
        };
        let mut writer = self.writer.lock();
        self.check_writable()?;
        if writer.created && writer.dirty {
            self.settle(&mut writer).map_err(|e| self.failed(e))?;
        }
        Ok(Some(Still {
            log: self,
            _locks: (cleaning, flushing, writer),
        }))
    }

    /// Waits for those for whom [`Self::hold_still`] does not.
    pub(crate) fn wait_for_rest(&self) {
        drop(self.cleaning.lock());
        drop(self.flushing.lock());
    }

    /// Has the log look as if it were being compacted.
    #[cfg(test)]
    pub(crate) fn pretend_to_compact(&self) -> MutexGuard<'_, ()> {
        self.cleaning.lock()
    }

    /// Its files' names with the bytes that count, of those segments that are part of it now, and a number that
    /// another look finds unchanged if nothing of them was cut off or rewritten in between.
    pub(crate) fn files(&self) -> (Vec<(String, u64)>, u64) {
        let view = self.snapshot();
        let named = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let files = view.segments.iter();
        let files = files.filter_map(|s| Some((named(s.path())?, s.size())));
        (files.collect(), view.generation)
    }

    /// Where its files are, or would be.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Still<'_> {
    /// Refuses everything from now on: its place is taken by another. Whoever still reads it and does not find a
    /// file hears that, and no disk is blamed.
    pub fn end(self, reason: &str) {
        let _ = self.log.offline.set(self.log.storage_error(reason));
    }
}
