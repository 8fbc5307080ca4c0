//! Appending, as leader and as follower: what is taken, what it becomes, and when a segment ends.

use super::*;

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

#[test]
fn an_empty_log_may_begin_in_the_midst_of_the_leaders_first_batch() {
    let home = Home::new();
    let log = home.open(small());
    let at = |base: i64, count: i64| {
        let mut builder = RecordBatchBuilder::new().at(Offset(base), LeaderEpoch(2));
        (0..count).for_each(|n| {
            builder.push(n, None, Some(b"v"));
        });
        builder.build()
    };
    let range = |log: &PartitionLog| (log.log_start_offset().0, log.log_end_offset().0);
    log.reset_to(Offset(50)).unwrap();
    for (base, count) in [(40, 5), (48, 2)] {
        let refused = log.append_follower(&at(base, count));
        assert!(matches!(refused, Err(AppendError::NotAtEnd { .. })));
        assert_eq!(range(&log), (50, 50));
    }
    let info = log.append_follower(&at(48, 4)).unwrap();
    assert_eq!(info.log_start_offset, Offset(50));
    assert_eq!(range(&log), (50, 52));
    // Only an empty one.
    assert!(log.append_follower(&at(51, 3)).is_err());
    log.append_follower(&at(52, 1)).unwrap();
    let (mut home, mut log) = (home, log);
    for clean in [false, true] {
        home = home.restart(log, clean);
        log = home.open(small());
        assert_eq!(range(&log), (50, 53), "closed in order: {clean}");
        assert_eq!(log.epoch_start(LeaderEpoch(2)), Some(Offset(48)));
    }
}
