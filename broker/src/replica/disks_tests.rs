//! Brokers with two log directories each, of which one fails.

use super::harness::*;
use super::*;
use bytes::Bytes;
use leasehold_log::ProducerId;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_metadata::image::Partition;
use leasehold_types::{BrokerId, Incarnation};
use leasehold_wire::ErrorCode;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const B0: BrokerId = BrokerId(0);
const B1: BrokerId = BrokerId(1);
const OTHER: PartitionKey = (TOPIC, 1);

/// Two brokers with two directories each, and a topic of two partitions, which lie in different ones. Broker
/// 0 leads both.
async fn cluster(min_free: u64) -> Cluster {
    let cluster = Cluster::start_on(&["a", "b"], 2, 1, |settings| {
        settings.min_free_bytes = min_free;
        settings.checkpoint_interval = Duration::from_millis(20);
    })
    .await;
    cluster.controller.commit(|image| {
        let mut topic = (**image.topic(&TOPIC).unwrap()).clone();
        let second = Partition::clone(&topic.partitions[0]);
        topic.partitions.push(Arc::new(second));
        image.topics.insert(TOPIC, Arc::new(topic));
    });
    for key in [KEY, OTHER] {
        eventually("broker 0 leads", || cluster.broker(0).leads(key.0, key.1)).await;
        assert_eq!(put(&cluster, 0, key, "first").await, ErrorCode::None);
    }
    assert_ne!(home(&cluster, 0, KEY), home(&cluster, 0, OTHER));
    cluster
}

fn of(key: PartitionKey, records: Bytes) -> ProduceEntry {
    ProduceEntry {
        partition: key.1,
        records,
        ..entry("")
    }
}

async fn send(cluster: &Cluster, id: i32, key: PartitionKey, records: Bytes) -> ErrorCode {
    let entries = vec![of(key, records)];
    let wait = Duration::from_secs(10);
    let done = cluster.broker(id).append(Acks::All, wait, entries).await;
    done[0].error
}

async fn put(cluster: &Cluster, id: i32, key: PartitionKey, value: &str) -> ErrorCode {
    send(cluster, id, key, batch(value)).await
}

/// The directory of a replica.
fn home(cluster: &Cluster, id: i32, key: PartitionKey) -> PathBuf {
    let partition = cluster.broker(id).find(key).unwrap();
    partition.place().unwrap().dir.path().to_owned()
}

/// Has the checkpoint of high watermarks fail in a directory.
fn break_it(directory: PathBuf) {
    let name = directory.join("high-watermarks.tmp");
    // One that is being written has the name for a moment.
    while let Err(error) = std::fs::create_dir(&name) {
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        std::thread::yield_now();
    }
}

fn role(cluster: &Cluster, id: i32, key: PartitionKey) -> &'static str {
    let status = cluster.broker(id).status();
    let found = status.partitions.iter().find(|p| p.partition == key.1);
    found.map_or("none", |p| p.role)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_fails_takes_its_replicas_and_no_others_and_nothing_acknowledged() {
    let cluster = cluster(0).await;
    let broker = cluster.broker(0);
    let failure = broker.storage_failure();
    tokio::pin!(failure);
    let mut failures = broker.watch_failures();
    break_it(home(&cluster, 0, KEY));
    // The watermark moves until the checkpoint fails, and then nobody is served there.
    let mut acknowledged = 1;
    eventually_refused(&cluster, &mut acknowledged).await;
    failures.changed().await.unwrap();
    eventually("it is told", || {
        (broker.untold_failures() == [KEY]).then_some(())
    })
    .await;
    let read = fetch(&broker, 0, Duration::ZERO).await;
    assert_eq!(read.error, ErrorCode::KafkaStorageError);
    assert_eq!(put(&cluster, 0, OTHER, "goes on").await, ErrorCode::None);
    assert_eq!(
        (role(&cluster, 0, KEY), role(&cluster, 0, OTHER)),
        ("offline", "leader")
    );
    let online: Vec<bool> = broker.disks().status().iter().map(|d| d.online).collect();
    assert_eq!(online.iter().filter(|online| **online).count(), 1);
    // Others lead, and have it all.
    cluster.controller.change(KEY, |partition| {
        partition.isr = vec![B1];
        partition.offline = vec![B0];
        partition.leader = Some(B1);
        partition.leader_epoch = partition.leader_epoch.next();
    });
    eventually("broker 1 leads", || cluster.broker(1).leads(KEY.0, KEY.1)).await;
    assert!(cluster.values(1).len() >= acknowledged);
    assert_eq!(put(&cluster, 1, KEY, "taken over").await, ErrorCode::None);
    eventually("told", || broker.untold_failures().is_empty().then_some(())).await;
    let none = tokio::time::timeout(Duration::from_millis(50), &mut failure).await;
    assert!(none.is_err(), "{none:?}");
    // The last one gone, the broker must end.
    break_it(home(&cluster, 0, OTHER));
    while put(&cluster, 0, OTHER, "more").await == ErrorCode::None {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = failure.await;
    assert!(told.contains("no log directory is left"), "{told}");
}

async fn eventually_refused(cluster: &Cluster, acknowledged: &mut usize) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match put(cluster, 0, KEY, "more").await {
            ErrorCode::None => *acknowledged += 1,
            // Those that waited for the follower are told that this broker leads no more.
            ErrorCode::NotLeaderOrFollower => {}
            error => {
                assert_eq!(error, ErrorCode::KafkaStorageError);
                return;
            }
        }
        assert!(std::time::Instant::now() < end, "never refused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_out_of_service_is_not_begun_anew_beside_what_it_had() {
    let cluster = cluster(0).await;
    let gone = home(&cluster, 0, KEY);
    cluster.controller.change(KEY, |partition| {
        partition.isr = vec![B1];
        partition.offline = vec![B0];
        partition.leader = Some(B1);
        partition.leader_epoch = partition.leader_epoch.next();
    });
    cluster.kill(B0).await;
    let hidden = gone.with_extension("hidden");
    std::fs::rename(&gone, &hidden).unwrap();
    cluster.boot(B0, Incarnation(2)).await;
    eventually("broker 0 is back", || {
        (role(&cluster, 0, OTHER) == "leader").then_some(())
    })
    .await;
    assert_eq!(role(&cluster, 0, KEY), "offline");
    assert_eq!(put(&cluster, 1, KEY, "on the other").await, ErrorCode::None);
    let found = cluster.broker(0).disks().dirs().partitions().unwrap();
    assert_eq!(found, [OTHER]);
    assert!(cluster.broker(0).untold_failures().is_empty());
    // Given up, it is begun anew and follows.
    cluster.kill(B0).await;
    cluster
        .controller
        .change(KEY, |partition| partition.offline.clear());
    cluster.boot(B0, Incarnation(3)).await;
    assert_eq!(cluster.same_logs(&[1, 0]).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_log_is_its_replicas_end_and_not_the_directorys() {
    let cluster = cluster(0).await;
    let folder = home(&cluster, 0, KEY).join(format!("{}-{}", KEY.0, KEY.1));
    cluster.kill(B0).await;
    std::fs::write(folder.join("log-start"), b"nonsense").unwrap();
    cluster.boot(B0, Incarnation(2)).await;
    eventually("broker 0 leads", || {
        (role(&cluster, 0, OTHER) == "leader").then_some(())
    })
    .await;
    eventually("it is told", || {
        (cluster.broker(0).untold_failures() == [KEY]).then_some(())
    })
    .await;
    let status = cluster.broker(0).status();
    let reason = status.partitions[0].reason.clone().unwrap();
    assert!(reason.contains("log-start"), "{reason}");
    assert!(cluster.broker(0).disks().status().iter().all(|d| d.online));
}

fn sequenced(sequence: i32) -> Bytes {
    let mut builder = RecordBatchBuilder::new().producer(ProducerId(5), 0, sequence);
    builder.push(produce::now_ms(), None, Some(b"v"));
    builder.build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_watched_for_each_disk_and_a_pipeline_that_it_broke_stays_in_order() {
    const MIN: u64 = 1 << 20;
    let cluster = cluster(MIN).await;
    let space = |key| {
        let partition = cluster.broker(0).find(key).unwrap();
        partition.place().unwrap().space.clone()
    };
    let send = |key, sequence| send(&cluster, 0, key, sequenced(sequence));
    space(KEY).pretend(MIN - 1);
    assert_eq!(send(OTHER, 0).await, ErrorCode::None);
    assert_eq!(send(KEY, 0).await, ErrorCode::KafkaStorageError);
    space(KEY).pretend(2 * MIN);
    // Sent ahead of the first one's answer: stored, it would be told that the first is missing.
    assert_eq!(send(KEY, 1).await, ErrorCode::KafkaStorageError);
    assert_eq!(send(KEY, 0).await, ErrorCode::None);
    assert_eq!(send(KEY, 1).await, ErrorCode::None);
    let full: Vec<bool> = cluster
        .broker(0)
        .disks()
        .status()
        .iter()
        .map(|d| d.nearly_full)
        .collect();
    assert_eq!(full, [false, false]);
}
