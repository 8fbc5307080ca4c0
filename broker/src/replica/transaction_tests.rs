//! Transactions in replicated partitions: what readers of committed records see, when markers count, and who may
//! begin a transaction.

use super::harness::*;
use super::offsets::LATEST;
use super::*;
use crate::group::cluster::OFFSETS_TOPIC;
use bytes::Bytes;
use leasehold_log::batch::{Marker, MarkerEpoch, RecordBatchBuilder};
use leasehold_types::{BrokerId, LeaderEpoch, Offset, ProducerId, TopicId};
use leasehold_wire::ErrorCode;
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::ZERO;
const ONE: ProducerId = ProducerId(1);
const TRANSACTIONAL: i16 = 0x10;

fn sent(sequence: i32, value: &str) -> Bytes {
    let mut b = RecordBatchBuilder::new()
        .attributes(TRANSACTIONAL)
        .producer(ONE, 0, sequence);
    b.push(produce::now_ms(), None, Some(value.as_bytes()));
    b.build()
}

fn marker(committed: bool) -> Marker {
    Marker {
        producer_id: ONE,
        producer_epoch: 0,
        coordinator_epoch: 0,
        committed,
    }
}

/// A coordinator that gives the same answer to all, and may have a transaction aborted while it is asked.
#[derive(Default)]
struct Scripted {
    answer: Mutex<Option<ErrorCode>>,
    asked: Mutex<Vec<TransactionQuestion>>,
    aborts_at: Mutex<Weak<ReplicaManager>>,
}

#[async_trait::async_trait]
impl VerifyTransaction for Scripted {
    async fn verify(&self, question: TransactionQuestion) -> Vec<ErrorCode> {
        let count = question.partitions.len();
        self.asked.lock().push(question);
        let aborts_at = self.aborts_at.lock().upgrade();
        if let Some(manager) = aborts_at {
            end(&manager, false).await;
        }
        vec![self.answer.lock().unwrap_or(ErrorCode::None); count]
    }
}

/// Produces a transactional batch as the API does.
async fn write(manager: &ReplicaManager, sequence: i32, value: &str) -> ProduceResult {
    let mut entries = vec![ProduceEntry {
        records: sent(sequence, value),
        ..entry(value)
    }];
    manager
        .verify("me", TransactionClient::KnowsAbortable, &mut entries)
        .await;
    manager.append(Acks::All, LONG, entries).await.remove(0)
}

async fn write_ok(manager: &ReplicaManager, sequence: i32, value: &str) -> i64 {
    let result = write(manager, sequence, value).await;
    assert_eq!(result.error, ErrorCode::None, "{result:?}");
    result.base_offset.0
}

async fn end_in(manager: &ReplicaManager, topic: TopicId, committed: bool) -> ProduceResult {
    let entry = MarkerEntry {
        topic,
        partition: 0,
        has: MarkerEpoch::Any,
        marker: marker(committed),
    };
    manager.write_markers(LONG, vec![entry]).await.remove(0)
}

async fn end(manager: &ReplicaManager, committed: bool) -> ProduceResult {
    end_in(manager, KEY.0, committed).await
}

async fn committed(manager: &ReplicaManager, from: i64, max_wait: Duration) -> FetchResult {
    let params = FetchParams {
        read_committed: true,
        ..fetch_params(max_wait)
    };
    manager
        .fetch(params, vec![fetch_entry(from)])
        .await
        .remove(0)
}

async fn latest(manager: &ReplicaManager) -> i64 {
    let found = manager.list_offsets(KEY, None, LATEST, true).await;
    found.unwrap().offset.0
}

fn coordinated(manager: &ReplicaManager) -> Arc<Scripted> {
    let coordinator = Arc::new(Scripted::default());
    manager.verify_with(coordinator.clone());
    coordinator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_records_end_at_the_first_undecided_one_and_a_marker_wakes_their_readers() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    coordinated(&manager);
    produce_ok(&manager, Acks::All, "before").await;
    write_ok(&manager, 0, "within").await;
    produce_ok(&manager, Acks::All, "after").await;
    let first = committed(&manager, 0, NOW).await;
    assert_eq!(values(first.records), [(0, "before".to_owned())]);
    assert_eq!(
        (first.last_stable_offset, first.high_watermark),
        (Offset(1), Offset(3))
    );
    assert_eq!(latest(&manager).await, 1);
    assert_eq!(fetch(&manager, 1, NOW).await.last_stable_offset, Offset(1));
    let waiting = {
        let manager = manager.clone();
        tokio::spawn(async move { committed(&manager, 1, LONG).await })
    };
    let ended = end(&manager, false).await;
    assert_eq!(
        (ended.error, ended.base_offset),
        (ErrorCode::None, Offset(3))
    );
    let rest = waiting.await.unwrap();
    assert_eq!(rest.last_stable_offset, Offset(4));
    let aborted = rest
        .aborted
        .iter()
        .map(|txn| (txn.producer_id, txn.first_offset));
    assert_eq!(aborted.collect::<Vec<_>>(), [(ONE, Offset(1))]);
    assert_eq!(latest(&manager).await, 4);
    assert!(
        fetch(&manager, 0, NOW).await.aborted.is_empty(),
        "it reads all"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_counts_once_it_is_committed_and_the_next_leader_knows_all() {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    coordinated(&manager);
    write_ok(&manager, 0, "aborted").await;
    end(&manager, false).await;
    write_ok(&manager, 1, "open").await;
    cluster.cut(1);
    let writing = {
        let manager = manager.clone();
        tokio::spawn(async move { end(&manager, true).await })
    };
    eventually("the marker is appended", || {
        (cluster.log_end(0) == 4).then_some(())
    })
    .await;
    assert!(!writing.is_finished());
    assert_eq!(latest(&manager).await, 2);
    // Without the marker, its follower takes over: the transaction is open there.
    cluster.controller.fail_over(BrokerId(0), BrokerId(1));
    cluster.mend(1);
    let heir = cluster.broker(1);
    cluster.leader(1).await;
    assert_eq!(writing.await.unwrap().error, ErrorCode::NotLeaderOrFollower);
    eventually("it is known to be committed", || {
        heir.leads(KEY.0, 0)
            .filter(|l| l.high_watermark == Offset(3))
    })
    .await;
    assert_eq!(latest(&heir).await, 2);
    let read = committed(&heir, 0, NOW).await;
    assert_eq!(read.aborted[0].first_offset, Offset(0));
    let again = end(&heir, true).await;
    assert_eq!(
        (again.error, again.base_offset),
        (ErrorCode::None, Offset(3))
    );
    assert_eq!(latest(&heir).await, 4);
    let known = heir.producers(KEY).await.unwrap();
    assert_eq!((known[0].last_sequence, known[0].open_since), (1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_coordinator_confirms_begins_a_transaction() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let alone = write(&manager, 0, "a").await;
    assert_eq!(
        alone.error,
        ErrorCode::InvalidTxnState,
        "nobody can be asked"
    );
    let coordinator = coordinated(&manager);
    for (answer, told) in [
        (ErrorCode::NotCoordinator, ErrorCode::NotEnoughReplicas),
        (
            ErrorCode::CoordinatorNotAvailable,
            ErrorCode::NotEnoughReplicas,
        ),
        (
            ErrorCode::ConcurrentTransactions,
            ErrorCode::NotEnoughReplicas,
        ),
        (ErrorCode::ProducerFenced, ErrorCode::InvalidProducerEpoch),
        (
            ErrorCode::TransactionAbortable,
            ErrorCode::TransactionAbortable,
        ),
        (
            ErrorCode::InvalidProducerIdMapping,
            ErrorCode::InvalidProducerIdMapping,
        ),
    ] {
        *coordinator.answer.lock() = Some(answer);
        assert_eq!(write(&manager, 0, "a").await.error, told);
    }
    assert_eq!(cluster.log_end(0), 0);
    *coordinator.answer.lock() = None;
    write_ok(&manager, 0, "a").await;
    let asked = coordinator.asked.lock().len();
    write_ok(&manager, 1, "b").await;
    assert_eq!(coordinator.asked.lock().len(), asked, "it is open");
    let question = coordinator.asked.lock()[0].clone();
    assert_eq!(question.transactional_id, "me");
    assert_eq!(question.partitions, [("t".into(), KEY)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_older_than_a_marker_begins_nothing() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let coordinator = coordinated(&manager);
    *coordinator.aborts_at.lock() = Arc::downgrade(&manager);
    assert_eq!(
        write(&manager, 0, "late").await.error,
        ErrorCode::InvalidTxnState
    );
    *coordinator.aborts_at.lock() = Weak::new();
    assert_eq!(write_ok(&manager, 0, "again").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_two_producers_are_no_transaction() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    coordinated(&manager);
    let mut other = RecordBatchBuilder::new()
        .attributes(TRANSACTIONAL)
        .producer(ProducerId(2), 0, 0);
    other.push(0, None, Some(b"v"));
    let mut entries = vec![entry("plain"), entry("a"), entry("b")];
    entries[1].records = sent(0, "a");
    entries[2].records = other.build();
    manager
        .verify("me", TransactionClient::KnowsAbortable, &mut entries)
        .await;
    let results = manager.append(Acks::All, LONG, entries).await;
    let errors: Vec<_> = results.iter().map(|result| result.error).collect();
    let mixed = ErrorCode::InvalidProducerIdMapping;
    assert_eq!(errors, [ErrorCode::None, mixed, mixed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_needs_the_leader_and_enough_replicas() {
    let cluster = Cluster::start(2, 2).await;
    cluster.leader(0).await;
    let follower = end(&cluster.broker(1), true).await;
    assert_eq!(follower.error, ErrorCode::NotLeaderOrFollower);
    assert_eq!(follower.current_leader.unwrap().leader, Some(BrokerId(0)));
    let nowhere = end_in(&cluster.broker(0), TopicId::random(), true).await;
    assert_eq!(nowhere.error, ErrorCode::UnknownTopicOrPartition);
    cluster.cut(1);
    // A fetch that was on its way does not have the follower back in the ISR.
    cluster.controller.answers.store(false, Ordering::SeqCst);
    cluster
        .controller
        .change(KEY, |partition| partition.isr = vec![BrokerId(0)]);
    eventually("the leader knows its ISR", || {
        let partition = cluster.broker(0).find(KEY).ok()?;
        let small = partition.look_leader(|leader| !leader.has_min_isr())?;
        small.then_some(())
    })
    .await;
    let few = end(&cluster.broker(0), true).await;
    assert_eq!(few.error, ErrorCode::NotEnoughReplicas);
}

/// Keeps what it hears.
#[derive(Default)]
struct Heard(Mutex<Vec<AppendedMarker>>);

impl MarkerListener for Heard {
    fn on_marker(&self, marker: AppendedMarker) {
        self.0.lock().push(marker);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_coordinator_hears_of_markers_among_its_offsets_before_they_are_answered() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let heard = Arc::new(Heard::default());
    manager.tell_of_markers(heard.clone());
    let offsets = TopicId::random();
    cluster.controller.commit(|image| {
        let mut topic = (**image.topic(&KEY.0).unwrap()).clone();
        topic.id = offsets;
        topic.name = OFFSETS_TOPIC.into();
        topic.internal = true;
        image.names.insert(topic.name.clone(), offsets);
        image.topics.insert(offsets, Arc::new(topic));
    });
    eventually("it leads both", || manager.leads(offsets, 0)).await;
    assert!(end(&manager, true).await.error.is_ok());
    assert!(end_in(&manager, offsets, false).await.error.is_ok());
    let told = AppendedMarker {
        topic: offsets,
        partition: 0,
        leader_epoch: LeaderEpoch(0),
        offset: Offset(0),
        marker: marker(false),
    };
    assert_eq!(*heard.0.lock(), [told]);
}

async fn write_in_version_2(manager: &ReplicaManager, value: &str) -> ErrorCode {
    write_at_in_version_2(manager, 0, value).await
}

async fn write_at_in_version_2(manager: &ReplicaManager, sequence: i32, value: &str) -> ErrorCode {
    let mut entries = vec![ProduceEntry {
        records: sent(sequence, value),
        ..entry(value)
    }];
    manager
        .verify("me", TransactionClient::LetsAdd, &mut entries)
        .await;
    let mut results = manager.append(Acks::All, LONG, entries).await;
    results.remove(0).error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_version_2_a_marker_between_question_and_answer_is_no_fault_of_the_producer() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let coordinator = coordinated(&manager);
    *coordinator.aborts_at.lock() = Arc::downgrade(&manager);
    let wait = ErrorCode::ConcurrentTransactions;
    assert_eq!(write_in_version_2(&manager, "early").await, wait);
    *coordinator.aborts_at.lock() = Weak::new();
    let again = write_in_version_2(&manager, "again").await;
    assert_eq!(again, ErrorCode::None);
    assert!(coordinator.asked.lock().iter().all(|asked| asked.adds));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_of_version_2_waits_for_its_last_markers_and_is_told_to_come_again() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let coordinator = coordinated(&manager);
    let wait = ErrorCode::ConcurrentTransactions;
    *coordinator.answer.lock() = Some(wait);
    assert_eq!(write_in_version_2(&manager, "early").await, wait);
    assert!(coordinator.asked.lock().len() > 1, "it was asked again");
    *coordinator.answer.lock() = Some(ErrorCode::ProducerFenced);
    let fenced = write_in_version_2(&manager, "late").await;
    assert_eq!(fenced, ErrorCode::InvalidProducerEpoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_version_2_what_begins_a_transaction_is_its_first_batch() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    coordinated(&manager);
    let gap = write_at_in_version_2(&manager, 1, "second").await;
    assert_eq!(gap, ErrorCode::OutOfOrderSequenceNumber);
    for (sequence, value) in [(0, "first"), (1, "second")] {
        let written = write_at_in_version_2(&manager, sequence, value).await;
        assert_eq!(written, ErrorCode::None);
    }
}
