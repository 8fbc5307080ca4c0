//! What consumers of committed records see of a compacted log, under random batches in and outside of
//! transactions, markers, truncations, restarts and cleanings, against a model that is a list of what was
//! appended.

use super::model_tests::copy_at_once;
use super::tests::Home;
use super::*;
use crate::batch::{ATTRIBUTE_TRANSACTIONAL, Batch, Marker, RecordBatchBuilder, batches};
use crate::{CommittedRead, VerificationGuard};
use bytes::Bytes;
use leasehold_types::ProducerId;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Clone, Debug)]
enum Op {
    /// Two records, of a producer or of none.
    Plain(Option<i64>),
    /// Two records in a transaction.
    Transactional(i64),
    /// Commit or abort, with a new epoch for the producer or not.
    End(i64, bool, bool),
    /// What follows is appended as by a follower, or as by a leader.
    Follow(bool),
    Committed(i64),
    Truncate(i64),
    Delete(i64),
    Flush(bool),
    Clean,
    Close,
    Kill,
    /// The file of aborted transactions of a segment is damaged.
    Damage(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let id = || 1i64..5;
    prop_oneof![
        4 => proptest::option::of(10i64..12).prop_map(Op::Plain),
        14 => id().prop_map(Op::Transactional),
        8 => (id(), any::<bool>(), proptest::bool::weighted(0.2)).prop_map(|(p, c, b)| Op::End(p, c, b)),
        1 => any::<bool>().prop_map(Op::Follow),
        6 => (0i64..20).prop_map(Op::Committed),
        1 => (0i64..12).prop_map(Op::Truncate),
        1 => (0i64..8).prop_map(Op::Delete),
        2 => any::<bool>().prop_map(Op::Flush),
        3 => Just(Op::Clean),
        2 => Just(Op::Close),
        2 => Just(Op::Kill),
        1 => (0usize..4).prop_map(Op::Damage),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Plain,
    Transactional,
    End(bool),
}

/// One batch.
#[derive(Clone, Debug)]
struct Event {
    base: i64,
    next: i64,
    producer: i64,
    epoch: i16,
    sequence: i32,
    what: What,
    /// Key and value of each record.
    records: Vec<(u8, u8)>,
}

/// Offset, key and value.
type Seen = (i64, u8, u8);

#[derive(Default)]
struct Model {
    start: i64,
    end: i64,
    high_watermark: i64,
    events: Vec<Event>,
    cleaned_to: i64,
    /// The high watermark by which a cleaning judged: what is below it is not truncated. An abort that it went by must
    /// not be undone.
    cleaned_by: i64,
}

/// What the model knows of a producer: epoch, last sequence, first offset of its open transaction.
type Known = (i16, i32, Option<i64>);

impl Model {
    fn producers(&self) -> BTreeMap<i64, Known> {
        let mut all = BTreeMap::new();
        for e in self.events.iter().filter(|e| e.producer >= 0) {
            let known: &mut Known = all.entry(e.producer).or_insert((e.epoch, -1, None));
            if known.0 != e.epoch {
                (known.0, known.1) = (e.epoch, -1);
            }
            match e.what {
                What::End(_) => known.2 = None,
                _ => known.1 = e.sequence + 1,
            }
            if e.what == What::Transactional {
                known.2.get_or_insert(e.base);
            }
        }
        all
    }

    fn last_stable(&self) -> i64 {
        let mut open = HashMap::new();
        let mut undecided = Vec::new();
        for e in &self.events {
            match e.what {
                What::Transactional => drop(open.entry(e.producer).or_insert(e.base)),
                What::End(_) => {
                    let first = open.remove(&e.producer);
                    undecided.extend(first.filter(|_| e.base >= self.high_watermark));
                }
                What::Plain => {}
            }
        }
        undecided.extend(open.values());
        let first = undecided.into_iter().min().unwrap_or(i64::MAX);
        first.max(self.start).min(self.high_watermark)
    }

    /// What counts, below the last stable offset.
    fn committed(&self) -> Vec<Seen> {
        let mut aborted = HashSet::new();
        let mut within = Vec::new();
        for (i, e) in self.events.iter().enumerate() {
            match e.what {
                What::Transactional => within.push((e.producer, i)),
                What::End(committed) => within.retain(|(producer, i)| {
                    if *producer == e.producer && !committed {
                        aborted.insert(*i);
                    }
                    *producer != e.producer
                }),
                What::Plain => {}
            }
        }
        let counts = |(i, e): (usize, &Event)| {
            let inside = e.next > self.start && e.next <= self.last_stable();
            let data = !matches!(e.what, What::End(_)) && !aborted.contains(&i);
            (inside && data).then(|| {
                (e.base..)
                    .zip(&e.records)
                    .map(|(o, r)| (o, r.0, r.1))
                    .collect()
            })
        };
        let all = self.events.iter().enumerate().filter_map(counts);
        let all = all.flat_map(|records: Vec<Seen>| records);
        all.filter(|r| r.0 >= self.start).collect()
    }
}

struct World {
    home: Option<Home>,
    log: Option<Arc<PartitionLog>>,
    folder: tempfile::TempDir,
    lives: usize,
    model: Model,
    clock: i64,
    follows: bool,
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 150,
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 3,
        retention_ms: -1,
        timestamp_after_max_ms: i64::MAX,
        producer_id_expiration_ms: i64::MAX,
        ..LogConfig::default()
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("0"), TopicId::random());
        let log = home.open(config());
        log.begin_epoch(LeaderEpoch(0)).unwrap();
        Self {
            log: Some(log),
            home: Some(home),
            folder,
            lives: 0,
            model: Model::default(),
            clock: 1000,
            follows: false,
        }
    }

    fn log(&self) -> &PartitionLog {
        self.log.as_deref().unwrap()
    }

    fn known(&self, producer: i64) -> Known {
        let known = self.model.producers().get(&producer).copied();
        known.unwrap_or((0, -1, None))
    }

    fn append(&mut self, producer: i64, what: What) {
        let (epoch, last, open) = self.known(producer);
        let transactional = what == What::Transactional;
        if open.is_some() && !transactional {
            return;
        }
        let sequence = if producer < 0 { -1 } else { last + 1 };
        let mut b = RecordBatchBuilder::new();
        if producer >= 0 {
            b = b.producer(ProducerId(producer), epoch, sequence);
        }
        if transactional {
            b = b.attributes(ATTRIBUTE_TRANSACTIONAL);
        }
        let mut records = Vec::new();
        for _ in 0..2 {
            self.clock += 1;
            let record = ((self.clock % 5) as u8, self.clock as u8);
            b.push(self.clock, Some(&[record.0]), Some(&[record.1]));
            records.push(record);
        }
        let guard = match transactional && !self.follows {
            true => self.ask(producer, epoch, sequence, open),
            false => None,
        };
        self.write(b.clone(), b.build(), guard, 2);
        self.note(producer, epoch, sequence, what, records);
    }

    /// A guard where one is needed. Without it, nothing is appended.
    fn ask(
        &self,
        id: i64,
        epoch: i16,
        sequence: i32,
        open: Option<i64>,
    ) -> Option<VerificationGuard> {
        let guard = self
            .log()
            .begin_verification(ProducerId(id), epoch, sequence, 0);
        assert_eq!(guard.is_none(), open.is_some());
        guard
    }

    fn write(&self, b: RecordBatchBuilder, bytes: Bytes, guard: Option<VerificationGuard>, n: i64) {
        let end = Offset(self.model.end);
        let info = match self.follows {
            true => self
                .log()
                .append_follower(&b.at(end, LeaderEpoch(0)).build()),
            false => {
                let (log, epoch) = (self.log(), LeaderEpoch(0));
                if guard.is_some() {
                    let refused = log.append_leader(&bytes, epoch, self.clock);
                    assert!(matches!(refused, Err(AppendError::NotInTransaction(_))));
                }
                log.append_verified(&bytes, epoch, self.clock, guard)
            }
        };
        let info = info.unwrap();
        assert_eq!((info.base_offset, info.last_offset.0), (end, end.0 + n - 1));
    }

    fn note(
        &mut self,
        producer: i64,
        epoch: i16,
        sequence: i32,
        what: What,
        records: Vec<(u8, u8)>,
    ) {
        let base = self.model.end;
        self.model.end = base + records.len().max(1) as i64;
        self.model.events.push(Event {
            base,
            next: self.model.end,
            producer,
            epoch,
            sequence,
            what,
            records,
        });
    }

    fn end(&mut self, producer: i64, committed: bool, bump: bool) {
        let (epoch, ..) = self.known(producer);
        let epoch = epoch + i16::from(bump);
        self.clock += 1;
        let marker = Marker {
            producer_id: ProducerId(producer),
            producer_epoch: epoch,
            coordinator_epoch: 0,
            committed,
        };
        match self.follows {
            true => {
                let mut bytes = marker.build(self.clock, false).to_vec();
                bytes[..8].copy_from_slice(&self.model.end.to_be_bytes());
                bytes[12..16].fill(0);
                self.log().append_follower(&bytes).unwrap();
            }
            false => {
                let done = self
                    .log()
                    .append_marker(&marker, LeaderEpoch(0), self.clock);
                assert_eq!(done.unwrap().base_offset.0, self.model.end);
            }
        }
        self.note(producer, epoch, -1, What::End(committed), Vec::new());
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Plain(producer) => self.append(producer.unwrap_or(-1), What::Plain),
            Op::Transactional(producer) => self.append(producer, What::Transactional),
            Op::End(producer, committed, bump) => self.end(producer, committed, bump),
            Op::Follow(follows) => self.follows = follows,
            Op::Committed(more) => {
                let model = &mut self.model;
                model.high_watermark = (model.high_watermark + more).min(model.end);
            }
            Op::Truncate(back) => {
                let at = (self.model.end - back)
                    .max(self.model.cleaned_by)
                    .max(self.model.start);
                let end = self.log().truncate_to(Offset(at)).unwrap();
                let model = &mut self.model;
                model.events.retain(|e| e.next <= end.0);
                model.end = end.0;
                model.start = model.start.min(end.0);
                model.high_watermark = model.high_watermark.min(end.0);
                self.log().begin_epoch(LeaderEpoch(0)).unwrap();
            }
            Op::Delete(ahead) => {
                let at = (self.model.start + ahead).min(self.model.high_watermark);
                let start = self.log().delete_records_before(Offset(at)).unwrap();
                self.model.start = start.0;
            }
            Op::Flush(true) => self.log().flush().unwrap(),
            Op::Flush(false) => self.log().flush_sealed(),
            Op::Clean => {
                self.clock += 2;
                let mark = Offset(self.model.high_watermark);
                self.model.cleaned_by = mark.0;
                if let Some(done) = self.log().clean(self.clock, mark, 1000).unwrap() {
                    assert!(done.clean_to.0 <= self.model.last_stable());
                    self.model.cleaned_to = done.clean_to.0;
                }
            }
            Op::Close => {
                self.home.as_ref().unwrap().dir.close_clean().unwrap();
                self.restart();
            }
            Op::Kill => self.restart(),
            Op::Damage(which) => self.damage(which),
        }
    }

    fn restart(&mut self) {
        let (log, home) = (self.log.take().unwrap(), self.home.take().unwrap());
        self.lives += 1;
        let path = self.folder.path().join(self.lives.to_string());
        copy_at_once(&log, home.dir.path(), &path);
        let topic = home.topic;
        drop((log, home));
        let home = Home::at(&path, topic);
        self.log = Some(home.open(config()));
        self.home = Some(home);
        self.log().begin_epoch(LeaderEpoch(0)).unwrap();
    }

    fn damage(&self, which: usize) {
        let segments = self.log().segments();
        let sealed = segments.iter().filter(|s| !s.is_unsettled());
        let files = sealed.map(|s| s.path().with_extension(crate::segment::TXN_INDEX));
        let files: Vec<_> = files.filter(|path| path.exists()).collect();
        if let Some(path) = files.get(which) {
            let mut content = std::fs::read(path).unwrap();
            content[which * 7] ^= 1;
            std::fs::write(path, content).unwrap();
        }
    }

    /// What a consumer of committed records sees, from `from` on, in reads of about `step` bytes.
    fn consume(&self, from: i64, step: usize) -> Vec<Seen> {
        let limit = self
            .log()
            .last_stable_offset(Offset(self.model.high_watermark));
        let mut at = from;
        let mut seen = Vec::new();
        while at < limit.0 {
            let read = self
                .log()
                .read_committed(Offset(at), step, limit, true)
                .unwrap();
            if read.batches.is_empty() {
                break;
            }
            at = take(read, at, &mut seen);
        }
        seen
    }

    fn check(&self) {
        let (log, model) = (self.log(), &self.model);
        assert_eq!(log.offline(), None);
        assert_eq!(log.log_end_offset().0, model.end);
        assert_eq!(log.log_start_offset().0, model.start);
        let stable = log.last_stable_offset(Offset(model.high_watermark));
        assert_eq!(stable.0, model.last_stable(), "{:?}", model.events);
        let all = self.consume(model.start, 1 << 20);
        for step in [1, 250] {
            assert_eq!(self.consume(model.start, step), all, "step {step}");
        }
        let committed = model.committed();
        assert!(
            all.iter().all(|seen| committed.contains(seen)),
            "{all:?} of {committed:?}"
        );
        let above = |seen: &&Seen| seen.0 >= model.cleaned_to;
        assert!(all.iter().filter(above).eq(committed.iter().filter(above)));
        let last = |all: &[Seen]| all.iter().map(|s| (s.1, *s)).collect::<BTreeMap<_, _>>();
        assert_eq!(last(&all), last(&committed));
        for from in model.start..stable.0 {
            let rest: Vec<_> = all.iter().filter(|seen| seen.0 >= from).copied().collect();
            assert_eq!(self.consume(from, 400), rest, "from {from}");
        }
        let open = log.open_transactions();
        let producers = model.producers();
        assert_eq!(open, producers.values().filter(|p| p.2.is_some()).count());
        for p in log.active_producers() {
            let known = (p.producer_epoch, p.last_sequence, p.open_since.map(|o| o.0));
            assert_eq!(
                Some(&known),
                producers.get(&p.producer_id.0),
                "{}",
                p.producer_id
            );
        }
        assert_eq!(log.active_producers().len(), producers.len());
    }
}

/// What Kafka's consumer makes of one answer; where it goes on.
fn take(read: CommittedRead, from: i64, seen: &mut Vec<Seen>) -> i64 {
    let mut aborted = read.aborted;
    let mut within = HashSet::new();
    let mut next = from;
    for batch in batches(read.batches) {
        let batch: Batch = batch.unwrap();
        let header = batch.header;
        next = header.next_offset().0;
        aborted.retain(|txn| {
            let begins = txn.first_offset <= header.last_offset();
            if begins {
                within.insert(txn.producer_id);
            }
            !begins
        });
        if header.is_control() {
            if Marker::parse(&header, &batch.bytes).is_some_and(|m| !m.committed) {
                within.remove(&header.producer_id);
            }
            continue;
        }
        if header.is_transactional() && within.contains(&header.producer_id) {
            continue;
        }
        for r in batch.records().unwrap().map(Result::unwrap) {
            if r.offset.0 >= from {
                seen.push((r.offset.0, r.key.unwrap()[0], r.value.unwrap()[0]));
            }
        }
    }
    next
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn consumers_of_committed_records_see_what_the_model_says(ops in proptest::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
    }
}
