//! A partition's folder with files of any content: inspected, opened, read, appended to, opened again.
//!
//! Input: an archive. Its flags: 1 puts checksums right, 2 takes the recovery point away, so that every batch
//! is checked, 4 is a clean close before. Promises held: nothing panics; opening fails only for a file that
//! it names; after a recovery of every batch the log reads from its start to its end, an inspection finds no
//! batch damaged, and what is appended is there after the next start.

use crate::archive::{Archive, Kind};
use bytes::Bytes;
use leasehold_log::batch::{Marker, RecordBatchBuilder, batches};
use leasehold_log::inspect::{Finding, inspect};
use leasehold_log::{LogConfig, LogDir, LogError, PartitionLog, TopicId};
use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, Offset};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

const MEND: u8 = 1;
const WHOLE: u8 = 2;
const CLEAN: u8 = 4;

const TOPIC: TopicId = TopicId(Uuid::from_u128(1));

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 4096,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn open_dir(path: &Path, life: i64) -> Arc<LogDir> {
    let dir = LogDir::open(path, &ClusterId("c".into()), BrokerId(1)).expect("a sound directory");
    dir.begin(Incarnation(life)).expect("run");
    dir.confirm(Incarnation(life)).expect("run");
    dir
}

/// See above.
pub(crate) fn run(data: &[u8]) {
    let mut archive = Archive::decode(data);
    if archive.flags & MEND != 0 {
        archive.mend();
    }
    let clean = archive.flags & CLEAN != 0;
    let whole = archive.flags & WHOLE != 0 && !clean;
    if whole {
        archive
            .files
            .retain(|file| file.kind != Kind::RecoveryPoint);
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = open_dir(root.path(), 1);
    if clean {
        dir.close_clean().expect("nothing to close");
    }
    drop(dir);
    let folder = root.path().join(format!("{TOPIC}-0"));
    std::fs::create_dir(&folder).expect("a folder");
    archive
        .write(&folder, |file| !file.is_of_directory())
        .expect("files");
    damages(&folder);

    let dir = open_dir(root.path(), 2);
    let log = match dir.open_partition(TOPIC, 0, config()) {
        Ok(log) => log,
        Err(LogError::Unreadable { .. }) => return,
        Err(error) => panic!("neither open nor refused by name: {error}"),
    };
    let read = read_all(&log);
    if !whole {
        let _ = append(&log);
        let _ = read_all(&log);
        return;
    }
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(start <= end, "{start} to {end}");
    let read = read.unwrap_or_else(|error| panic!("a recovered log is not read: {error}"));
    let mut left = damages(&folder);
    // What recovery goes on without is written anew when the log is closed, and epochs have no checksum.
    left.retain(|damage| {
        damage.starts_with("\"0") && damage.contains(".log\"") && !damage.contains("epoch")
    });
    assert_eq!(left, Vec::<String>::new());
    if end.0 > i64::MAX / 2 {
        // No room for another record is no fault of the log.
        return;
    }
    let at = append(&log).unwrap_or_else(|error| panic!("a recovered log takes nothing: {error}"));
    assert_eq!(at, end, "the offset of the next record");
    let left_at = log.log_end_offset();
    drop((log, dir));

    let dir = open_dir(root.path(), 3);
    let log = dir
        .open_partition(TOPIC, 0, config())
        .expect("what was recovered opens again");
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (start, left_at)
    );
    let again = read_all(&log).expect("it reads again");
    assert_eq!(
        again[..read.len()],
        read[..],
        "what was recovered is there again"
    );
}

/// All batches from the start to the end, each whole and in its place.
fn read_all(log: &PartitionLog) -> Result<Vec<Bytes>, String> {
    let end = log.log_end_offset();
    let mut next = log.log_start_offset();
    let mut all = Vec::new();
    while next < end {
        let bytes = log.read(next, 1000, end, true).map_err(|e| e.to_string())?;
        if bytes.is_empty() {
            return Ok(all);
        }
        for batch in batches(bytes) {
            let batch = batch.map_err(|e| e.to_string())?;
            batch.check_crc().map_err(|e| e.to_string())?;
            let header = batch.header;
            if header.next_offset() <= next || header.next_offset() > end {
                return Err(format!("{header:?} where {next} was next"));
            }
            let _ = batch
                .unpacked()
                .and_then(|batch| batch.records().map(Iterator::count));
            next = header.next_offset();
            all.push(batch.bytes);
        }
    }
    read_committed(log, end)?;
    let _ = log.offset_for_timestamp(0, end);
    let _ = log.max_timestamp(end);
    let _ = log.apply_retention(0, end);
    Ok(all)
}

/// What a consumer of committed records is sent: the same batches, up to the last stable offset.
fn read_committed(log: &PartitionLog, end: Offset) -> Result<(), String> {
    let stable = log.last_stable_offset(end);
    let start = log.log_start_offset();
    if stable < start || stable > end {
        return Err(format!("{stable} is stable of {start} to {end}"));
    }
    let mut next = start;
    while next < stable {
        let read = log.read_committed(next, 1000, stable, true);
        let read = read.map_err(|e| e.to_string())?;
        let Some(Ok(last)) = batches(read.batches).last() else {
            return Ok(());
        };
        next = last.header.next_offset();
    }
    Ok(())
}

fn append(log: &PartitionLog) -> Result<Offset, String> {
    let epoch = log.last_epoch().map_or(0, |last| last.0.saturating_add(1));
    let epoch = LeaderEpoch(epoch);
    log.begin_epoch(epoch).map_err(|e| e.to_string())?;
    let mut batch = RecordBatchBuilder::new();
    batch.push(5, Some(b"k"), Some(b"v"));
    let done = log.append_leader(&batch.build(), epoch, 5);
    for producer in log.active_producers().into_iter().take(3) {
        let end = log.log_end_offset();
        let marker = Marker {
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            coordinator_epoch: producer.coordinator_epoch,
            committed: false,
        };
        if done.is_ok() && end.0 < i64::MAX / 2 {
            let ended = log.append_marker(&marker, epoch, 5);
            ended.map_err(|e| e.to_string())?;
        }
    }
    done.map(|info| info.base_offset).map_err(|e| e.to_string())
}

/// What an inspection names as damaged.
fn damages(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let inspected = inspect(folder, &mut |finding| {
        if let Finding::Damage { path, at, what } = finding {
            let name = path.file_name().unwrap_or_default();
            found.push(format!("{name:?} at {at}: {what}"));
        }
    });
    if let Err(error) = inspected {
        assert!(matches!(error, LogError::Unreadable { .. }), "{error}");
    }
    found
}
