//! A compacted log under random appends, cleanings, truncations, restarts and a crash at every step of
//! a swap, against a list of all records that were ever appended.

use super::model_tests::copy;
use super::swap::watch;
use super::tests::Home;
use super::*;
use crate::Cleanable;
use crate::batch::{RecordBatchBuilder, batches, packed};
use leasehold_types::ProducerId;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

const PRODUCER: ProducerId = ProducerId(5);
const KEEP_MS: i64 = 300;

type Pair = (u8, Option<u16>);

#[derive(Clone, Debug)]
enum Op {
    Lead { pairs: Vec<Pair>, codec: i16 },
    Produce { pairs: Vec<Pair>, codec: i16 },
    Repeat,
    Epoch,
    Wait { ms: i64 },
    Clean { back: i64, keys: usize, crash: bool },
    Truncate { back: i64 },
    Delete { ahead: i64 },
    Flush,
    Close,
    Kill,
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let pair = (0u8..8, proptest::option::weighted(0.7, any::<u16>()));
    proptest::collection::vec(pair, 1..6)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (pairs(), 0i16..5).prop_map(|(pairs, codec)| Op::Lead { pairs, codec }),
        10 => (pairs(), 0i16..5).prop_map(|(pairs, codec)| Op::Produce { pairs, codec }),
        2 => Just(Op::Repeat),
        2 => Just(Op::Epoch),
        3 => (1i64..400).prop_map(|ms| Op::Wait { ms }),
        10 => (0i64..30, prop_oneof![1usize..8, Just(1000)], proptest::bool::weighted(0.3))
            .prop_map(|(back, keys, crash)| Op::Clean { back, keys, crash }),
        3 => (0i64..30).prop_map(|back| Op::Truncate { back }),
        1 => (0i64..30).prop_map(|ahead| Op::Delete { ahead }),
        2 => Just(Op::Flush),
        2 => Just(Op::Close),
        2 => Just(Op::Kill),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Rec {
    offset: i64,
    time: i64,
    key: u8,
    value: Option<u16>,
}

#[derive(Clone, Default)]
struct Model {
    start: i64,
    end: i64,
    /// All records below the end that were ever appended.
    all: Vec<Rec>,
    /// Where the batches end.
    ends: Vec<i64>,
    /// The idempotent producer's batches: base offset, first sequence, bytes as sent.
    sent: Vec<(i64, i32, bytes::Bytes, i64)>,
    /// Below it, keys may be missing; above, nothing may.
    touched_to: i64,
    /// The high watermark: nothing below is ever cut off.
    mark: i64,
    /// Below it, each key occurs once.
    clean_to: i64,
    epochs: Vec<(i32, i64)>,
}

struct World {
    home: Option<Home>,
    log: Option<Arc<PartitionLog>>,
    folder: tempfile::TempDir,
    lives: usize,
    cleanings: usize,
    model: Model,
    clock: i64,
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 150,
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: KEEP_MS,
        timestamp_after_max_ms: i64::MAX,
        ..LogConfig::default()
    }
}

/// The last value of each key, in what lies below `to`.
fn fold<'a>(records: impl IntoIterator<Item = &'a Rec>, to: i64) -> HashMap<u8, (i64, u16)> {
    let mut state = HashMap::new();
    for r in records.into_iter().filter(|r| r.offset < to) {
        match r.value {
            Some(value) => drop(state.insert(r.key, (r.offset, value))),
            None => drop(state.remove(&r.key)),
        }
    }
    state
}

/// All records in the log, and the bounds of the batches that they lie in.
fn read(log: &PartitionLog) -> (Vec<Rec>, Vec<(i64, i64)>) {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let (mut found, mut bounds) = (Vec::new(), Vec::new());
    while at < end {
        let bytes = log.read(at, 300, end, true).unwrap();
        assert!(!bytes.is_empty(), "nothing at {at} of {end}");
        for batch in batches(bytes) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            assert!(batch.header.next_offset() > at, "{at}: {:?}", batch.header);
            bounds.push((batch.header.base_offset.0, batch.header.next_offset().0));
            at = batch.header.next_offset();
            for r in batch.unpacked().unwrap().records().unwrap() {
                let r = r.unwrap();
                found.push(Rec {
                    offset: r.offset.0,
                    time: r.timestamp,
                    key: r.key.unwrap()[0],
                    value: r
                        .value
                        .map(|v| u16::from_be_bytes(v[..].try_into().unwrap())),
                });
            }
        }
    }
    (found, bounds)
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
            cleanings: 0,
            model: Model {
                epochs: vec![(0, 0)],
                ..Model::default()
            },
            clock: 1000,
        }
    }

    fn log(&self) -> &Arc<PartitionLog> {
        self.log.as_ref().unwrap()
    }

    fn build(&mut self, pairs: &[Pair], b: RecordBatchBuilder) -> (bytes::Bytes, Vec<Rec>) {
        let mut b = b;
        let mut records = Vec::new();
        for (i, &(key, value)) in (0..).zip(pairs) {
            self.clock += 1;
            let bytes = value.map(u16::to_be_bytes);
            b.push(self.clock, Some(&[key]), bytes.as_ref().map(|v| &v[..]));
            records.push(Rec {
                offset: self.model.end + i,
                time: self.clock,
                key,
                value,
            });
        }
        (packed(&b.build()), records)
    }

    fn lead(&mut self, bytes: &[u8], records: Vec<Rec>) -> i64 {
        let epoch = LeaderEpoch(self.model.epochs.last().unwrap().0);
        let info = self.log().append_leader(bytes, epoch, self.clock).unwrap();
        let base = self.model.end;
        assert_eq!((info.base_offset.0, info.duplicate), (base, false));
        self.model.end = info.last_offset.0 + 1;
        self.model.ends.push(self.model.end);
        self.model.all.extend(records);
        base
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Lead { pairs, codec } => {
                let b = RecordBatchBuilder::new().attributes(*codec);
                let (bytes, records) = self.build(pairs, b);
                self.lead(&bytes, records);
            }
            Op::Produce { pairs, codec } => {
                let last = self.model.sent.last();
                let next = last.map_or(0, |(base, first, _, end)| first + (end - base) as i32);
                let b = RecordBatchBuilder::new()
                    .attributes(*codec)
                    .producer(PRODUCER, 0, next);
                let (bytes, records) = self.build(pairs, b);
                let base = self.lead(&bytes, records);
                let end = self.model.end;
                self.model.sent.push((base, next, bytes, end));
            }
            Op::Repeat => {
                let Some((base, _, bytes, end)) = self.model.sent.last().cloned() else {
                    return;
                };
                let epoch = LeaderEpoch(self.model.epochs.last().unwrap().0);
                let info = self.log().append_leader(&bytes, epoch, self.clock).unwrap();
                assert!(info.duplicate);
                assert_eq!((info.base_offset.0, info.last_offset.0 + 1), (base, end));
            }
            Op::Epoch => {
                let epoch = self.model.epochs.last().unwrap().0 + 1;
                let at = self.log().begin_epoch(LeaderEpoch(epoch)).unwrap().0;
                assert_eq!(at, self.model.end);
                self.model.epochs.retain(|e| e.1 < at);
                self.model.epochs.push((epoch, at));
            }
            Op::Wait { ms } => self.clock += ms,
            Op::Clean { back, keys, crash } => self.clean(*back, *keys, *crash),
            Op::Truncate { back } => {
                let at = (self.model.end - back).max(self.model.mark);
                let end = self.log().truncate_to(Offset(at)).unwrap().0;
                assert!(end <= at);
                self.model.end = end;
                self.model.ends.retain(|e| *e <= end);
                self.model.all.retain(|r| r.offset < end);
                self.model.sent.retain(|s| s.3 <= end);
                self.model.epochs.retain(|e| e.1 < end);
                self.model.start = self.model.start.min(end);
                let epoch = self.model.epochs.last().map_or(0, |e| e.0) + 10;
                self.log().begin_epoch(LeaderEpoch(epoch)).unwrap();
                self.model.epochs.push((epoch, end));
            }
            Op::Delete { ahead } => {
                let at = (self.model.start + ahead).min(self.model.end);
                self.log().delete_records_before(Offset(at)).unwrap();
                self.model.start = at;
                let committed = self.model.ends.iter().find(|end| **end >= at);
                self.model.mark = self.model.mark.max(committed.copied().unwrap_or(0));
            }
            Op::Flush => self.log().flush_sealed(),
            Op::Close => {
                self.home.as_ref().unwrap().dir.close_clean().unwrap();
                self.restart();
            }
            Op::Kill => self.restart(),
        }
    }

    fn clean(&mut self, back: i64, keys: usize, crash: bool) {
        let committed = self
            .model
            .ends
            .iter()
            .rfind(|end| **end <= self.model.end - back);
        self.model.mark = self.model.mark.max(committed.copied().unwrap_or(0));
        let mark = Offset(self.model.mark);
        let active = self.log().snapshot().segments.last().map(|s| s.base().0);
        let wants = self.log().cleanable(self.clock, mark).unwrap();
        let (before, _) = read(self.log());
        let moments: Rc<RefCell<Vec<(&str, PathBuf)>>> = Rc::default();
        let look = {
            let (moments, root) = (moments.clone(), self.folder.path().to_owned());
            self.cleanings += 1;
            let (number, from) = (
                self.cleanings,
                self.home.as_ref().unwrap().dir.path().to_owned(),
            );
            move |name| {
                let mut moments = moments.borrow_mut();
                let to = root.join(format!("crash-{number}-{}", moments.len()));
                if crash {
                    copy(&from, &to);
                    moments.push((name, to));
                }
            }
        };
        let log = self.log().clone();
        let done = watch::steps(look, || log.clean(self.clock, mark, keys).unwrap());
        assert_eq!(
            done.is_some(),
            matches!(wants, Cleanable::Now { .. }),
            "{wants:?}"
        );
        let (after, _) = read(self.log());
        match done {
            None => assert_eq!(before, after),
            Some(done) => {
                let to = done.clean_to.0;
                assert!(to <= mark.0 && active.is_some_and(|active| to <= active));
                assert!(done.bytes_after <= log.size());
                assert!(to >= self.model.clean_to, "it goes on where it ended");
                if keys >= 8 {
                    let bound = (0..self.log().segment_count()).map(|i| log.snapshot().end_of(i).0);
                    assert!(bound.into_iter().any(|end| end == to), "whole segments");
                }
                self.model.clean_to = to;
                self.model.touched_to = self.model.touched_to.max(to);
            }
        }
        for (name, path) in moments.take() {
            let home = Home::at(&path, self.home.as_ref().unwrap().topic);
            let log = home.open(config());
            let (found, _) = read(&log);
            self.check_records(&log, &found, name);
            drop(log);
            drop(home);
        }
    }

    fn restart(&mut self) {
        let log = self.log.take().unwrap();
        let home = self.home.take().unwrap();
        self.lives += 1;
        let path = self.folder.path().join(self.lives.to_string());
        {
            let _flush = log.flushing.lock();
            let _saved = log.saved_point.lock();
            copy(home.dir.path(), &path);
        }
        let topic = home.topic;
        let existed = log.folder.exists();
        drop((log, home));
        let home = Home::at(&path, topic);
        self.log = Some(home.open(config()));
        self.home = Some(home);
        if !existed {
            self.log().begin_epoch(LeaderEpoch(0)).unwrap();
            self.model.epochs = vec![(0, 0)];
        }
    }

    /// What holds of the log at any time, and of what a crash at any time leaves.
    fn check_records(&self, log: &PartitionLog, found: &[Rec], when: &str) {
        let model = &self.model;
        assert_eq!(log.offline(), None, "{when}");
        assert_eq!(log.log_end_offset().0, model.end, "{when}");
        assert_eq!(log.log_start_offset().0, model.start, "{when}");
        // Each offset lies in one segment, and no hole touches a segment's end.
        let view = log.snapshot();
        for (i, segment) in view.segments.iter().enumerate() {
            let mut end = segment.base();
            let walked = segment.walk(segment.base(), 150, |_, header| {
                assert!(header.base_offset >= end, "{when}");
                end = header.next_offset();
                Ok(true)
            });
            walked.unwrap();
            assert_eq!(end, view.end_of(i), "{when}");
        }
        // Nothing is in it that was not appended, and nothing is out of place.
        let mut rest = model.all.iter();
        for r in found {
            assert!(rest.any(|appended| appended == r), "{when}: {r:?}");
        }
        // What was not looked at is all there.
        let above = |r: &&Rec| r.offset >= model.touched_to.max(model.start);
        let appended = model.all.iter().filter(above);
        assert!(appended.eq(found.iter().filter(above)), "{when}: {found:?}");
        // Whoever reads up to any point above what is clean finds each key as it was there.
        let inside = |r: &&Rec| r.offset >= model.start;
        for to in [
            model.touched_to,
            (model.touched_to + model.end) / 2,
            model.end,
        ] {
            let mut want = fold(&model.all, to);
            want.retain(|_, (offset, _)| *offset >= model.start);
            let mut got = fold(found.iter().filter(inside), to);
            got.retain(|_, (offset, _)| *offset >= model.start);
            assert_eq!(got, want, "{when}: up to {to}");
        }
        // A deletion can be heard of for as long as promised.
        let mut last = HashMap::new();
        for r in &model.all {
            last.insert(r.key, r);
        }
        for r in last.values().filter(|r| r.offset >= model.start) {
            let young = r.time + KEEP_MS > self.clock;
            let there = found.iter().any(|f| f == *r);
            assert!(
                there || (r.value.is_none() && !young),
                "{when}: {r:?} is gone"
            );
        }
    }

    fn check(&self) {
        let (found, bounds) = read(self.log());
        let (log, model) = (self.log(), &self.model);
        self.check_records(log, &found, "now");
        // One record per key where it is clean.
        let mut seen = HashMap::new();
        let visible = found.iter().filter(|r| r.offset >= model.start);
        for r in visible.filter(|r| r.offset < model.clean_to) {
            assert_eq!(
                seen.insert(r.key, r.offset),
                None,
                "{r:?} below {}",
                model.clean_to
            );
        }
        // A fetch at any offset, hole or not, goes on with the batch at it or after it.
        for at in model.start..model.end {
            let bytes = log.read(Offset(at), 1, Offset(model.end), true).unwrap();
            let first = batches(bytes).next().unwrap().unwrap().header;
            let want = bounds.iter().find(|b| b.1 > at).unwrap();
            assert_eq!(
                (first.base_offset.0, first.next_offset().0),
                *want,
                "fetch at {at}"
            );
        }
        // Lookups by time.
        for wanted in [0, 1000, (1000 + self.clock) / 2, self.clock] {
            let visible = found.iter().filter(|r| r.offset >= model.start);
            let want = visible.clone().find(|r| r.time >= wanted);
            let got = log.offset_for_timestamp(wanted, Offset(model.end)).unwrap();
            let pair = |r: &Rec| (r.offset, r.time);
            assert_eq!(
                got.map(|g| (g.offset.0, g.timestamp)),
                want.map(pair),
                "time {wanted}"
            );
        }
        let newest = log.max_timestamp(Offset(model.end)).unwrap();
        let want = found
            .iter()
            .filter(|r| r.offset >= model.start)
            .map(|r| r.time)
            .max();
        assert_eq!(newest.map(|t| t.timestamp), want);
        // Epochs end where they did.
        for pair in model
            .epochs
            .windows(2)
            .filter(|pair| pair[1].1 > model.start)
        {
            let got = log.end_offset_for_epoch(LeaderEpoch(pair[0].0));
            let want = (LeaderEpoch(pair[0].0), Offset(pair[1].1));
            assert_eq!(got, Some(want), "{:?}", model.epochs);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_holds_what_the_model_says_it_must(ops in proptest::collection::vec(op(), 1..90)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
    }
}
