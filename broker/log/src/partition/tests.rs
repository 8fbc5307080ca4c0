//! A partition's log by its promises, over real files: what all the tests need, and a file per theme.

mod append;
mod failures;
mod reading;
mod recovery;
mod retention;
mod transactions;
mod truncation;

use super::*;
use crate::batch::{Batch, HEADER_LEN, RecordBatchBuilder, batches};
use crate::{LogDir, ReadError, TimestampType, segment};
use bytes::Bytes;
use leasehold_types::{BrokerId, ClusterId, Incarnation, ProducerId};
use std::sync::atomic::Ordering;

pub(super) struct Home {
    pub dir: Arc<LogDir>,
    pub topic: TopicId,
    _folder: Option<tempfile::TempDir>,
}

impl Home {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            _folder: None,
            ..Self::at(folder.path(), TopicId::random())
        }
        .keeping(folder)
    }

    pub fn at(path: &Path, topic: TopicId) -> Self {
        let dir = LogDir::open(path, &ClusterId("c".into()), BrokerId(0)).unwrap();
        let incarnation = Incarnation::random();
        dir.begin(incarnation).unwrap();
        dir.confirm(incarnation).unwrap();
        Self {
            dir,
            topic,
            _folder: None,
        }
    }

    fn keeping(mut self, folder: tempfile::TempDir) -> Self {
        self._folder = Some(folder);
        self
    }

    pub fn open(&self, config: LogConfig) -> Arc<PartitionLog> {
        self.dir.open_partition(self.topic, 0, config).unwrap()
    }

    /// Ends the process, in order or not, and starts another.
    pub fn restart(self, log: Arc<PartitionLog>, clean: bool) -> Self {
        if clean {
            self.dir.close_clean().unwrap();
        }
        drop(log);
        let path = self.dir.path().to_owned();
        drop(self.dir);
        Self::at(&path, self.topic).maybe_keeping(self._folder)
    }

    fn maybe_keeping(mut self, folder: Option<tempfile::TempDir>) -> Self {
        self._folder = folder;
        self
    }
}

pub(super) const E0: LeaderEpoch = LeaderEpoch(0);

/// Segments of a few batches, an index entry per two or so.
pub(super) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 150,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

pub(super) fn batch(timestamp: i64, count: usize) -> Bytes {
    let mut b = RecordBatchBuilder::new();
    for i in 0..count {
        b.push(timestamp + i as i64, Some(b"key"), Some(&[i as u8; 20]));
    }
    b.build()
}

fn lead(log: &PartitionLog, timestamps: impl IntoIterator<Item = i64>) {
    log.begin_epoch(E0).unwrap();
    for timestamp in timestamps {
        log.append_leader(&batch(timestamp, 2), E0, timestamp)
            .unwrap();
    }
}

/// Everything readable, read in steps of `step` bytes; checks that the batches continue each other.
pub(super) fn read_all(log: &PartitionLog, step: usize) -> Vec<Batch> {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let mut all: Vec<Batch> = Vec::new();
    while at < end {
        let bytes = log.read(at, step, end, true).unwrap();
        assert!(!bytes.is_empty(), "nothing at {at} of {end}");
        for batch in batches(bytes) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            assert!(batch.header.base_offset <= at && batch.header.next_offset() > at);
            at = batch.header.next_offset();
            all.push(batch);
        }
    }
    all
}

fn files(log: &PartitionLog, suffix: &str) -> Vec<String> {
    let mut names = disk::names(&log.folder).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}
