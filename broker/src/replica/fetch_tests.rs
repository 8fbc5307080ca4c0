//! What Fetch, ListOffsets and OffsetForLeaderEpoch promise to clients.

use super::harness::*;
use super::offsets::{EARLIEST, EARLIEST_LOCAL, LATEST, LATEST_TIERED, MAX_TIMESTAMP};
use super::*;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);

async fn one_broker() -> Cluster {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_fetch_is_woken_by_the_commit_not_by_time() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let waiting = {
        let manager = manager.clone();
        tokio::spawn(async move { fetch(&manager, 0, LONG).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    produce_ok(&manager, Acks::All, "a").await;
    let result = waiting.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(values(result.records), [(0, "a".to_owned())]);
    assert_eq!(result.high_watermark, Offset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_answer_comes_at_max_wait_and_not_before() {
    let cluster = one_broker().await;
    let began = Instant::now();
    let result = fetch(&cluster.broker(0), 0, Duration::from_millis(200)).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!((result.error, result.records.len()), (ErrorCode::None, 0));
}

/// Broker 1 is behind by 20 batches of 5 kB, and broker 0 may send it 20 kB each second if `moves`.
async fn one_behind(moves: bool) -> (Cluster, Duration) {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    cluster.cut(1);
    for _ in 0..20 {
        produce_ok(&cluster.broker(0), Acks::Leader, &"x".repeat(5000)).await;
    }
    // Only now, as it would have been let in again while it had everything.
    cluster.controller.change(KEY, |partition| {
        partition.isr = vec![BrokerId(0)];
        partition.balancing = moves;
        if moves {
            partition.adding = vec![BrokerId(1)];
        }
    });
    cluster
        .controller
        .commit(|image| image.balancing.bytes_per_second = Some(20_000));
    cluster.tell().await;
    let began = Instant::now();
    cluster.mend(1);
    eventually("broker 1 has caught up", || {
        cluster.controller.partition().isr.get(1).map(drop)
    })
    .await;
    (cluster, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_of_a_move_gets_what_the_limit_allows_and_anyone_else_all_at_once() {
    let (cluster, took) = one_behind(true).await;
    // 100 kB: the first second's worth at once, then an answer that is held against the next.
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    // In sync it is waited for, and not held back.
    let began = Instant::now();
    for _ in 0..20 {
        produce_ok(&cluster.broker(0), Acks::All, &"x".repeat(5000)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(4));
    drop(cluster);
    let (_, took) = one_behind(false).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// How long broker 1, which is behind by 100 kB, takes to catch up where `rate` is 10 kB each second for all
/// brokers, and the topic's `list` names the pair.
async fn throttled(rate: &str, list: &str, pair: &str) -> Duration {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    cluster.cut(1);
    for _ in 0..20 {
        produce_ok(&cluster.broker(0), Acks::Leader, &"x".repeat(5000)).await;
    }
    cluster
        .controller
        .change(KEY, |partition| partition.isr = vec![BrokerId(0)]);
    cluster.controller.commit(|image| {
        let rate = [(rate.to_owned(), "10000".to_owned())];
        image.cluster_configs = Arc::new(rate.into());
        let mut topic = (**image.topic(&KEY.0).unwrap()).clone();
        topic.configs.insert(list.to_owned(), pair.to_owned());
        image.topics.insert(KEY.0, Arc::new(topic));
    });
    cluster.tell().await;
    let began = Instant::now();
    cluster.mend(1);
    eventually("broker 1 has caught up", || {
        cluster.controller.partition().isr.get(1).map(drop)
    })
    .await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_its_topic_names_gets_no_more_than_the_rates_that_kafka_knows() {
    let rates = [
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
    ];
    let lists = [
        "leader.replication.throttled.replicas",
        "follower.replication.throttled.replicas",
    ];
    let cases = [
        (rates[0], lists[0], "0:0", true),
        (rates[0], lists[0], "*", true),
        (rates[1], lists[1], "0:1", true),
        // Another replica, another partition, the other side.
        (rates[0], lists[0], "0:1,1:0", false),
        (rates[1], lists[1], "0:0,1:1", false),
        (rates[1], lists[0], "*", false),
    ];
    let all = cases.map(|(rate, list, pair, held)| async move {
        (throttled(rate, list, pair).await, held, rate, pair)
    });
    for (took, held, rate, pair) in futures::future::join_all(all).await {
        // 100 kB, of which a second's worth and an answer go at once.
        let fits = match held {
            true => took >= Duration::from_secs(7) && took < Duration::from_secs(40),
            false => took < Duration::from_secs(6),
        };
        assert!(fits, "{rate} {pair}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_answered_at_once() {
    let cluster = one_broker().await;
    let began = Instant::now();
    for wrong in [5, -1] {
        let result = fetch(&cluster.broker(0), wrong, LONG).await;
        assert_eq!(result.error, ErrorCode::OffsetOutOfRange);
    }
    let mut unknown = fetch_entry(0);
    unknown.partition = 7;
    let results = cluster
        .broker(0)
        .fetch(fetch_params(LONG), vec![fetch_entry(0), unknown])
        .await;
    assert_eq!(results[0].error, ErrorCode::None);
    assert_eq!(results[1].error, ErrorCode::UnknownTopicOrPartition);
    assert!(began.elapsed() < LONG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_leader_ends_a_parked_fetch_with_a_hint() {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let waiting = tokio::spawn(async move { fetch(&manager, 0, LONG).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.controller.elect(BrokerId(1));
    let result = waiting.await.unwrap();
    assert_eq!(result.error, ErrorCode::NotLeaderOrFollower);
    assert_eq!(result.current_leader.unwrap().leader, Some(BrokerId(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn min_bytes_is_waited_for_and_all_of_it_is_returned_in_order() {
    let cluster = one_broker().await;
    let manager = cluster.broker(0);
    let waiting = {
        let manager = manager.clone();
        let mut params = fetch_params(LONG);
        params.min_bytes = 3 * batch("x").len();
        tokio::spawn(async move { manager.fetch(params, vec![fetch_entry(0)]).await.remove(0) })
    };
    for value in ["a", "b", "c"] {
        assert!(!waiting.is_finished());
        produce_ok(&manager, Acks::All, value).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let texts: Vec<_> = values(waiting.await.unwrap().records)
        .into_iter()
        .map(|v| v.1)
        .collect();
    assert_eq!(texts, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whole_batch_comes_even_past_every_limit() {
    let cluster = one_broker().await;
    let manager = cluster.broker(0);
    let large = "x".repeat(5000);
    produce_ok(&manager, Acks::All, &large).await;
    produce_ok(&manager, Acks::All, &large).await;
    let mut params = fetch_params(LONG);
    params.max_bytes = 10;
    let mut entry = fetch_entry(0);
    entry.max_bytes = 10;
    let result = manager.fetch(params, vec![entry]).await.remove(0);
    assert_eq!(values(result.records).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_epoch_that_a_client_believes_in_is_checked() {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    cluster.controller.elect(BrokerId(1));
    let manager = cluster.broker(1);
    cluster.leader(1).await;
    for (epoch, error) in [
        (0, ErrorCode::FencedLeaderEpoch),
        (1, ErrorCode::None),
        (2, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut entry = fetch_entry(0);
        entry.current_leader_epoch = Some(LeaderEpoch(epoch));
        let fetched = manager
            .fetch(fetch_params(Duration::ZERO), vec![entry])
            .await;
        assert_eq!(fetched[0].error, error);
        let listed = manager
            .list_offsets(KEY, Some(LeaderEpoch(epoch)), EARLIEST, false)
            .await;
        assert_eq!(listed.err().map_or(ErrorCode::None, |e| e.error), error);
    }
    assert!(
        cluster.broker(1).leads(KEY.0, KEY.1).is_some(),
        "a client deposes nobody"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_log_parted_from_ours_is_told_where() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    produce_ok(&manager, Acks::All, "epoch 0").await;
    for _ in 0..2 {
        cluster.controller.elect(BrokerId(0));
    }
    eventually("it leads in epoch 2", || {
        let state = manager.leads(KEY.0, KEY.1)?;
        (state.epoch == LeaderEpoch(2)).then_some(())
    })
    .await;
    produce_ok(&manager, Acks::All, "epoch 2").await;
    let mut entry = fetch_entry(2);
    entry.last_fetched_epoch = Some(LeaderEpoch(0));
    let result = manager
        .fetch(fetch_params(LONG), vec![entry])
        .await
        .remove(0);
    assert_eq!(result.error, ErrorCode::None);
    assert_eq!(result.diverging_epoch, Some((LeaderEpoch(0), Offset(1))));
    assert!(result.records.is_empty());
    let end = |epoch| manager.offset_for_leader_epoch(KEY, None, LeaderEpoch(epoch));
    assert_eq!(end(0).await, Ok((LeaderEpoch(0), Offset(1))));
    assert_eq!(end(2).await, Ok((LeaderEpoch(2), Offset(2))));
    assert_eq!(end(9).await, Ok((LeaderEpoch::NONE, Offset(-1))));
    assert_eq!(end(-1).await, Ok((LeaderEpoch::NONE, Offset(-1))));
}

/// As between the start of a process and the first image that shows it registered: clients ask by what the newest
/// image says, and take "unknown" as final.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_an_image_that_is_not_acted_on_yet_is_not_led_here_rather_than_unknown() {
    let cluster = one_broker().await;
    let manager = cluster.broker(0);
    let new = TopicId(uuid::Uuid::from_u128(0xcafe));
    cluster.controller.commit(|image| {
        // Not this process any more: it acts on none of what follows.
        let mut broker = (**image.broker(BrokerId(0)).unwrap()).clone();
        broker.incarnation = Incarnation(99);
        image.brokers.insert(BrokerId(0), Arc::new(broker));
        let mut topic = (**image.topic(&TOPIC).unwrap()).clone();
        (topic.id, topic.name) = (new, "new".into());
        image.topics.insert(new, Arc::new(topic));
    });
    let list = |key| manager.list_offsets(key, None, LATEST, false);
    let refused = list((new, 0)).await.unwrap_err();
    assert_eq!(refused.error, ErrorCode::NotLeaderOrFollower);
    assert!(refused.current_leader.is_some());
    for unknown in [(new, 1), (TopicId(uuid::Uuid::from_u128(7)), 0)] {
        let refused = list(unknown).await.unwrap_err();
        assert_eq!(refused.error, ErrorCode::UnknownTopicOrPartition);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_offsets_answers_every_special_timestamp() {
    let cluster = one_broker().await;
    let manager = cluster.broker(0);
    for value in ["a", "b"] {
        produce_ok(&manager, Acks::All, value).await;
    }
    let list = |timestamp| {
        let manager = manager.clone();
        async move {
            manager
                .list_offsets(KEY, None, timestamp, false)
                .await
                .unwrap()
        }
    };
    assert_eq!(list(LATEST).await.offset, Offset(2));
    assert_eq!(list(EARLIEST).await.offset, Offset(0));
    assert_eq!(list(EARLIEST_LOCAL).await.offset, Offset(0));
    assert_eq!(list(LATEST_TIERED).await.offset, Offset(-1));
    assert!(list(MAX_TIMESTAMP).await.timestamp > 0);
    assert_eq!(list(0).await.offset, Offset(0));
    assert_eq!(list(i64::MAX).await.offset, Offset(-1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_offset_is_withheld_until_the_high_watermark_reaches_the_epochs_start() {
    let cluster = Cluster::start(2, 2).await;
    cluster.leader(0).await;
    cluster.cut(1);
    // Appended, and committed nowhere.
    assert_eq!(
        produce(&cluster.broker(0), Acks::Leader, "a").await.error,
        ErrorCode::None
    );
    cluster.controller.elect(BrokerId(0));
    let manager = cluster.broker(0);
    eventually("it leads in epoch 1", || {
        let state = manager.leads(KEY.0, KEY.1)?;
        (state.epoch == LeaderEpoch(1)).then_some(())
    })
    .await;
    let withheld = manager
        .list_offsets(KEY, None, LATEST, false)
        .await
        .unwrap_err();
    assert_eq!(withheld.error, ErrorCode::OffsetNotAvailable);
    cluster.mend(1);
    eventually("the follower catches up", || {
        (cluster.high_watermark(0) == 1).then_some(())
    })
    .await;
    let latest = manager
        .list_offsets(KEY, None, LATEST, false)
        .await
        .unwrap();
    assert_eq!(latest.offset, Offset(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_newer_epoch_stops_the_leader_before_the_image_does() {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let mut params = fetch_params(LONG);
    params.replica = Some((BrokerId(1), leasehold_types::Incarnation(1)));
    let mut entry = fetch_entry(0);
    entry.current_leader_epoch = Some(LeaderEpoch(1));
    let result = manager.fetch(params, vec![entry]).await.remove(0);
    assert_eq!(result.error, ErrorCode::UnknownLeaderEpoch);
    assert_eq!(manager.leads(KEY.0, KEY.1), None);
    let refused = produce(&manager, Acks::All, "a").await;
    assert_eq!(refused.error, ErrorCode::NotLeaderOrFollower);
    cluster.controller.elect(BrokerId(0));
    cluster.leader(0).await;
}
