//! What opening many logs after a clean stop costs: bytes read, and time.

use super::{Watched, flush_in_steps, scratch};
use crate::batch::RecordBatchBuilder;
use crate::{LogConfig, LogDir, PartitionLog};
use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, TopicId};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn open(path: &Path, life: i64) -> Arc<LogDir> {
    let dir = LogDir::open(path, &ClusterId("c".into()), BrokerId(0)).unwrap();
    dir.begin(Incarnation(life)).unwrap();
    dir.confirm(Incarnation(life)).unwrap();
    dir
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 300,
        ..LogConfig::default()
    }
}

/// Appends until the log has that many segments.
fn fill(log: &PartitionLog, segments: usize) {
    let epoch = LeaderEpoch(0);
    log.begin_epoch(epoch).unwrap();
    while log.segment_count() < segments {
        let mut b = RecordBatchBuilder::new();
        b.push(1000, Some(b"key"), Some(&[7; 900]));
        log.append_leader(&b.build(), epoch, 1000).unwrap();
    }
    log.flush_sealed();
}

/// Stops and starts in order, with so many logs of so many segments: bytes read, and the time it took
/// two threads to open them all.
fn reopened(partitions: i32, segments: usize) -> (u64, Duration) {
    flush_in_steps();
    let folder = scratch();
    let topic = TopicId::random();
    let dir = open(folder.path(), 1);
    for p in 0..partitions {
        fill(&dir.open_partition(topic, p, config()).unwrap(), segments);
    }
    dir.close_clean().unwrap();
    drop(dir);
    let disk = Watched::new(folder.path());
    let begun = Instant::now();
    let dir = open(folder.path(), 2);
    assert!(dir.was_clean());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let p = next.fetch_add(1, Ordering::Relaxed) as i32;
                    if p >= partitions {
                        break;
                    }
                    let log = dir.open_partition(topic, p, config()).unwrap();
                    assert_eq!(log.segment_count(), segments);
                }
            });
        }
    });
    (disk.bytes_read(), begun.elapsed())
}

#[test]
fn opening_a_log_after_a_clean_stop_reads_no_more_for_more_segments() {
    let (few, _) = reopened(3, 4);
    let (many, _) = reopened(3, 40);
    assert!(
        many <= few + 100,
        "{few} bytes for 4 segments, {many} for 40"
    );
}

#[test]
#[ignore = "makes 400,000 files; for a release build"]
fn a_thousand_logs_of_a_hundred_segments_open_within_two_seconds() {
    let (bytes, time) = reopened(1000, 100);
    println!("1,000 logs of 100 segments: {bytes} bytes read, {time:?}");
    assert!(bytes < 1000 * 10_000, "{bytes} bytes read");
    assert!(time < Duration::from_secs(2), "{time:?}");
}
