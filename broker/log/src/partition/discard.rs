//! Files that are no longer part of the log, on their way out.
//!
//! A segment's file is renamed at once, so that the next start takes it for nothing else than what it is,
//! and removed after the topic's `file.delete.delay.ms`: until then people can still get at it. What a
//! process leaves behind, the next start removes.

use super::PartitionLog;
use crate::dir::Shared;
use crate::segment::{DELETED, INDEX, SNAPSHOT, Segment, TIME_INDEX, TXN_INDEX};
use crate::{LogError, disk};
use leasehold_types::seams;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Takes a segment's files out of the log: the batches by renaming, so that removing them, which
/// takes time, need not hold up the writer. Returns what is still to be removed.
pub(super) fn retire(shared: &Shared, segment: &Segment) -> Result<PathBuf, LogError> {
    let number = shared.number();
    let path = segment.path();
    let retired = path.with_extension(format!("{number}.{DELETED}"));
    disk::rename(path, &retired)?;
    for suffix in [INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT] {
        disk::remove(&path.with_extension(suffix))?;
    }
    Ok(retired)
}

impl PartitionLog {
    /// Removes retired files: at once, or when `remove_discarded` is called late enough.
    pub(super) fn discard(&self, retired: Vec<PathBuf>) -> Result<(), LogError> {
        let delay = u64::try_from(self.config().file_delete_delay_ms).unwrap_or(0);
        if delay == 0 {
            return retired.iter().try_for_each(|path| disk::remove(path));
        }
        // Past the end of time: as long as the process lives.
        if let Some(due) = seams::now().checked_add(Duration::from_millis(delay)) {
            let mut discarded = self.discarded.lock();
            discarded.extend(retired.into_iter().map(|path| (due, path)));
        }
        Ok(())
    }

    /// Whether there are files whose time is still to come, or has come.
    pub fn has_discarded(&self) -> bool {
        !self.discarded.lock().is_empty()
    }

    /// Removes the files of deleted segments whose time has come by `now`: call it every so often.
    pub fn remove_discarded(&self, now: Instant) -> Result<(), LogError> {
        let mut due = Vec::new();
        self.discarded.lock().retain(|(at, path)| {
            let stays = *at > now;
            if !stays {
                due.push(path.clone());
            }
            stays
        });
        due.iter().try_for_each(|path| disk::remove(path))
    }
}
