//! Sequences, repeats, epochs, transactions and snapshots.

use super::*;
use crate::batch::{ATTRIBUTE_TRANSACTIONAL, RecordBatchBuilder};
use leasehold_types::LeaderEpoch;

fn header(offset: i64, epoch: i16, sequence: i32, count: i32) -> BatchHeader {
    let mut b = RecordBatchBuilder::new()
        .at(Offset(offset), LeaderEpoch(0))
        .producer(ProducerId(9), epoch, sequence);
    for _ in 0..count {
        b.push(1000 + offset, None, Some(b"v"));
    }
    BatchHeader::parse(&b.build()).unwrap()
}

#[test]
fn the_last_five_batches_are_recognized_and_older_ones_refused() {
    let mut producers = Producers::default();
    for i in 0..7 {
        let h = header(i64::from(i) * 2, 0, i * 2, 2);
        assert_eq!(producers.check(&h, None), Ok(None));
        producers.note(&h, None);
    }
    for i in 2..7 {
        let repeat = producers
            .check(&header(0, 0, i * 2, 2), None)
            .unwrap()
            .unwrap();
        assert_eq!(repeat.base_offset, Offset(i64::from(i) * 2));
        assert_eq!(repeat.last_offset, Offset(i64::from(i) * 2 + 1));
    }
    for sequence in [0, 2, 13, 15, 16] {
        let result = producers.check(&header(0, 0, sequence, 2), None);
        let refused = matches!(
            result,
            Err(AppendError::OutOfOrderSequence { expected: 14, .. })
        );
        assert!(refused, "{sequence}: {result:?}");
    }
}

#[test]
fn sequences_wrap_to_zero() {
    let mut producers = Producers::default();
    producers.note(&header(0, 0, i32::MAX - 1, 3), None);
    assert!(producers.check(&header(0, 0, 0, 1), None).is_err());
    assert_eq!(producers.check(&header(0, 0, 1, 1), None), Ok(None));
    assert!(
        producers
            .check(&header(0, 0, i32::MAX - 1, 3), None)
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut producers = Producers::default();
    producers.note(&header(0, 3, 0, 1), None);
    assert!(producers.check(&header(0, 4, 1, 1), None).is_err());
    let h = header(1, 4, 0, 1);
    assert_eq!(producers.check(&h, None), Ok(None));
    producers.note(&h, None);
    let fenced = producers.check(&header(0, 3, 1, 1), None);
    assert!(matches!(
        fenced,
        Err(AppendError::InvalidProducerEpoch {
            current: 4,
            got: 3,
            ..
        })
    ));
}

#[test]
fn of_a_producer_without_an_epoch_only_repeats_are_recognized() {
    let mut producers = Producers::default();
    for sequence in [5, 3, 9] {
        let h = header(i64::from(sequence), -1, sequence, 1);
        assert_eq!(producers.check(&h, None), Ok(None));
        producers.note(&h, None);
    }
    let repeat = producers.check(&header(0, -1, 3, 1), None).unwrap();
    assert!(repeat.is_some());
    // With one it may go on anywhere, and then not without one again.
    let h = header(20, 0, 7, 1);
    assert_eq!(producers.check(&h, None), Ok(None));
    producers.note(&h, None);
    let late = producers.check(&header(0, -1, 10, 1), None);
    assert!(matches!(
        late,
        Err(AppendError::InvalidProducerEpoch { .. })
    ));
}

#[test]
fn a_snapshot_is_read_back_and_a_torn_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut producers = Producers::default();
    for i in 0..7 {
        producers.note(&header(i, 0, i as i32, 1), None);
    }
    let ended = [(Offset(4), Offset(2))].into();
    Snapshot::save(&producers, &ended, &path).unwrap();
    let saved = Snapshot::load(&path).unwrap().unwrap();
    assert_eq!((&saved.producers, &saved.ended), (&producers, &ended));
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        assert_eq!(Snapshot::decode(&whole[..len]), None);
    }
    producers.expire(1006 + 50, 50);
    assert!(!producers.is_empty());
    producers.expire(1006 + 51, 50);
    assert!(producers.is_empty());
}

fn transactional(offset: i64, epoch: i16, sequence: i32) -> BatchHeader {
    let mut header = header(offset, epoch, sequence, 1);
    header.attributes |= ATTRIBUTE_TRANSACTIONAL;
    header
}

fn marker(offset: i64, epoch: i16, coordinator: i32) -> (BatchHeader, Option<Marker>) {
    let marker = Marker {
        producer_id: ProducerId(9),
        producer_epoch: epoch,
        coordinator_epoch: coordinator,
        committed: true,
    };
    let mut header = BatchHeader::parse(&marker.build(1000 + offset, false)).unwrap();
    header.base_offset = Offset(offset);
    (header, Some(marker))
}

#[test]
fn a_transaction_begins_with_a_verified_batch_and_ends_with_its_marker() {
    let mut producers = Producers::default();
    let not_in = Err(AppendError::NotInTransaction(ProducerId(9)));
    let first = transactional(5, 0, 0);
    assert_eq!(producers.check(&first, None), not_in);
    assert_eq!(producers.check(&first, Some(0)), Ok(None));
    let began = producers.note(&first, None);
    let since = Offset(5);
    assert!(matches!(began, Noted::Began { first, .. } if first == since));
    let second = transactional(6, 0, 1);
    assert_eq!(producers.check(&second, None), Ok(None));
    assert_eq!(producers.note(&second, None), Noted::Nothing);
    let plain = header(7, 0, 2, 1);
    let within = AppendError::WithinTransaction(ProducerId(9));
    assert_eq!(
        (within.kafka_code(), producers.check(&plain, None)),
        (48, Err(within))
    );
    let (end, what) = marker(7, 0, 3);
    let ended = producers.note(&end, what);
    assert!(matches!(ended, Noted::Ended { first: Some(first), .. } if first == since));
    assert_eq!(producers.check(&transactional(8, 0, 2), None), not_in);
    assert_eq!(producers.check(&header(8, 0, 2, 1), None), Ok(None));
    let repeat = producers.check(&second, None).unwrap().unwrap();
    assert_eq!(
        repeat.base_offset,
        Offset(6),
        "a repeat is told where it is, whatever has ended"
    );
    let (again, what) = marker(8, 0, 3);
    let ended = producers.note(&again, what);
    assert!(matches!(ended, Noted::Ended { first: None, .. }));
}

#[test]
fn what_a_producer_sent_first_begins_its_transaction() {
    let producers = Producers::default();
    let later = producers.check(&transactional(0, 0, 4), Some(2));
    assert!(matches!(
        later,
        Err(AppendError::OutOfOrderSequence { expected: 2, .. })
    ));
    assert_eq!(producers.check(&transactional(0, 0, 2), Some(2)), Ok(None));
}

#[test]
fn a_marker_of_version_2_that_comes_late_does_not_end_the_next_transaction() {
    let mut producers = Producers::default();
    producers.note(&transactional(0, 3, 0), None);
    let judge = |producers: &Producers, has| {
        let (_, what) = marker(1, 4, 7);
        let judged = producers.check_marker(&what.unwrap(), has);
        judged.map_err(|e| e.kafka_code())
    };
    assert_eq!(judge(&producers, MarkerEpoch::Later), Ok(()));
    let (end, what) = marker(1, 4, 7);
    producers.note(&end, what);
    assert_eq!(judge(&producers, MarkerEpoch::Later), Ok(()), "a repeat");
    producers.note(&transactional(2, 4, 0), None);
    assert_eq!(judge(&producers, MarkerEpoch::Later), Err(47));
    assert_eq!(judge(&producers, MarkerEpoch::Any), Ok(()), "of version 1");
}

#[test]
fn a_marker_fences_older_producers_and_older_coordinators() {
    let mut producers = Producers::default();
    producers.note(&transactional(0, 3, 0), None);
    let judge = |producers: &Producers, epoch, coordinator| {
        let (_, what) = marker(1, epoch, coordinator);
        producers
            .check_marker(&what.unwrap(), MarkerEpoch::Any)
            .map_err(|e| e.kafka_code())
    };
    assert_eq!(judge(&producers, 2, 7), Err(47));
    assert_eq!(judge(&producers, 3, 7), Ok(()));
    let (end, what) = marker(1, 4, 7);
    producers.note(&end, what);
    assert_eq!(judge(&producers, 4, 6), Err(52));
    assert_eq!(judge(&producers, 4, 7), Ok(()));
    let old = producers.check(&transactional(2, 3, 1), Some(1));
    assert_eq!(old.map_err(|e| e.kafka_code()), Err(47));
    let gap = producers.check(&header(2, 4, 1, 1), None);
    assert_eq!(
        gap.map_err(|e| e.kafka_code()),
        Err(45),
        "a new epoch starts at 0"
    );
    assert_eq!(producers.check(&header(2, 4, 0, 1), None), Ok(None));
}

#[test]
fn who_has_a_transaction_open_is_not_forgotten_and_is_in_the_snapshot() {
    let mut producers = Producers::default();
    producers.note(&transactional(0, 3, 0), None);
    producers.expire(1_000_000, 1);
    let open: Vec<_> = producers.open().collect();
    assert_eq!(open, [(ProducerId(9), 3, Offset(0))]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    Snapshot::save(&producers, &[].into(), &path).unwrap();
    assert_eq!(Snapshot::load(&path).unwrap().unwrap().producers, producers);
    let (end, what) = marker(1, 3, 7);
    producers.note(&end, what);
    Snapshot::save(&producers, &[].into(), &path).unwrap();
    assert_eq!(Snapshot::load(&path).unwrap().unwrap().producers, producers);
    assert_eq!(producers.list()[0].coordinator_epoch, 7);
    producers.expire(1001 + 50, 50);
    assert!(!producers.is_empty());
    producers.expire(1001 + 51, 50);
    assert!(producers.is_empty());
}

#[test]
fn a_snapshot_from_before_there_were_transactions_is_read() {
    let mut producers = Producers::default();
    producers.note(&header(3, 2, 0, 2), None);
    let content = snapshot::first_format(&producers);
    assert_eq!(Snapshot::decode(&content).unwrap().producers, producers);
}
