//! Seeds of the log's targets: folders as real logs leave them, and batches in every codec.

use super::put;
use leasehold_fuzz::{Archive, File};
use leasehold_log::batch::{Marker, RecordBatchBuilder};
use leasehold_log::{Compression, LogConfig, LogDir, PartitionLog, TopicId};
use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, Offset, ProducerId};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

const NOW: i64 = 1_700_000_000_000;
const TOPIC: TopicId = TopicId(Uuid::from_u128(1));

pub(super) fn write() {
    batches();
    folders();
}

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 100,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn batch(n: i64) -> Vec<u8> {
    let mut batch = RecordBatchBuilder::new().producer(ProducerId(7), 0, n as i32 * 2);
    batch.push(
        NOW + n,
        Some(format!("k{}", n % 3).as_bytes()),
        Some(b"some value"),
    );
    batch.push_with_headers(
        NOW + n,
        Some(b"k"),
        None,
        &[(b"h", Some(b"v")), (b"n", None)],
    );
    batch.build().to_vec()
}

fn open(path: &Path, config: LogConfig) -> (Arc<LogDir>, Arc<PartitionLog>) {
    let dir = LogDir::open(path, &ClusterId("c".into()), BrokerId(1)).expect("a directory");
    dir.begin(Incarnation(1)).expect("run");
    dir.confirm(Incarnation(1)).expect("run");
    let log = dir.open_partition(TOPIC, 0, config).expect("a log");
    (dir, log)
}

fn batches() {
    let plain = batch(0);
    put("append", "plain", &[&[0, 0, 0][..], &plain].concat());
    put("append", "compacted", &[&[1, 0, 1][..], &plain].concat());
    put("append", "leaders-time", &[&[1, 0, 2][..], &plain].concat());
    put(
        "append",
        "follower",
        &[&[4, 0, 0][..], &plain, &stored(Compression::Lz4, 2)].concat(),
    );
    let kinds = [
        Compression::Uncompressed,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for (codec, kind) in (0u8..).zip(kinds) {
        let mut sent = stored(kind, 0);
        sent[..8].fill(0);
        for target in 0..6u8 {
            let name = format!("{codec}-to-{target}");
            put("append", &name, &[&[1, target, 1][..], &sent].concat());
        }
        // The records alone, behind how many they are.
        put(
            "append",
            &format!("records-{codec}"),
            &[&[2, codec * 6 + 1, 1, 2][..], &sent[61..]].concat(),
        );
    }
}

/// The batch as a topic of this codec stores it, at the offset.
fn stored(compression: Compression, offset: i64) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let config = LogConfig {
        compression,
        ..small()
    };
    let (_dir, log) = open(root.path(), config);
    log.begin_epoch(LeaderEpoch(0)).expect("an epoch");
    log.append_leader(&batch(0), LeaderEpoch(0), NOW)
        .expect("an append");
    let end = log.log_end_offset();
    let mut bytes = log
        .read(Offset(0), 1 << 20, end, true)
        .expect("a read")
        .to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes
}

fn folders() {
    type Change = fn(&PartitionLog);
    let plain: Change = |_| ();
    let changes: [(&str, i64, Change); 7] = [
        ("one-segment", 2, plain),
        ("segments", 7, plain),
        ("flushed", 7, |log| log.flush().expect("a flush")),
        ("truncated", 7, |log| {
            log.truncate_to(Offset(6)).expect("a truncation");
        }),
        ("records-deleted", 7, |log| {
            log.delete_records_before(Offset(5)).expect("a deletion");
        }),
        ("transactions", 2, transactions),
        ("cleaned", 7, |log| {
            log.set_config(LogConfig {
                compact: true,
                ..small()
            });
            log.clean(NOW + 1, log.log_end_offset(), 1 << 20)
                .expect("a cleaning");
        }),
    ];
    for (name, count, change) in changes {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (dir, log) = open(root.path(), small());
        for n in 0..count {
            let epoch = LeaderEpoch(n as i32 / 3);
            log.begin_epoch(epoch).expect("an epoch");
            log.append_leader(&batch(n), epoch, NOW).expect("an append");
        }
        change(&log);
        let killed = archive(root.path());
        for flags in [0, 1, 2, 3] {
            put(
                "recovery",
                &format!("{name}-{flags}"),
                &Archive {
                    flags,
                    ..killed.clone()
                }
                .encode(),
            );
        }
        dir.checkpoint_high_watermarks([((TOPIC, 0), Offset(3))])
            .expect("a checkpoint");
        dir.close_clean().expect("a close");
        let closed = archive(root.path());
        for flags in [5, 7] {
            put(
                "recovery",
                &format!("{name}-{flags}"),
                &Archive {
                    flags,
                    ..closed.clone()
                }
                .encode(),
            );
        }
        for flags in [0, 2] {
            put(
                "directory",
                &format!("{name}-{flags}"),
                &Archive {
                    flags,
                    ..closed.clone()
                }
                .encode(),
            );
        }
    }
    swaps();
}

/// Aborted, committed and open transactions, over a few segments.
fn transactions(log: &PartitionLog) {
    const TRANSACTIONAL: i16 = 0x10;
    let epoch = LeaderEpoch(0);
    for n in 0..7 {
        let id = ProducerId(8);
        let mut batch = RecordBatchBuilder::new()
            .producer(id, 0, n)
            .attributes(TRANSACTIONAL);
        batch.push(NOW, Some(b"k"), Some(b"in a transaction"));
        let guard = log.begin_verification(id, 0, n, NOW);
        log.append_verified(&batch.build(), epoch, NOW, guard)
            .expect("an append");
        let marker = Marker {
            producer_id: id,
            producer_epoch: 0,
            coordinator_epoch: 3,
            committed: n % 2 == 0,
        };
        if n < 6 {
            log.append_marker(&marker, epoch, NOW).expect("a marker");
        }
    }
    log.flush().expect("a flush");
}

/// A merged segment that a crash left between being whole and taking its place.
fn swaps() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (_dir, log) = open(root.path(), small());
    for n in 0..6 {
        log.begin_epoch(LeaderEpoch(0)).expect("an epoch");
        log.append_leader(&batch(n), LeaderEpoch(0), NOW)
            .expect("an append");
    }
    let mut left = archive(root.path());
    let first = left
        .files
        .iter()
        .find(|file| file.name() == "00000000000000000000.log");
    let content = first.expect("a first segment").content.clone();
    for name in [
        "00000000000000000000.00000000000000000004.swap",
        "00000000000000000000.cleaned",
    ] {
        left.files.extend(File::named(name, content.clone()));
    }
    for flags in [0, 3] {
        put(
            "recovery",
            &format!("swap-{flags}"),
            &Archive {
                flags,
                ..left.clone()
            }
            .encode(),
        );
    }
}

/// All files of a log directory, and of the partition in it, that an archive can hold.
fn archive(root: &Path) -> Archive {
    let mut files = Vec::new();
    for folder in [root.to_path_buf(), root.join(format!("{TOPIC}-0"))] {
        let entries = std::fs::read_dir(&folder).expect("a folder");
        let mut names: Vec<_> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        for name in names {
            let path = folder.join(&name);
            if path.is_file() {
                files.extend(File::named(&name, std::fs::read(path).expect("a file")));
            }
        }
    }
    Archive { flags: 0, files }
}
