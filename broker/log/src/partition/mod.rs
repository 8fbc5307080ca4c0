//! One partition's log: a list of segments, the last of which is appended to.
//!
//! The invariants:
//! - `start ≤ end`; every offset in between lies in exactly one segment. Compaction leaves holes: offsets
//!   without a record. None touches the end of a segment before the active one, where a batch always
//!   ends: so what a crash cut off is never taken for a hole.
//! - `recovery point ≤ end`: everything below it is fsynced, and the indexes of the segments that end
//!   at or below it are in their files. It is raised after the fsync and lowered before a truncation.
//! - An epoch is in the checkpoint file before a record of it is in a segment.
//!
//! One lock for writers, held over their I/O; one for the view (segments, offsets, epochs), never
//! held over I/O, so that readers and getters do not wait for the disk's writes. A truncation, or a
//! swap of cleaned segments, raises the view's generation before it touches a file: a read that spans
//! one is done again, so nobody sees bytes that are half of before and half of after.

mod append;
mod clean;
mod discard;
mod flush;
mod open;
mod read;
mod retention;
mod still;
mod swap;
mod transactions;
mod truncate;

pub use clean::Cleaned;
pub(crate) use open::offset_of;
pub use transactions::CommittedRead;

#[cfg(test)]
mod clean_model_tests;
#[cfg(test)]
mod clean_tests;
#[cfg(test)]
mod config_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_model_tests;

use crate::dir::Shared;
use crate::epochs::EpochCache;
use crate::lines::{seal, unseal};
use crate::producers::Producers;
use crate::segment::Segment;
use crate::transactions::Stability;
use crate::{AppendError, LogConfig, LogError, StorageError, disk};
use discard::retire;
use leasehold_types::{LeaderEpoch, Offset, TopicId};
use parking_lot::{Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const RECOVERY_POINT: &str = "recovery-point";
pub(crate) const LOG_START: &str = "log-start";
pub(crate) const CLEANED_TO: &str = "cleaned-to";

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
    /// Its offset. The batch's first, if that is compressed and cannot be unpacked.
    pub offset: Offset,
    /// The epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
}

/// One partition's log: `Send + Sync`, one writer at a time, readers never wait for a writer's I/O.
pub struct PartitionLog {
    id: (TopicId, i32),
    name: Arc<str>,
    folder: PathBuf,
    shared: Arc<Shared>,
    myself: Weak<PartitionLog>,
    config: RwLock<Arc<LogConfig>>,
    /// One cleaning at a time; taken before all others.
    cleaning: Mutex<()>,
    /// Taken before `writer` by whoever fsyncs: one flush at a time.
    flushing: Mutex<()>,
    writer: Mutex<Writer>,
    /// What the recovery point's file says.
    saved_point: Mutex<Offset>,
    view: RwLock<View>,
    /// What is undecided; a lock of its own, held for decisions only. Changed by who holds the writer.
    stability: Stability,
    /// Files of deleted segments, and when they may be removed.
    discarded: Mutex<Vec<(Instant, PathBuf)>>,
    offline: OnceLock<StorageError>,
}

/// What readers see.
#[derive(Clone)]
struct View {
    segments: Arc<Vec<Arc<Segment>>>,
    start: Offset,
    end: Offset,
    epochs: Arc<EpochCache>,
    generation: u64,
}

/// What only writers need.
struct Writer {
    /// Whether the folder is there.
    created: bool,
    producers: Producers,
    recovery_point: Offset,
    /// Below it, no two records have the same key but for those of earlier cleanings that were cut short.
    cleaned_to: Offset,
    /// The max timestamp of the active segment's first batch.
    first_timestamp: Option<i64>,
    /// Drawn for the active segment: how much of `segment.jitter.ms` it is rolled earlier.
    draw: u64,
    /// Whether the files are not as a clean close left them.
    dirty: bool,
    unflushed_records: i64,
    /// When a record was first seen unflushed; see `flush_if_due`.
    unflushed_since_ms: Option<i64>,
}

impl View {
    /// Where the `i`th segment ends.
    fn end_of(&self, i: usize) -> Offset {
        self.segments
            .get(i + 1)
            .map_or(self.end, |next| next.base())
    }

    /// The segment that holds `offset`, or would.
    fn index_of(&self, offset: Offset) -> Option<usize> {
        let after = self.segments.partition_point(|s| s.base() <= offset);
        after.checked_sub(1)
    }
}

impl PartitionLog {
    /// Which partition.
    pub fn id(&self) -> (TopicId, i32) {
        self.id
    }

    /// The first offset that can be read.
    pub fn log_start_offset(&self) -> Offset {
        self.view.read().start
    }

    /// The offset of the next record. Counts only what `write()` returned for.
    pub fn log_end_offset(&self) -> Offset {
        self.view.read().end
    }

    /// The last leader epoch in this log.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.view.read().epochs.last().map(|(epoch, _)| epoch)
    }

    /// Kafka's OffsetForLeaderEpoch: the greatest epoch not above `epoch`, and where it ends. `None`
    /// if `epoch` is newer than the last one here, or there is none.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let view = self.view.read();
        view.epochs.end_of(epoch, view.end)
    }

    /// Where `epoch` starts in this log.
    pub fn epoch_start(&self, epoch: LeaderEpoch) -> Option<Offset> {
        self.view.read().epochs.start_of(epoch)
    }

    /// The leader epoch of the record at `offset` (of the next one, for the log end offset).
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.view.read().epochs.of(offset)
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        let segments = self.view.read().segments.clone();
        segments.iter().map(|s| s.size()).sum()
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.view.read().segments.len()
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.read().clone()
    }

    /// Changes the settings, from the next operation on.
    pub fn set_config(&self, config: LogConfig) {
        *self.config.write() = Arc::new(config);
    }

    /// Why the log is offline, if it is: an I/O error in its directory, or it was closed or deleted.
    pub fn offline(&self) -> Option<StorageError> {
        let own = self.offline.get().cloned();
        own.or_else(|| {
            self.shared
                .failure()
                .map(|reason| self.storage_error(reason))
        })
    }

    fn snapshot(&self) -> View {
        self.view.read().clone()
    }

    fn check_online(&self) -> Result<(), StorageError> {
        self.offline().map_or(Ok(()), Err)
    }

    /// Online, and the process's registration confirmed: nothing is written before that.
    fn check_writable(&self) -> Result<(), LogError> {
        self.check_online()?;
        if !self.shared.is_confirmed() {
            return Err(LogError::NotConfirmed(self.name.clone()));
        }
        Ok(())
    }

    fn storage_error(&self, reason: &str) -> StorageError {
        StorageError {
            partition: self.name.clone(),
            reason: reason.into(),
        }
    }

    /// An operation failed with `e`, which says on what: takes the log offline, and the directory with it if
    /// it is the disk's failure.
    fn fail(&self, e: &LogError) -> StorageError {
        // What was closed or deleted may well be gone.
        if self.offline.get().is_none() {
            self.shared.judge(e);
        }
        let error = self.storage_error(&e.to_string());
        if self.offline.set(error.clone()).is_ok() {
            tracing::error!(partition = %self.name, "{e}: the partition goes offline");
        }
        error
    }

    /// As [`Self::fail`], for what changed nothing before it failed: that the system is short of
    /// handles for a moment is no reason to go offline.
    fn fail_or_pass(&self, e: &LogError) -> StorageError {
        if !e.is_passing() {
            return self.fail(e);
        }
        tracing::warn!(partition = %self.name, "{e}");
        self.storage_error(&e.to_string())
    }

    /// [`Self::fail`] for disk errors; refusals pass unchanged.
    fn failed(&self, e: LogError) -> LogError {
        match e {
            LogError::Io { .. } | LogError::Unreadable { .. } => self.fail(&e).into(),
            refusal => refusal,
        }
    }

    /// [`Self::fail_or_pass`] for disk errors; refusals pass unchanged.
    fn failed_or_passing(&self, e: LogError) -> LogError {
        match e {
            LogError::Io { .. } | LogError::Unreadable { .. } => self.fail_or_pass(&e).into(),
            refusal => refusal,
        }
    }

    /// Refuses everything from now on. Waits for the writer, but not for readers.
    pub(crate) fn shut(&self, reason: &str) {
        let _writer = self.writer.lock();
        let _ = self.offline.set(self.storage_error(reason));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl From<LogError> for AppendError {
    fn from(e: LogError) -> Self {
        match e {
            LogError::NotConfirmed(name) => Self::NotConfirmed(name),
            LogError::FencedEpoch { last, got } => Self::FencedEpoch { last, got },
            LogError::Storage(e) => Self::Storage(e),
            other => Self::Storage(StorageError {
                partition: "a partition".into(),
                reason: other.to_string().into(),
            }),
        }
    }
}

/// Reads a file that holds one offset; `None` if there is none.
fn read_offset(path: &Path) -> Result<Option<Offset>, LogError> {
    let Some(content) = disk::read_if_there(path)? else {
        return Ok(None);
    };
    let offset = parse_offset_line(&content).ok_or_else(|| LogError::Unreadable {
        path: path.to_owned(),
        reason: "it is no offset with its checksum".into(),
    });
    offset.map(Some)
}

/// As [`read_offset`], for an offset that costs only time if it is missing.
fn read_hint(path: &Path) -> Result<Option<Offset>, LogError> {
    read_offset(path).or_else(|e| match e {
        LogError::Unreadable { .. } => {
            tracing::warn!("going on without: {e}");
            Ok(None)
        }
        e => Err(e),
    })
}

pub(crate) fn parse_offset_line(content: &[u8]) -> Option<Offset> {
    let text = unseal(content.strip_suffix(b"\n").unwrap_or(content))?;
    let offset = text.parse().ok().filter(|&offset: &i64| offset >= 0);
    offset.map(Offset)
}

fn offset_line(offset: Offset) -> String {
    seal(&offset.to_string())
}
