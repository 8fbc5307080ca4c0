//! Records in and out.

use super::stage::*;
use bytes::{BufMut, Bytes, BytesMut};
use leasehold_types::BrokerId;
use leasehold_wire::batch::{BatchHeader, crc_of};
use leasehold_wire::kafka::messages::describe_log_dirs_request::DescribableLogDirTopic;
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use leasehold_wire::kafka::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use leasehold_wire::kafka::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use leasehold_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use leasehold_wire::kafka::messages::produce_response::PartitionProduceResponse;
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, Client, ClientOptions, ErrorCode};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// When the test's records were made: now, or retention would take them away.
pub(super) fn made_at() -> i64 {
    static ONCE: LazyLock<i64> = LazyLock::new(crate::replica::produce::now_ms);
    *ONCE
}

/// One batch with one record of `value`.
pub fn batch(value: &[u8]) -> Bytes {
    let mut record = BytesMut::new();
    // Attributes, timestamp delta, offset delta, null key, value, no headers.
    record.put_slice(&[0, 0, 0, 1]);
    assert!(value.len() < 60);
    record.put_u8(value.len() as u8 * 2);
    record.put_slice(value);
    record.put_u8(0);
    let mut tail = BytesMut::new();
    tail.put_i16(0);
    tail.put_i32(0);
    tail.put_i64(made_at());
    tail.put_i64(made_at());
    tail.put_i64(-1);
    tail.put_i16(-1);
    tail.put_i32(-1);
    tail.put_i32(1);
    tail.put_u8(record.len() as u8 * 2);
    tail.put_slice(&record);
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(9 + tail.len() as i32);
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_slice(&tail);
    let crc = crc_of(&batch).unwrap();
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

pub(super) fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

pub fn produce(acks: i16, topic: &str, partition: i32, records: Option<Bytes>) -> ProduceRequest {
    let partition = PartitionProduceData::default()
        .with_index(partition)
        .with_records(records);
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(5_000)
        .with_topic_data(vec![topic])
}

fn only(reply: &ProduceResponse) -> &PartitionProduceResponse {
    &reply.responses[0].partition_responses[0]
}

/// Produces until the partition has begun to be led.
pub async fn put(stage: &Stage, topic: &str, partition: i32, value: &[u8]) -> i64 {
    let start = Instant::now();
    loop {
        let reply = stage
            .ask(&produce(-1, topic, partition, Some(batch(value))), 9)
            .await;
        if only(&reply).error_code == 0 {
            return only(&reply).base_offset;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{reply:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn fetch(version: i16, topic: &str, id: Uuid, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let mut topic_row = FetchTopic::default().with_partitions(vec![partition]);
    if version >= 13 {
        topic_row.topic_id = id;
    } else {
        topic_row.topic = name(topic);
    }
    FetchRequest::default()
        .with_max_wait_ms(300)
        .with_min_bytes(1)
        .with_max_bytes(10 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic_row])
}

#[tokio::test]
async fn each_log_directory_tells_the_sizes_of_its_replicas_in_every_version() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME), Some(OTHER), Some(ME)]);
    stage.add_topic("b", &[Some(ME)]);
    put(&stage, "a", 0, b"first").await;
    put(&stage, "a", 2, b"second").await;
    put(&stage, "b", 0, b"third").await;
    let pick = |topic: &str, partitions: Vec<i32>| {
        DescribableLogDirTopic::default()
            .with_topic(name(topic))
            .with_partitions(partitions)
    };
    for version in versions(ApiKey::DescribeLogDirs) {
        let some = vec![pick("a", vec![2, 1, 2, 77]), pick("unknown", vec![0])];
        for (topics, expected) in [
            (None, vec![("a", 0), ("a", 2), ("b", 0)]),
            (Some(some), vec![("a", 2)]),
            (Some(vec![]), vec![]),
        ] {
            let request = DescribeLogDirsRequest::default().with_topics(topics);
            let reply = stage.ask(&request, version).await;
            assert_eq!((reply.error_code, reply.results.len()), (0, 2));
            let mut rows: Vec<(&str, i32)> = Vec::new();
            for dir in &reply.results {
                assert_eq!(dir.error_code, 0);
                assert!(dir.log_dir.starts_with('/'), "{}", dir.log_dir);
                for topic in &dir.topics {
                    let numbers = topic.partitions.iter().map(|p| p.partition_index);
                    rows.extend(numbers.map(|number| (topic.name.as_str(), number)));
                }
                for partition in dir.topics.iter().flat_map(|topic| &topic.partitions) {
                    assert!(partition.partition_size > 61, "{partition:?}");
                    assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
                }
                if version >= 4 {
                    assert!(0 < dir.usable_bytes && dir.usable_bytes <= dir.total_bytes);
                } else {
                    assert_eq!((dir.total_bytes, dir.usable_bytes), (-1, -1));
                }
            }
            rows.sort_unstable();
            assert_eq!(rows, expected);
        }
    }
    // Three replicas: neither directory has them all.
    let all = DescribeLogDirsRequest::default().with_topics(None);
    let reply = stage.ask(&all, 4).await;
    let failed = reply.results[1].log_dir.to_string();
    assert!(reply.results.iter().all(|dir| !dir.topics.is_empty()));
    // One that fails is told with its error, and the other with all that is in it.
    stage.break_log_dir(&failed).await;
    for version in versions(ApiKey::DescribeLogDirs) {
        let reply = stage.ask(&all, version).await;
        let codes: Vec<i16> = reply.results.iter().map(|dir| dir.error_code).collect();
        assert_eq!(codes, [0, 56], "{version}");
        assert!(!reply.results[0].topics.is_empty());
        assert!(reply.results[1].topics.is_empty());
        assert_eq!(reply.results[1].log_dir.as_str(), failed);
    }
}

#[tokio::test]
async fn a_refused_record_is_named_in_every_version_that_can() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"first").await;
    stage.configure_topic(id, "cleanup.policy", "compact");
    let start = Instant::now();
    for version in versions(ApiKey::Produce) {
        let reply = loop {
            let keyless = produce(-1, "a", 0, Some(batch(b"value")));
            let reply = stage.ask(&keyless, version).await;
            if only(&reply).error_code != 0 {
                break reply;
            }
            // Compacted from the next image on.
            assert!(start.elapsed() < Duration::from_secs(10));
            tokio::task::yield_now().await;
        };
        let row = only(&reply);
        let named: Vec<_> = row.record_errors.iter().map(|r| r.batch_index).collect();
        let (code, tells) = (ErrorCode::InvalidRecord.code(), version >= 8);
        assert_eq!((row.error_code, row.base_offset), (code, -1));
        // Where the log begins is told all the same, from the version on that can.
        assert_eq!(row.log_start_offset, if version >= 5 { 0 } else { -1 });
        assert_eq!(row.error_message.is_some(), tells, "{version}");
        assert_eq!(named, if tells { vec![0] } else { vec![] }, "{version}");
        let why = row.record_errors.first();
        let why = why.and_then(|r| r.batch_index_error_message.as_deref());
        assert_eq!(why.is_some_and(|why| why.contains("key")), tells);
    }
}

#[tokio::test]
async fn an_answer_names_so_many_records_and_no_more() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME); 12]);
    stage.configure_topic(id, "cleanup.policy", "compact");
    let mut b = leasehold_log::batch::RecordBatchBuilder::new();
    for _ in 0..1500 {
        b.push(made_at(), None, Some(b"v"));
    }
    let records = b.build();
    let partition = |index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(records.clone()))
    };
    let mut request = produce(-1, "a", 0, None);
    request.topic_data[0].partition_data = (0..12).map(partition).collect();
    let start = Instant::now();
    let invalid = ErrorCode::InvalidRecord.code();
    let rows = loop {
        let reply = stage.ask(&request, 9).await;
        let rows = reply.responses[0].partition_responses.clone();
        if rows.iter().all(|row| row.error_code == invalid) {
            break rows;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{rows:?}");
        tokio::task::yield_now().await;
    };
    let named: Vec<usize> = rows.iter().map(|row| row.record_errors.len()).collect();
    assert_eq!(named, [[1000; 10].as_slice(), &[0; 2]].concat());
    assert!(rows.iter().all(|row| row.error_message.is_some()));
}

#[tokio::test]
async fn what_is_produced_is_fetched_in_every_version_of_both() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    assert_eq!(put(&stage, "a", 0, b"first").await, 0);
    for (version, offset) in versions(ApiKey::Produce).zip(1..) {
        let records = Some(batch(format!("v{version}").as_bytes()));
        let reply = stage.ask(&produce(-1, "a", 0, records), version).await;
        assert_eq!(
            (only(&reply).error_code, only(&reply).base_offset),
            (0, offset)
        );
    }
    for version in versions(ApiKey::Fetch) {
        let reply = stage.ask(&fetch(version, "a", id.0, 0, 0), version).await;
        let partition = &reply.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, 11));
        let records = partition.records.as_ref().unwrap();
        let header = BatchHeader::read(records).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (0, 3));
        assert_eq!(&records[..8], 0i64.to_be_bytes());
        assert!(records.windows(5).any(|window| window == b"first"));
    }
}

#[tokio::test]
async fn the_first_produce_waits_for_a_topic_that_is_just_coming_into_being() {
    let stage = Stage::up().await;
    let request = produce(-1, "newborn", 0, Some(batch(b"x")));
    let (reply, ()) = tokio::join!(stage.ask(&request, 9), async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        stage.add_topic("newborn", &[Some(ME)]);
    });
    assert_eq!((only(&reply).error_code, only(&reply).base_offset), (0, 0));
}

#[tokio::test]
async fn an_empty_fetch_waits_and_is_woken_by_the_append() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"x").await;
    let start = Instant::now();
    let reply = stage.ask(&fetch(12, "a", id.0, 0, 1), 12).await;
    assert!(
        start.elapsed() >= Duration::from_millis(290),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(reply.responses[0].partitions[0].records, Some(Bytes::new()));

    let other = Client::connect(&stage.address, ClientOptions::default())
        .await
        .unwrap();
    let waiting = fetch(12, "a", id.0, 0, 1).with_max_wait_ms(9_000);
    let waiting = tokio::spawn(async move { other.call(&waiting, 12).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    put(&stage, "a", 0, b"y").await;
    let reply = waiting.await.unwrap().unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(1_000),
        "{:?}",
        start.elapsed()
    );
    assert!(
        !reply.responses[0].partitions[0]
            .records
            .as_ref()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_error_in_a_fetch_is_told_at_once() {
    let stage = Stage::up().await;
    let start = Instant::now();
    let unknown = |version| fetch(version, "no", Uuid::from_u128(4), 0, 0).with_max_wait_ms(9_000);
    let by_name = stage.ask(&unknown(12), 12).await;
    let code = by_name.responses[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code());
    let by_id = stage.ask(&unknown(13), 13).await;
    assert_eq!(
        by_id.responses[0].partitions[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
    let session = unknown(12).with_session_id(5).with_session_epoch(2);
    let session = stage.ask(&session, 12).await;
    assert_eq!(session.error_code, ErrorCode::FetchSessionIdNotFound.code());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn clients_from_before_zstd_are_told_where_a_topic_is_packed_in_it() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"x").await;
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut topic = (**image.topic(&id).unwrap()).clone();
        topic
            .configs
            .insert("compression.type".into(), "zstd".into());
        image.topics.insert(id, Arc::new(topic));
    });
    for version in versions(ApiKey::Fetch) {
        let reply = stage.ask(&fetch(version, "a", id.0, 0, 0), version).await;
        let expected = match version < 10 {
            true => ErrorCode::UnsupportedCompressionType.code(),
            false => 0,
        };
        let code = reply.responses[0].partitions[0].error_code;
        assert_eq!(code, expected, "version {version}");
    }
}

#[tokio::test]
async fn who_asks_the_wrong_broker_is_told_the_right_one() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(OTHER)]);
    for version in versions(ApiKey::Produce) {
        let reply = stage
            .ask(&produce(-1, "a", 0, Some(batch(b"x"))), version)
            .await;
        assert_eq!(
            only(&reply).error_code,
            ErrorCode::NotLeaderOrFollower.code()
        );
        if version >= 10 {
            assert_eq!(only(&reply).current_leader.leader_id, OTHER.0);
            assert_eq!(only(&reply).current_leader.leader_epoch, 3);
            assert_eq!(reply.node_endpoints[0].host.as_str(), "host-2");
        } else {
            assert!(reply.node_endpoints.is_empty());
        }
    }
    for version in versions(ApiKey::Fetch) {
        let reply = stage.ask(&fetch(version, "a", id.0, 0, 0), version).await;
        let partition = &reply.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::NotLeaderOrFollower.code());
        if version >= 12 {
            assert_eq!(partition.current_leader.leader_id, OTHER.0);
        }
        assert_eq!(reply.node_endpoints.len(), usize::from(version >= 16));
    }
}

#[tokio::test]
async fn bad_produces_are_refused_per_partition() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"x").await;
    let mut broken = BytesMut::from(&batch(b"x")[..]);
    *broken.last_mut().unwrap() ^= 1;
    let good = || Some(batch(b"x"));
    for (request, error) in [
        (produce(2, "a", 0, good()), ErrorCode::InvalidRequiredAcks),
        // As in Kafka, what is not there comes before that.
        (
            produce(2, "no", 0, good()),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (produce(2, "a", 0, None), ErrorCode::InvalidRecord),
        (
            produce(-1, "no", 0, good()),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            produce(-1, "a", 7, good()),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            produce(-1, "a", -1, good()),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (produce(-1, "a", 0, None), ErrorCode::InvalidRecord),
        (
            produce(-1, "a", 0, Some(broken.freeze())),
            ErrorCode::CorruptMessage,
        ),
    ] {
        for version in [3, 7, 12] {
            let reply = stage.ask(&request, version).await;
            assert_eq!(only(&reply).error_code, error.code(), "{error:?} {version}");
            assert_eq!(
                only(&reply).error_message.is_some(),
                version >= 8,
                "{error:?}"
            );
        }
    }
    assert_eq!(
        put(&stage, "a", 0, b"y").await,
        1,
        "something bad was appended"
    );
}

#[tokio::test]
async fn acks_0_gets_no_reply_and_an_error_closes_the_connection() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"x").await;
    stage
        .client
        .send(&produce(0, "a", 0, Some(batch(b"y"))), 9)
        .unwrap();
    assert_eq!(put(&stage, "a", 0, b"z").await, 2);
    stage
        .client
        .send(&produce(0, "no", 0, Some(batch(b"y"))), 9)
        .unwrap();
    let next = stage.client.call(&ApiVersionsRequest::default(), 0).await;
    assert!(
        next.is_err()
            || stage
                .client
                .call(&ApiVersionsRequest::default(), 0)
                .await
                .is_err()
    );
}

#[tokio::test]
async fn clients_cannot_append_to_an_internal_topic_in_any_version() {
    let stage = Stage::up().await;
    let id = stage.add_topic("__consumer_offsets", &[Some(ME)]);
    stage.add_topic("a", &[Some(ME)]);
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut topic = (**image.topic(&id).unwrap()).clone();
        topic.internal = true;
        image.topics.insert(id, Arc::new(topic));
    });
    put(&stage, "a", 0, b"x").await;
    for version in versions(ApiKey::Produce) {
        let records = Some(batch(b"forged"));
        let request = produce(-1, "__consumer_offsets", 0, records);
        let reply = stage.ask(&request, version).await;
        let refused = ErrorCode::InvalidTopicException.code();
        assert_eq!(only(&reply).error_code, refused, "version {version}");
    }
}

#[tokio::test]
async fn pipelined_produces_are_appended_and_answered_in_order() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let first = put(&stage, "a", 0, b"x").await;
    let requests: Vec<_> = (0..200)
        .map(|_| produce(-1, "a", 0, Some(batch(b"p"))))
        .collect();
    let calls = requests.iter().map(|request| stage.client.call(request, 9));
    let replies = futures::future::join_all(calls).await;
    let offsets: Vec<i64> = replies
        .iter()
        .map(|reply| only(reply.as_ref().unwrap()).base_offset)
        .collect();
    assert_eq!(offsets, (first + 1..=first + 200).collect::<Vec<_>>());
}

#[tokio::test]
async fn offsets_are_listed_in_every_version() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"x").await;
    put(&stage, "a", 0, b"y").await;
    for version in versions(ApiKey::ListOffsets) {
        let ask = |timestamp, partition| {
            ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_timestamp(timestamp)
        };
        let request = |timestamp| {
            let topic = ListOffsetsTopic::default()
                .with_name(name("a"))
                .with_partitions(vec![ask(timestamp, 0), ask(timestamp, 9)]);
            ListOffsetsRequest::default()
                .with_replica_id(leasehold_wire::kafka::messages::BrokerId(-1))
                .with_topics(vec![topic])
        };
        for (timestamp, offset, since) in [(-1, 2, 1), (-2, 0, 1), (made_at(), 0, 1), (-3, 0, 7)] {
            let reply = stage.ask(&request(timestamp), version).await;
            let rows = &reply.topics[0].partitions;
            if version >= since {
                assert_eq!(
                    (rows[0].error_code, rows[0].offset),
                    (0, offset),
                    "{timestamp}"
                );
            } else {
                assert_eq!(rows[0].error_code, ErrorCode::UnsupportedVersion.code());
            }
            // As in Kafka, what cannot be asked for comes before what is not there.
            let error = match version >= since {
                true => ErrorCode::UnknownTopicOrPartition,
                false => ErrorCode::UnsupportedVersion,
            };
            assert_eq!(rows[1].error_code, error.code());
        }
    }
}

#[tokio::test]
async fn the_end_of_an_epoch_is_told_in_every_version() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"x").await;
    for version in versions(ApiKey::OffsetForLeaderEpoch) {
        let asked = OffsetForLeaderPartition::default()
            .with_current_leader_epoch(3)
            .with_leader_epoch(3);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name("a"))
            .with_partitions(vec![asked.clone(), asked.with_partition(4)]);
        let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        request.replica_id = leasehold_wire::kafka::messages::BrokerId(-2);
        let reply = stage.ask(&request, version).await;
        let rows = &reply.topics[0].partitions;
        assert_eq!(
            (rows[0].error_code, rows[0].leader_epoch, rows[0].end_offset),
            (0, 3, 1)
        );
        assert_eq!(
            rows[1].error_code,
            ErrorCode::UnknownTopicOrPartition.code()
        );
    }
}

#[tokio::test]
async fn every_producer_gets_an_id_of_its_own() {
    let stage = Stage::up().await;
    let mut seen = std::collections::HashSet::new();
    for version in versions(ApiKey::InitProducerId).cycle().take(25) {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let reply = stage.ask(&request, version).await;
        assert_eq!((reply.error_code, reply.producer_epoch), (0, 0));
        assert!(seen.insert(reply.producer_id.0));
    }
    let transactional =
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId::default()));
    let reply = stage.ask(&transactional, 4).await;
    assert_eq!(reply.error_code, ErrorCode::InvalidRequest.code());
}

#[test]
fn broker_ids_of_both_kinds_agree() {
    assert_eq!(super::super::convert::node(BrokerId(5)).0, 5);
}
