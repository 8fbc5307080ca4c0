//! A disk that is nearly full, seen from outside.

use super::harness::*;
use super::*;
use leasehold_types::{BrokerId, LeaderEpoch};
use leasehold_wire::ErrorCode;
use std::time::Duration;

const MIN: u64 = 1 << 20;

async fn cluster(brokers: i32) -> Cluster {
    let cluster = Cluster::start_with(brokers, 1, |settings| {
        settings.min_free_bytes = MIN;
        settings.replica_lag_time_max = Duration::from_millis(300);
    })
    .await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "first").await;
    cluster
}

/// Says how much is free, and again whenever the broker looks by itself.
fn pretend(cluster: &Cluster, id: i32, free: u64) {
    cluster.broker(id).disks().spaces()[0].pretend(free);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_are_refused_with_an_error_that_they_repeat_and_taken_again_by_themselves() {
    let cluster = cluster(1).await;
    let leader = cluster.broker(0);
    pretend(&cluster, 0, MIN - 1);
    for acks in [Acks::All, Acks::Leader] {
        let refused = produce(&leader, acks, "refused").await;
        assert_eq!(refused.error, ErrorCode::KafkaStorageError);
        let message = refused.message.unwrap();
        assert!(message.contains("log.dir.min.free.bytes"), "{message}");
    }
    assert_eq!(cluster.log_end(0), 1);
    // Reads go on, the partition is led, and the group coordinator is not stopped.
    let seen = fetch(&leader, 0, Duration::ZERO).await;
    assert_eq!(values(seen.records).len(), 1);
    let own = ProduceEntry {
        leader_epoch: Some(LeaderEpoch(0)),
        verified: Verified::NotAsked,
        ..entry("a group's")
    };
    let own = leader
        .append(Acks::All, Duration::from_secs(10), vec![own])
        .await;
    assert_eq!(own[0].error, ErrorCode::None);
    pretend(&cluster, 0, 2 * MIN);
    produce_ok(&leader, Acks::All, "taken").await;
    let none = tokio::time::timeout(Duration::from_millis(50), leader.storage_failure()).await;
    assert!(none.is_err(), "{none:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_leaves_the_isr_and_comes_back_with_all_records() {
    let cluster = cluster(2).await;
    pretend(&cluster, 1, 0);
    // Committed once the follower is out.
    produce_ok(&cluster.broker(0), Acks::All, "second").await;
    assert_eq!(cluster.controller.partition().isr, [BrokerId(0)]);
    assert_eq!(cluster.log_end(1), 1);
    pretend(&cluster, 1, 2 * MIN);
    eventually("broker 1 is back in the ISR", || {
        (cluster.controller.partition().isr.len() == 2).then_some(())
    })
    .await;
    assert_eq!(cluster.same_logs(&[0, 1]).await.len(), 2);
}
