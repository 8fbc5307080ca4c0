//! Batches that a client produces or a leader sends: checked, unpacked, packed anew, appended, read back.
//!
//! Input: `[how] [codecs] [timestamps] [bytes]`. `how`: 1 puts the CRCs right; 2 takes the bytes as records, puts
//! them behind a header and packs them; 4 takes them as what a follower got. Promises held: what is refused
//! leaves the log as it was; what is appended has the same records, in the codec that the topic wants.

use crate::archive::mend_batches;
use bytes::Bytes;
use leasehold_log::batch::{Batch, HEADER_LEN, Record, batches};
use leasehold_log::{Compression, LogConfig, LogDir, PartitionLog, TimestampType, TopicId};
use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, Offset};
use std::cell::RefCell;
use std::sync::Arc;
use uuid::Uuid;

const NOW: i64 = 1_700_000_000_000;
const EPOCH: LeaderEpoch = LeaderEpoch(1);

struct Bench {
    log: Arc<PartitionLog>,
    _dir: Arc<LogDir>,
    _root: tempfile::TempDir,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let cluster = ClusterId("c".into());
        let dir = LogDir::open(root.path(), &cluster, BrokerId(1)).expect("a new directory");
        dir.begin(Incarnation(1)).expect("run");
        dir.confirm(Incarnation(1)).expect("run");
        let topic = TopicId(Uuid::from_u128(1));
        let log = dir
            .open_partition(topic, 0, LogConfig::default())
            .expect("an empty log");
        log.begin_epoch(EPOCH).expect("an epoch");
        Self {
            log,
            _dir: dir,
            _root: root,
        }
    }
}

fn config(codecs: u8, timestamps: u8) -> LogConfig {
    LogConfig {
        compression: match codecs % 6 {
            0 => Compression::Producer,
            1 => Compression::Uncompressed,
            2 => Compression::Gzip,
            3 => Compression::Snappy,
            4 => Compression::Lz4,
            _ => Compression::Zstd,
        },
        compact: timestamps & 1 != 0,
        timestamp_type: match timestamps & 2 {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: if timestamps & 4 == 0 { i64::MAX } else { 1000 },
        ..LogConfig::default()
    }
}

/// A batch around `records`, which say themselves how many they are and in which codec.
fn around(records: &[u8], codecs: u8) -> Vec<u8> {
    let count = i32::from(records.first().copied().unwrap_or(0)).max(1);
    let mut batch = vec![0; HEADER_LEN];
    batch.extend_from_slice(records.get(1..).unwrap_or_default());
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    batch[22] = codecs / 6 % 5;
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[27..35].copy_from_slice(&NOW.to_be_bytes());
    batch[35..43].copy_from_slice(&NOW.to_be_bytes());
    batch[43..57].fill(0xff);
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch
}

/// See above.
pub(crate) fn run(data: &[u8]) {
    let Some(([how, codecs, timestamps], bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    let mut bytes = match how & 2 {
        0 => bytes.to_vec(),
        _ => around(bytes, *codecs),
    };
    if how & 3 != 0 {
        mend_batches(&mut bytes);
    }
    BENCH.with_borrow_mut(|slot| {
        let log = &slot.get_or_insert_with(Bench::new).log;
        log.set_config(config(*codecs, *timestamps));
        let done = match how & 4 {
            0 => append_as_leader(log, &bytes),
            _ => append_as_follower(log, &bytes),
        };
        let offline = log.offline();
        assert!(
            offline.is_none(),
            "a batch took the log offline: {offline:?}"
        );
        if done {
            // Gone, with its files: each input finds the same log.
            *slot = None;
        }
    });
}

fn append_as_leader(log: &PartitionLog, bytes: &[u8]) -> bool {
    let Ok(info) = log.append_leader(bytes, EPOCH, NOW) else {
        assert_eq!(log.log_end_offset(), Offset(0), "what was refused is there");
        return false;
    };
    let end = log.log_end_offset();
    assert_eq!(
        (info.base_offset, info.last_offset.0 + 1),
        (Offset(0), end.0)
    );
    let stored = log
        .read(Offset(0), 1 << 20, end, true)
        .expect("what was appended");
    let stored = only(stored);
    stored.check_crc().expect("the CRC of what was appended");
    let wanted = match log.config().compression {
        Compression::Producer => i16::from(bytes[22] & 7),
        Compression::Uncompressed => 0,
        Compression::Gzip => 1,
        Compression::Snappy => 2,
        Compression::Lz4 => 3,
        Compression::Zstd => 4,
    };
    assert_eq!(stored.header.codec(), wanted, "the codec");
    let sent = only(Bytes::copy_from_slice(bytes));
    assert_eq!(sent.header.record_count, stored.header.record_count);
    if let (Some(sent), Some(stored)) = (records(&sent), records(&stored)) {
        assert_eq!(sent.len(), stored.len());
        for (sent, stored) in sent.iter().zip(&stored) {
            let content = |r: &Record| (r.key.clone(), r.value.clone(), r.headers.clone());
            assert_eq!(content(sent), content(stored));
        }
    }
    true
}

fn append_as_follower(log: &PartitionLog, bytes: &[u8]) -> bool {
    if log.append_follower(bytes).is_err() {
        assert_eq!(log.log_end_offset(), Offset(0), "what was refused is there");
        return false;
    }
    let end = log.log_end_offset();
    let mut all = Vec::new();
    let mut next = Offset(0);
    while next < end {
        let read = log
            .read(next, 1 << 20, end, true)
            .expect("what was appended");
        assert!(!read.is_empty(), "nothing at {next} of {end}");
        for batch in batches(read.clone()) {
            next = batch.expect("whole batches").header.next_offset();
        }
        all.extend_from_slice(&read);
    }
    assert_eq!(
        all, bytes,
        "a follower's log is the leader's, byte for byte"
    );
    true
}

fn only(bytes: Bytes) -> Batch {
    let mut all = batches(bytes);
    let first = all.next().expect("a batch").expect("a whole one");
    assert!(all.next().is_none(), "more than one batch");
    first
}

/// The records, if they can be unpacked: a leader does not always look.
fn records(batch: &Batch) -> Option<Vec<Record>> {
    let records = batch.unpacked().ok()?.records().ok()?;
    records.collect::<Result<_, _>>().ok()
}
