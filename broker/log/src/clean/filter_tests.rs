//! What is left of single batches.

use super::*;
use crate::batch::{self, Batch, Marker, RecordBatchBuilder};
use crate::producers::LastRecord;
use bytes::Bytes;
use leasehold_types::seams::HashMap;
use leasehold_types::{LeaderEpoch, Offset, ProducerId};
use proptest::prelude::*;

const HORIZON_BIT: i16 = 0x40;
const EMPTY: usize = batch::HEADER_LEN;

type Pair<'a> = (&'a str, Option<&'a str>);

/// A batch at offset 10 of epoch 3, its records at times 100, 101 and so on.
fn batch_of(attributes: i16, pairs: &[Pair<'_>]) -> Batch {
    let mut b = RecordBatchBuilder::new()
        .at(Offset(10), LeaderEpoch(3))
        .producer(ProducerId(7), 2, 40)
        .attributes(attributes);
    for (i, (key, value)) in (0..).zip(pairs) {
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"v")), (b"h", None)];
        let value = value.map(str::as_bytes);
        b.push_with_headers(100 + i, Some(key.as_bytes()), value, headers);
    }
    parse(batch::packed(&b.build()))
}

fn parse(mut bytes: Bytes) -> Batch {
    let batch = Batch::split_from(&mut bytes).unwrap();
    batch.check_crc().unwrap();
    batch
}

/// Later records of these keys are known, and all up to offset 1000.
fn later(keys: &[&str]) -> LastOffsets {
    let mut last = LastOffsets::new(Offset(0), 100);
    for (i, key) in (500..).zip(keys) {
        assert!(last.note(key.as_bytes(), Offset(i)));
    }
    last.noted_to(Offset(1000));
    last
}

fn judge_at(now_ms: i64, batch: &Batch, superseded: &[&str], must_stay: bool) -> Filtered {
    let rules = Rules {
        keys: &later(superseded),
        producers: &HashMap::default(),
        now_ms,
        delete_retention_ms: 50,
    };
    filter(batch, &rules, Fate::Counts, must_stay).unwrap()
}

fn judge(batch: &Batch, superseded: &[&str]) -> Filtered {
    judge_at(5000, batch, superseded, false)
}

fn changed(filtered: Filtered) -> Batch {
    match filtered {
        Filtered::Changed(bytes) => parse(bytes),
        other => panic!("{other:?}"),
    }
}

/// Offset, time and key of each record.
fn records(batch: &Batch) -> Vec<(i64, i64, String)> {
    let records = batch.unpacked().unwrap().records().unwrap();
    records
        .map(|r| {
            let r = r.unwrap();
            assert_eq!(r.headers.len(), 2);
            let key = String::from_utf8(r.key.unwrap().to_vec()).unwrap();
            (r.offset.0, r.timestamp, key)
        })
        .collect()
}

const ABC: [Pair<'_>; 3] = [("a", Some("1")), ("b", Some("2")), ("c", Some("3"))];

#[test]
fn a_batch_of_which_all_is_last_stays_byte_for_byte() {
    for codec in 0..5 {
        assert_eq!(judge(&batch_of(codec, &ABC), &["x"]), Filtered::Same);
    }
}

#[test]
fn what_is_left_keeps_offsets_times_headers_codec_and_producer() {
    for codec in 0..5 {
        let before = batch_of(codec, &ABC);
        let after = changed(judge(&before, &["a", "c"]));
        assert_eq!(records(&after), [(11, 101, "b".to_owned())]);
        let mut expected = before.header;
        (expected.record_count, expected.max_timestamp) = (1, 101);
        (expected.length, expected.crc) = (after.header.length, after.header.crc);
        assert_eq!(after.header, expected);
        assert_eq!(after.header.last_offset(), Offset(12));
    }
}

#[test]
fn a_batch_without_records_goes_unless_it_must_stay() {
    let before = batch_of(4, &ABC);
    let all = ["a", "b", "c"];
    assert_eq!(judge(&before, &all), Filtered::Gone);
    let empty = changed(judge_at(5000, &before, &all, true));
    assert_eq!(empty.bytes.len(), EMPTY);
    let (was, is) = (before.header, empty.header);
    assert_eq!(
        (is.base_offset, is.last_offset_delta, is.leader_epoch),
        (was.base_offset, was.last_offset_delta, was.leader_epoch)
    );
    assert_eq!(
        (is.producer_id, is.producer_epoch, is.base_sequence),
        (was.producer_id, was.producer_epoch, was.base_sequence)
    );
    assert_eq!((is.codec(), is.record_count), (0, 0));
    assert_eq!(is.max_timestamp, was.max_timestamp);
    // And so again: it goes once nothing holds it.
    assert_eq!(judge_at(5000, &empty, &[], true), Filtered::Same);
    assert_eq!(judge(&empty, &[]), Filtered::Gone);
}

#[test]
fn the_last_batch_of_a_known_producer_stays_even_if_empty() {
    let before = batch_of(0, &ABC);
    let keys = later(&["a", "b", "c"]);
    let judge = |id, last| {
        let producers = HashMap::from_iter([(ProducerId(id), LastRecord::Batch(Offset(last)))]);
        let rules = Rules {
            keys: &keys,
            producers: &producers,
            now_ms: 0,
            delete_retention_ms: 0,
        };
        filter(&before, &rules, Fate::Counts, false).unwrap()
    };
    assert_eq!(changed(judge(7, 12)).header.base_sequence, 40);
    assert_eq!(judge(7, 15), Filtered::Gone, "it has written since");
    assert_eq!(judge(8, 12), Filtered::Gone, "it is forgotten");
}

#[test]
fn a_tombstone_gets_a_horizon_first_and_goes_only_when_that_is_reached() {
    for codec in 0..5 {
        let before = batch_of(codec, &[("a", None), ("b", Some("2"))]);
        let marked = changed(judge_at(5000, &before, &[], false));
        assert_eq!(marked.header.attributes, codec | HORIZON_BIT);
        assert_eq!(marked.header.delete_horizon(), Some(5050));
        assert_eq!(records(&marked), records(&before), "times do not change");
        assert_eq!(marked.header.max_timestamp, before.header.max_timestamp);
        assert_eq!(judge_at(5049, &marked, &[], false), Filtered::Same);
        let left = changed(judge_at(5050, &marked, &[], false));
        assert_eq!(records(&left), [(11, 101, "b".to_owned())]);
    }
}

#[test]
fn a_tombstone_that_is_superseded_goes_at_once() {
    let before = batch_of(0, &[("a", None), ("b", Some("2"))]);
    let left = changed(judge(&before, &["a"]));
    assert_eq!(left.header.delete_horizon(), None);
    assert_eq!(records(&left).len(), 1);
}

#[test]
fn what_was_not_looked_at_stays() {
    let mut keys = LastOffsets::new(Offset(0), 1);
    assert!(keys.note(b"a", Offset(10)));
    assert!(!keys.note(b"b", Offset(11)));
    let rules = Rules {
        keys: &keys,
        producers: &HashMap::default(),
        now_ms: 0,
        delete_retention_ms: 0,
    };
    assert_eq!(
        filter(&batch_of(0, &ABC), &rules, Fate::Counts, false).unwrap(),
        Filtered::Same
    );
}

#[test]
fn records_without_a_key_from_before_the_topic_was_compacted_go() {
    let mut b = RecordBatchBuilder::new().at(Offset(10), LeaderEpoch(3));
    b.push(1, None, Some(b"v"));
    assert_eq!(judge(&parse(b.build()), &[]), Filtered::Gone);
}

/// A marker of producer 7 at offset 10, written at time 100.
fn marker() -> Batch {
    let marker = Marker {
        producer_id: ProducerId(7),
        producer_epoch: 2,
        coordinator_epoch: 1,
        committed: false,
    };
    let mut bytes = marker.build(100, false).to_vec();
    bytes[..8].copy_from_slice(&10i64.to_be_bytes());
    parse(bytes.into())
}

fn judge_marker(batch: &Batch, needed: bool, now_ms: i64, last: Option<LastRecord>) -> Filtered {
    let rules = Rules {
        keys: &later(&["a"]),
        producers: &last.map(|last| (ProducerId(7), last)).into_iter().collect(),
        now_ms,
        delete_retention_ms: 50,
    };
    filter(batch, &rules, Fate::Marker { needed }, false).unwrap()
}

#[test]
fn a_marker_stays_with_its_transaction_and_then_until_its_delete_horizon() {
    let before = marker();
    assert_eq!(judge_marker(&before, true, 5000, None), Filtered::Same);
    let dated = changed(judge_marker(&before, false, 5000, None));
    assert_eq!(dated.header.delete_horizon(), Some(5050));
    assert_eq!(
        Marker::parse(&dated.header, &dated.bytes),
        Marker::parse(&before.header, &before.bytes)
    );
    let time = dated.records().unwrap().next().unwrap().unwrap().timestamp;
    assert_eq!(time, 100);
    assert_eq!(judge_marker(&dated, false, 5049, None), Filtered::Same);
    assert_eq!(judge_marker(&dated, false, 5050, None), Filtered::Gone);
}

#[test]
fn the_marker_that_brought_a_producers_epoch_stays_even_if_empty() {
    let dated = changed(judge_marker(&marker(), false, 5000, None));
    let judge = |last| judge_marker(&dated, false, 6000, Some(last));
    let empty = changed(judge(LastRecord::Marker(2)));
    assert_eq!(
        (empty.header.record_count, empty.header.producer_epoch),
        (0, 2)
    );
    assert_eq!(judge(LastRecord::Marker(3)), Filtered::Gone);
    assert_eq!(judge(LastRecord::Batch(Offset(12))), Filtered::Gone);
    let again = judge_marker(&empty, false, 9000, Some(LastRecord::Marker(2)));
    assert_eq!(again, Filtered::Same);
}

#[test]
fn what_was_aborted_goes_whatever_its_keys() {
    let before = batch_of(0x10, &ABC);
    let judge = |must_stay| {
        let rules = Rules {
            keys: &later(&[]),
            producers: &HashMap::default(),
            now_ms: 0,
            delete_retention_ms: 0,
        };
        filter(&before, &rules, Fate::Aborted, must_stay).unwrap()
    };
    assert_eq!(judge(false), Filtered::Gone);
    assert_eq!(changed(judge(true)).header.record_count, 0);
}

#[test]
fn the_leaders_time_stays_that_of_the_batch() {
    let before = batch_of(0x08, &ABC);
    let after = changed(judge(&before, &["c"]));
    assert_eq!(after.header.max_timestamp, before.header.max_timestamp);
}

proptest! {
    #[test]
    fn hostile_records_give_errors_and_no_panic(codec in 0i16..5, at in 0usize..200, value: u8, count: i32) {
        let mut bytes = batch_of(codec, &[("a", None), ("b", Some("2")), ("c", None)]).bytes.to_vec();
        let at = batch::HEADER_LEN + at % (bytes.len() - batch::HEADER_LEN);
        bytes[at] = value;
        let mut batch = Batch::split_from(&mut bytes.into()).unwrap();
        batch.header.record_count = count;
        let rules = Rules {
            keys: &later(&["b"]),
            producers: &HashMap::default(),
            now_ms: 0,
            delete_retention_ms: 0,
        };
        for fate in [Fate::Counts, Fate::Aborted, Fate::Marker { needed: false }] {
            let _ = filter(&batch, &rules, fate, true);
        }
        let _ = keyed_records(&batch, |_, _| true);
    }
}
