//! Reading: by offset and by time, and beside a truncation.

use super::*;

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
