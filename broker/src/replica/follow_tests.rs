//! What a follower makes of its leader's answers.

use super::follow::{Followed, follow};
use super::harness::*;
use super::partition::Partition;
use super::*;
use bytes::Bytes;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_types::{BrokerId, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

const LEADER: BrokerId = BrokerId(0);

/// Broker 1 of two, which follows broker 0 in epoch 0 but cannot reach it.
async fn follower(cluster: &Cluster) -> Arc<Partition> {
    cluster.leader(0).await;
    cluster.cut(0);
    let manager = cluster.broker(1);
    eventually("broker 1 hosts its replica", || {
        let partition = manager.find(KEY).ok()?;
        partition.log()?;
        Some(partition)
    })
    .await
}

fn asked(epoch: i32, offset: i64) -> FetchEntry {
    FetchEntry {
        current_leader_epoch: Some(LeaderEpoch(epoch)),
        ..fetch_entry(offset)
    }
}

fn records(base: i64, epoch: i32, values: &[&str]) -> Bytes {
    let mut builder = RecordBatchBuilder::new().at(Offset(base), LeaderEpoch(epoch));
    for value in values {
        builder.push(1, None, Some(value.as_bytes()));
    }
    builder.build()
}

fn answer(records: Bytes, high_watermark: i64) -> FetchResult {
    FetchResult {
        high_watermark: Offset(high_watermark),
        log_start_offset: Offset(0),
        records,
        ..FetchResult::failed(KEY.0, KEY.1, ErrorCode::None)
    }
}

fn end(partition: &Partition) -> i64 {
    partition.log().unwrap().log_end_offset().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_continues_the_log_under_the_present_role_is_appended() {
    let cluster = Cluster::start(2, 1).await;
    let partition = follower(&cluster).await;
    let counters = Counters::default();
    let bring =
        |leader, asked: FetchEntry, answer| follow(&partition, leader, &asked, answer, &counters);
    let one = || answer(records(0, 0, &["a"]), 0);
    assert_eq!(bring(LEADER, asked(1, 0), one()), Followed::Badly);
    assert_eq!(bring(BrokerId(7), asked(0, 0), one()), Followed::Badly);
    assert_eq!(bring(LEADER, asked(0, 5), one()), Followed::Badly);
    assert_eq!(end(&partition), 0);
    assert_eq!(bring(LEADER, asked(0, 0), one()), Followed::Well);
    assert_eq!(end(&partition), 1);
    // A late answer to the same question.
    assert_eq!(bring(LEADER, asked(0, 0), one()), Followed::Badly);
    // Damaged on the way.
    let mut damaged = records(1, 0, &["b"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = answer(Bytes::from(damaged), 0);
    assert_eq!(bring(LEADER, asked(0, 1), damaged), Followed::Badly);
    assert_eq!(end(&partition), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_high_watermark_is_the_leaders_but_never_past_the_own_end() {
    let cluster = Cluster::start(2, 1).await;
    let partition = follower(&cluster).await;
    let counters = Counters::default();
    let two = answer(records(0, 0, &["a", "b"]), 9);
    follow(&partition, LEADER, &asked(0, 0), two, &counters);
    assert_eq!(partition.look(|state| state.high_watermark()), Offset(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cut_where_the_epoch_ends_in_either_log() {
    let cluster = Cluster::start(2, 1).await;
    let partition = follower(&cluster).await;
    let counters = Counters::default();
    for (base, epoch) in [(0, 0), (1, 0), (2, 3), (3, 3)] {
        let batch = answer(records(base, epoch, &["x"]), 0);
        follow(&partition, LEADER, &asked(0, base), batch, &counters);
    }
    let diverges = |epoch, end| FetchResult {
        diverging_epoch: Some((LeaderEpoch(epoch), Offset(end))),
        ..answer(Bytes::new(), 0)
    };
    // The leader has no epoch 3; its epoch 2 ends at 9, our greatest below that (0) at 2.
    follow(&partition, LEADER, &asked(0, 4), diverges(2, 9), &counters);
    assert_eq!(end(&partition), 2);
    follow(&partition, LEADER, &asked(0, 2), diverges(0, 1), &counters);
    assert_eq!(end(&partition), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_range_starts_over_only_where_the_leaders_start_explains_it() {
    let cluster = Cluster::start(2, 1).await;
    let partition = follower(&cluster).await;
    let counters = Counters::default();
    let two = answer(records(0, 0, &["a", "b"]), 2);
    follow(&partition, LEADER, &asked(0, 0), two, &counters);
    let beyond = |start| FetchResult {
        error: ErrorCode::OffsetOutOfRange,
        log_start_offset: Offset(start),
        ..answer(Bytes::new(), 100)
    };
    for start in [-1, 0, 2] {
        let kept = follow(&partition, LEADER, &asked(0, 2), beyond(start), &counters);
        assert_eq!(
            (kept, end(&partition)),
            (Followed::Badly, 2),
            "leader's start {start}"
        );
    }
    let over = follow(&partition, LEADER, &asked(0, 2), beyond(50), &counters);
    assert_eq!((over, end(&partition)), (Followed::Well, 50));
    assert_eq!(partition.log().unwrap().log_start_offset(), Offset(50));
    assert_eq!(partition.look(|state| state.high_watermark()), Offset(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_the_leader_deleted_are_deleted_here() {
    let cluster = Cluster::start(2, 1).await;
    let partition = follower(&cluster).await;
    let counters = Counters::default();
    let two = answer(records(0, 0, &["a", "b"]), 2);
    follow(&partition, LEADER, &asked(0, 0), two, &counters);
    let shorter = FetchResult {
        log_start_offset: Offset(1),
        ..answer(Bytes::new(), 2)
    };
    assert_eq!(
        follow(&partition, LEADER, &asked(0, 2), shorter, &counters),
        Followed::Well
    );
    assert_eq!(partition.log().unwrap().log_start_offset(), Offset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_begins_in_the_midst_of_a_batch_can_be_followed_from_nothing() {
    let cluster = Cluster::start(2, 1).await;
    let partition = follower(&cluster).await;
    let counters = Counters::default();
    let bring = |offset, answer| follow(&partition, LEADER, &asked(0, offset), answer, &counters);
    let beyond = FetchResult {
        error: ErrorCode::OffsetOutOfRange,
        log_start_offset: Offset(50),
        ..answer(Bytes::new(), 52)
    };
    assert_eq!(bring(0, beyond), Followed::Well);
    let after_deletion = |records| FetchResult {
        log_start_offset: Offset(50),
        ..answer(records, 52)
    };
    // What does not reach it is not what was asked for.
    let short = after_deletion(records(48, 0, &["a", "b"]));
    assert_eq!(bring(50, short), Followed::Badly);
    assert_eq!(end(&partition), 50);
    let whole = after_deletion(records(48, 0, &["a", "b", "c", "d"]));
    assert_eq!(bring(50, whole), Followed::Well);
    assert_eq!(end(&partition), 52);
    assert_eq!(partition.log().unwrap().log_start_offset(), Offset(50));
    assert_eq!(partition.look(|state| state.high_watermark()), Offset(52));
}
