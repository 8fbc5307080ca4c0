//! Which APIs and versions this broker serves.
//!
//! One table, [`SERVED`]: what it lists works in every version, what it does not list is neither
//! advertised nor answered. Ceilings are where the message types and the broker agree; floors are
//! Kafka 4's. Produce is the one exception: it is advertised from 0, because older librdkafka
//! reads support for gzip and snappy out of `Produce 0..0`, but versions 0-2 are refused.

use crate::kafka::messages::ApiKey;

/// One API with the versions it is served in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub key: ApiKey,
    /// Lowest version in the ApiVersions reply.
    pub advertised_min: i16,
    /// Lowest version that is really served.
    pub min: i16,
    pub max: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> Served {
    Served {
        key,
        advertised_min: min,
        min,
        max,
    }
}

/// The APIs of the client listener, in the order of their keys.
pub const SERVED: &[Served] = &[
    // Version 13 names topics by id only; the cap stays until produce by id is served.
    Served {
        key: ApiKey::Produce,
        advertised_min: 0,
        min: 3,
        max: 12,
    },
    api(ApiKey::Fetch, 4, 17),
    // Version 11 asks for what waits to be tiered; the message types end at 10.
    api(ApiKey::ListOffsets, 1, 10),
    api(ApiKey::Metadata, 0, 13),
    api(ApiKey::OffsetCommit, 2, 9),
    api(ApiKey::OffsetFetch, 1, 9),
    api(ApiKey::FindCoordinator, 0, 6),
    api(ApiKey::JoinGroup, 0, 9),
    api(ApiKey::Heartbeat, 0, 4),
    api(ApiKey::LeaveGroup, 0, 5),
    api(ApiKey::SyncGroup, 0, 5),
    api(ApiKey::DescribeGroups, 0, 6),
    api(ApiKey::ListGroups, 0, 5),
    api(ApiKey::ApiVersions, 0, 4),
    api(ApiKey::CreateTopics, 2, 7),
    api(ApiKey::DeleteTopics, 1, 6),
    api(ApiKey::DeleteRecords, 0, 2),
    api(ApiKey::InitProducerId, 0, 5),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4),
    // The last versions of 0, 24, 25, 26 and 28 belong to transactions v2 (KIP-890); clients take them up by the level of
    // `transaction.version`, and they work at every level.
    api(ApiKey::AddPartitionsToTxn, 0, 5),
    api(ApiKey::AddOffsetsToTxn, 0, 4),
    api(ApiKey::EndTxn, 0, 5),
    // Version 2 adds the transaction's version, by which a leader could check the epoch; the message types end at 1.
    api(ApiKey::WriteTxnMarkers, 1, 1),
    api(ApiKey::TxnOffsetCommit, 0, 5),
    api(ApiKey::DescribeConfigs, 1, 4),
    api(ApiKey::AlterConfigs, 0, 2),
    api(ApiKey::AlterReplicaLogDirs, 1, 2),
    // Version 5 adds whether a directory is cordoned; the message types end at 4.
    api(ApiKey::DescribeLogDirs, 1, 4),
    api(ApiKey::CreatePartitions, 0, 3),
    api(ApiKey::DeleteGroups, 0, 2),
    api(ApiKey::ElectLeaders, 0, 2),
    api(ApiKey::IncrementalAlterConfigs, 0, 1),
    api(ApiKey::AlterPartitionReassignments, 0, 1),
    api(ApiKey::ListPartitionReassignments, 0, 0),
    api(ApiKey::OffsetDelete, 0, 0),
    api(ApiKey::DescribeClientQuotas, 0, 1),
    api(ApiKey::AlterClientQuotas, 0, 1),
    api(ApiKey::UpdateFeatures, 0, 2),
    api(ApiKey::DescribeCluster, 0, 2),
    api(ApiKey::DescribeProducers, 0, 0),
    api(ApiKey::UnregisterBroker, 0, 0),
    api(ApiKey::DescribeTransactions, 0, 0),
    api(ApiKey::ListTransactions, 0, 2),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    api(ApiKey::ConsumerGroupDescribe, 0, 1),
    api(ApiKey::ListConfigResources, 0, 1),
    api(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// What to do with a request of this key and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Serve(ApiKey),
    /// ApiVersions in a version we do not know: answered with a version 0 body and error 35.
    AnswerApiVersionsV0,
    /// Kafka closes the connection, and so do we.
    Close,
}

/// Judges a request's key and version.
pub fn lookup(key: i16, version: i16) -> Lookup {
    match SERVED.iter().find(|served| served.key as i16 == key) {
        Some(s) if (s.min..=s.max).contains(&version) => Lookup::Serve(s.key),
        Some(s) if s.key == ApiKey::ApiVersions => Lookup::AnswerApiVersionsV0,
        _ => Lookup::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_each_key_once_in_order_and_within_the_codec() {
        for pair in SERVED.windows(2) {
            assert!((pair[0].key as i16) < (pair[1].key as i16));
        }
        for served in SERVED {
            let codec = served.key.valid_versions();
            assert!(
                served.min >= codec.min && served.max <= codec.max,
                "{served:?}"
            );
            assert!(served.advertised_min <= served.min && served.min <= served.max);
        }
    }

    #[test]
    fn produce_below_three_is_advertised_and_refused() {
        let produce = SERVED[0];
        assert_eq!((produce.advertised_min, produce.max), (0, 12));
        assert_eq!(lookup(0, 2), Lookup::Close);
        assert_eq!(lookup(0, 3), Lookup::Serve(ApiKey::Produce));
        assert_eq!(lookup(0, 13), Lookup::Close);
    }

    #[test]
    fn only_an_unknown_version_of_api_versions_is_answered() {
        assert_eq!(lookup(18, 5), Lookup::AnswerApiVersionsV0);
        assert_eq!(lookup(18, -1), Lookup::AnswerApiVersionsV0);
        assert_eq!(lookup(3, 14), Lookup::Close);
        assert_eq!(lookup(999, 0), Lookup::Close);
        assert_eq!(lookup(68, 2), Lookup::Close);
    }
}
