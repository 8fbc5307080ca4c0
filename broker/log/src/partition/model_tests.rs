//! A log under random appends, truncations, restarts and crashes, against a model in memory that
//! is a list of batches and a list of epochs and calls none of the log's code.

use super::tests::{Home, read_all};
use super::*;
use crate::batch::{BatchHeader, RecordBatchBuilder};
use bytes::Bytes;
use leasehold_types::ProducerId;
use proptest::prelude::*;
use std::fs;

#[derive(Clone, Debug)]
enum Op {
    Begin,
    Lead { records: usize, size: usize },
    Produce { records: usize },
    Repeat { back: usize },
    Gap,
    Follow { batches: Vec<(usize, bool)> },
    Truncate { back: i64 },
    Reset { ahead: i64 },
    Retain { bytes: i64 },
    Delete { ahead: i64 },
    Flush { all: bool },
    Close,
    Kill,
    Tear { back: u64, flip: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Begin),
        12 => (1usize..5, 0usize..300).prop_map(|(records, size)| Op::Lead { records, size }),
        8 => (1usize..4).prop_map(|records| Op::Produce { records }),
        3 => (0usize..5).prop_map(|back| Op::Repeat { back }),
        1 => Just(Op::Gap),
        6 => proptest::collection::vec((1usize..4, proptest::bool::weighted(0.2)), 1..12)
            .prop_map(|batches| Op::Follow { batches }),
        4 => (0i64..40).prop_map(|back| Op::Truncate { back }),
        1 => (0i64..40).prop_map(|ahead| Op::Reset { ahead }),
        2 => (0i64..6000).prop_map(|bytes| Op::Retain { bytes }),
        1 => (0i64..30).prop_map(|ahead| Op::Delete { ahead }),
        2 => any::<bool>().prop_map(|all| Op::Flush { all }),
        3 => Just(Op::Close),
        3 => Just(Op::Kill),
        3 => (1u64..900, any::<bool>()).prop_map(|(back, flip)| Op::Tear { back, flip }),
    ]
}

#[derive(Clone, Debug)]
struct Stored {
    base: i64,
    next: i64,
    bytes: Bytes,
    /// First sequence and records, if the idempotent producer sent it.
    sequence: Option<(i32, i32)>,
}

const PRODUCER: ProducerId = ProducerId(77);

#[derive(Default)]
struct Model {
    start: i64,
    end: i64,
    /// All since the last reset, those below the start included.
    batches: Vec<Stored>,
    epochs: Vec<(i32, i64)>,
}

impl Model {
    fn last_epoch(&self) -> i32 {
        // The log forgets an epoch below its start, and learns of it again by recovery.
        let of_batch = self.batches.last().map_or(-1, |b| {
            i32::from_be_bytes([b.bytes[12], b.bytes[13], b.bytes[14], b.bytes[15]])
        });
        self.epochs.last().map_or(of_batch, |e| e.0.max(of_batch))
    }

    fn begin(&mut self, epoch: i32, at: i64) {
        if epoch > self.last_epoch() {
            self.epochs.retain(|e| e.1 != at);
            self.epochs.push((epoch, at));
        }
    }

    /// Keeps the batches that end at or before `at`.
    fn cut(&mut self, at: i64) {
        let first = self.batches.first().map_or(at, |b| b.base);
        self.batches.retain(|b| b.next <= at);
        self.end = self.batches.last().map_or(first, |b| b.next);
    }

    fn end_of(&self, epoch: i32) -> Option<(i32, i64)> {
        let next = self.epochs.iter().find(|e| e.0 > epoch).map(|e| e.1);
        match self.epochs.iter().rev().find(|e| e.0 <= epoch) {
            None => next.map(|start| (epoch, start)),
            Some(e) if next.is_some() || e.0 == epoch => Some((e.0, next.unwrap_or(self.end))),
            Some(_) => None,
        }
    }

    fn sent(&self) -> Vec<&Stored> {
        self.batches
            .iter()
            .filter(|b| b.sequence.is_some())
            .collect()
    }

    fn next_sequence(&self) -> i32 {
        let last = self.sent().last().and_then(|b| b.sequence);
        last.map_or(0, |(first, count)| first + count)
    }
}

struct World {
    home: Option<Home>,
    log: Option<Arc<PartitionLog>>,
    folder: tempfile::TempDir,
    lives: usize,
    model: Model,
    clock: i64,
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 300,
        retention_ms: -1,
        timestamp_after_max_ms: i64::MAX,
        ..LogConfig::default()
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0");
        let home = Home::at(&path, TopicId::random());
        Self {
            log: Some(home.open(config())),
            home: Some(home),
            folder,
            lives: 0,
            model: Model::default(),
            clock: 0,
        }
    }

    fn log(&self) -> &PartitionLog {
        self.log.as_deref().unwrap()
    }

    fn builder(&mut self, records: usize, size: usize) -> RecordBatchBuilder {
        let mut b = RecordBatchBuilder::new();
        for _ in 0..records {
            self.clock += 1;
            b.push(self.clock, None, Some(&vec![self.clock as u8; size]));
        }
        b
    }

    fn store(&mut self, base: i64, epoch: i32, sent: &Bytes, sequence: Option<(i32, i32)>) {
        let mut bytes = sent.to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        let count = i32::from_be_bytes(bytes[57..61].try_into().unwrap());
        let next = base + i64::from(count);
        self.model.batches.push(Stored {
            base,
            next,
            bytes: bytes.into(),
            sequence,
        });
        self.model.end = next;
    }

    fn lead(&mut self, bytes: &Bytes, sequence: Option<(i32, i32)>) {
        let epoch = self.model.last_epoch().max(0);
        self.log().begin_epoch(LeaderEpoch(epoch)).unwrap();
        self.model.begin(epoch, self.model.end);
        let info = self
            .log()
            .append_leader(bytes, LeaderEpoch(epoch), self.clock)
            .unwrap();
        assert!(!info.duplicate);
        assert_eq!(info.base_offset.0, self.model.end);
        self.store(info.base_offset.0, epoch, bytes, sequence);
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Begin => {
                let epoch = self.model.last_epoch() + 2;
                let start = self.log().begin_epoch(LeaderEpoch(epoch)).unwrap();
                assert_eq!(start.0, self.model.end);
                self.model.begin(epoch, self.model.end);
            }
            Op::Lead { records, size } => {
                let bytes = self.builder(*records, *size).build();
                self.lead(&bytes, None);
            }
            Op::Produce { records } => {
                let next = self.model.next_sequence();
                let bytes = self
                    .builder(*records, 20)
                    .producer(PRODUCER, 0, next)
                    .build();
                self.lead(&bytes, Some((next, *records as i32)));
            }
            Op::Repeat { back } => self.repeat(*back),
            Op::Gap => {
                let next = self.model.next_sequence();
                if next == 0 {
                    return;
                }
                let b = self.builder(1, 1).producer(PRODUCER, 0, next + 1);
                let epoch = LeaderEpoch(self.model.last_epoch());
                self.log().begin_epoch(epoch).unwrap();
                let refused = self.log().append_leader(&b.build(), epoch, self.clock);
                assert!(matches!(
                    refused,
                    Err(AppendError::OutOfOrderSequence { .. })
                ));
            }
            Op::Follow { batches } => self.follow(batches),
            Op::Truncate { back } => {
                let at = (self.model.end - back).max(self.model.start);
                let end = self.log().truncate_to(Offset(at)).unwrap();
                self.model.cut(at);
                self.model.start = self.model.start.min(self.model.end);
                self.model.epochs.retain(|e| e.1 < self.model.end);
                assert_eq!(end.0, self.model.end);
            }
            Op::Reset { ahead } => {
                let at = self.model.end + ahead;
                self.log().reset_to(Offset(at)).unwrap();
                self.model = Model {
                    start: at,
                    end: at,
                    ..Model::default()
                };
            }
            Op::Retain { bytes } => {
                self.log().set_config(LogConfig {
                    retention_bytes: *bytes,
                    ..config()
                });
                let before = self.log().size();
                let limit = Offset((self.model.start + self.model.end) / 2);
                let deleted = self.log().apply_retention(0, limit).unwrap();
                let start = self.log().log_start_offset().0;
                let left = self.log().size();
                assert!(start <= limit.0.max(self.model.start));
                let by_size = start > self.model.start;
                assert!(!by_size || left >= *bytes as u64);
                assert_eq!(deleted.is_empty(), left == before);
                self.forget_before(start);
            }
            Op::Delete { ahead } => {
                let at = (self.model.start + ahead).min(self.model.end);
                let start = self.log().delete_records_before(Offset(at)).unwrap();
                assert_eq!(start.0, at);
                self.forget_before(at);
            }
            Op::Flush { all: true } => self.log().flush().unwrap(),
            Op::Flush { all: false } => self.log().flush_sealed(),
            Op::Close => {
                self.home.as_ref().unwrap().dir.close_clean().unwrap();
                self.restart(None);
            }
            Op::Kill => self.restart(None),
            Op::Tear { back, flip } => self.restart(Some((*back, *flip))),
        }
    }

    fn forget_before(&mut self, start: i64) {
        assert!(start >= self.model.start);
        self.model.start = start;
        let last = self.model.epochs.iter().rposition(|e| e.1 < start);
        self.model.epochs.drain(..last.unwrap_or(0));
    }

    fn repeat(&mut self, back: usize) {
        let sent = self.model.sent();
        let Some(batch) = sent.iter().rev().nth(back).map(|b| (*b).clone()) else {
            return;
        };
        let mut bytes = batch.bytes.to_vec();
        bytes[..8].fill(0);
        let epoch = LeaderEpoch(self.model.last_epoch().max(0));
        self.log().begin_epoch(epoch).unwrap();
        self.model.begin(epoch.0, self.model.end);
        let info = self.log().append_leader(&bytes, epoch, self.clock).unwrap();
        assert!(info.duplicate);
        assert_eq!(
            (info.base_offset.0, info.last_offset.0),
            (batch.base, batch.next - 1)
        );
    }

    fn follow(&mut self, batches: &[(usize, bool)]) {
        let mut run = Vec::new();
        for &(records, new_epoch) in batches {
            let epoch = self.model.last_epoch().max(0) + i32::from(new_epoch);
            let base = self.model.end;
            let b = self
                .builder(records, 100)
                .at(Offset(base), LeaderEpoch(epoch));
            let bytes = b.build();
            run.extend_from_slice(&bytes);
            self.model.begin(epoch, base);
            self.store(base, epoch, &bytes, None);
        }
        let info = self.log().append_follower(&run).unwrap();
        assert_eq!(info.last_offset.0, self.model.end - 1);
    }

    /// Starts again over a copy of the files as they are now, with the active segment's end torn
    /// off or changed, if told: what a crash leaves.
    fn restart(&mut self, tear: Option<(u64, bool)>) {
        let log = self.log.take().unwrap();
        let home = self.home.take().unwrap();
        self.lives += 1;
        let path = self.folder.path().join(self.lives.to_string());
        {
            // A copy is not one moment; a crash is.
            let _flush = log.flushing.lock();
            let _saved = log.saved_point.lock();
            copy(home.dir.path(), &path);
        }
        let active = log.snapshot().segments.last().map(|s| (s.base(), s.size()));
        if let (Some((back, flip)), Some((base, size))) = (tear, active)
            && size > 0
        {
            let folder = path.join(log.folder.file_name().unwrap());
            let file = crate::segment::file(&folder, base, crate::segment::LOG);
            let at = size - back.min(size);
            let mut bytes = fs::read(&file).unwrap();
            let (first, at) = self.batch_at(base.0, at);
            match flip {
                true => bytes[at as usize] ^= 0x5a,
                false => bytes.truncate(at as usize),
            }
            fs::write(&file, bytes).unwrap();
            self.model.cut(first);
            self.model.epochs.retain(|e| e.1 <= self.model.end);
        }
        let topic = home.topic;
        let existed = log.folder.exists();
        drop((log, home));
        let home = Home::at(&path, topic);
        self.log = Some(home.open(config()));
        self.home = Some(home);
        if !existed {
            // Epochs begun, but never written in: nothing was promised.
            self.model.epochs.clear();
        }
        self.model.start = self.model.start.min(self.model.end);
    }

    /// The base offset of the batch at byte `at` of the segment `base`, and a byte of it near `at`
    /// that its length or its CRC covers: in Kafka's format neither covers the base offset, where a
    /// higher one is what compaction leaves, nor the leader epoch.
    fn batch_at(&self, base: i64, at: u64) -> (i64, u64) {
        let mut position = 0;
        for b in self.model.batches.iter().filter(|b| b.base >= base) {
            let end = position + b.bytes.len() as u64;
            if at < end {
                let within = at - position;
                let covered = match within {
                    0..8 => 8,
                    12..16 => 16,
                    _ => within,
                };
                return (b.base, position + covered);
            }
            position = end;
        }
        unreachable!("byte {at} is beyond the model's batches");
    }

    fn check(&self) {
        let (log, model) = (self.log(), &self.model);
        assert_eq!(log.offline(), None);
        assert_eq!(log.log_end_offset().0, model.end);
        assert_eq!(log.log_start_offset().0, model.start);
        for step in [1, 500, 100_000] {
            let read = read_all(log, step);
            let want = model.batches.iter().filter(|b| b.next > model.start);
            assert!(
                read.iter().map(|b| &b.bytes).eq(want.map(|b| &b.bytes)),
                "step {step}"
            );
        }
        // The log may still know epochs that end at or before its start; it need not.
        let first = model.epochs.first().map_or(i32::MAX - 1, |e| e.0);
        for epoch in first..(model.last_epoch() + 2).max(first) {
            let got = log.end_offset_for_epoch(LeaderEpoch(epoch));
            let got = got.map(|(e, o)| (e.0, o.0));
            assert_eq!(
                got,
                model.end_of(epoch),
                "epoch {epoch} of {:?}",
                model.epochs
            );
        }
        self.check_times();
    }

    fn check_times(&self) {
        let (log, model) = (self.log(), &self.model);
        let end = Offset(model.end);
        let times: Vec<(i64, i64)> = model
            .batches
            .iter()
            .flat_map(|b| {
                let header = BatchHeader::parse(&b.bytes).unwrap();
                (b.base..b.next).zip(header.base_timestamp..)
            })
            .filter(|(offset, _)| *offset >= model.start)
            .collect();
        for wanted in [0, self.clock / 2, self.clock, self.clock + 1] {
            let want = times.iter().find(|(_, time)| *time >= wanted);
            let got = log.offset_for_timestamp(wanted, end).unwrap();
            assert_eq!(got.map(|g| (g.offset.0, g.timestamp)), want.copied());
        }
    }
}

/// Copies a log directory at one moment: what a process that is killed leaves.
pub(super) fn copy_at_once(log: &PartitionLog, from: &Path, to: &Path) {
    // A copy is not one moment; a crash is.
    let _flush = log.flushing.lock();
    let _saved = log.saved_point.lock();
    copy(from, to);
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            // The background flush may just have removed a snapshot that is no longer needed.
            false => match fs::copy(entry.path(), target) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_the_model_is(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
    }

    #[test]
    fn hostile_files_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        which in 0usize..6,
        at in 0usize..400,
    ) {
        let mut world = World::new();
        for size in [10, 100, 900, 900, 10] {
            world.run(&Op::Lead { records: 2, size });
            world.run(&Op::Produce { records: 1 });
        }
        world.log().flush_sealed();
        let log = world.log.take().unwrap();
        let folder = log.folder.clone();
        let mut names = disk::names(&folder).unwrap();
        names.sort();
        let name = folder.join(&names[which * names.len() / 6]);
        // The background flush may just have removed it.
        let mut content = fs::read(&name).unwrap_or_default();
        content.truncate(at);
        content.extend_from_slice(&bytes);
        fs::write(&name, content).unwrap();
        let topic = world.home.as_ref().unwrap().topic;
        let path = world.home.as_ref().unwrap().dir.path().to_owned();
        drop((log, world.home.take()));
        let home = Home::at(&path, topic);
        if let Ok(log) = home.dir.open_partition(topic, 0, config()) {
            let (start, end) = (log.log_start_offset(), log.log_end_offset());
            let _ = log.read(start, 10_000, end, true);
            let _ = log.read(Offset(end.0 - 1), 10_000, end, true);
            let _ = log.offset_for_timestamp(3, end);
            let _ = log.truncate_to(Offset(end.0 - 1));
        }
    }
}
