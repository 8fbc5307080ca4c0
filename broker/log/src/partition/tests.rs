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

#[test]
fn what_a_leader_appends_is_read_back_with_its_offsets_and_epoch_and_nothing_else_changed() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(LeaderEpoch(4)).unwrap();
    for i in 0..50 {
        let sent = batch(i, 2);
        let info = log.append_leader(&sent, LeaderEpoch(4), i).unwrap();
        assert_eq!(info.base_offset, Offset(i * 2));
        assert_eq!(info.last_offset, Offset(i * 2 + 1));
        assert_eq!((info.log_append_time, info.duplicate), (-1, false));
    }
    assert!(log.segment_count() > 5);
    for step in [1, 200, 350, 10_000] {
        for (i, got) in read_all(&log, step).iter().enumerate() {
            assert_eq!(got.header.base_offset, Offset(i as i64 * 2));
            assert_eq!(got.header.leader_epoch, LeaderEpoch(4));
            let sent = batch(i as i64, 2);
            assert_eq!(got.bytes[8..12], sent[8..12]);
            assert_eq!(got.bytes[16..], sent[16..]);
        }
    }
}

#[test]
fn reads_keep_to_their_bounds() {
    let home = Home::new();
    let log = home.open(LogConfig::default());
    lead(&log, 0..10);
    let one = log.read(Offset(0), 1, Offset(20), true).unwrap().len();
    let read = |from, max, limit, one| log.read(Offset(from), max, Offset(limit), one).unwrap();
    assert_eq!(read(0, 1, 20, false).len(), 0);
    assert_eq!(read(0, one * 3, 20, true).len(), one * 3);
    assert_eq!(read(0, one * 3 + 1, 20, true).len(), one * 3);
    assert_eq!(read(0, 1 << 20, 6, true).len(), one * 3, "limit");
    assert_eq!(
        read(0, 1 << 20, 7, true).len(),
        one * 3,
        "limit within a batch"
    );
    assert_eq!(read(5, 1 << 20, 6, true).len(), one, "from within a batch");
    assert_eq!(read(6, 1 << 20, 6, true).len(), 0);
    assert_eq!(read(20, 1 << 20, 99, true).len(), 0, "at the end");
    for from in [-1, 21] {
        let e = log.read(Offset(from), 1, Offset(20), true).unwrap_err();
        assert_eq!(e.kafka_code(), 1);
    }
}

#[test]
fn a_batch_larger_than_the_read_comes_whole() {
    let home = Home::new();
    let log = home.open(LogConfig::default());
    lead(&log, 0..3);
    let mut b = RecordBatchBuilder::new();
    b.push(0, None, Some(&vec![7; 300_000]));
    log.append_leader(&b.build(), E0, 0).unwrap();
    lead(&log, 0..3);
    for from in 0..13 {
        let bytes = log.read(Offset(from), 10, Offset(99), true).unwrap();
        assert_eq!(batches(bytes).filter(Result::is_ok).count(), 1, "at {from}");
    }
}

#[test]
fn an_epoch_must_be_begun_and_never_falls() {
    let home = Home::new();
    let log = home.open(small());
    let code = |epoch| {
        let appended = log.append_leader(&batch(0, 1), LeaderEpoch(epoch), 0);
        appended.map_or_else(|e| e.kafka_code(), |_| 0)
    };
    assert_eq!(code(0), 6);
    assert_eq!(log.begin_epoch(LeaderEpoch(3)).unwrap(), Offset(0));
    assert_eq!((code(3), code(2), code(4)), (0, 74, 6));
    assert_eq!(log.begin_epoch(LeaderEpoch(3)).unwrap(), Offset(0));
    assert_eq!(log.begin_epoch(LeaderEpoch(5)).unwrap(), Offset(1));
    assert!(matches!(
        log.begin_epoch(LeaderEpoch(4)),
        Err(LogError::FencedEpoch { .. })
    ));
    assert_eq!(code(5), 0);
    assert_eq!(log.epoch_of(Offset(0)), Some(LeaderEpoch(3)));
    assert_eq!(log.epoch_of(Offset(1)), Some(LeaderEpoch(5)));
    let ends = log.end_offset_for_epoch(LeaderEpoch(4));
    assert_eq!(ends, Some((LeaderEpoch(3), Offset(1))));
}

#[test]
fn a_begun_epoch_outlives_a_crash_without_any_append() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, [0]);
    log.begin_epoch(LeaderEpoch(9)).unwrap();
    let home = home.restart(log, false);
    assert_eq!(home.open(small()).last_epoch(), Some(LeaderEpoch(9)));
}

#[test]
fn an_idempotent_producers_repeat_gets_its_first_offsets_across_a_crash() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(E0).unwrap();
    let numbered = |sequence| {
        let mut b = RecordBatchBuilder::new().producer(ProducerId(5), 0, sequence);
        b.push(0, None, Some(&[0; 200]));
        b.build()
    };
    for i in 0..20 {
        log.append_leader(&numbered(i), E0, 0).unwrap();
    }
    let mut home = home;
    let mut log = log;
    for clean in [false, true, false] {
        home = home.restart(log, clean);
        log = home.open(small());
        let info = log.append_leader(&numbered(17), E0, 0).unwrap();
        assert!(info.duplicate);
        assert_eq!(info.base_offset, Offset(17));
        assert_eq!(
            log.append_leader(&numbered(22), E0, 0)
                .unwrap_err()
                .kafka_code(),
            45
        );
        assert_eq!(log.log_end_offset(), Offset(20));
    }
}

#[test]
fn a_follower_takes_only_what_continues_its_log_and_is_intact() {
    let home = Home::new();
    let log = home.open(small());
    let at = |offset: i64, epoch: i32| {
        let mut b = RecordBatchBuilder::new().at(Offset(offset), LeaderEpoch(epoch));
        b.push(offset, None, Some(&[1; 100]));
        b.build()
    };
    let run = |offsets: &[(i64, i32)]| -> Vec<u8> {
        offsets
            .iter()
            .flat_map(|&(o, e)| at(o, e).to_vec())
            .collect()
    };
    let info = log
        .append_follower(&run(&[(0, 1), (1, 1), (2, 3)]))
        .unwrap();
    assert_eq!((info.base_offset, info.last_offset), (Offset(0), Offset(2)));
    assert!(matches!(
        log.append_follower(&run(&[(2, 3)])),
        Err(AppendError::NotAtEnd { .. })
    ));
    assert!(log.append_follower(&run(&[(3, 3), (3, 3)])).is_err());
    assert!(log.append_follower(&run(&[(4, 3), (3, 3)])).is_err());
    assert!(matches!(
        log.append_follower(&run(&[(3, 2)])),
        Err(AppendError::FencedEpoch { .. })
    ));
    let mut torn = run(&[(3, 3), (4, 3)]);
    assert!(log.append_follower(&torn[..torn.len() - 1]).is_err());
    let last = torn.len() - 1;
    torn[last] ^= 1;
    assert_eq!(log.append_follower(&torn).unwrap_err().kafka_code(), 2);
    assert!(log.append_follower(&[]).is_err());
    assert_eq!(log.log_end_offset(), Offset(3));
    // Many at once, over several segments and an epoch.
    let many: Vec<_> = (3..60).map(|o| (o, if o < 30 { 3 } else { 7 })).collect();
    log.append_follower(&run(&many)).unwrap();
    assert_eq!(log.log_end_offset(), Offset(60));
    assert_eq!(log.epoch_start(LeaderEpoch(7)), Some(Offset(30)));
    assert!(log.segment_count() > 5);
    assert_eq!(read_all(&log, 500).len(), 60);
}

#[test]
fn truncation_leaves_what_is_before_it_and_forgets_epochs_without_records() {
    for cut in [0, 1, 2, 30, 31, 57, 58, 59, 60] {
        let home = Home::new();
        let log = home.open(small());
        lead(&log, 0..30);
        log.begin_epoch(LeaderEpoch(2)).unwrap();
        let end = log.truncate_to(Offset(cut)).unwrap();
        assert_eq!(end, Offset(cut / 2 * 2), "whole batches");
        assert_eq!(log.log_end_offset(), end);
        let epoch = (end > Offset(0)).then_some(E0);
        assert_eq!(log.last_epoch(), epoch);
        assert_eq!(read_all(&log, 400).len() as i64, cut / 2);
        log.begin_epoch(LeaderEpoch(5)).unwrap();
        log.append_leader(&batch(99, 1), LeaderEpoch(5), 99)
            .unwrap();
        let home = home.restart(log, cut % 2 == 0);
        let log = home.open(small());
        assert_eq!(log.log_end_offset(), Offset(end.0 + 1));
        assert_eq!(log.epoch_start(LeaderEpoch(5)), Some(end));
        assert_eq!(read_all(&log, 400).len() as i64, cut / 2 + 1);
    }
}

#[test]
fn a_reset_log_starts_where_it_was_told_even_after_a_crash() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    log.reset_to(Offset(1000)).unwrap();
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(1000), Offset(1000))
    );
    assert_eq!((log.last_epoch(), log.size()), (None, 0));
    let home = home.restart(log, false);
    let log = home.open(small());
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(1000), Offset(1000))
    );
    log.begin_epoch(LeaderEpoch(1)).unwrap();
    let info = log.append_leader(&batch(0, 1), LeaderEpoch(1), 0).unwrap();
    assert_eq!(info.base_offset, Offset(1000));
}

#[test]
fn recovery_cuts_at_the_first_bad_batch_wherever_it_is() {
    for damage in [0usize, 8, 16, 20, 60, 80, 300, 700] {
        let home = Home::new();
        let log = home.open(LogConfig::default());
        lead(&log, 0..10);
        let one = log.size() as usize / 10;
        let path = segment::file(&log.folder, Offset(0), segment::LOG);
        let home = home.restart(log, false);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[damage] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        let log = home.open(LogConfig::default());
        let whole = damage / one;
        assert_eq!(
            log.log_end_offset(),
            Offset(whole as i64 * 2),
            "byte {damage}"
        );
        assert_eq!(read_all(&log, 1000).len(), whole);
        assert_eq!(disk::len(&path).unwrap() as usize, whole * one);
    }
}

#[test]
fn recovery_deletes_the_segments_after_a_bad_batch() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    let third = log.snapshot().segments[2].clone();
    // As a crash before any background flush.
    std::fs::remove_file(log.file(RECOVERY_POINT)).unwrap_or_default();
    let home = home.restart(log, false);
    let path = home
        .dir
        .path()
        .join(format!("{}-0", home.topic))
        .join(RECOVERY_POINT);
    std::fs::remove_file(path).unwrap_or_default();
    let bytes = std::fs::read(third.path()).unwrap();
    std::fs::write(third.path(), &bytes[..bytes.len() - 5]).unwrap();
    let log = home.open(small());
    assert_eq!(files(&log, ".log").len(), 3);
    assert!(log.log_end_offset() > third.base());
    let count = read_all(&log, 1000).len() as i64;
    assert_eq!(log.log_end_offset(), Offset(count * 2));
}

#[test]
fn recovery_deletes_the_segments_after_a_missing_one() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    let third = log.snapshot().segments[2].clone();
    let home = home.restart(log, false);
    let folder = home.dir.path().join(format!("{}-0", home.topic));
    disk::remove(&folder.join(RECOVERY_POINT)).unwrap();
    disk::remove(third.path()).unwrap();
    let log = home.open(small());
    assert_eq!(log.log_end_offset(), third.base());
    assert_eq!(files(&log, ".log").len(), 2);
    assert_eq!(read_all(&log, 1000).len() as i64, third.base().0 / 2);
}

#[test]
fn a_cut_below_the_recovery_point_lowers_it_on_disk() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    log.flush_sealed();
    log.truncate_to(Offset(11)).unwrap();
    assert_eq!(
        read_offset(&log.file(RECOVERY_POINT)).unwrap(),
        Some(Offset(10))
    );
    // The same where recovery does the cutting.
    lead(&log, 0..30);
    log.flush_sealed();
    let first = segment::file(&log.folder, Offset(0), segment::LOG);
    let home = home.restart(log, true);
    std::fs::write(home.dir.path().join("run"), b"{}").unwrap();
    let home = {
        let path = home.dir.path().to_owned();
        let (topic, folder) = (home.topic, home._folder);
        drop(home.dir);
        Home::at(&path, topic).maybe_keeping(folder)
    };
    let active = disk::names(first.parent().unwrap()).unwrap();
    let active = active.iter().filter(|n| n.ends_with(".log")).max().unwrap();
    std::fs::write(first.with_file_name(active), b"").unwrap();
    let log = home.open(small());
    let point = read_offset(&log.file(RECOVERY_POINT)).unwrap();
    assert_eq!(point, Some(log.log_end_offset()));
}

#[test]
fn what_takes_the_place_of_deleted_records_is_not_deleted_with_them() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, [0]);
    log.delete_records_before(Offset(1)).unwrap();
    assert_eq!(log.truncate_to(Offset(1)).unwrap(), Offset(0));
    lead(&log, [0]);
    assert_eq!(log.log_start_offset(), Offset(0));
    let home = home.restart(log, true);
    assert_eq!(home.open(small()).log_start_offset(), Offset(0));
}

#[test]
fn a_read_that_spans_a_truncation_is_done_again() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    let cut = std::cell::Cell::new(false);
    let end = log.with_view(|view| {
        if !cut.replace(true) {
            log.truncate_to(Offset(20)).unwrap();
        }
        Ok(Ok(view.end))
    });
    assert_eq!(end, Ok(Offset(20)));
}

#[test]
fn sealed_segments_are_flushed_in_the_background_and_not_read_again_by_recovery() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    log.flush_sealed();
    let active = log.snapshot().segments.last().unwrap().base();
    assert_eq!(
        read_offset(&log.file(RECOVERY_POINT)).unwrap(),
        Some(active)
    );
    assert_eq!(files(&log, ".index").len(), log.segment_count() - 1);
    assert_eq!(files(&log, ".snapshot").len(), log.segment_count() - 1);
    assert_eq!(read_all(&log, 500).len(), 30);
    // Recovery trusts what was fsynced: damage there is not looked for.
    let first = segment::file(&log.folder, Offset(0), segment::LOG);
    let home = home.restart(log, false);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[HEADER_LEN] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    assert_eq!(home.open(small()).log_end_offset(), Offset(60));
}

#[test]
fn a_damaged_index_is_made_anew() {
    for damage in [&b""[..], b"xxxx", &[0xee; 16], &[0, 0, 0, 2, 0, 0, 0, 9]] {
        let home = Home::new();
        let log = home.open(small());
        lead(&log, 0..30);
        log.flush_sealed();
        for suffix in [segment::INDEX, segment::TIME_INDEX] {
            for base in log.snapshot().segments.iter().map(|s| s.base()) {
                let path = segment::file(&log.folder, base, suffix);
                match damage.is_empty() {
                    true => disk::remove(&path).unwrap(),
                    false => drop(disk::write(&path, damage).unwrap()),
                }
            }
        }
        for from in 0..60 {
            let bytes = log.read(Offset(from), 1, Offset(60), true).unwrap();
            let got = batches(bytes).next().unwrap().unwrap();
            assert_eq!(got.header.base_offset, Offset(from / 2 * 2));
        }
        let found = log.offset_for_timestamp(20, Offset(60)).unwrap();
        assert!(found.is_some_and(|f| f.timestamp >= 20));
    }
}

#[test]
fn damage_met_by_a_read_takes_the_partition_offline_with_the_place() {
    let home = Home::new();
    let log = home.open(LogConfig::default());
    lead(&log, 0..10);
    let path = segment::file(&log.folder, Offset(0), segment::LOG);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16] = 9;
    std::fs::write(&path, bytes).unwrap();
    let e = log.read(Offset(0), 100, Offset(20), true).unwrap_err();
    assert!(
        matches!(&e, ReadError::Storage(s) if s.reason.contains("byte 0")),
        "{e}"
    );
    assert_eq!(
        log.append_leader(&batch(0, 1), E0, 0)
            .unwrap_err()
            .kafka_code(),
        56
    );
    assert!(home.dir.close_clean().is_err());
}

#[test]
fn a_full_disk_takes_the_partition_offline_and_loses_nothing_acknowledged() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..3);
    let next = segment::file(&log.folder, Offset(6), segment::LOG);
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    log.set_config(LogConfig {
        segment_bytes: 400,
        ..small()
    });
    let e = log.append_leader(&batch(0, 2), E0, 0).unwrap_err();
    assert_eq!(e.kafka_code(), 56);
    assert!(e.to_string().contains("No space left"), "{e}");
    assert!(log.offline().unwrap().reason.contains("No space left"));
    std::fs::remove_file(&next).unwrap();
    let home = home.restart(log, false);
    assert_eq!(read_all(&home.open(small()), 1000).len(), 3);
}

#[test]
fn segments_roll_by_size_time_and_index() {
    let home = Home::new();
    let log = home.open(LogConfig {
        segment_ms: 1000,
        ..LogConfig::default()
    });
    lead(&log, [0, 500, 1000]);
    assert_eq!(log.segment_count(), 1);
    lead(&log, [1001]);
    assert_eq!(log.segment_count(), 2);
    log.set_config(LogConfig {
        index_interval_bytes: 1,
        segment_index_bytes: 24,
        ..LogConfig::default()
    });
    lead(&log, [1001; 4]);
    assert_eq!(log.segment_count(), 3);
}

#[test]
fn retention_by_time_keeps_what_is_young_or_not_yet_committed() {
    let home = Home::new();
    let log = home.open(LogConfig {
        retention_ms: 1000,
        ..small()
    });
    lead(&log, (0..30).map(|i| i * 100));
    let bases: Vec<_> = log.snapshot().segments.iter().map(|s| s.base()).collect();
    assert_eq!(log.apply_retention(900, Offset(60)).unwrap(), []);
    assert_eq!(log.apply_retention(99_000, Offset(0)).unwrap(), []);
    assert_eq!(log.apply_retention(99_000, bases[2]).unwrap(), bases[..2]);
    assert_eq!(log.log_start_offset(), bases[2]);
    assert_eq!(
        log.apply_retention(99_000, Offset(59)).unwrap(),
        bases[2..bases.len() - 1]
    );
    // All of it too old, and committed: an empty segment takes over.
    assert_eq!(
        log.apply_retention(99_000, Offset(60)).unwrap(),
        bases[bases.len() - 1..]
    );
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(60), Offset(60))
    );
    assert_eq!(log.last_epoch(), Some(E0));
    assert_eq!(log.apply_retention(99_000, Offset(60)).unwrap(), []);
    lead(&log, [99_000]);
    let home = home.restart(log, false);
    let log = home.open(small());
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(60), Offset(62))
    );
    assert_eq!(files(&log, ".deleted").len(), 0);
}

#[test]
fn retention_by_size_leaves_at_least_that_much() {
    let home = Home::new();
    let log = home.open(LogConfig {
        retention_bytes: 2000,
        ..small()
    });
    lead(&log, 0..40);
    let deleted = log.apply_retention(0, Offset(80)).unwrap();
    assert!(!deleted.is_empty());
    assert!(log.size() >= 2000 && log.size() < 3000, "{}", log.size());
    assert_eq!(
        read_all(&log, 500).last().unwrap().header.next_offset(),
        Offset(80)
    );
}

#[test]
fn deleted_records_stay_deleted() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    assert!(log.delete_records_before(Offset(61)).is_err());
    assert_eq!(log.delete_records_before(Offset(33)).unwrap(), Offset(33));
    assert_eq!(log.delete_records_before(Offset(5)).unwrap(), Offset(33));
    assert!(log.snapshot().segments[0].base() > Offset(0));
    let below = log.read(Offset(32), 1, Offset(60), true);
    assert!(matches!(below, Err(ReadError::OutOfRange { .. })));
    assert!(
        !log.read(Offset(33), 1, Offset(60), true)
            .unwrap()
            .is_empty()
    );
    let home = home.restart(log, false);
    let log = home.open(small());
    assert_eq!(log.log_start_offset(), Offset(33));
    let home = home.restart(log, true);
    assert_eq!(home.open(small()).log_start_offset(), Offset(33));
}

#[test]
fn records_are_found_by_their_time() {
    let home = Home::new();
    let log = home.open(small());
    // Rising, with a step back and a repeat; two records per batch, one millisecond apart.
    let times = [100, 200, 300, 250, 400, 400, 350, 600, 700, 800, 900, 1000];
    lead(&log, times);
    let all: Vec<(i64, i64)> = times.iter().flat_map(|&t| [t, t + 1]).zip(0..).collect();
    for flushed in [false, true] {
        if flushed {
            log.flush_sealed();
        }
        for wanted in 0..1010 {
            let expected = all.iter().find(|(t, _)| *t >= wanted);
            let found = log.offset_for_timestamp(wanted, Offset(99)).unwrap();
            let found = found.map(|f| (f.timestamp, f.offset.0));
            assert_eq!(found, expected.copied(), "at {wanted}");
        }
    }
    assert_eq!(
        log.offset_for_timestamp(1000, Offset(22)).unwrap(),
        None,
        "limit"
    );
    let max = log.max_timestamp(Offset(24)).unwrap().unwrap();
    assert_eq!(
        (max.timestamp, max.offset, max.leader_epoch),
        (1001, Offset(23), E0)
    );
    log.delete_records_before(Offset(15)).unwrap();
    let found = log.offset_for_timestamp(0, Offset(99)).unwrap().unwrap();
    assert_eq!(found.offset, Offset(15), "not below the log start");
}

#[test]
fn the_leaders_time_is_stored_where_the_topic_wants_it() {
    let home = Home::new();
    let log = home.open(LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..small()
    });
    log.begin_epoch(E0).unwrap();
    let info = log.append_leader(&batch(5, 2), E0, 77).unwrap();
    assert_eq!(info.log_append_time, 77);
    let read = read_all(&log, 1000);
    let times: Vec<_> = read[0]
        .records()
        .unwrap()
        .map(|r| r.unwrap().timestamp)
        .collect();
    assert_eq!(times, [77, 77]);
    // A follower takes it as it is.
    let other = home.dir.open_partition(home.topic, 1, small()).unwrap();
    other.append_follower(&read[0].bytes).unwrap();
}

#[test]
fn readers_never_see_half_of_a_truncation_nor_wait_for_it() {
    let home = Home::new();
    let log = home.open(LogConfig {
        segment_bytes: 5000,
        index_interval_bytes: 500,
        ..LogConfig::default()
    });
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (log, done) = (&log, &done);
            scope.spawn(move || {
                let mut from = reader as i64;
                while !done.load(Ordering::Relaxed) {
                    let end = log.log_end_offset();
                    let bytes = match log.read(Offset(from), 3000, end, true) {
                        Ok(bytes) => bytes,
                        Err(ReadError::OutOfRange { .. }) => Bytes::new(),
                        Err(e) => panic!("{e}"),
                    };
                    if bytes.is_empty() {
                        from = (end.0 - 40).max(0);
                    }
                    for batch in batches(bytes) {
                        let batch = batch.unwrap();
                        batch.check_crc().unwrap();
                        assert!(batch.header.next_offset().0 > from);
                        from = batch.header.next_offset().0;
                    }
                    if let Some(found) = log.offset_for_timestamp(from, end).unwrap() {
                        assert!(found.timestamp >= from);
                    }
                }
            });
        }
        for (epoch, round) in (0..400i64).enumerate() {
            let epoch = epoch as i32;
            log.begin_epoch(LeaderEpoch(epoch)).unwrap();
            for i in 0..10 {
                let size = 1 + (round * 7 + i) as usize % 5;
                log.append_leader(&batch(round * 10 + i, size), LeaderEpoch(epoch), 0)
                    .unwrap();
            }
            let end = log.log_end_offset().0;
            log.truncate_to(Offset(end - 20 - round % 13)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(log.offline().is_none());
    assert!(log.segment_count() > 3);
}

/// Run with `--ignored --nocapture`, and `--release` for a figure that means something.
#[test]
#[ignore = "a measurement"]
fn append_throughput() {
    let home = Home::new();
    let log = home.open(LogConfig::default());
    log.begin_epoch(E0).unwrap();
    let mut b = RecordBatchBuilder::new();
    while b.size() < 1_000_000 {
        b.push(0, None, Some(&[7; 1024]));
    }
    let bytes = b.build();
    for round in 0..5 {
        // The first round pays for memory that the machine touches for the first time.
        log.reset_to(Offset(0)).unwrap();
        log.begin_epoch(E0).unwrap();
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            log.append_leader(&bytes, E0, 0).unwrap();
        }
        let rate = bytes.len() as f64 / 1e3 / start.elapsed().as_secs_f64();
        println!("round {round}: append {rate:.0} MB/s");
    }
    let start = std::time::Instant::now();
    let (mut at, mut total) = (Offset(0), 0);
    while at < log.log_end_offset() {
        let bytes = log.read(at, 1 << 20, log.log_end_offset(), true).unwrap();
        total += bytes.len();
        for batch in batches(bytes) {
            at = batch.unwrap().header.next_offset();
        }
    }
    let rate = total as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!("read {rate:.0} MB/s");
}
