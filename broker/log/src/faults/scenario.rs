//! A broker's days with its log directory, step by step, and after each step what the logs hold: the
//! model that a crash or an error is held against.
//!
//! Three partitions: one with every operation that replication and retention ask for, one that is
//! compacted, one that is deleted in the end.

use crate::batch::{
    ATTRIBUTE_TRANSACTIONAL, Batch, BatchHeader, Marker, RecordBatchBuilder, batches,
};
use crate::{LogConfig, LogDir, PartitionLog};
use bytes::Bytes;
use leasehold_types::seams::HashMap;
use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, Offset, ProducerId, TopicId};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const PLAIN: usize = 0;
pub(super) const COMPACTED: usize = 1;
pub(super) const DOOMED: usize = 2;
pub(super) const PARTITIONS: usize = 3;
pub(super) const PRODUCER: ProducerId = ProducerId(77);
/// It writes in transactions.
const TRANSACTOR: ProducerId = ProducerId(78);

/// Why a step failed, in the words of the error.
pub(super) type Failure = String;

/// One thing that a broker does. The first number names the partition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Open,
    Begin,
    Confirm,
    Logs,
    Epoch(usize),
    /// One batch as leader.
    Lead(usize),
    /// One batch of the idempotent producer.
    Produce(usize),
    /// One batch of the producer that writes in transactions.
    Transact(usize),
    /// Commits its transaction, or aborts it.
    End(usize, bool),
    /// So many batches as follower, in a new epoch or the old.
    Follow(usize, usize, bool),
    Flush(usize),
    FlushSealed(usize),
    Truncate(usize, i64),
    Reset(usize, i64),
    Retain(usize, i64),
    Delete(usize, i64),
    Clean,
    Mark,
    DeletePartition,
    Close,
    Kill,
}

/// What a log holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// Whether it has a folder.
    pub created: bool,
    pub start: i64,
    pub end: i64,
    /// The batches from the start to the end, as they are stored.
    pub batches: Vec<Bytes>,
    /// Those that retention or compaction took away, too.
    pub ever: Vec<Bytes>,
    pub epochs: Vec<(i32, i64)>,
    /// What was asked to be deleted is below.
    pub deleted_to: i64,
    /// What a power cut must leave.
    pub durable_to: i64,
}

/// The directory after a step.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub step: Option<Step>,
    /// How many calls had been made to the disk.
    pub calls: usize,
    pub logs: Vec<Held>,
    /// Of which logs all is durable, removals too.
    pub settled: Vec<bool>,
    pub marks: HashMap<(TopicId, i32), Offset>,
    pub clean: bool,
    pub confirmed: Option<Incarnation>,
    pub attempted: Vec<Incarnation>,
}

impl Default for Moment {
    fn default() -> Self {
        Self {
            step: None,
            calls: 0,
            logs: vec![Held::default(); PARTITIONS],
            settled: vec![true; PARTITIONS],
            marks: HashMap::default(),
            clean: false,
            confirmed: None,
            attempted: Vec::new(),
        }
    }
}

pub(super) fn header(batch: &Bytes) -> BatchHeader {
    BatchHeader::parse(batch).unwrap()
}

/// Small segments, so that each holds a few batches; batches of one size, so that an old one fits into
/// the place of a new one.
pub(super) fn config(partition: usize) -> LogConfig {
    let compact = partition == COMPACTED;
    LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 150,
        compact,
        delete: !compact,
        min_cleanable_dirty_ratio: 0.0,
        retention_ms: -1,
        timestamp_after_max_ms: i64::MAX,
        producer_id_expiration_ms: i64::MAX,
        ..LogConfig::default()
    }
}

/// A broker process at its log directory.
pub(super) struct World {
    path: PathBuf,
    topic: TopicId,
    dir: Option<Arc<LogDir>>,
    logs: Vec<Arc<PartitionLog>>,
    now: Moment,
    clock: i64,
    lives: i64,
}

pub(super) fn topic() -> TopicId {
    TopicId::parse("AAAAAAAAAAAAAAAAAAAAAQ").unwrap()
}

pub(super) fn open_dir(path: &Path) -> Result<Arc<LogDir>, Failure> {
    LogDir::open(path, &ClusterId("c".into()), BrokerId(0)).map_err(|e| e.to_string())
}

/// All batches that can be read.
pub(super) fn read(log: &PartitionLog) -> Result<Vec<Bytes>, Failure> {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let mut all = Vec::new();
    while at < end {
        let bytes = log.read(at, 400, end, true).map_err(|e| e.to_string())?;
        if bytes.is_empty() {
            return Err(format!("nothing can be read at {at} of {end}"));
        }
        for batch in batches(bytes) {
            let batch = batch.map_err(|e| e.to_string())?;
            batch.check_crc().map_err(|e| format!("at {at}: {e}"))?;
            if batch.header.next_offset() <= at {
                return Err(format!("{} comes after {at}", batch.header.base_offset));
            }
            at = batch.header.next_offset();
            all.push(batch.bytes);
        }
    }
    Ok(all)
}

impl World {
    /// Before the first start, with nothing on the disk.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            topic: topic(),
            dir: None,
            logs: Vec::new(),
            now: Moment::default(),
            clock: 1000,
            lives: 0,
        }
    }

    /// A later life, with the directory and the logs open.
    pub fn with(
        path: PathBuf,
        dir: Arc<LogDir>,
        logs: Vec<Arc<PartitionLog>>,
        now: Moment,
        lives: i64,
    ) -> Self {
        Self {
            dir: Some(dir),
            logs,
            now,
            clock: 100_000 * lives,
            lives,
            ..Self::new(path)
        }
    }

    pub fn dir(&self) -> Option<&Arc<LogDir>> {
        self.dir.as_ref()
    }

    pub fn logs(&self) -> &[Arc<PartitionLog>] {
        &self.logs
    }

    /// Takes the steps, and notes what there is after each; `calls` counts those to the disk. Ends at
    /// the first that fails.
    pub fn live(
        &mut self,
        steps: &[Step],
        calls: impl Fn() -> usize,
    ) -> (Vec<Moment>, Option<Failure>) {
        let mut past = vec![self.now.clone()];
        for &step in steps {
            if let Err(e) = self.take(step) {
                return (past, Some(e));
            }
            self.now.calls = calls();
            past.push(self.now.clone());
        }
        (past, None)
    }

    fn take(&mut self, step: Step) -> Result<(), Failure> {
        let result = self.run(step);
        let offline = self.logs.iter().find_map(|log| log.offline());
        result?;
        self.now.step = Some(step);
        self.now.settled = vec![false; PARTITIONS];
        match step {
            Step::Close | Step::Kill => {
                self.now.settled.fill(matches!(step, Step::Close));
                return Ok(());
            }
            _ => {}
        }
        if let Some(e) = offline
            && !e.reason.contains("deleted")
        {
            return Err(e.to_string());
        }
        for (p, log) in self.logs.iter().enumerate() {
            self.now.settled[p] = matches!(step, Step::Flush(q) | Step::Reset(q, _) if p == q);
            if log.offline().is_some() {
                self.now.logs[p] = Held::default();
                self.now.settled[p] = true;
                continue;
            }
            let found = held(log, &self.now.logs[p], step, p)?;
            self.now.logs[p] = found;
        }
        Ok(())
    }

    fn run(&mut self, step: Step) -> Result<(), Failure> {
        let said = |e: crate::LogError| e.to_string();
        match step {
            Step::Open => self.dir = Some(open_dir(&self.path)?),
            Step::Begin => {
                let me = Incarnation(self.lives + 1);
                let dir = self.dir.as_ref().unwrap();
                assert_eq!(dir.was_clean(), self.now.clean);
                let report = dir.begin(me).map_err(said)?;
                assert_eq!(
                    report.confirmed.map(|life| life.incarnation),
                    self.now.confirmed
                );
                self.lives += 1;
                self.now.clean = false;
                self.now.attempted.push(me);
                assert_eq!(report.attempted, self.now.attempted);
            }
            Step::Confirm => {
                let me = Incarnation(self.lives);
                self.dir.as_ref().unwrap().confirm(me).map_err(said)?;
                self.now.confirmed = Some(me);
                self.now.attempted.clear();
            }
            Step::Logs => {
                let dir = self.dir.as_ref().unwrap();
                for p in 0..PARTITIONS {
                    let log = dir.open_partition(self.topic, p as i32, config(p));
                    self.logs.push(log.map_err(said)?);
                }
            }
            Step::Epoch(p) => {
                let epoch = self.epoch(p) + 1;
                let log = &self.logs[p];
                log.begin_epoch(LeaderEpoch(epoch)).map_err(said)?;
            }
            Step::Lead(p) => self.lead(p, RecordBatchBuilder::new())?,
            Step::Produce(p) => {
                let next = next_sequence(&self.now.logs[p].ever, PRODUCER).unwrap_or(0);
                self.lead(p, RecordBatchBuilder::new().producer(PRODUCER, 0, next))?;
            }
            Step::Transact(p) => {
                let next = next_sequence(&self.now.logs[p].ever, TRANSACTOR).unwrap_or(0);
                let b = RecordBatchBuilder::new().producer(TRANSACTOR, 0, next);
                self.lead(p, b.attributes(ATTRIBUTE_TRANSACTIONAL))?;
            }
            Step::End(p, committed) => self.end_transaction(p, committed)?,
            Step::Follow(p, count, new) => {
                let epoch = self.epoch(p).max(0) + i32::from(new);
                let mut run = Vec::new();
                for i in 0..count as i64 {
                    let base = Offset(self.now.logs[p].end + 2 * i);
                    let b = RecordBatchBuilder::new().at(base, LeaderEpoch(epoch));
                    run.extend_from_slice(&self.fill(b));
                }
                let done = self.logs[p].append_follower(&run);
                done.map_err(|e| e.to_string())?;
            }
            Step::Flush(p) => self.logs[p].flush().map_err(said)?,
            Step::FlushSealed(p) => self.logs[p].flush_sealed(),
            Step::Truncate(p, back) => {
                let held = &self.now.logs[p];
                let at = (held.end - back).max(held.start);
                self.logs[p].truncate_to(Offset(at)).map_err(said)?;
            }
            Step::Reset(p, ahead) => {
                let at = self.now.logs[p].end + ahead;
                self.logs[p].reset_to(Offset(at)).map_err(said)?;
            }
            Step::Retain(p, bytes) => {
                let log = &self.logs[p];
                log.set_config(LogConfig {
                    retention_bytes: bytes,
                    ..config(p)
                });
                log.apply_retention(self.clock, log.log_end_offset())
                    .map_err(said)?;
            }
            Step::Delete(p, ahead) => {
                let held = &self.now.logs[p];
                let at = (held.start + ahead).min(held.end);
                self.logs[p]
                    .delete_records_before(Offset(at))
                    .map_err(said)?;
            }
            Step::Clean => {
                let log = &self.logs[COMPACTED];
                log.clean(self.clock, log.log_end_offset(), 1000)
                    .map_err(said)?;
            }
            Step::Mark => {
                let all = self.logs.iter().filter(|log| log.offline().is_none());
                let marks: HashMap<_, _> = all.map(|l| (l.id(), l.log_end_offset())).collect();
                let dir = self.dir.as_ref().unwrap();
                let written = marks.iter().map(|(id, at)| (*id, *at));
                dir.checkpoint_high_watermarks(written).map_err(said)?;
                self.now.marks = marks;
            }
            Step::DeletePartition => {
                let dir = self.dir.as_ref().unwrap();
                dir.delete_partition(self.topic, DOOMED as i32)
                    .map_err(said)?;
            }
            Step::Close => {
                self.dir.as_ref().unwrap().close_clean().map_err(said)?;
                for held in &mut self.now.logs {
                    held.durable_to = held.end;
                }
                self.now.clean = true;
                self.end();
            }
            Step::Kill => self.end(),
        }
        Ok(())
    }

    fn end(&mut self) {
        self.logs.clear();
        self.dir = None;
    }

    fn epoch(&self, p: usize) -> i32 {
        self.logs[p].last_epoch().map_or(-1, |epoch| epoch.0)
    }

    fn lead(&mut self, p: usize, b: RecordBatchBuilder) -> Result<(), Failure> {
        let batch = self.fill(b);
        let epoch = LeaderEpoch(self.epoch(p).max(0));
        let log = &self.logs[p];
        log.begin_epoch(epoch).map_err(|e| e.to_string())?;
        let h = header(&batch);
        let guard = h
            .is_transactional()
            .then(|| log.begin_verification(TRANSACTOR, 0, h.base_sequence, 0));
        log.append_verified(&batch, epoch, self.clock, guard.flatten())
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    fn end_transaction(&mut self, p: usize, committed: bool) -> Result<(), Failure> {
        self.clock += 1;
        let marker = Marker {
            producer_id: TRANSACTOR,
            producer_epoch: 0,
            coordinator_epoch: 0,
            committed,
        };
        let epoch = LeaderEpoch(self.epoch(p).max(0));
        let log = &self.logs[p];
        log.begin_epoch(epoch).map_err(|e| e.to_string())?;
        log.append_marker(&marker, epoch, self.clock)
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Two records of a few keys, now and then without a value.
    fn fill(&mut self, mut b: RecordBatchBuilder) -> Bytes {
        for _ in 0..2 {
            self.clock += 1;
            let (key, value) = ([(self.clock % 7) as u8], [self.clock as u8; 40]);
            let value = (self.clock % 11 != 0).then_some(&value[..]);
            b.push(self.clock, Some(&key), value);
        }
        b.build()
    }
}

/// The sequence that the producer sends next.
pub(super) fn next_sequence(ever: &[Bytes], producer: ProducerId) -> Option<i32> {
    let mine = |h: &BatchHeader| h.producer_id == producer && !h.is_control();
    let sent = ever.iter().map(header).filter(mine);
    sent.last()
        .map(|h| h.base_sequence + h.last_offset_delta + 1)
}

/// What a log holds after `step`, which was taken when it held `before`.
fn held(log: &PartitionLog, before: &Held, step: Step, p: usize) -> Result<Held, Failure> {
    let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
    let batches = read(log)?;
    let mut ever = before.ever.clone();
    if matches!(step, Step::Reset(q, _) if p == q) {
        ever.clear();
    }
    ever.retain(|b| header(b).next_offset().0 <= end);
    let known = ever.last().map_or(0, |b| header(b).next_offset().0);
    let new = batches.iter().filter(|b| header(b).base_offset.0 >= known);
    ever.extend(new.cloned());
    let active = log.segments().last().map_or(0, |s| s.base().0);
    let durable_to = match step {
        Step::Flush(q) | Step::Reset(q, _) if p == q => end,
        Step::FlushSealed(q) if p == q => before.durable_to.max(active),
        _ => before.durable_to.min(end),
    };
    let deleted_to = match step {
        Step::Delete(q, _) if p == q => start,
        Step::Reset(q, _) if p == q => 0,
        _ => before.deleted_to.min(end),
    };
    let epochs = log.epochs().iter().map(|(e, o)| (e.0, o.0)).collect();
    Ok(Held {
        created: log.folder().exists(),
        start,
        end,
        batches,
        ever,
        epochs,
        deleted_to,
        durable_to,
    })
}

/// The records of a batch: offset and time.
pub(super) fn records(batch: &Bytes) -> Vec<(i64, i64)> {
    let batch = Batch {
        header: header(batch),
        bytes: batch.clone(),
    };
    let all = batch.records().unwrap().map(Result::unwrap);
    all.map(|r| (r.offset.0, r.timestamp)).collect()
}

pub(super) const START: [Step; 4] = [Step::Open, Step::Begin, Step::Confirm, Step::Logs];

/// Everything once, in an order in which each finds something to do.
pub(super) fn all_of_it() -> Vec<Step> {
    use Step::*;
    let mut steps = START.to_vec();
    let add = |steps: &mut Vec<Step>, more: &[Step], times: usize| {
        (0..times).for_each(|_| steps.extend(more));
    };
    steps.extend([Epoch(PLAIN), Lead(PLAIN), Epoch(PLAIN)]);
    add(&mut steps, &[Lead(PLAIN), Produce(PLAIN)], 5);
    steps.extend([Epoch(COMPACTED), Epoch(DOOMED), Lead(DOOMED)]);
    steps.extend([FlushSealed(PLAIN), Mark, Follow(PLAIN, 6, true)]);
    add(&mut steps, &[Lead(COMPACTED), Produce(COMPACTED)], 6);
    steps.extend([Flush(PLAIN), Lead(PLAIN), Truncate(PLAIN, 5), Epoch(PLAIN)]);
    add(&mut steps, &[Lead(PLAIN)], 3);
    // Back to where a segment ended, and on in another epoch.
    steps.extend([Truncate(PLAIN, 14), Epoch(PLAIN)]);
    add(&mut steps, &[Lead(PLAIN), Produce(PLAIN)], 4);
    steps.extend([Clean, FlushSealed(COMPACTED), Mark]);
    add(&mut steps, &[Lead(COMPACTED)], 5);
    steps.extend([FlushSealed(PLAIN), Retain(PLAIN, 1500), Delete(PLAIN, 5)]);
    steps.extend([Kill]);
    steps.extend(START);
    steps.extend([Epoch(PLAIN), Lead(PLAIN), Lead(DOOMED), Epoch(COMPACTED)]);
    for p in [PLAIN, COMPACTED] {
        let aborted = [Transact(p), Lead(p), Transact(p), End(p, false)];
        let committed = [Transact(p), End(p, true), Transact(p), End(p, false)];
        steps.extend(aborted);
        steps.extend(committed);
        steps.extend([FlushSealed(p), Transact(p), Lead(p)]);
    }
    steps.extend([End(COMPACTED, true), Truncate(PLAIN, 5)]);
    steps.extend([Epoch(PLAIN), Transact(PLAIN), End(PLAIN, false)]);
    add(&mut steps, &[Produce(COMPACTED)], 3);
    steps.extend([Clean, Follow(PLAIN, 5, true), Close]);
    steps.extend(START);
    steps.extend([
        DeletePartition,
        Produce(PLAIN),
        Reset(PLAIN, 7),
        Epoch(PLAIN),
    ]);
    add(&mut steps, &[Lead(PLAIN), Produce(PLAIN)], 3);
    steps.extend([Flush(PLAIN), Truncate(PLAIN, 3), Clean, Mark, Close]);
    steps.extend([Open, Begin]);
    steps
}

/// Something else for each seed.
pub(super) fn anything(seed: u64, count: usize) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut steps = START.to_vec();
    for _ in 0..count {
        let p = *[PLAIN, PLAIN, COMPACTED]
            .get(rng.random_range(0..3))
            .unwrap();
        let some = rng.random_range(0..12);
        let plain = p == PLAIN;
        match rng.random_range(0..38) {
            0..8 => steps.push(Step::Lead(p)),
            8..11 => steps.push(Step::Produce(p)),
            11 | 12 if plain => steps.push(Step::Follow(p, 1 + some as usize / 2, some % 3 == 0)),
            13 | 14 => steps.push(Step::Epoch(p)),
            15 => steps.push(Step::Flush(p)),
            16 | 17 => steps.push(Step::FlushSealed(p)),
            18..21 if plain => steps.extend([Step::Truncate(p, some), Step::Epoch(p)]),
            21 if plain && some == 0 => steps.push(Step::Reset(p, some)),
            22 if plain => steps.push(Step::Retain(p, 400 * some)),
            23 if plain => steps.push(Step::Delete(p, some / 2)),
            24 | 25 => steps.push(Step::Clean),
            26 => steps.push(Step::Mark),
            28..33 => steps.push(Step::Transact(p)),
            33..36 => steps.push(Step::End(p, some % 2 == 0)),
            27 => {
                steps.push([Step::Close, Step::Kill][some as usize % 2]);
                steps.extend(START);
            }
            _ => steps.push(Step::Lead(p)),
        }
    }
    steps
}
