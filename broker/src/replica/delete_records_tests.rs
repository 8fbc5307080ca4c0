//! What DeleteRecords promises, over real logs.

use super::harness::*;
use super::offsets::EARLIEST;
use super::*;
use leasehold_types::{BrokerId, Incarnation, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const B0: BrokerId = BrokerId(0);
const B1: BrokerId = BrokerId(1);
const LONG: Duration = Duration::from_secs(10);
const BRIEF: Duration = Duration::from_millis(300);

async fn delete(manager: &ReplicaManager, before: i64, timeout: Duration) -> DeletedRecords {
    let wanted = vec![(KEY, Offset(before))];
    manager.delete_records(wanted, timeout).await.remove(0)
}

fn done(low: i64) -> DeletedRecords {
    DeletedRecords {
        error: ErrorCode::None,
        low_watermark: Offset(low),
    }
}

fn log_start(cluster: &Cluster, id: i32) -> i64 {
    let status = cluster.broker(id).status();
    status.partitions.first().map_or(-1, |p| p.log_start.0)
}

async fn filled(brokers: i32, records: i64) -> Cluster {
    let cluster = Cluster::start(brokers, 1).await;
    cluster.leader(0).await;
    for n in 0..records {
        produce_ok(&cluster.broker(0), Acks::All, &n.to_string()).await;
    }
    cluster
}

async fn earliest(manager: &ReplicaManager) -> i64 {
    let found = manager.list_offsets(KEY, None, EARLIEST, false).await;
    found.unwrap().offset.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_comes_once_every_live_replica_begins_there() {
    let cluster = filled(3, 10).await;
    let leader = cluster.broker(0);
    let began = Instant::now();
    assert_eq!(delete(&leader, 4, LONG).await, done(4));
    // The followers' fetches were waiting for records, half a second each.
    assert!(
        began.elapsed() < Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    assert_eq!([0, 1, 2].map(|id| log_start(&cluster, id)), [4, 4, 4]);
    assert_eq!(earliest(&leader).await, 4);
    let below = fetch(&leader, 3, Duration::ZERO).await;
    assert_eq!(below.error, ErrorCode::OffsetOutOfRange);
    let first = fetch(&leader, 4, LONG).await;
    assert_eq!(
        (first.error, first.log_start_offset),
        (ErrorCode::None, Offset(4))
    );
    assert_eq!(values(first.records)[0].1, "4");
    // Below it there is nothing left to delete; that is no error.
    assert_eq!(delete(&leader, 2, LONG).await, done(4));
    assert_eq!(delete(&leader, -1, LONG).await, done(10));
    assert_eq!(earliest(&leader).await, 10);
    assert_eq!(produce_ok(&leader, Acks::All, "more").await, 10);
    let log = cluster.same_logs(&[0, 1, 2]).await;
    assert_eq!(log, [(0, "more".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_committed_can_be_deleted() {
    let cluster = filled(2, 3).await;
    cluster.cut(1);
    let leader = cluster.broker(0);
    let uncommitted = leader.append(Acks::Leader, LONG, vec![entry("uncommitted")]);
    assert_eq!(uncommitted.await[0].error, ErrorCode::None);
    assert_eq!(cluster.log_end(0), 4);
    for before in [4, 5, -2, i64::MAX, i64::MIN] {
        let refused = delete(&leader, before, BRIEF).await;
        assert_eq!(refused.error, ErrorCode::OffsetOutOfRange, "{before}");
    }
    assert_eq!(log_start(&cluster, 0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_replica_that_does_not_follow_is_waited_for_until_the_time_is_up() {
    let cluster = filled(3, 5).await;
    cluster.cut(2);
    let leader = cluster.broker(0);
    let late = delete(&leader, 3, BRIEF).await;
    assert_eq!(late.error, ErrorCode::RequestTimedOut);
    assert_eq!(log_start(&cluster, 0), 3, "it is done here all the same");
    let waiting = tokio::spawn(async move { delete(&leader, 3, LONG).await });
    cluster.mend(2);
    assert_eq!(waiting.await.unwrap(), done(3));
    assert_eq!(log_start(&cluster, 2), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replica_is_not_waited_for_and_begins_there_when_it_is_back() {
    let cluster = filled(3, 5).await;
    cluster.kill(BrokerId(2)).await;
    let leader = cluster.broker(0);
    let waiting = tokio::spawn(async move { delete(&leader, 3, LONG).await });
    eventually("it is done on broker 1", || {
        (log_start(&cluster, 1) == 3).then_some(())
    })
    .await;
    assert!(!waiting.is_finished(), "broker 2 counts as alive");
    cluster.controller.commit(|image| {
        let mut broker = (**image.broker(BrokerId(2)).unwrap()).clone();
        broker.fenced = true;
        image.brokers.insert(broker.id, Arc::new(broker));
    });
    assert_eq!(waiting.await.unwrap(), done(3));
    cluster.boot(BrokerId(2), Incarnation(2)).await;
    eventually("broker 2 begins there too", || {
        (log_start(&cluster, 2) == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_stay_deleted_through_a_change_of_leader_and_a_restart() {
    let cluster = filled(3, 8).await;
    assert_eq!(delete(&cluster.broker(0), 6, LONG).await, done(6));
    cluster.kill(B0).await;
    cluster.controller.fail_over(B0, B1);
    cluster.leader(1).await;
    assert_eq!(earliest(&cluster.broker(1)).await, 6);
    cluster.boot(B0, Incarnation(2)).await;
    eventually("broker 0 is back in the ISR", || {
        (cluster.controller.partition().isr.len() == 3).then_some(())
    })
    .await;
    assert_eq!(log_start(&cluster, 0), 6);
    cluster.controller.elect(B0);
    cluster.leader(0).await;
    assert_eq!(earliest(&cluster.broker(0)).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_hears_of_a_change_of_leader() {
    let cluster = filled(2, 3).await;
    cluster.cut(1);
    let leader = cluster.broker(0);
    let waiting = tokio::spawn(async move { delete(&leader, 2, LONG).await });
    eventually("it is done here", || {
        (log_start(&cluster, 0) == 2).then_some(())
    })
    .await;
    cluster.controller.elect(B1);
    assert_eq!(waiting.await.unwrap().error, ErrorCode::NotLeaderOrFollower);
    let refused = delete(&cluster.broker(0), 2, LONG).await;
    assert_eq!(refused.error, ErrorCode::NotLeaderOrFollower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_only_compacted_keeps_its_records() {
    let cluster = filled(1, 3).await;
    let leader = cluster.broker(0);
    for (policy, error) in [
        ("compact", ErrorCode::PolicyViolation),
        ("compact,delete", ErrorCode::None),
    ] {
        cluster.controller.commit(|image| {
            let mut topic = (**image.topic(&TOPIC).unwrap()).clone();
            topic.configs.insert("cleanup.policy".into(), policy.into());
            image.topics.insert(TOPIC, Arc::new(topic));
        });
        let both = policy.contains("delete");
        let log = leader.find(KEY).unwrap().log().unwrap().clone();
        eventually("the policy is known", || {
            let config = log.config();
            (config.compact && config.delete == both).then_some(())
        })
        .await;
        assert_eq!(delete(&leader, 1, LONG).await.error, error, "{policy}");
    }
}
