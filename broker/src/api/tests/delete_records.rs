//! DeleteRecords over the wire: what each answer says.

use super::stage::*;
use leasehold_wire::kafka::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use leasehold_wire::kafka::messages::{DeleteRecordsRequest, TopicName};
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, ErrorCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn topic(name: &str, wanted: &[(i32, i64)]) -> DeleteRecordsTopic {
    let partitions = wanted.iter().map(|(index, offset)| {
        DeleteRecordsPartition::default()
            .with_partition_index(*index)
            .with_offset(*offset)
    });
    DeleteRecordsTopic::default()
        .with_name(TopicName(StrBytes::from_string(name.to_owned())))
        .with_partitions(partitions.collect())
}

fn request(topics: Vec<DeleteRecordsTopic>) -> DeleteRecordsRequest {
    DeleteRecordsRequest::default()
        .with_timeout_ms(5_000)
        .with_topics(topics)
}

#[tokio::test]
async fn records_are_deleted_or_refused_in_every_version() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME), Some(OTHER)]);
    let internal = stage.add_topic("__consumer_offsets", &[Some(ME)]);
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut topic = (**image.topic(&internal).unwrap()).clone();
        topic.internal = true;
        image.topics.insert(internal, Arc::new(topic));
    });
    let mut end = 0;
    for version in versions(ApiKey::DeleteRecords) {
        end = super::data::put(&stage, "a", 0, b"x").await + 1;
        let wanted = request(vec![
            topic("a", &[(0, end), (0, end + 1), (0, -2), (1, 0), (2, 0)]),
            topic("nowhere", &[(0, 0)]),
            topic("__consumer_offsets", &[(0, -1)]),
        ]);
        let reply = stage.ask(&wanted, version).await;
        let rows: Vec<(i32, i16, i64)> = reply
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|row| (row.partition_index, row.error_code, row.low_watermark))
            .collect();
        let expected = [
            (0, ErrorCode::None, end),
            (0, ErrorCode::OffsetOutOfRange, -1),
            (0, ErrorCode::OffsetOutOfRange, -1),
            (1, ErrorCode::NotLeaderOrFollower, -1),
            (2, ErrorCode::UnknownTopicOrPartition, -1),
            (0, ErrorCode::UnknownTopicOrPartition, -1),
            (0, ErrorCode::InvalidTopicException, -1),
        ];
        let expected = expected.map(|(index, error, low)| (index, error.code(), low));
        assert_eq!(rows, expected, "version {version}");
    }
    super::data::put(&stage, "a", 0, b"y").await;
    let reply = stage.ask(&request(vec![topic("a", &[(0, -1)])]), 2).await;
    let low = reply.topics[0].partitions[0].low_watermark;
    assert_eq!(low, end + 1, "-1 is the high watermark");
}

#[tokio::test]
async fn a_replica_that_cannot_follow_costs_the_time_that_the_client_gives() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    super::data::put(&stage, "a", 0, b"x").await;
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut topic = (**image.topic(&id).unwrap()).clone();
        let mut partition = (*topic.partitions[0]).clone();
        // Registered and not fenced, but nobody is there.
        partition.replicas.push(OTHER);
        partition.partition_epoch = partition.partition_epoch.next();
        topic.partitions[0] = Arc::new(partition);
        image.topics.insert(id, Arc::new(topic));
    });
    let start = Instant::now();
    let wanted = request(vec![topic("a", &[(0, 1)])]).with_timeout_ms(400);
    let mut code = 0;
    // The broker may look at the newer image a moment after the first answer.
    while code == 0 && start.elapsed() < Duration::from_secs(5) {
        code = stage.ask(&wanted, 2).await.topics[0].partitions[0].error_code;
    }
    assert_eq!(code, ErrorCode::RequestTimedOut.code());
    assert!(start.elapsed() >= Duration::from_millis(390));
}
