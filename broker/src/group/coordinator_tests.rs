//! The coordinator over logs in memory, with its tasks and its clock.

use super::cluster::{Cluster, Endpoint};
use super::consumer::ConsumerSettings;
use super::hash::partition_of;
use super::log::{Bounds, Leadership, StateLog};
use super::shard::Settings;
use super::state::Limits;
use super::types::*;
use super::{GroupCoordinator, GroupStats};
use crate::replica::Verified;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_log::batch::BatchHeader;
use leasehold_metadata::image::Image;
use leasehold_types::ClusterId;
use leasehold_types::{BrokerId, LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

const PARTITIONS: i32 = 4;

/// The logs of the offsets topic, as the brokers of a test share them.
#[derive(Default)]
struct Memory {
    logs: Mutex<HashMap<i32, Vec<(i64, Bytes)>>>,
    leader: Mutex<HashMap<i32, LeaderEpoch>>,
    /// Appends wait here while it is closed.
    gate: Mutex<Option<Arc<Notify>>>,
    fails: Mutex<Option<ErrorCode>>,
    /// Reads see nothing from this offset on: it is not committed yet.
    committed: Mutex<Option<i64>>,
    appends: Mutex<usize>,
}

impl Memory {
    fn end(&self, partition: i32) -> i64 {
        let logs = self.logs.lock();
        let last = logs.get(&partition).and_then(|log| log.last());
        last.map_or(0, |(base, batch)| {
            base + i64::from(BatchHeader::parse(batch).unwrap().record_count)
        })
    }

    fn leads(&self, at: Leadership) -> bool {
        self.leader.lock().get(&at.partition) == Some(&at.epoch)
    }
}

#[async_trait]
impl StateLog for Memory {
    fn append(
        &self,
        at: Leadership,
        batch: Bytes,
        _: Verified,
    ) -> BoxFuture<'static, Result<Offset, ErrorCode>> {
        let refused = match (self.leads(at), *self.fails.lock()) {
            (false, _) => Some(ErrorCode::NotLeaderOrFollower),
            (true, fails) => fails,
        };
        let base = self.end(at.partition);
        let stored_all_the_same = refused == Some(ErrorCode::NotEnoughReplicasAfterAppend);
        if refused.is_none() || stored_all_the_same {
            let mut bytes = batch.to_vec();
            bytes[..8].copy_from_slice(&base.to_be_bytes());
            *self.appends.lock() += 1;
            self.logs
                .lock()
                .entry(at.partition)
                .or_default()
                .push((base, bytes.into()));
        }
        let gate = self.gate.lock().clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            refused.map_or(Ok(Offset(base)), Err)
        })
    }

    fn bounds(&self, at: Leadership) -> Option<Bounds> {
        self.leads(at).then(|| Bounds {
            log_start: Offset(0),
            log_end: Offset(self.end(at.partition)),
        })
    }

    async fn read(&self, at: Leadership, from: Offset) -> Result<Bytes, ErrorCode> {
        let committed = *self.committed.lock();
        if committed.is_some_and(|end| from.0 >= end) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(Bytes::new());
        }
        let logs = self.logs.lock();
        let log = logs
            .get(&at.partition)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let batch = log.iter().rev().find(|(base, _)| *base <= from.0);
        Ok(batch.map(|(_, batch)| batch.clone()).unwrap_or_default())
    }
}

struct Topics {
    exists: watch::Sender<bool>,
    created: Mutex<usize>,
}

#[async_trait]
impl Cluster for Topics {
    fn offsets_partitions(&self) -> Option<i32> {
        self.exists.borrow().then_some(PARTITIONS)
    }

    fn offsets_leader(&self, partition: i32) -> Option<Endpoint> {
        let endpoint = Endpoint {
            broker: BrokerId(partition),
            host: "host".to_owned(),
            port: 9092,
        };
        self.exists.borrow().then_some(endpoint)
    }

    fn has_partition(&self, topic: &str, partition: i32) -> bool {
        topic == "t" && (0..8).contains(&partition)
    }

    fn image(&self) -> Arc<Image> {
        Arc::new(Image::genesis(ClusterId("c".into())))
    }

    async fn create_offsets_topic(&self) -> Result<(), ErrorCode> {
        *self.created.lock() += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.exists.send_replace(true);
        Ok(())
    }

    async fn changed(&self, timeout: Duration) {
        let mut exists = self.exists.subscribe();
        let _ = tokio::time::timeout(timeout, exists.changed()).await;
    }
}

const SETTINGS: Settings = Settings {
    limits: Limits {
        max_size: 100,
        initial_rebalance_delay_ms: 50,
        new_member_join_timeout_ms: 300_000,
        max_pending: 10,
    },
    consumer: ConsumerSettings::DEFAULT,
    offset_metadata_max: 4096,
    offsets_retention_ms: 1_000_000,
    offsets_check_interval_ms: 600_000,
    write_timeout_ms: 300,
};

fn topics(exist: bool) -> Arc<Topics> {
    Arc::new(Topics {
        exists: watch::channel(exist).0,
        created: Mutex::new(0),
    })
}

fn broker(memory: &Arc<Memory>) -> Arc<GroupCoordinator> {
    GroupCoordinator::new(SETTINGS, 6_000..=60_000, topics(true), memory.clone())
}

fn at(epoch: i32) -> Leadership {
    Leadership {
        topic: TopicId::default(),
        partition: partition_of("g", PARTITIONS),
        epoch: LeaderEpoch(epoch),
    }
}

async fn lead(broker: &Arc<GroupCoordinator>, memory: &Memory, epoch: i32) {
    memory
        .leader
        .lock()
        .insert(at(epoch).partition, LeaderEpoch(epoch));
    broker.lead(at(epoch));
    loaded(broker).await;
}

async fn loaded(broker: &Arc<GroupCoordinator>) {
    while broker.stats().loading > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn join(member_id: &str) -> JoinRequest {
    JoinRequest {
        api_version: 9,
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"m"),
        }],
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        ..JoinRequest::default()
    }
}

fn commit(offset: i64) -> CommitRequest {
    let partition = |partition| CommitPartition {
        partition,
        offset,
        leader_epoch: -1,
        metadata: None,
    };
    CommitRequest {
        api_version: 8,
        group_id: "g".to_owned(),
        generation: -1,
        retention_ms: -1,
        topics: vec![CommitTopic {
            name: "t".to_owned(),
            partitions: vec![partition(0), partition(99)],
        }],
        ..CommitRequest::default()
    }
}

async fn offset(broker: &GroupCoordinator) -> Result<i64, ErrorCode> {
    let request = FetchRequest {
        group_id: "g".to_owned(),
        topics: Some(vec![("t".to_owned(), vec![0])]),
        require_stable: false,
        member_id: None,
        member_epoch: -1,
    };
    let response = broker.fetch(request).await;
    match response.error {
        ErrorCode::None => Ok(response.topics[0].1[0].offset),
        error => Err(error),
    }
}

#[tokio::test]
async fn a_member_joins_syncs_and_commits_and_the_next_coordinator_knows_it_all() {
    let memory = Arc::new(Memory::default());
    let first = broker(&memory);
    lead(&first, &memory, 1).await;
    let required = first.join(join("")).await;
    assert_eq!(required.error, ErrorCode::MemberIdRequired);
    assert!(required.member_id.starts_with("client-"));
    let joined = first.join(join(&required.member_id)).await;
    assert_eq!(joined.error, ErrorCode::None);
    let sync = SyncRequest {
        api_version: 5,
        group_id: "g".to_owned(),
        generation: joined.generation,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"share"))],
        ..SyncRequest::default()
    };
    assert_eq!(&first.sync(sync.clone()).await.assignment[..], b"share");
    let mut request = commit(5);
    request.generation = joined.generation;
    request.member_id = joined.member_id.clone();
    let committed = first.commit(request).await;
    let errors = [
        (0, ErrorCode::None),
        (99, ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(committed.topics, [("t".to_owned(), errors.to_vec())]);

    let second = broker(&memory);
    lead(&second, &memory, 2).await;
    first.resign(at(1).topic, at(1).partition);
    assert_eq!(offset(&second).await, Ok(5));
    assert_eq!(offset(&first).await, Err(ErrorCode::NotCoordinator));
    assert_eq!(&second.sync(sync).await.assignment[..], b"share");
    let beat = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation: joined.generation,
        member_id: joined.member_id,
        instance_id: None,
    };
    assert_eq!(second.heartbeat(beat).await, ErrorCode::None);
    let described = second.describe(6, vec!["g".to_owned()]).await;
    assert_eq!(
        (described[0].state, described[0].members.len()),
        ("Stable", 1)
    );
}

#[tokio::test]
async fn whoever_is_parked_when_the_leadership_ends_is_told_to_look_elsewhere() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    let id = broker.join(join("")).await.member_id;
    let parked = tokio::spawn({
        let broker = broker.clone();
        async move { broker.join(join(&id)).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    broker.resign(at(1).topic, at(1).partition);
    assert_eq!(parked.await.unwrap().error, ErrorCode::NotCoordinator);
    assert_eq!(broker.join(join("")).await.error, ErrorCode::NotCoordinator);
    assert_eq!(broker.stats(), GroupStats::default());
}

#[tokio::test]
async fn nothing_is_served_before_all_that_the_log_holds_is_committed_and_loaded() {
    let memory = Arc::new(Memory::default());
    let first = broker(&memory);
    lead(&first, &memory, 1).await;
    first.commit(commit(1)).await;
    first.commit(commit(2)).await;
    *memory.committed.lock() = Some(1);
    let second = broker(&memory);
    memory.leader.lock().insert(at(2).partition, LeaderEpoch(2));
    second.lead(at(2));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        offset(&second).await,
        Err(ErrorCode::CoordinatorLoadInProgress)
    );
    assert_eq!(
        second.list(ListRequest::default()).await.error,
        ErrorCode::CoordinatorLoadInProgress
    );
    let beat = HeartbeatRequest {
        group_id: "g".to_owned(),
        ..HeartbeatRequest::default()
    };
    assert_eq!(
        second.heartbeat(beat).await,
        ErrorCode::None,
        "members are not sent away meanwhile"
    );
    *memory.committed.lock() = None;
    loaded(&second).await;
    assert_eq!(offset(&second).await, Ok(2));
}

#[tokio::test]
async fn commits_that_come_together_share_a_batch_and_are_answered_together() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    let commits: Vec<_> = (0..50).map(|n| broker.commit(commit(n))).collect();
    for response in futures::future::join_all(commits).await {
        assert_eq!(response.topics[0].1[0], (0, ErrorCode::None));
    }
    assert!(
        *memory.appends.lock() < 5,
        "{} batches",
        memory.appends.lock()
    );
    assert_eq!(offset(&broker).await, Ok(49));
}

#[tokio::test]
async fn a_commit_that_is_refused_changes_nothing_and_the_next_one_goes_on() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    *memory.fails.lock() = Some(ErrorCode::NotEnoughReplicas);
    let refused = broker.commit(commit(1)).await;
    assert_eq!(
        refused.topics[0].1[0],
        (0, ErrorCode::CoordinatorNotAvailable)
    );
    *memory.fails.lock() = None;
    assert_eq!(offset(&broker).await, Ok(-1));
    broker.commit(commit(2)).await;
    assert_eq!(offset(&broker).await, Ok(2));
}

#[tokio::test]
async fn after_a_write_in_doubt_the_groups_are_what_the_log_says() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    broker.commit(commit(1)).await;
    *memory.fails.lock() = Some(ErrorCode::KafkaStorageError);
    let refused = broker.commit(commit(2)).await;
    assert_eq!(refused.topics[0].1[0], (0, ErrorCode::NotCoordinator));
    *memory.fails.lock() = None;
    loaded(&broker).await;
    assert_eq!(offset(&broker).await, Ok(1));
    *memory.fails.lock() = Some(ErrorCode::NotEnoughReplicasAfterAppend);
    let refused = broker.commit(commit(3)).await;
    assert_eq!(refused.topics[0].1[0], (0, ErrorCode::NotCoordinator));
    *memory.fails.lock() = None;
    loaded(&broker).await;
    assert_eq!(offset(&broker).await, Ok(3), "it was stored all the same");
    broker.commit(commit(4)).await;
    assert_eq!(offset(&broker).await, Ok(4));
}

#[tokio::test]
async fn a_commit_whose_replicas_do_not_answer_is_refused_in_time() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    let gate = Arc::new(Notify::new());
    *memory.gate.lock() = Some(gate.clone());
    let begun = tokio::time::Instant::now();
    let refused = broker.commit(commit(1)).await;
    assert_eq!(
        refused.topics[0].1[0],
        (0, ErrorCode::CoordinatorNotAvailable)
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
    gate.notify_one();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(offset(&broker).await, Ok(1), "it was stored after all");
}

#[tokio::test]
async fn requests_that_no_group_could_ever_answer_are_refused_at_the_door() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    let nameless = JoinRequest {
        group_id: String::new(),
        ..join("")
    };
    assert_eq!(broker.join(nameless).await.error, ErrorCode::InvalidGroupId);
    assert_eq!(
        broker.heartbeat(HeartbeatRequest::default()).await,
        ErrorCode::InvalidGroupId
    );
    assert_eq!(
        broker.sync(SyncRequest::default()).await.error,
        ErrorCode::InvalidGroupId
    );
    assert_eq!(
        broker.leave(LeaveRequest::default()).await.error,
        ErrorCode::InvalidGroupId
    );
    for timeout in [5_999, 60_001, -1] {
        let request = JoinRequest {
            session_timeout_ms: timeout,
            ..join("")
        };
        assert_eq!(
            broker.join(request).await.error,
            ErrorCode::InvalidSessionTimeout
        );
    }
}

#[tokio::test]
async fn deleted_topics_take_their_offsets_along() {
    let memory = Arc::new(Memory::default());
    let broker = broker(&memory);
    lead(&broker, &memory, 1).await;
    broker.commit(commit(1)).await;
    broker.topics_deleted(HashSet::from(["t".to_owned()]));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(offset(&broker).await, Ok(-1));
    lead(&broker, &memory, 2).await;
    assert_eq!(offset(&broker).await, Ok(-1));
}

#[tokio::test]
async fn the_first_to_ask_creates_the_offsets_topic_and_all_are_told_the_leader() {
    let topics = topics(false);
    let memory = Arc::new(Memory::default());
    let broker = GroupCoordinator::new(SETTINGS, 6_000..=60_000, topics.clone(), memory);
    let asking: Vec<_> = (0..5).map(|_| broker.find_coordinator(0, "g")).collect();
    for found in futures::future::join_all(asking).await {
        assert_eq!(found.error, ErrorCode::None);
        assert_eq!(found.broker, BrokerId(partition_of("g", PARTITIONS)));
    }
    assert_eq!(*topics.created.lock(), 1);
    assert_eq!(
        broker.find_coordinator(1, "txn").await.error,
        ErrorCode::InvalidRequest
    );
}
