//! What strangers can send: every request decoder, in every version that is served, gets random
//! bytes, cut-off frames and senseless array counts. Each must answer with a value or an error, and
//! must not ask for memory that the bytes do not justify.
//!
//! The whole file runs under a limit of the address space: an allocation sized from the wire aborts
//! the test.

use bytes::{BufMut, Bytes, BytesMut};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::{Decodable, Encodable};
use leasehold_wire::versions::SERVED;
use leasehold_wire::{DecodeError, RequestHead, decode};
use proptest::prelude::*;
use std::sync::Once;

/// More than any test here needs; far less than a hostile count asks for.
const ADDRESS_SPACE: u64 = 3 << 30;

fn limit_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = rustix::process::Rlimit {
            current: Some(ADDRESS_SPACE),
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    });
}

fn try_one<T: Decodable>(body: Bytes, version: i16) -> Result<(), DecodeError> {
    decode::<T>(body, version).map(drop)
}

fn plain<T: Encodable + Default>(version: i16) -> Bytes {
    let mut body = BytesMut::new();
    // A default request may be inexpressible in a version; then there is nothing to cut.
    let _ = T::default().encode(&mut body, version);
    body.freeze()
}

macro_rules! by_key {
    ($key:expr, $call:ident::<_>($($argument:expr),*)) => {
        match $key {
            ApiKey::Produce => $call::<ProduceRequest>($($argument),*),
            ApiKey::Fetch => $call::<FetchRequest>($($argument),*),
            ApiKey::ListOffsets => $call::<ListOffsetsRequest>($($argument),*),
            ApiKey::Metadata => $call::<MetadataRequest>($($argument),*),
            ApiKey::OffsetCommit => $call::<OffsetCommitRequest>($($argument),*),
            ApiKey::OffsetFetch => $call::<OffsetFetchRequest>($($argument),*),
            ApiKey::FindCoordinator => $call::<FindCoordinatorRequest>($($argument),*),
            ApiKey::JoinGroup => $call::<JoinGroupRequest>($($argument),*),
            ApiKey::Heartbeat => $call::<HeartbeatRequest>($($argument),*),
            ApiKey::LeaveGroup => $call::<LeaveGroupRequest>($($argument),*),
            ApiKey::SyncGroup => $call::<SyncGroupRequest>($($argument),*),
            ApiKey::DescribeGroups => $call::<DescribeGroupsRequest>($($argument),*),
            ApiKey::ListGroups => $call::<ListGroupsRequest>($($argument),*),
            ApiKey::ApiVersions => $call::<ApiVersionsRequest>($($argument),*),
            ApiKey::CreateTopics => $call::<CreateTopicsRequest>($($argument),*),
            ApiKey::DeleteTopics => $call::<DeleteTopicsRequest>($($argument),*),
            ApiKey::DeleteRecords => $call::<DeleteRecordsRequest>($($argument),*),
            ApiKey::InitProducerId => $call::<InitProducerIdRequest>($($argument),*),
            ApiKey::OffsetForLeaderEpoch => $call::<OffsetForLeaderEpochRequest>($($argument),*),
            ApiKey::DescribeConfigs => $call::<DescribeConfigsRequest>($($argument),*),
            ApiKey::DescribeLogDirs => $call::<DescribeLogDirsRequest>($($argument),*),
            ApiKey::CreatePartitions => $call::<CreatePartitionsRequest>($($argument),*),
            ApiKey::DeleteGroups => $call::<DeleteGroupsRequest>($($argument),*),
            ApiKey::OffsetDelete => $call::<OffsetDeleteRequest>($($argument),*),
            ApiKey::ConsumerGroupHeartbeat => $call::<ConsumerGroupHeartbeatRequest>($($argument),*),
            ApiKey::ConsumerGroupDescribe => $call::<ConsumerGroupDescribeRequest>($($argument),*),
            ApiKey::ElectLeaders => $call::<ElectLeadersRequest>($($argument),*),
            ApiKey::IncrementalAlterConfigs => $call::<IncrementalAlterConfigsRequest>($($argument),*),
            ApiKey::AlterPartitionReassignments => $call::<AlterPartitionReassignmentsRequest>($($argument),*),
            ApiKey::ListPartitionReassignments => $call::<ListPartitionReassignmentsRequest>($($argument),*),
            ApiKey::DescribeCluster => $call::<DescribeClusterRequest>($($argument),*),
            ApiKey::DescribeTopicPartitions => $call::<DescribeTopicPartitionsRequest>($($argument),*),
            ApiKey::AddPartitionsToTxn => $call::<AddPartitionsToTxnRequest>($($argument),*),
            ApiKey::AddOffsetsToTxn => $call::<AddOffsetsToTxnRequest>($($argument),*),
            ApiKey::EndTxn => $call::<EndTxnRequest>($($argument),*),
            ApiKey::WriteTxnMarkers => $call::<WriteTxnMarkersRequest>($($argument),*),
            ApiKey::TxnOffsetCommit => $call::<TxnOffsetCommitRequest>($($argument),*),
            ApiKey::AlterReplicaLogDirs => $call::<AlterReplicaLogDirsRequest>($($argument),*),
            ApiKey::AlterConfigs => $call::<AlterConfigsRequest>($($argument),*),
            ApiKey::DescribeClientQuotas => $call::<DescribeClientQuotasRequest>($($argument),*),
            ApiKey::AlterClientQuotas => $call::<AlterClientQuotasRequest>($($argument),*),
            ApiKey::UpdateFeatures => $call::<UpdateFeaturesRequest>($($argument),*),
            ApiKey::DescribeProducers => $call::<DescribeProducersRequest>($($argument),*),
            ApiKey::UnregisterBroker => $call::<UnregisterBrokerRequest>($($argument),*),
            ApiKey::DescribeTransactions => $call::<DescribeTransactionsRequest>($($argument),*),
            ApiKey::ListTransactions => $call::<ListTransactionsRequest>($($argument),*),
            ApiKey::ListConfigResources => $call::<ListConfigResourcesRequest>($($argument),*),
            other => panic!("{other:?} is served but not tested here"),
        }
    };
}

fn every_pair() -> impl Iterator<Item = (ApiKey, i16)> {
    SERVED
        .iter()
        .flat_map(|served| (served.min..=served.max).map(|version| (served.key, version)))
}

/// Bytes out of a small alphabet reach deeper into nested arrays than evenly random ones.
fn nesting_bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => Just(0u8), 4 => Just(1u8), 3 => Just(2u8), 1 => Just(3u8), 1 => Just(0x7f),
        1 => Just(0x80), 1 => Just(0xff), 1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        limit_memory();
        let bytes = Bytes::from(bytes);
        let _ = RequestHead::take(&mut bytes.clone());
        for (key, version) in every_pair() {
            let _ = by_key!(key, try_one::<_>(bytes.clone(), version));
        }
    }

    #[test]
    fn a_hostile_count_anywhere_asks_for_no_memory(
        front in nesting_bytes(60),
        rest in nesting_bytes(200),
        count in prop_oneof![Just(0x7fff_ffffu32), Just(0xffff_fff0), Just(0x0100_0000), any::<u32>()],
    ) {
        limit_memory();
        let mut fixed = BytesMut::from(&front[..]);
        fixed.put_u32(count);
        fixed.put_slice(&rest);
        let mut compact = BytesMut::from(&front[..]);
        compact.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]);
        compact.put_slice(&rest);
        for bytes in [fixed.freeze(), compact.freeze()] {
            let _ = RequestHead::take(&mut bytes.clone());
            for (key, version) in every_pair() {
                let _ = by_key!(key, try_one::<_>(bytes.clone(), version));
            }
        }
    }
}

#[test]
fn a_frame_cut_short_is_an_error_or_shorter_value() {
    limit_memory();
    for (key, version) in every_pair() {
        let whole = by_key!(key, plain::<_>(version));
        for end in 0..whole.len() {
            let _ = by_key!(key, try_one::<_>(whole.slice(..end), version));
        }
        if !whole.is_empty() {
            by_key!(key, try_one::<_>(whole.clone(), version)).unwrap();
        }
    }
}

/// 100 MB of minimal elements would decode into gigabytes; the limit on fields stops it early.
#[test]
fn a_huge_frame_of_tiny_elements_is_refused_before_it_fills_the_memory() {
    limit_memory();
    const SIZE: usize = 100 << 20;
    let mut old = BytesMut::zeroed(SIZE);
    old[..4].copy_from_slice(&((SIZE / 4) as i32).to_be_bytes());
    let old = old.freeze();
    let mut flexible = BytesMut::new();
    flexible.put_slice(&[0xff, 0xff, 0xff, 0x20]);
    flexible.put_bytes(1, SIZE);
    let flexible = flexible.freeze();
    for (key, version) in every_pair() {
        let _ = by_key!(key, try_one::<_>(old.clone(), version));
        let _ = by_key!(key, try_one::<_>(flexible.clone(), version));
    }
    let refused = decode::<MetadataRequest>(old, 1);
    assert!(
        matches!(refused, Err(DecodeError::TooManyFields(_))),
        "{refused:?}"
    );
}

#[test]
fn a_hostile_count_in_a_metadata_body_is_an_error() {
    limit_memory();
    for version in 0..=8 {
        let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(decode::<MetadataRequest>(body, version).is_err());
    }
}

#[test]
fn records_are_a_slice_of_the_frame_and_never_a_copy() {
    let records = vec![7u8; 1 << 20];
    let mut request = ProduceRequest::default();
    let mut topic = produce_request::TopicProduceData::default();
    let mut partition = produce_request::PartitionProduceData::default();
    partition.records = Some(Bytes::from(records));
    topic.partition_data.push(partition);
    request.topic_data.push(topic);
    let mut body = BytesMut::new();
    request.encode(&mut body, 9).unwrap();
    let body = body.freeze();
    let range = body.as_ptr_range();
    let decoded: ProduceRequest = decode(body.clone(), 9).unwrap();
    let records = decoded.topic_data[0].partition_data[0]
        .records
        .clone()
        .unwrap();
    assert!(range.contains(&records.as_ptr()), "the records were copied");
}
