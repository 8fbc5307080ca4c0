//! What reading from the closest replica promises.

use super::harness::*;
use super::*;
use leasehold_types::{BrokerId, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);

/// Three brokers, each in the rack of its number, that send consumers to their racks.
async fn racks(tune: impl FnOnce(&mut ReplicaSettings)) -> Cluster {
    let cluster = Cluster::start_with(3, 2, |settings| {
        settings.closest_replica = true;
        tune(settings);
    })
    .await;
    cluster.controller.commit(|image| {
        for (id, broker) in image.brokers.clone() {
            let mut broker = (*broker).clone();
            broker.rack = Some(id.0.to_string());
            image.brokers.insert(id, Arc::new(broker));
        }
    });
    cluster.leader(0).await;
    cluster
}

async fn read(manager: &ReplicaManager, rack: &str, offset: i64, wait: Duration) -> FetchResult {
    let reader = Reader::Near {
        rack: Some(rack.to_owned()),
    };
    let entries = vec![fetch_entry(offset)];
    manager
        .fetch_for(reader, fetch_params(wait), entries)
        .await
        .remove(0)
}

/// Reads as `rack` from the leader until it names `replica`.
async fn sent_to(cluster: &Cluster, rack: &str, offset: i64, replica: i32) -> FetchResult {
    let end = Instant::now() + LONG;
    loop {
        let result = read(&cluster.broker(0), rack, offset, Duration::ZERO).await;
        if result.preferred_replica == Some(BrokerId(replica)) {
            return result;
        }
        assert!(Instant::now() < end, "{result:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_sent_to_its_rack_and_reads_there_to_the_high_watermark() {
    let cluster = racks(|_| {}).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    let sent = sent_to(&cluster, "2", 0, 2).await;
    assert_eq!((sent.error, sent.records.len()), (ErrorCode::None, 0));
    let own = read(&cluster.broker(0), "0", 0, LONG).await;
    assert_eq!(values(own.records), [(0, "a".to_owned())]);
    let far = read(&cluster.broker(0), "elsewhere", 0, LONG).await;
    assert_eq!(
        (far.preferred_replica, values(far.records).len()),
        (None, 1)
    );
    let near = read(&cluster.broker(2), "2", 0, LONG).await;
    assert_eq!(near.error, ErrorCode::None);
    assert_eq!(values(near.records), [(0, "a".to_owned())]);
    // One that cannot know of followers is told to go to the leader.
    let old = fetch(&cluster.broker(2), 0, LONG).await;
    assert_eq!(old.error, ErrorCode::NotLeaderOrFollower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_shows_nothing_above_the_high_watermark() {
    let cluster = racks(|_| {}).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    eventually("it is known as committed", || {
        (cluster.high_watermark(1) == 1).then_some(())
    })
    .await;
    // Without broker 2, which is in the ISR, nothing more is committed.
    cluster.cut(2);
    let pending = append(&cluster.broker(0), Acks::All, "b");
    eventually("the follower has it", || {
        (cluster.log_end(1) == 2).then_some(())
    })
    .await;
    let all = read(&cluster.broker(1), "1", 0, LONG).await;
    assert_eq!(values(all.records), [(0, "a".to_owned())]);
    let none = read(&cluster.broker(1), "1", 1, Duration::from_millis(50)).await;
    assert_eq!((none.error, none.records.len()), (ErrorCode::None, 0));
    let beyond = read(&cluster.broker(1), "1", 3, LONG).await;
    assert_eq!(beyond.error, ErrorCode::OffsetOutOfRange);
    drop(pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_and_their_readers_hear_of_a_commit_without_delay() {
    // Were it left to the next fetch, it would come after a minute.
    let cluster = racks(|settings| settings.fetch_wait_max = Duration::from_secs(60)).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    sent_to(&cluster, "1", 0, 1).await;
    let manager = cluster.broker(1);
    let waiting = tokio::spawn(async move { read(&manager, "1", 1, LONG * 3).await });
    let began = Instant::now();
    produce_ok(&cluster.broker(0), Acks::All, "b").await;
    let result = waiting.await.unwrap();
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert_eq!(values(result.records), [(0, "b".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_sent_to_a_follower_that_lags_or_is_silent() {
    let cluster = racks(|settings| settings.session_timeout = Duration::from_millis(500)).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    sent_to(&cluster, "2", 0, 2).await;
    let beyond = read(&cluster.broker(0), "2", 5, LONG).await;
    assert_eq!(beyond.preferred_replica, None);
    cluster.cut(2);
    eventually("it is silent for too long", || {
        let leader = cluster.broker(0);
        let partition = leader.find(KEY).unwrap();
        leader
            .closest(&partition, Some("2"), Offset(0))
            .is_none()
            .then_some(())
    })
    .await;
    // And it sends back to the leader whoever it serves still.
    let end = Instant::now() + LONG;
    while read(&cluster.broker(2), "2", 0, Duration::ZERO).await.error
        != ErrorCode::NotLeaderOrFollower
    {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let led = read(&cluster.broker(0), "2", 0, LONG).await;
    assert_eq!(values(led.records).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_checks_the_leader_epoch_that_a_consumer_believes_in() {
    let cluster = racks(|_| {}).await;
    cluster.controller.elect(BrokerId(1));
    cluster.leader(1).await;
    produce_ok(&cluster.broker(1), Acks::All, "a").await;
    eventually("it follows", || {
        (cluster.high_watermark(2) == 1).then_some(())
    })
    .await;
    let error = async |epoch| {
        let mut entry = fetch_entry(0);
        entry.current_leader_epoch = Some(LeaderEpoch(epoch));
        let params = fetch_params(Duration::ZERO);
        let reader = Reader::Near { rack: None };
        let mut results = cluster
            .broker(2)
            .fetch_for(reader, params, vec![entry])
            .await;
        results.remove(0).error
    };
    assert_eq!(error(0).await, ErrorCode::FencedLeaderEpoch);
    assert_eq!(error(1).await, ErrorCode::None);
    assert_eq!(error(2).await, ErrorCode::UnknownLeaderEpoch);
}
