//! Compaction of whole logs: one rule a test. What holds under random use is in `clean_model_tests`.

use super::tests::{E0, Home, batch, read_all, small};
use super::*;
use crate::batch::RecordBatchBuilder;
use crate::{Cleanable, segment};
use bytes::Bytes;
use leasehold_types::ProducerId;
use std::sync::atomic::Ordering;

const ALL_KEYS: usize = 1000;

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        ..small()
    }
}

/// Appends records `from..to`, one a batch, of `keys` keys in turn, the `n`th at time `n`.
fn put(log: &PartitionLog, from: i64, to: i64, keys: i64) {
    log.begin_epoch(E0).unwrap();
    for n in from..to {
        let mut b = RecordBatchBuilder::new();
        b.push(n, Some(&(n % keys).to_be_bytes()), Some(&[n as u8; 40]));
        log.append_leader(&b.build(), E0, n).unwrap();
    }
}

fn clean(log: &PartitionLog) -> Option<Cleaned> {
    log.clean(0, log.log_end_offset(), ALL_KEYS).unwrap()
}

fn offsets(log: &PartitionLog) -> Vec<i64> {
    let batches = read_all_across_holes(log);
    batches
        .iter()
        .flat_map(|b| b.records().unwrap())
        .map(|r| r.unwrap().offset.0)
        .collect()
}

fn read_all_across_holes(log: &PartitionLog) -> Vec<crate::batch::Batch> {
    let end = log.log_end_offset();
    let mut at = log.log_start_offset();
    let mut all = Vec::new();
    while at < end {
        let bytes = log.read(at, 1, log.log_end_offset(), true).unwrap();
        let Some(batch) = crate::batch::batches(bytes).next() else {
            // A hole came to reach across what was the end a moment ago.
            continue;
        };
        let batch = batch.unwrap();
        at = batch.header.next_offset();
        all.push(batch);
    }
    all
}

#[test]
fn neither_end_of_the_log_moves_and_the_active_segment_is_untouched() {
    let home = Home::new();
    let log = home.open(config());
    put(&log, 0, 100, 3);
    let active = log.snapshot().segments.last().unwrap().base().0;
    let done = clean(&log).unwrap();
    assert_eq!(done.clean_to.0, active);
    assert!(done.bytes_after < done.bytes_before / 4);
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(0), Offset(100))
    );
    let mut want: Vec<i64> = (active - 3..100).collect();
    want.retain(|n| *n >= active || *n >= active - 3);
    assert_eq!(offsets(&log), want);
    assert_eq!(log.cleanable(0, Offset(100)).unwrap(), Cleanable::No);
    assert_eq!(clean(&log), None);
}

#[test]
fn a_topic_that_only_deletes_is_never_compacted_and_one_that_only_compacts_never_deletes() {
    let home = Home::new();
    let log = home.open(LogConfig {
        compact: false,
        ..config()
    });
    put(&log, 0, 100, 3);
    assert_eq!(log.cleanable(0, Offset(100)).unwrap(), Cleanable::No);
    assert_eq!(clean(&log), None);
    let expired = |compact, delete| LogConfig {
        compact,
        delete,
        retention_ms: 1,
        retention_bytes: 1,
        ..config()
    };
    log.set_config(expired(true, false));
    assert_eq!(log.apply_retention(1 << 40, Offset(100)).unwrap(), []);
    log.set_config(expired(true, true));
    assert!(clean(&log).is_some());
    assert!(
        !log.apply_retention(1 << 40, Offset(100))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_log_with_more_keys_than_fit_is_cleaned_in_rounds() {
    let home = Home::new();
    let log = home.open(config());
    put(&log, 0, 200, 20);
    let mut rounds = 0;
    let mut before = Offset(0);
    while let Some(done) = log.clean(0, Offset(200), 7).unwrap() {
        assert!(done.clean_to > before);
        before = done.clean_to;
        rounds += 1;
    }
    assert!(rounds > 3);
    let active = log.snapshot().segments.last().unwrap().base().0;
    assert_eq!(offsets(&log), (active - 20..200).collect::<Vec<_>>());
}

#[test]
fn a_damaged_segment_keeps_the_log_from_being_compacted_and_nothing_else() {
    let home = Home::new();
    let log = home.open(config());
    put(&log, 0, 100, 3);
    log.flush_sealed();
    let second = log.snapshot().segments[1].path().to_owned();
    let whole = std::fs::read(&second).unwrap();
    let mut bytes = whole.clone();
    bytes[90] ^= 1;
    std::fs::write(&second, bytes).unwrap();
    let error = log.clean(0, Offset(100), ALL_KEYS).unwrap_err().to_string();
    assert!(error.contains("CRC"), "{error}");
    assert_eq!(log.offline(), None);
    std::fs::write(&second, whole).unwrap();
    assert_eq!(read_all(&log, 1000).len(), 100);
    assert!(clean(&log).is_some());
}

#[test]
fn what_was_cut_off_and_written_anew_counts_as_dirty() {
    let home = Home::new();
    let log = home.open(config());
    put(&log, 0, 100, 3);
    let to = clean(&log).unwrap().clean_to;
    // Only an unclean election cuts so deep.
    let end = log.truncate_to(Offset(to.0 - 10)).unwrap();
    assert!(end < to);
    // A key that occurs here only, below where all had been clean.
    for _ in 0..2 {
        let mut b = RecordBatchBuilder::new();
        b.push(0, Some(b"x"), Some(b"v"));
        log.append_leader(&b.build(), E0, 0).unwrap();
    }
    let (first, last) = (end.0, end.0 + 1);
    put(&log, last + 1, last + 100, 3);
    let home = home.restart(log, false);
    let log = home.open(config());
    clean(&log).unwrap();
    let seen = offsets(&log);
    assert_eq!((seen.contains(&first), seen.contains(&last)), (false, true));
}

#[test]
fn a_cut_within_a_hole_ends_the_log_where_a_restart_finds_its_end() {
    let home = Home::new();
    let log = home.open(config());
    let at = |offset: i64| {
        let mut b = RecordBatchBuilder::new().at(Offset(offset), E0);
        b.push(offset, Some(b"k"), None);
        b.build()
    };
    // As copied from a leader that has compacted 2 to 9, and then 13 to 19.
    for offset in [0, 1, 10, 11, 12, 20] {
        log.append_follower(&at(offset)).unwrap();
    }
    assert_eq!(log.log_end_offset(), Offset(21));
    let mut home = home;
    let mut log = log;
    for clean in [true, false] {
        home = home.restart(log, clean);
        log = home.open(config());
        assert_eq!(log.log_end_offset(), Offset(21));
        assert_eq!(offsets(&log), [0, 1, 10, 11, 12, 20]);
    }
    assert_eq!(log.truncate_to(Offset(17)).unwrap(), Offset(13));
    home = home.restart(log, true);
    log = home.open(config());
    assert_eq!(log.log_end_offset(), Offset(13));
    assert_eq!(log.truncate_to(Offset(5)).unwrap(), Offset(2));
    home = home.restart(log, false);
    log = home.open(config());
    assert_eq!(log.log_end_offset(), Offset(2));
    assert!(log.append_follower(&at(1)).is_err());
}

#[test]
fn a_segment_that_lost_its_end_is_told_from_a_hole() {
    let home = Home::new();
    let log = home.open(config());
    put(&log, 0, 60, 3);
    let bound = log.snapshot().end_of(1);
    let batches = read_all(&log, 1000);
    let cut = batches.iter().rfind(|b| b.header.base_offset < bound);
    let cut = cut.unwrap().clone();
    let (path, point) = {
        let view = log.snapshot();
        (view.segments[1].path().to_owned(), log.file(RECOVERY_POINT))
    };
    // As a power cut may leave it: a later segment is there, and the end of this one is not.
    let home = home.restart(log, false);
    let left = disk::len(&path).unwrap() - cut.bytes.len() as u64;
    disk::shorten(&disk::open_to_write(&path).unwrap(), &path, left).unwrap();
    disk::remove(&point).unwrap();
    let log = home.open(config());
    let end = cut.header.base_offset;
    assert_eq!(log.log_end_offset(), end);
    assert_eq!(log.segment_count(), 2);
}

/// A batch of one producer, of one record.
fn from(sequence: i32) -> Bytes {
    let mut b = RecordBatchBuilder::new().producer(ProducerId(9), 0, sequence);
    b.push(0, Some(&0i64.to_be_bytes()), None);
    b.build()
}

/// What is known of producers is in the log alone.
fn remove_snapshots(log: &PartitionLog) {
    for at in super::open::snapshots(&log.folder).unwrap() {
        disk::remove(&segment::file(&log.folder, at, segment::SNAPSHOT)).unwrap();
    }
}

#[test]
fn producers_are_known_after_all_that_they_wrote_was_compacted_and_lost() {
    let home = Home::new();
    let log = home.open(config());
    log.begin_epoch(E0).unwrap();
    for sequence in 0..3 {
        log.append_leader(&from(sequence), E0, 0).unwrap();
    }
    put(&log, 3, 60, 3);
    clean(&log).unwrap();
    assert!(!offsets(&log).contains(&2));
    remove_snapshots(&log);
    let home = home.restart(log, false);
    let log = home.open(config());
    let again = log.append_leader(&from(2), E0, 0).unwrap();
    assert!(again.duplicate);
    assert_eq!(again.base_offset, Offset(2));
    assert_eq!(
        log.append_leader(&from(4), E0, 0).unwrap_err().kafka_code(),
        45
    );
    assert!(!log.append_leader(&from(3), E0, 0).unwrap().duplicate);
}

#[test]
fn what_a_producer_wrote_last_is_kept_below_what_may_still_be_cut_off() {
    let home = Home::new();
    let log = home.open(config());
    log.begin_epoch(E0).unwrap();
    for sequence in 0..3 {
        log.append_leader(&from(sequence), E0, 0).unwrap();
    }
    put(&log, 3, 60, 3);
    let last = log.append_leader(&from(3), E0, 0).unwrap().base_offset;
    assert!(last >= log.snapshot().segments.last().unwrap().base());
    clean(&log).unwrap();
    remove_snapshots(&log);
    // The next leader never had it.
    log.truncate_to(last).unwrap();
    log.begin_epoch(E0).unwrap();
    let gap = log.append_leader(&from(4), E0, 0).unwrap_err();
    assert_eq!(gap.kafka_code(), 45);
    assert!(!log.append_leader(&from(3), E0, 0).unwrap().duplicate);
}

#[test]
fn readers_and_an_appender_go_on_while_segments_are_swapped() {
    let home = Home::new();
    let log = home.open(config());
    put(&log, 0, 100, 3);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(offsets(&log).is_sorted());
                }
            });
        }
        for round in 1..15 {
            put(&log, round * 100, round * 100 + 100, 3);
            clean(&log).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(log.offline(), None);
    let active = log.snapshot().segments.last().unwrap().base().0;
    assert_eq!(offsets(&log), (active - 3..1500).collect::<Vec<_>>());
}

#[test]
fn segments_are_rolled_early_enough_for_the_maximal_lag() {
    let home = Home::new();
    let log = home.open(LogConfig {
        segment_bytes: 1 << 20,
        max_compaction_lag_ms: 50,
        min_cleanable_dirty_ratio: 1.0,
        ..config()
    });
    put(&log, 0, 100, 3);
    assert_eq!(log.segment_count(), 2);
    assert_eq!(log.cleanable(50, Offset(100)).unwrap(), Cleanable::Later);
    let due = log.cleanable(51, Offset(100)).unwrap();
    assert!(matches!(due, Cleanable::Now { .. }), "{due:?}");
    // Its size is not what it is about.
    assert!(batch(0, 1).len() < log.size() as usize);
}
