use super::super::tests::*;
use super::*;
use crate::coordinator::write::InTransaction;
use crate::group::store::loaded::Loaded;
use crate::group::types::*;
use crate::replica::Verified;
use leasehold_log::batch::{BatchHeader, RecordBatchBuilder};

const P: Producer = Producer {
    id: ProducerId(7),
    epoch: 1,
};

fn commit_in(world: &mut World, producer: Producer, offset: i64) -> Token {
    let request = TxnCommitRequest {
        transaction: InTransaction {
            producer,
            verified: Verified::NotAsked,
        },
        commit: World::commit_request(&[("t", 0, offset)]),
    };
    let token = world.token();
    let (taken, waits) =
        world.call(|shard, now, out| shard.commit_in_transaction(&request, token, now, out));
    assert_eq!(taken, [("t".to_owned(), vec![(0, ErrorCode::None)])]);
    assert_eq!(waits, Some(token));
    token
}

fn fetch(world: &World, require_stable: bool) -> (ErrorCode, i64) {
    let request = FetchRequest {
        group_id: "g".to_owned(),
        topics: Some(vec![("t".to_owned(), vec![0])]),
        require_stable,
        ..FetchRequest::default()
    };
    let found = &world.shard.fetch(&request).topics[0].1[0];
    (found.error, found.offset)
}

fn end(world: &mut World, producer: Producer, commit: bool) {
    end_at(world, producer, 1_000, commit);
}

fn end_at(world: &mut World, producer: Producer, marker: i64, commit: bool) {
    let marker = Offset(marker);
    world.call(|shard, now, _| shard.transaction_ended(producer.id, marker, commit, now));
}

const STABLE: ErrorCode = ErrorCode::None;
const UNSTABLE: ErrorCode = ErrorCode::UnstableOffsetCommit;

#[test]
fn an_offset_of_a_transaction_shows_once_that_is_committed_and_never_if_it_is_aborted() {
    for commit in [true, false] {
        let mut world = World::new();
        let token = commit_in(&mut world, P, 5);
        assert_eq!(world.writes[0].transaction.as_ref().unwrap().producer, P);
        assert!(!world.replies.contains_key(&token));
        world.store_all();
        assert_eq!(
            world.replies[&token],
            crate::group::shard::Reply::Commit(ErrorCode::None)
        );
        assert_eq!(fetch(&world, false), (STABLE, -1));
        assert_eq!(fetch(&world, true), (UNSTABLE, -1));
        end(&mut world, P, commit);
        assert_eq!(fetch(&world, true), (STABLE, if commit { 5 } else { -1 }));
    }
}

#[test]
fn the_end_of_another_transaction_changes_nothing() {
    let mut world = World::new();
    commit_in(&mut world, P, 5);
    world.store_all();
    let other = Producer {
        id: ProducerId(8),
        epoch: 1,
    };
    end(&mut world, other, true);
    assert_eq!(fetch(&world, true), (UNSTABLE, -1));
}

#[test]
fn a_marker_that_is_heard_of_before_the_write_is_stored_counts_for_it() {
    for commit in [true, false] {
        let mut world = World::new();
        commit_in(&mut world, P, 5);
        end(&mut world, P, commit);
        world.store_all();
        assert_eq!(fetch(&world, true), (STABLE, if commit { 5 } else { -1 }));
    }
}

#[test]
fn a_marker_ends_only_what_lies_before_it() {
    let mut world = World::new();
    commit_in(&mut world, P, 5);
    world.store_all();
    end_at(&mut world, P, 1, true);
    // The next transaction of the same producer, and then the news of the marker once more.
    commit_in(&mut world, P, 6);
    end_at(&mut world, P, 1, true);
    world.store_all();
    end_at(&mut world, P, 1, true);
    assert_eq!(fetch(&world, false), (STABLE, 5));
    assert_eq!(fetch(&world, true), (UNSTABLE, -1));
    end(&mut world, P, false);
    assert_eq!(fetch(&world, true), (STABLE, 5));
}

#[test]
fn what_could_not_be_stored_is_not_committed_and_not_waited_for() {
    let mut world = World::new();
    commit_in(&mut world, P, 5);
    world.fail_next(ErrorCode::InvalidProducerEpoch);
    assert_eq!(fetch(&world, true), (STABLE, -1));
    end(&mut world, P, true);
    assert_eq!(fetch(&world, true), (STABLE, -1));
}

#[test]
fn an_ordinary_commit_that_comes_later_wins_whatever_becomes_of_the_transaction() {
    let mut world = World::new();
    commit_in(&mut world, P, 5);
    world.store_all();
    let request = World::commit_request(&[("t", 0, 9)]);
    let token = world.token();
    world.call(|shard, now, out| shard.commit(&request, token, now, out));
    world.store_all();
    assert_eq!(fetch(&world, true), (STABLE, 9));
    end(&mut world, P, true);
    assert_eq!(fetch(&world, true), (STABLE, 9));
}

#[test]
fn a_group_with_a_pending_offset_neither_expires_nor_is_it_left_behind_when_deleted() {
    let mut world = World::new();
    commit_in(&mut world, P, 5);
    world.store_all();
    world.pass(30_000);
    assert!(world.writes.is_empty());
    let token = world.token();
    world
        .call(|shard, now, out| shard.delete("g", token, now, out))
        .unwrap();
    world.store_all();
    end(&mut world, P, true);
    assert_eq!(fetch(&world, true), (STABLE, -1));
}

#[test]
fn a_member_has_to_be_one_but_a_producer_that_tells_none_may_always_commit() {
    let mut world = World::new();
    let mut request = TxnCommitRequest {
        transaction: InTransaction {
            producer: P,
            verified: Verified::NotAsked,
        },
        commit: World::commit_request(&[("t", 0, 1)]),
    };
    request.commit.generation = 3;
    let token = world.token();
    let (taken, waits) =
        world.call(|shard, now, out| shard.commit_in_transaction(&request, token, now, out));
    assert_eq!(
        (taken[0].1[0].1, waits),
        (ErrorCode::IllegalGeneration, None)
    );
}

/// A batch as it lies in the log.
fn batch(attributes: i16, producer: Producer, key: &[u8], value: Option<&[u8]>) -> BatchHeader {
    let mut batch = RecordBatchBuilder::new();
    batch.push(1, Some(key), value);
    let built = batch
        .producer(producer.id, producer.epoch, 0)
        .attributes(attributes)
        .build();
    BatchHeader::parse(&built).unwrap()
}

#[test]
fn the_next_coordinator_finds_the_pending_offsets_and_the_ends_in_the_log() {
    let mut world = World::new();
    commit_in(&mut world, P, 5);
    let (key, value) = world.writes[0].records[0].clone();
    let transactional = batch(0x10, P, &key, value.as_deref());
    let control = |commit: u8| {
        (
            batch(0x30, P, &[0, 0, 0, commit], Some(&[0; 6])),
            [0, 0, 0, commit],
        )
    };
    for (end, offset) in [(None, -1), (Some(1), 5), (Some(0), -1)] {
        let mut loaded = Loaded::default();
        loaded.apply_of(&transactional, Offset(0), Some(&key), value.as_deref());
        if let Some(commit) = end {
            let (header, key) = control(commit);
            loaded.apply_of(&header, Offset(1), Some(&key), Some(&[0; 6]));
        }
        assert_eq!(loaded.counts().1, 0);
        let mut heir = World::of(loaded);
        let error = if end.is_none() { UNSTABLE } else { STABLE };
        assert_eq!(fetch(&heir, true), (error, offset));
        if end.is_none() {
            super::tests::end(&mut heir, P, true);
            assert_eq!(fetch(&heir, true), (STABLE, 5));
        }
    }
}
