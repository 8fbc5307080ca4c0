//! The cleaner over real logs: on leader and follower, each for itself.

use super::harness::*;
use super::*;
use leasehold_log::batch::{RecordBatchBuilder, batches};
use leasehold_types::{BrokerId, Incarnation, Offset};
use leasehold_wire::ErrorCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);
const KEYS: i64 = 5;

/// Two brokers with a compacted topic of small segments.
async fn compacted() -> Cluster {
    compacted_with(Duration::from_millis(20), "0").await
}

async fn compacted_with(backoff: Duration, min_lag_ms: &str) -> Cluster {
    let cluster = Cluster::start_with(2, 1, |settings| {
        settings.cleaner_backoff = backoff;
    })
    .await;
    cluster.controller.commit(|image| {
        let mut topic = (**image.topic(&TOPIC).unwrap()).clone();
        for (key, value) in [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "2000"),
            ("min.cleanable.dirty.ratio", "0"),
            ("min.compaction.lag.ms", min_lag_ms),
        ] {
            topic.configs.insert(key.to_owned(), value.to_owned());
        }
        image.topics.insert(TOPIC, Arc::new(topic));
    });
    cluster.leader(0).await;
    eventually("the settings are in force", || {
        let log = cluster.broker(0).find(KEY).ok()?.log()?.clone();
        log.config().compact.then_some(())
    })
    .await;
    cluster
}

async fn put(manager: &ReplicaManager, key: Option<&[u8]>, value: i64) -> ProduceResult {
    let mut builder = RecordBatchBuilder::new();
    let value = value.to_string();
    builder.push(produce::now_ms(), key, Some(value.as_bytes()));
    let entry = ProduceEntry {
        records: builder.build(),
        ..entry("")
    };
    manager.append(Acks::All, LONG, vec![entry]).await.remove(0)
}

async fn put_all(manager: &ReplicaManager, from: i64, to: i64) {
    for n in from..to {
        let key = (n % KEYS).to_string();
        let result = put(manager, Some(key.as_bytes()), n).await;
        assert_eq!(result.error, ErrorCode::None, "{result:?}");
        assert_eq!(result.base_offset, Offset(n));
    }
}

/// Key and value of everything that a consumer is given who reads from the start; one batch per fetch.
async fn consume(manager: &ReplicaManager, end: i64) -> Vec<(String, i64)> {
    let mut next = 0;
    let mut seen = Vec::new();
    let text = |bytes: Option<bytes::Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    while next < end {
        let mut entry = fetch_entry(next);
        entry.max_bytes = 1;
        let result = manager
            .fetch(fetch_params(LONG), vec![entry])
            .await
            .remove(0);
        assert_eq!(result.error, ErrorCode::None);
        assert!(!result.records.is_empty(), "nothing at {next} of {end}");
        for batch in batches(result.records) {
            let batch = batch.unwrap();
            assert!(batch.header.next_offset().0 > next);
            next = batch.header.next_offset().0;
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                seen.push((text(record.key), text(record.value).parse().unwrap()));
            }
        }
    }
    seen
}

async fn cleaned(manager: &ReplicaManager, most: u64) {
    eventually("the log is compacted", || {
        let log = manager.find(KEY).ok()?.log()?.clone();
        (manager.counters().cleaner_runs.get() > 0 && log.size() < most).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_for_a_broker_while_it_runs_reaches_its_cleaner_and_its_logs() {
    // The cleaner sleeps until the lag is over, and far beyond.
    let cluster = compacted_with(Duration::from_secs(3600), "2000").await;
    let (leader, follower) = (cluster.broker(0), cluster.broker(1));
    put_all(&leader, 0, 100).await;
    let set = |key: &'static str, value: &'static str| {
        cluster.controller.commit(move |image| {
            let all = Arc::make_mut(&mut image.broker_configs);
            let own = all.entry(BrokerId(0)).or_default();
            own.insert(key.to_owned(), value.to_owned());
        });
    };
    set("retention.ms", "12345");
    let retention = |manager: &ReplicaManager| {
        let log = manager.find(KEY).ok()?.log()?.clone();
        Some(log.config().retention_ms)
    };
    eventually("the broker's own value is in force", || {
        (retention(&leader) == Some(12_345)).then_some(())
    })
    .await;
    assert_ne!(retention(&follower), Some(12_345));
    set("log.cleaner.backoff.ms", "20");
    cleaned(&leader, 6000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_replicas_compact_and_a_follower_that_comes_late_copies_across_the_holes() {
    let cluster = compacted().await;
    // The follower misses it all. Taken out of the ISR while it lived, it would come back.
    cluster.kill(BrokerId(1)).await;
    cluster.controller.fail_over(BrokerId(1), BrokerId(0));
    let leader = cluster.broker(0);
    eventually("it leads in the new epoch", || {
        let state = leader.leads(KEY.0, KEY.1)?;
        (state.epoch == cluster.controller.partition().leader_epoch).then_some(())
    })
    .await;
    put_all(&leader, 0, 400).await;
    // Three segments' worth of what were more than fifteen.
    cleaned(&leader, 6000).await;
    assert_eq!((cluster.log_end(0), cluster.high_watermark(0)), (400, 400));
    let counters = leader.counters();
    assert!(counters.cleaner_bytes_after.get() < counters.cleaner_bytes_before.get());
    assert_eq!(counters.cleaner_failures.get(), 0);

    cluster.boot(BrokerId(1), Incarnation(2)).await;
    let follower = cluster.broker(1);
    eventually("the follower has caught up", || {
        (cluster.log_end(1) == 400).then_some(())
    })
    .await;
    eventually("and is in sync", || {
        (cluster.controller.partition().isr.len() == 2).then_some(())
    })
    .await;
    // More than what the follower got compacted: now it has its own to do.
    put_all(&leader, 400, 600).await;
    cleaned(&follower, 8000).await;

    // It leads now, and serves what it compacted itself.
    cluster.controller.elect(BrokerId(1));
    cluster.leader(1).await;
    for id in [0, 1] {
        assert_eq!(cluster.log_end(id), 600);
    }
    let seen = consume(&follower, 600).await;
    assert!(seen.len() < 200, "{} records", seen.len());
    let last: BTreeMap<String, i64> = seen.into_iter().collect();
    let want = (0..KEYS).map(|k| (k.to_string(), 600 - KEYS + k)).collect();
    assert_eq!(last, want);
}

#[tokio::test]
async fn as_many_logs_are_compacted_at_a_time_as_there_are_threads_and_none_twice() {
    let (one, two) = (KEY, (KEY.0, KEY.1 + 1));
    let mut crew = cleaner::Crew::default();
    let both = Arc::new(tokio::sync::Barrier::new(2));
    for (log, end) in [(one, cleaner::End::Fine), (two, cleaner::End::Failed)] {
        assert!(crew.has_room(2) && !crew.is_at(log));
        let both = both.clone();
        crew.begin(log, async move {
            both.wait().await;
            end
        });
        assert!(crew.is_at(log) && !crew.has_room(1));
    }
    assert!(!crew.has_room(2) && crew.has_room(3));
    let mut ended = BTreeMap::new();
    for _ in 0..2 {
        let (log, end) = tokio::time::timeout(LONG, crew.ended())
            .await
            .expect("both run");
        ended.insert(log.1, end);
        assert!(!crew.is_at(log));
    }
    let want = [(one.1, cleaner::End::Fine), (two.1, cleaner::End::Failed)];
    assert_eq!(ended, want.into());
    assert!(crew.has_room(1));
    // A compaction that panics gives its log back.
    crew.begin(one, async { panic!("on purpose") });
    assert_eq!(crew.ended().await, (one, cleaner::End::Failed));
    assert!(crew.has_room(1) && !crew.is_at(one));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_many_logs_are_compacted_at_a_time_can_be_set_while_the_broker_runs() {
    let cluster = compacted().await;
    let leader = cluster.broker(0);
    assert_eq!(leader.cleaner_threads(), 1);
    cluster.controller.commit(move |image| {
        let all = Arc::make_mut(&mut image.broker_configs);
        let own = all.entry(BrokerId(0)).or_default();
        own.insert("log.cleaner.threads".to_owned(), "2".to_owned());
    });
    eventually("the broker's own value is in force", || {
        (leader.cleaner_threads() == 2).then_some(())
    })
    .await;
    assert_eq!(cluster.broker(1).cleaner_threads(), 1);
    put_all(&leader, 0, 100).await;
    cleaned(&leader, 6000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_refuses_a_record_without_a_key() {
    let cluster = compacted().await;
    let refused = put(&cluster.broker(0), None, 1).await;
    assert_eq!(refused.error, ErrorCode::InvalidRecord);
    assert_eq!(cluster.log_end(0), 0);
}
