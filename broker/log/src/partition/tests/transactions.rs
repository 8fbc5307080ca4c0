//! Transactions: markers, fencing, the last stable offset, and what is known of aborted ones over segments,
//! restarts and damage.

use super::*;
use crate::batch::{ATTRIBUTE_TRANSACTIONAL, BatchHeader, Marker};
use crate::segment::TXN_INDEX;

const ONE: ProducerId = ProducerId(1);
const TWO: ProducerId = ProducerId(2);

fn sent(producer: ProducerId, epoch: i16, sequence: i32) -> Bytes {
    let mut b = RecordBatchBuilder::new()
        .attributes(ATTRIBUTE_TRANSACTIONAL)
        .producer(producer, epoch, sequence);
    b.push(10, Some(b"key"), Some(&[7; 60]));
    b.build()
}

/// Appends a batch, with a guard if one is needed.
fn write(log: &PartitionLog, producer: ProducerId, sequence: i32) -> i64 {
    let guard = log.begin_verification(producer, 0, sequence, 10);
    let batch = sent(producer, 0, sequence);
    let done = log.append_verified(&batch, E0, 10, guard);
    done.unwrap().base_offset.0
}

fn marker(producer: ProducerId, committed: bool) -> Marker {
    Marker {
        producer_id: producer,
        producer_epoch: 0,
        coordinator_epoch: 4,
        committed,
    }
}

fn end(log: &PartitionLog, producer: ProducerId, committed: bool) -> i64 {
    let done = log.append_marker(&marker(producer, committed), E0, 10);
    done.unwrap().base_offset.0
}

/// Producer and first offset of what was aborted within two offsets.
fn aborted(log: &PartitionLog, from: i64, to: i64) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut at = Offset(from);
    while at < Offset(to) {
        let read = log.read_committed(at, 1 << 20, Offset(to), true).unwrap();
        let last = batches(read.batches).last().unwrap().unwrap();
        at = last.header.next_offset();
        for txn in read.aborted {
            let pair = (txn.producer_id.0, txn.first_offset.0);
            if !found.contains(&pair) {
                found.push(pair);
            }
        }
    }
    found
}

fn stable(log: &PartitionLog, high_watermark: i64) -> i64 {
    log.last_stable_offset(Offset(high_watermark)).0
}

#[test]
fn a_batch_begins_a_transaction_only_with_a_guard_that_no_marker_has_made_void() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(E0).unwrap();
    let batch = sent(ONE, 0, 0);
    let refused = |guard| log.append_verified(&batch, E0, 10, guard).unwrap_err();
    assert_eq!(refused(None).kafka_code(), 48);
    let late = log.begin_verification(ONE, 0, 0, 10);
    assert!(late.is_some());
    // The coordinator said yes, and aborted the transaction before the batch came.
    end(&log, ONE, false);
    assert_eq!(refused(late).kafka_code(), 48);
    assert_eq!(write(&log, ONE, 0), 1);
    assert_eq!(log.begin_verification(ONE, 0, 1, 10), None, "it is open");
    assert_eq!(write(&log, ONE, 1), 2);
    // A repeat is told where it is, whatever the guard.
    assert!(log.append_leader(&batch, E0, 10).unwrap().duplicate);
    assert_eq!(log.open_transactions(), 1);
}

#[test]
fn a_marker_fences_and_is_appended_by_followers_as_it_is() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(E0).unwrap();
    write(&log, ONE, 0);
    let newer = Marker {
        producer_epoch: 3,
        ..marker(ONE, false)
    };
    log.append_marker(&newer, E0, 10).unwrap();
    let code = |e: AppendError| e.kafka_code();
    let old = log.append_verified(&sent(ONE, 0, 1), E0, 10, None);
    assert_eq!(old.map_err(code).map(|_| ()), Err(47));
    let old = log.append_marker(&marker(ONE, false), E0, 10);
    assert_eq!(old.map_err(code).map(|_| ()), Err(47));
    let replaced = Marker {
        coordinator_epoch: 3,
        ..newer
    };
    let old = log.append_marker(&replaced, E0, 10);
    assert_eq!(old.map_err(code).map(|_| ()), Err(52));
    let not_led = log.append_marker(&newer, LeaderEpoch(1), 10);
    assert!(matches!(not_led, Err(AppendError::EpochNotBegun(_))));

    let follower = Home::new();
    let copy = follower.open(small());
    let bytes = log.read(Offset(0), 1 << 20, Offset(2), true).unwrap();
    copy.append_follower(&bytes).unwrap();
    assert_eq!(
        copy.read(Offset(0), 1 << 20, Offset(2), true).unwrap(),
        bytes
    );
    assert_eq!(copy.active_producers(), log.active_producers());
    assert_eq!(aborted(&copy, 0, 2), [(1, 0)]);
    assert_eq!((stable(&copy, 1), stable(&copy, 2)), (0, 2));
}

#[test]
fn what_was_aborted_is_known_over_segments_restarts_and_truncations() {
    for clean in [true, false] {
        let mut home = Home::new();
        let mut log = home.open(small());
        log.begin_epoch(E0).unwrap();
        // Each transaction of the first producer is aborted; the second's is open all along.
        write(&log, TWO, 0);
        let mut expected = Vec::new();
        for i in 0..12 {
            let first = write(&log, ONE, 3 * i);
            write(&log, ONE, 3 * i + 1);
            write(&log, ONE, 3 * i + 2);
            end(&log, ONE, false);
            expected.push((1, first));
        }
        assert!(log.segment_count() > 3);
        log.flush_sealed();
        let known = |log: &PartitionLog| {
            let all = log.log_end_offset().0;
            assert_eq!(aborted(log, 0, all), expected);
            // A reader in the middle hears of those that touch what it reads.
            assert_eq!(aborted(log, 7, 10), expected[1..3]);
            // So does one of its first batch alone, though the marker may be in a later segment.
            for (_, first) in &expected {
                let read = log.read_committed(Offset(*first), 1, Offset(all), true);
                let aborted = read.unwrap().aborted;
                assert_eq!(aborted.len(), 1, "at {first}");
                assert_eq!(aborted[0].first_offset.0, *first);
            }
            assert_eq!((stable(log, all), log.open_transactions()), (0, 1));
        };
        known(&log);
        home = home.restart(log, clean);
        log = home.open(small());
        known(&log);
        // In the middle of the fourth transaction: the third is known, the fourth is open again.
        log.truncate_to(Offset(15)).unwrap();
        assert_eq!(aborted(&log, 0, 15), expected[..3]);
        assert_eq!(log.open_transactions(), 2);
        log.begin_epoch(E0).unwrap();
        end(&log, ONE, false);
        end(&log, TWO, true);
        assert_eq!(aborted(&log, 0, 17), expected[..4]);
        assert_eq!(stable(&log, 17), 17);
    }
}

#[test]
fn a_damaged_index_of_aborted_transactions_is_made_up_for_by_the_batches() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(E0).unwrap();
    for i in 0..20 {
        write(&log, ONE, i);
        end(&log, ONE, i % 2 == 0);
    }
    let end = log.log_end_offset().0;
    let before = aborted(&log, 0, end);
    assert_eq!(before.len(), 10);
    let home = home.restart(log, true);
    let folder = home.dir.path().join(format!("{}-0", home.topic));
    for name in disk::names(&folder).unwrap() {
        let path = folder.join(&name);
        if name.ends_with(TXN_INDEX) {
            let mut content = std::fs::read(&path).unwrap();
            content[3] ^= 1;
            std::fs::write(&path, content).unwrap();
        }
    }
    assert_eq!(aborted(&home.open(small()), 0, end), before);
}

#[test]
fn the_log_start_is_where_committed_records_end_if_an_open_transaction_lost_its_first() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(E0).unwrap();
    write(&log, ONE, 0);
    write(&log, ONE, 1);
    log.delete_records_before(Offset(1)).unwrap();
    assert_eq!(stable(&log, 2), 1);
    // Whoever has a transaction open is not forgotten with time.
    log.apply_retention(i64::MAX, Offset(2)).unwrap();
    assert_eq!(log.open_transactions(), 1);
    end(&log, ONE, true);
    assert_eq!((stable(&log, 2), stable(&log, 3)), (1, 3));
}

/// First offset of each batch that has records, and whether it is a marker.
fn left(log: &PartitionLog) -> Vec<(i64, bool)> {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let mut found = Vec::new();
    while at < end {
        let bytes = log.read(at, 1 << 20, end, true).unwrap();
        assert!(!bytes.is_empty(), "nothing at {at} of {end}");
        for batch in batches(bytes) {
            let header = batch.unwrap().header;
            at = header.next_offset();
            if header.record_count > 0 {
                found.push((header.base_offset.0, header.is_control()));
            }
        }
    }
    found
}

#[test]
fn compaction_drops_what_was_aborted_and_keeps_what_that_would_have_replaced() {
    let home = Home::new();
    let log = home.open(LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 50,
        ..small()
    });
    log.begin_epoch(E0).unwrap();
    // All of one key, of which offset 1 is the last record that counts.
    write(&log, ONE, 0);
    write(&log, ONE, 1);
    let committed = end(&log, ONE, true);
    write(&log, ONE, 2);
    write(&log, ONE, 3);
    let marker = end(&log, ONE, false);
    // Or the last aborted batch would stay, empty, for its sequence.
    let mut b = RecordBatchBuilder::new().producer(ONE, 0, 4);
    b.push(10, Some(b"other"), None);
    log.append_leader(&b.build(), E0, 10).unwrap();
    let fill = || {
        let until = log.segment_count() + 2;
        while log.segment_count() < until {
            let mut b = RecordBatchBuilder::new();
            b.push(10, Some(b"other"), Some(&[7; 60]));
            log.append_leader(&b.build(), E0, 10).unwrap();
        }
    };
    let clean = |now_ms| {
        let done = log.clean(now_ms, log.log_end_offset(), 1000).unwrap();
        assert!(done.is_some());
        left(&log)
    };
    fill();
    // Whether this one counts, and so what it replaces, is not decided yet.
    let open = write(&log, TWO, 0);
    fill();
    let after = clean(0);
    assert_eq!(after[..3], [(1, false), (committed, true), (marker, true)]);
    let undecided = after.iter().filter(|(offset, _)| *offset >= open);
    assert_eq!(undecided.count() as i64, log.log_end_offset().0 - open);

    // The marker of what is there stays for ever; that of what is gone, until its time is over.
    end(&log, TWO, false);
    for (now_ms, gone) in [(1000, false), (1040, false), (2000, true)] {
        fill();
        let after = clean(now_ms);
        assert_eq!(after[..2], [(1, false), (committed, true)]);
        assert_eq!(!after.contains(&(marker, true)), gone, "{now_ms}");
        assert!(!after.contains(&(open, false)));
    }
}

#[test]
fn a_transaction_without_records_moves_nothing() {
    let home = Home::new();
    let log = home.open(small());
    log.begin_epoch(E0).unwrap();
    end(&log, ONE, false);
    assert_eq!((stable(&log, 0), stable(&log, 1)), (0, 1));
    assert_eq!(aborted(&log, 0, 1), []);
    let bytes = log.read(Offset(0), 1000, Offset(1), true).unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    let parsed = Marker::parse(&header, &bytes);
    assert_eq!(parsed, Some(marker(ONE, false)));
}
