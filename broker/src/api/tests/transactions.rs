//! Records in transactions, the markers that end them, and who has written.

use super::data::{made_at, name, put};
use super::stage::*;
use crate::replica::{TransactionQuestion, VerifyTransaction};
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_types::ProducerId;
use leasehold_wire::kafka::messages::describe_producers_request::TopicRequest;
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use leasehold_wire::kafka::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use leasehold_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use leasehold_wire::kafka::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::{ApiKey, ErrorCode, StrBytes};
use std::sync::Arc;

/// A coordinator that knows every transaction.
struct Yes;

#[async_trait::async_trait]
impl VerifyTransaction for Yes {
    async fn verify(&self, question: TransactionQuestion) -> Vec<ErrorCode> {
        vec![ErrorCode::None; question.partitions.len()]
    }
}

/// Produces one transactional record of producer 9; the error, and where it lies.
async fn write(stage: &Stage, id: Option<&str>, epoch: i16, sequence: i32) -> (i16, i64) {
    let mut batch =
        RecordBatchBuilder::new()
            .attributes(0x10)
            .producer(ProducerId(9), epoch, sequence);
    batch.push(made_at(), None, Some(b"within"));
    let partition = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch.build()));
    let topic = TopicProduceData::default()
        .with_name(name("t"))
        .with_partition_data(vec![partition]);
    let id = id.map(|id| TransactionalId(StrBytes::from_string(id.to_owned())));
    let request = ProduceRequest::default()
        .with_transactional_id(id)
        .with_acks(-1)
        .with_timeout_ms(5_000)
        .with_topic_data(vec![topic]);
    let reply = stage.ask(&request, 9).await;
    let done = &reply.responses[0].partition_responses[0];
    (done.error_code, done.base_offset)
}

/// Ends producer 9's transaction in these partitions; their errors.
async fn end(stage: &Stage, epochs: (i16, i32), topic: &str, partitions: Vec<i32>) -> Vec<i16> {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(name(topic))
        .with_partition_indexes(partitions);
    let marker = WritableTxnMarker::default()
        .with_producer_id(9.into())
        .with_producer_epoch(epochs.0)
        .with_coordinator_epoch(epochs.1)
        .with_transaction_result(false)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    assert_eq!(versions(ApiKey::WriteTxnMarkers), 1..=1);
    let reply = stage.ask(&request, 1).await;
    assert_eq!(reply.markers[0].producer_id.0, 9);
    let partitions = &reply.markers[0].topics[0].partitions;
    partitions.iter().map(|p| p.error_code).collect()
}

async fn fetch(stage: &Stage, version: i16, id: uuid::Uuid, isolation: i8) -> FetchResponse {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_partition_max_bytes(1 << 20);
    let mut topic = FetchTopic::default().with_partitions(vec![partition]);
    if version >= 13 {
        topic.topic_id = id;
    } else {
        topic.topic = name("t");
    }
    let request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(10 << 20)
        .with_session_epoch(-1)
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    stage.ask(&request, version).await
}

async fn latest(stage: &Stage, isolation: i8) -> i64 {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    let reply = stage.ask(&request, 5).await;
    reply.topics[0].partitions[0].offset
}

#[tokio::test]
async fn readers_of_committed_records_hear_of_aborted_transactions_in_every_version() {
    let stage = Stage::up().await;
    let id = stage.add_topic("t", &[Some(ME)]);
    stage.replicas().verify_with(Arc::new(Yes));
    put(&stage, "t", 0, b"before").await;
    assert_eq!(write(&stage, Some("me"), 0, 0).await, (0, 1));
    assert_eq!((latest(&stage, 1).await, latest(&stage, 0).await), (1, 2));
    assert_eq!(end(&stage, (0, 3), "t", vec![0]).await, [0]);
    assert_eq!(latest(&stage, 1).await, 3);
    for version in versions(ApiKey::Fetch) {
        for isolation in [0, 1] {
            let reply = fetch(&stage, version, id.0, isolation).await;
            let partition = &reply.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            assert_eq!(
                (partition.last_stable_offset, partition.high_watermark),
                (3, 3)
            );
            let aborted = partition.aborted_transactions.as_ref();
            let aborted = aborted.map(|all| all.iter().map(|t| (t.producer_id.0, t.first_offset)));
            let aborted = aborted.map(Iterator::collect::<Vec<_>>);
            let expected = (isolation == 1).then(|| vec![(9, 1)]);
            assert_eq!(
                aborted.filter(|all| isolation == 1 || !all.is_empty()),
                expected
            );
        }
    }
}

#[tokio::test]
async fn a_transactional_batch_needs_an_id_and_a_coordinator() {
    let stage = Stage::up().await;
    stage.add_topic("t", &[Some(ME)]);
    put(&stage, "t", 0, b"before").await;
    assert_eq!(write(&stage, Some("me"), 0, 0).await, (48, -1));
    assert_eq!(write(&stage, None, 0, 0).await, (53, -1));
    stage.replicas().verify_with(Arc::new(Yes));
    assert_eq!(write(&stage, None, 0, 0).await, (53, -1));
    assert_eq!(write(&stage, Some("me"), 0, 0).await, (0, 1));
}

#[tokio::test]
async fn each_marker_has_its_own_error_and_fences_what_is_older() {
    let stage = Stage::up().await;
    stage.add_topic("t", &[Some(ME), Some(OTHER)]);
    stage.replicas().verify_with(Arc::new(Yes));
    put(&stage, "t", 0, b"before").await;
    assert_eq!(end(&stage, (2, 3), "t", vec![0, 1, 7]).await, [0, 6, 3]);
    assert_eq!(end(&stage, (2, 3), "unknown", vec![0]).await, [3]);
    assert_eq!(end(&stage, (2, 2), "t", vec![0]).await, [52]);
    assert_eq!(end(&stage, (1, 3), "t", vec![0]).await, [47]);
    assert_eq!(end(&stage, (-1, 3), "t", vec![0]).await, [42]);
    assert_eq!(write(&stage, Some("me"), 1, 0).await.0, 47);
    assert_eq!(write(&stage, Some("me"), 2, 0).await, (0, 2));
}

#[tokio::test]
async fn the_producers_of_a_partition_are_told_by_its_leader() {
    let stage = Stage::up().await;
    stage.add_topic("t", &[Some(ME), Some(OTHER)]);
    stage.replicas().verify_with(Arc::new(Yes));
    put(&stage, "t", 0, b"before").await;
    write(&stage, Some("me"), 0, 0).await;
    end(&stage, (0, 3), "t", vec![0]).await;
    write(&stage, Some("me"), 0, 1).await;
    let pick = |topic: &str, partitions| {
        TopicRequest::default()
            .with_name(name(topic))
            .with_partition_indexes(partitions)
    };
    let topics = vec![
        pick("t", vec![0, 0, 1, 7]),
        pick("unknown", vec![0]),
        pick("no name", vec![0]),
    ];
    let request = DescribeProducersRequest::default().with_topics(topics);
    let reply = stage.ask(&request, 0).await;
    let rows = reply.topics.iter().flat_map(|topic| &topic.partitions);
    let codes: Vec<_> = rows.map(|row| row.error_code).collect();
    assert_eq!(codes, [0, 42, 6, 3, 3, 17]);
    let known = &reply.topics[0].partitions[0].active_producers;
    assert_eq!(known.len(), 1);
    let one = &known[0];
    assert_eq!((one.producer_id.0, one.producer_epoch), (9, 0));
    assert_eq!((one.last_sequence, one.coordinator_epoch), (1, 3));
    assert_eq!(one.current_txn_start_offset, 3);
    assert_eq!(one.last_timestamp, made_at());
}
