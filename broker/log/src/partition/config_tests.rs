//! What the topic's keys ask of a log, each so that the test fails where the key is ignored.

use super::tests::{E0, Home, batch, read_all, small};
use super::*;
use crate::batch::{RecordBatchBuilder, packed};
use crate::{Compression, TimestampType};
use leasehold_types::ProducerId;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// Bytes that the files of `suffix` take on the disk, set aside or written.
fn taken(log: &PartitionLog, suffix: &str) -> Vec<u64> {
    let mut names = disk::names(&log.folder).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    let blocks = |name: &String| std::fs::metadata(log.folder.join(name)).unwrap().blocks();
    names.iter().map(|name| blocks(name) * 512).collect()
}

#[test]
fn a_topic_with_a_codec_of_its_own_stores_it_and_followers_copy_it_byte_for_byte() {
    let home = Home::new();
    let log = home.open(LogConfig {
        compression: Compression::Zstd,
        ..LogConfig::default()
    });
    log.begin_epoch(E0).unwrap();
    let mut b = RecordBatchBuilder::new()
        .attributes(crate::batch::SNAPPY)
        .producer(ProducerId(5), 0, 0);
    b.push(10, Some(b"k"), Some(&[1; 500]));
    b.push(12, None, Some(&[2; 500]));
    let sent = packed(&b.build());
    let info = log.append_leader(&sent, E0, 20).unwrap();
    assert_eq!((info.base_offset, info.last_offset), (Offset(0), Offset(1)));
    // What a producer sends again is known again, however it is stored.
    assert!(log.append_leader(&sent, E0, 20).unwrap().duplicate);
    let read = read_all(&log, 1 << 20);
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].header.codec(), crate::batch::ZSTD);
    assert_eq!(read[0].header.producer_id, ProducerId(5));
    let found = log.offset_for_timestamp(11, Offset(2)).unwrap().unwrap();
    assert_eq!((found.offset, found.timestamp), (Offset(1), 12));
    // The follower's settings may lag behind: it keeps what the leader made.
    let follower = home.dir.open_partition(home.topic, 1, small()).unwrap();
    follower.append_follower(&read[0].bytes).unwrap();
    assert_eq!(read_all(&follower, 1 << 20)[0].bytes, read[0].bytes);
    drop(follower);
    let home = home.restart(log, false);
    let log = home.open(LogConfig::default());
    assert_eq!(read_all(&log, 1 << 20)[0].bytes, read[0].bytes);
    assert!(log.append_leader(&sent, E0, 20).unwrap().duplicate);
}

#[test]
fn preallocation_sets_a_whole_segment_aside_and_gives_the_rest_back() {
    const SEGMENT: u64 = 1 << 20;
    let config = |preallocate| LogConfig {
        segment_bytes: SEGMENT as u32,
        preallocate,
        ..LogConfig::default()
    };
    for preallocate in [false, true] {
        let home = Home::new();
        let log = home.open(config(preallocate));
        log.begin_epoch(E0).unwrap();
        log.append_leader(&batch(1, 2), E0, 1).unwrap();
        let aside = |taken: u64| taken >= SEGMENT;
        assert_eq!(
            taken(&log, ".log")
                .into_iter()
                .map(aside)
                .collect::<Vec<_>>(),
            [preallocate]
        );
        log.roll(&mut log.writer.lock()).unwrap();
        let all: Vec<_> = taken(&log, ".log").into_iter().map(aside).collect();
        assert_eq!(all, [false, preallocate], "only the active one");
        log.append_leader(&batch(2, 2), E0, 2).unwrap();
        // A crash leaves what is set aside, and no more records than there were.
        let home = home.restart(log, false);
        let log = home.open(config(preallocate));
        assert_eq!(log.log_end_offset(), Offset(4));
        assert_eq!(read_all(&log, 1 << 20).len(), 2);
        let home = home.restart(log, true);
        let log = home.open(config(preallocate));
        assert!(
            !taken(&log, ".log").into_iter().any(aside),
            "closed in order"
        );
        assert_eq!(log.log_end_offset(), Offset(4));
    }
}

#[test]
fn jitter_rolls_segments_at_ages_of_their_own() {
    let home = Home::new();
    let config = |segment_jitter_ms| LogConfig {
        segment_ms: 1_000_000,
        segment_jitter_ms,
        ..LogConfig::default()
    };
    for (partition, jitter) in [(0, 0), (1, 900_000)] {
        let open = home
            .dir
            .open_partition(home.topic, partition, config(jitter));
        let log = open.unwrap();
        log.begin_epoch(E0).unwrap();
        let mut ages = std::collections::BTreeSet::new();
        let mut first = 0;
        for now in (0..60).map(|n| n * 100_000) {
            let before = log.segment_count();
            log.append_leader(&batch(now, 1), E0, now).unwrap();
            if log.segment_count() > before {
                if before > 0 {
                    ages.insert(now - first);
                }
                first = now;
            }
        }
        match jitter {
            0 => assert_eq!(ages.into_iter().collect::<Vec<_>>(), [1_100_000]),
            // One draw in nine alike, ten times: that it is all of them does not happen.
            _ => assert!(
                ages.len() > 1 && ages.iter().all(|age| *age <= 1_100_000),
                "{ages:?}"
            ),
        }
    }
}

#[test]
fn a_deleted_segments_file_is_kept_for_the_delay() {
    for (delay, kept) in [(0, 0), (60_000, 3)] {
        let home = Home::new();
        let log = home.open(LogConfig {
            file_delete_delay_ms: delay,
            ..small()
        });
        log.begin_epoch(E0).unwrap();
        while log.segment_count() < 4 {
            log.append_leader(&batch(1, 2), E0, 1).unwrap();
        }
        log.delete_records_before(log.log_end_offset()).unwrap();
        assert_eq!(log.segment_count(), 1);
        assert_eq!(taken(&log, ".deleted").len(), kept);
        assert_eq!(log.has_discarded(), kept > 0);
        let now = Instant::now();
        log.remove_discarded(now + Duration::from_millis(59_000))
            .unwrap();
        assert_eq!(taken(&log, ".deleted").len(), kept);
        log.remove_discarded(now + Duration::from_millis(61_000))
            .unwrap();
        assert_eq!(taken(&log, ".deleted").len(), 0);
        assert!(!log.has_discarded());
    }
}

#[test]
fn a_partition_is_flushed_after_so_many_messages_or_so_long_a_time() {
    let unflushed = |log: &PartitionLog| log.writer.lock().unflushed_records;
    let home = Home::new();
    let by_count = home.open(LogConfig {
        flush_messages: 5,
        ..LogConfig::default()
    });
    by_count.begin_epoch(E0).unwrap();
    for expected in [2, 4, 0, 2] {
        by_count.append_leader(&batch(1, 2), E0, 1).unwrap();
        assert_eq!(unflushed(&by_count), expected);
    }
    let by_time = home
        .dir
        .open_partition(
            home.topic,
            1,
            LogConfig {
                flush_ms: 1000,
                ..LogConfig::default()
            },
        )
        .unwrap();
    by_time.begin_epoch(E0).unwrap();
    by_time.append_leader(&batch(1, 2), E0, 1).unwrap();
    for (now, expected) in [(5000, 2), (5999, 2), (6000, 0)] {
        by_time.flush_if_due(now).unwrap();
        assert_eq!(unflushed(&by_time), expected, "at {now}");
    }
}

#[test]
fn the_index_keys_say_how_often_entries_are_written_and_how_large_an_index_may_be() {
    let home = Home::new();
    let mut lengths = Vec::new();
    for (partition, interval) in [(0, 1), (1, 100_000)] {
        let config = LogConfig {
            index_interval_bytes: interval,
            ..LogConfig::default()
        };
        let log = home
            .dir
            .open_partition(home.topic, partition, config)
            .unwrap();
        log.begin_epoch(E0).unwrap();
        for now in 0..50 {
            log.append_leader(&batch(now, 1), E0, now).unwrap();
        }
        let active = log.snapshot().segments.last().unwrap().clone();
        lengths.push(active.index_len());
    }
    assert!(lengths[0] > 10 * lengths[1].max(1), "{lengths:?}");
    let config = LogConfig {
        index_interval_bytes: 1,
        segment_index_bytes: 80,
        ..LogConfig::default()
    };
    let log = home.dir.open_partition(home.topic, 2, config).unwrap();
    log.begin_epoch(E0).unwrap();
    for now in 0..50 {
        log.append_leader(&batch(now, 1), E0, now).unwrap();
    }
    assert!(log.segment_count() > 3, "{}", log.segment_count());
}

#[test]
fn the_leaders_time_takes_the_place_of_the_producers() {
    let home = Home::new();
    for (partition, timestamp_type, expected) in [
        (0, TimestampType::CreateTime, 5),
        (1, TimestampType::LogAppendTime, 77),
    ] {
        let config = LogConfig {
            timestamp_type,
            ..LogConfig::default()
        };
        let log = home
            .dir
            .open_partition(home.topic, partition, config)
            .unwrap();
        log.begin_epoch(E0).unwrap();
        log.append_leader(&batch(5, 1), E0, 77).unwrap();
        let records = read_all(&log, 1000)[0].records().unwrap();
        let times: Vec<_> = records.map(|r| r.unwrap().timestamp).collect();
        assert_eq!(times, [expected]);
    }
}
