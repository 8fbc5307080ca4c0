//! Replicas that move from one log directory of their broker to the other, under those who write and read.

use super::harness::*;
use super::*;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_metadata::features::Level;
use leasehold_metadata::image::Partition;
use leasehold_types::{BrokerId, DirectoryId, Incarnation, ProducerId};
use leasehold_wire::ErrorCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

const B0: BrokerId = BrokerId(0);

async fn cluster(tune: impl FnOnce(&mut ReplicaSettings)) -> Cluster {
    let cluster = Cluster::start_on(&["a", "b"], 2, 1, tune).await;
    at_level(&cluster, Level::NAMED);
    cluster.leader(0).await;
    cluster.tell().await;
    cluster
}

fn at_level(cluster: &Cluster, level: Level) {
    cluster
        .controller
        .commit(|image| image.metadata_version = Some(level));
}

fn home(cluster: &Cluster, id: i32, key: PartitionKey) -> DirectoryId {
    let partition = cluster.broker(id).find(key).unwrap();
    partition.place().unwrap().dir.id()
}

/// The directory of a broker in which the replica does not lie.
fn other(cluster: &Cluster, id: i32, key: PartitionKey) -> DirectoryId {
    let (home, broker) = (home(cluster, id, key), cluster.broker(id));
    let mut dirs = broker.disks().dirs().all().iter();
    dirs.find(|dir| dir.id() != home).unwrap().id()
}

async fn arrives(cluster: &Cluster, id: i32, to: DirectoryId) {
    eventually("the replica lies in the other directory", || {
        let told = cluster.broker(id).log_sizes();
        (home(cluster, id, KEY) == to && told.len() == 1).then_some(())
    })
    .await;
}

/// What a directory has of the topic, whatever it is.
fn remains(cluster: &Cluster, id: i32, directory: DirectoryId) -> Vec<String> {
    let broker = cluster.broker(id);
    let mut dirs = broker.disks().dirs().all().iter();
    let dir = dirs.find(|dir| dir.id() == directory).unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with(&TOPIC.to_string()))
        .collect()
}

async fn stays_clear(cluster: &Cluster, id: i32, directory: DirectoryId) {
    eventually("nothing is left there", || {
        let remains = remains(cluster, id, directory);
        remains.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_to_and_fro_under_load_and_nothing_is_lost_or_told_twice() {
    let cluster = Arc::new(cluster(|_| {}).await);
    let end = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (cluster, end) = (cluster.clone(), end.clone());
        async move {
            let mut acknowledged = Vec::new();
            while !end.load(Ordering::SeqCst) {
                let value = acknowledged.len().to_string();
                let result = produce(&cluster.broker(0), Acks::All, &value).await;
                assert_eq!(result.error, ErrorCode::None, "producers do not hear of it");
                let offset = result.base_offset.0;
                let read = loop {
                    let read = fetch(&cluster.broker(0), offset, Duration::from_secs(5)).await;
                    if read.error != ErrorCode::NotLeaderOrFollower {
                        break read;
                    }
                };
                let records = values(read.records);
                assert_eq!(records, [(0, value.clone())], "{:?}", read.error);
                acknowledged.push(value);
            }
            acknowledged
        }
    });
    for round in 0..6 {
        for id in [0, 1] {
            let (from, to) = (home(&cluster, id, KEY), other(&cluster, id, KEY));
            let broker = cluster.broker(id);
            assert_eq!(broker.alter_log_dir(KEY, to), ErrorCode::None);
            arrives(&cluster, id, to).await;
            assert!(round > 0 || remains(&cluster, id, to).len() == 1);
            stays_clear(&cluster, id, from).await;
        }
    }
    end.store(true, Ordering::SeqCst);
    let acknowledged = load.await.unwrap();
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    let logs: Vec<_> = cluster.same_logs(&[0, 1]).await;
    let values: Vec<_> = logs.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, acknowledged);
    let ends: Vec<_> = [0, 1].map(|id| cluster.high_watermark(id)).into();
    eventually("both know that it is committed", || {
        let end = i64::try_from(acknowledged.len()).unwrap();
        [0, 1]
            .iter()
            .all(|id| cluster.high_watermark(*id) == end)
            .then_some(())
    })
    .await;
    assert!(ends.iter().all(|end| *end > 0));
    // And it is there again after a start.
    let to = home(&cluster, 0, KEY);
    cluster.kill(B0).await;
    cluster.boot(B0, Incarnation(2)).await;
    eventually("broker 0 is back", || cluster.broker(0).leads(KEY.0, KEY.1)).await;
    assert_eq!(home(&cluster, 0, KEY), to);
    assert_eq!(cluster.values(0).len(), acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_a_move_back_and_until_it_is_done_another_wish_can_take_its_place() {
    let cluster = cluster(|settings| settings.log_dirs_rate = 1).await;
    let broker = cluster.broker(0);
    for n in 0..20 {
        produce_ok(&broker, Acks::All, &n.to_string()).await;
    }
    let (here, there) = (home(&cluster, 0, KEY), other(&cluster, 0, KEY));
    assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
    let copy = eventually("the copy begins", || {
        let mut told = broker.log_sizes().into_iter();
        told.find(|size| size.is_future && size.bytes > 0)
    })
    .await;
    assert_eq!((copy.directory, copy.offset_lag), (there, 20));
    assert_eq!(home(&cluster, 0, KEY), here);
    // Once more the same changes nothing; where it lies already ends it.
    assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
    assert_eq!(broker.log_sizes().len(), 2);
    assert_eq!(broker.alter_log_dir(KEY, here), ErrorCode::None);
    assert_eq!(broker.log_sizes().len(), 1);
    stays_clear(&cluster, 0, there).await;
    // Asked for again and again, it goes on as soon as the limit, which is dynamic, allows.
    for _ in 0..20 {
        assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
        assert_eq!(broker.alter_log_dir(KEY, here), ErrorCode::None);
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
    cluster.controller.commit(|image| {
        let key = "replica.alter.log.dirs.io.max.bytes.per.second";
        let all = image.cluster_configs.clone();
        let mut all = (*all).clone();
        all.insert(key.to_owned(), "1000000".to_owned());
        image.cluster_configs = Arc::new(all);
    });
    arrives(&cluster, 0, there).await;
    assert_eq!(cluster.values(0).len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_here_yet_is_begun_where_it_is_wanted() {
    let cluster = cluster(|_| {}).await;
    let second = (TOPIC, 1);
    cluster.controller.commit(|image| {
        let mut topic = (**image.topic(&TOPIC).unwrap()).clone();
        let mut partition = Partition::clone(&topic.partitions[0]);
        partition.replicas = vec![BrokerId(1)];
        partition.isr = vec![BrokerId(1)];
        partition.leader = Some(BrokerId(1));
        topic.partitions.push(Arc::new(partition));
        image.topics.insert(TOPIC, Arc::new(topic));
    });
    cluster.tell().await;
    let broker = cluster.broker(0);
    // Not the one it would get by itself.
    let wanted = home(&cluster, 0, KEY);
    let unknown = (TOPIC, 2);
    assert_eq!(
        broker.alter_log_dir(unknown, wanted),
        ErrorCode::UnknownTopicOrPartition
    );
    assert_eq!(
        broker.alter_log_dir(second, wanted),
        ErrorCode::ReplicaNotAvailable
    );
    cluster.controller.change(second, |partition| {
        partition.replicas = vec![BrokerId(1), B0];
    });
    eventually("its log is open", || broker.find(second).ok()?.place()).await;
    assert_eq!(home(&cluster, 0, second), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_as_long_as_a_broker_may_be_put_back_to_a_release_that_knows_no_moves() {
    let cluster = Cluster::start_on(&["a", "b"], 1, 1, |_| {}).await;
    at_level(&cluster, Level::RECORDED);
    cluster.leader(0).await;
    cluster.tell().await;
    let there = other(&cluster, 0, KEY);
    assert_eq!(
        cluster.broker(0).alter_log_dir(KEY, there),
        ErrorCode::UnsupportedVersion
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_the_brokers_end_cut_short_is_begun_anew() {
    let mut cluster = cluster(|settings| settings.log_dirs_rate = 1).await;
    let broker = cluster.broker(0);
    produce_ok(&broker, Acks::All, "a").await;
    let there = other(&cluster, 0, KEY);
    assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
    eventually("the copy begins", || {
        (!remains(&cluster, 0, there).is_empty()).then_some(())
    })
    .await;
    drop(broker);
    cluster.settings.log_dirs_rate = i64::MAX;
    cluster.kill(B0).await;
    cluster.boot(B0, Incarnation(2)).await;
    eventually("broker 0 is back", || cluster.broker(0).leads(KEY.0, KEY.1)).await;
    arrives(&cluster, 0, there).await;
    assert_eq!(cluster.values(0).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_goes_leaves_nothing_of_its_move() {
    let cluster = cluster(|settings| settings.log_dirs_rate = 1).await;
    let broker = cluster.broker(0);
    produce_ok(&broker, Acks::All, "a").await;
    let (here, there) = (home(&cluster, 0, KEY), other(&cluster, 0, KEY));
    assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
    eventually("the copy begins", || {
        (!remains(&cluster, 0, there).is_empty()).then_some(())
    })
    .await;
    cluster.controller.change(KEY, |partition| {
        partition.replicas = vec![BrokerId(1)];
        partition.isr = vec![BrokerId(1)];
        partition.leader = Some(BrokerId(1));
        partition.leader_epoch = partition.leader_epoch.next();
    });
    stays_clear(&cluster, 0, here).await;
    stays_clear(&cluster, 0, there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_to_a_disk_without_room_nor_while_a_directory_is_offline() {
    const MIN: u64 = 1 << 20;
    let cluster = cluster(|settings| settings.min_free_bytes = MIN).await;
    let broker = cluster.broker(0);
    produce_ok(&broker, Acks::All, "a").await;
    let there = other(&cluster, 0, KEY);
    let dirs = broker.disks().dirs().all();
    let target = dirs.iter().find(|dir| dir.id() == there).unwrap();
    let space = broker.disks().place(target.clone()).unwrap().space;
    space.pretend(MIN + 10);
    assert_eq!(
        broker.alter_log_dir(KEY, there),
        ErrorCode::KafkaStorageError
    );
    space.pretend(2 * MIN);
    assert_eq!(broker.alter_log_dir(KEY, there), ErrorCode::None);
    arrives(&cluster, 0, there).await;
    // The one that it came from fails.
    let back = other(&cluster, 0, KEY);
    let from = dirs.iter().find(|dir| dir.id() == back).unwrap();
    let name = from.path().join("high-watermarks.tmp");
    std::fs::create_dir(&name).unwrap();
    assert!(from.checkpoint_high_watermarks([]).is_err());
    assert_eq!(
        broker.alter_log_dir(KEY, back),
        ErrorCode::KafkaStorageError
    );
    produce_ok(&broker, Acks::All, "b").await;
}

/// A coordinator that has the partition move while it is asked, and then says yes to all.
struct Moving(Weak<ReplicaManager>, DirectoryId);

#[async_trait::async_trait]
impl VerifyTransaction for Moving {
    async fn verify(&self, question: TransactionQuestion) -> Vec<ErrorCode> {
        let manager = self.0.upgrade().unwrap();
        assert_eq!(manager.alter_log_dir(KEY, self.1), ErrorCode::None);
        eventually("the replica lies in the other directory", || {
            let place = manager.find(KEY).unwrap().place().unwrap();
            (place.dir.id() == self.1).then_some(())
        })
        .await;
        vec![ErrorCode::None; question.partitions.len()]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_first_batch_is_on_its_way_while_the_replica_moves_begins() {
    let cluster = cluster(|_| {}).await;
    let broker = cluster.broker(0);
    let to = other(&cluster, 0, KEY);
    broker.verify_with(Arc::new(Moving(Arc::downgrade(&broker), to)));
    let mut batch = RecordBatchBuilder::new()
        .attributes(0x10)
        .producer(ProducerId(1), 0, 0);
    batch.push(produce::now_ms(), None, Some(b"first"));
    let mut entries = vec![ProduceEntry {
        records: batch.build(),
        ..entry("")
    }];
    broker
        .verify("me", TransactionClient::KnowsAbortable, &mut entries)
        .await;
    let wait = Duration::from_secs(20);
    let done = broker.append(Acks::All, wait, entries).await;
    assert_eq!(done[0].error, ErrorCode::None, "{done:?}");
    assert_eq!(broker.status().partitions[0].open_transactions, 1);
}
