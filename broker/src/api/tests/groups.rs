//! Groups through the wire: each API in each version, one member that goes through its life.

use super::stage::*;
use bytes::Bytes;
use leasehold_wire::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use leasehold_wire::kafka::messages::leave_group_request::MemberIdentity;
use leasehold_wire::kafka::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use leasehold_wire::kafka::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use leasehold_wire::kafka::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use leasehold_wire::kafka::messages::sync_group_request::SyncGroupRequestAssignment;
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, ErrorCode};
use std::time::{Duration, Instant};

fn word(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(text: &str) -> GroupId {
    GroupId(word(text))
}

fn join(group_id: &str, member: &StrBytes, version: i16) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(word("range"))
        .with_metadata(Bytes::from_static(b"meta"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group(group_id))
        .with_session_timeout_ms(10_000)
        .with_member_id(member.clone())
        .with_protocol_type(word("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 {
        request.rebalance_timeout_ms = 10_000;
    }
    request
}

/// Joins as the only member; gives the member's id and the generation.
async fn joined(stage: &Stage, group_id: &str, version: i16) -> (StrBytes, i32) {
    let start = Instant::now();
    let mut member = StrBytes::default();
    loop {
        let reply = stage.ask(&join(group_id, &member, version), version).await;
        match ErrorCode::from_code(reply.error_code) {
            ErrorCode::None => {
                assert_eq!(reply.leader, reply.member_id);
                assert_eq!(reply.protocol_name.as_deref(), Some("range"));
                assert_eq!(reply.members.len(), 1);
                assert_eq!(&reply.members[0].metadata[..], b"meta");
                return (reply.member_id, reply.generation_id);
            }
            ErrorCode::MemberIdRequired => member = reply.member_id,
            error => assert!(error.is_retriable(), "{error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_member_joins_syncs_beats_and_leaves_in_every_version() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::JoinGroup) {
        let id = format!("g{version}");
        let (member, generation) = joined(&stage, &id, version).await;

        let sync_version = version.min(*versions(ApiKey::SyncGroup).end());
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(member.clone())
            .with_assignment(Bytes::from_static(b"mine"));
        let mut request = SyncGroupRequest::default()
            .with_group_id(group(&id))
            .with_generation_id(generation)
            .with_member_id(member.clone())
            .with_assignments(vec![assignment]);
        if sync_version >= 5 {
            request.protocol_type = Some(word("consumer"));
            request.protocol_name = Some(word("range"));
        }
        let reply = stage.ask(&request, sync_version).await;
        assert_eq!((reply.error_code, &reply.assignment[..]), (0, &b"mine"[..]));

        let beat = HeartbeatRequest::default()
            .with_group_id(group(&id))
            .with_generation_id(generation)
            .with_member_id(member.clone());
        let beat_version = version.min(*versions(ApiKey::Heartbeat).end());
        assert_eq!(stage.ask(&beat, beat_version).await.error_code, 0);

        let describe_version = version.min(*versions(ApiKey::DescribeGroups).end());
        let request = DescribeGroupsRequest::default().with_groups(vec![group(&id), group("no")]);
        let described = stage.ask(&request, describe_version).await;
        assert_eq!(described.groups[0].group_state.as_str(), "Stable");
        let seen = &described.groups[0].members[0];
        assert_eq!(seen.client_id.as_str(), "leasehold");
        assert_eq!(seen.client_host.as_str(), "/127.0.0.1");
        assert_eq!(&seen.member_assignment[..], b"mine");

        let leave_version = version.min(*versions(ApiKey::LeaveGroup).end());
        let mut leave = LeaveGroupRequest::default().with_group_id(group(&id));
        if leave_version <= 2 {
            leave.member_id = member;
        } else {
            leave.members = vec![MemberIdentity::default().with_member_id(member)];
        }
        let left = stage.ask(&leave, leave_version).await;
        assert_eq!(left.error_code, 0);
        assert!(left.members.iter().all(|member| member.error_code == 0));
    }
    for version in versions(ApiKey::ListGroups) {
        let reply = stage.ask(&ListGroupsRequest::default(), version).await;
        assert_eq!((reply.error_code, reply.groups.len()), (0, 10));
    }
    for (version, gone) in versions(ApiKey::DeleteGroups).zip(0..) {
        let names = vec![group(&format!("g{gone}")), group("no")];
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let reply = stage.ask(&request, version).await;
        let codes: Vec<i16> = reply
            .results
            .iter()
            .map(|result| result.error_code)
            .collect();
        assert_eq!(codes, [0, ErrorCode::GroupIdNotFound.code()]);
    }
}

#[tokio::test]
async fn offsets_are_committed_and_fetched_in_every_version() {
    let stage = Stage::up().await;
    joined(&stage, "warm-up", 0).await;
    let topic = |text: &str| TopicName(word(text));
    for version in versions(ApiKey::OffsetCommit) {
        let row = |name: &str| {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(3)
                .with_committed_offset(i64::from(version) + 40)
                .with_committed_metadata(Some(word("note")));
            OffsetCommitRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(vec![partition])
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(group("g"))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![row("a"), row("nowhere")]);
        let reply = stage.ask(&request, version).await;
        let codes: Vec<i16> = reply
            .topics
            .iter()
            .map(|topic| topic.partitions[0].error_code)
            .collect();
        assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    }
    for version in versions(ApiKey::OffsetFetch) {
        let mut request = OffsetFetchRequest::default();
        let (offset, metadata, error) = if version >= 8 {
            let asked = OffsetFetchRequestTopics::default()
                .with_name(topic("a"))
                .with_partition_indexes(vec![3]);
            let one = OffsetFetchRequestGroup::default()
                .with_group_id(group("g"))
                .with_topics(Some(vec![asked]));
            let all = OffsetFetchRequestGroup::default()
                .with_group_id(group("g"))
                .with_topics(None);
            request.groups = vec![one, all];
            let reply = stage.ask(&request, version).await;
            assert_eq!(reply.groups[1].topics.len(), 1);
            let found = &reply.groups[0].topics[0].partitions[0];
            (
                found.committed_offset,
                found.metadata.clone(),
                reply.groups[0].error_code,
            )
        } else {
            let asked = OffsetFetchRequestTopic::default()
                .with_name(topic("a"))
                .with_partition_indexes(vec![3]);
            request.group_id = group("g");
            request.topics = Some(vec![asked]);
            let reply = stage.ask(&request, version).await;
            let found = &reply.topics[0].partitions[0];
            (
                found.committed_offset,
                found.metadata.clone(),
                reply.error_code,
            )
        };
        assert_eq!((offset, metadata.as_deref(), error), (49, Some("note"), 0));
    }
}

#[tokio::test]
async fn the_coordinator_is_found_in_every_version() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::FindCoordinator) {
        let mut request = FindCoordinatorRequest::default();
        if version >= 4 {
            request.coordinator_keys = vec![word("g"), word("h")];
        } else {
            request.key = word("g");
        }
        let reply = stage.ask(&request, version).await;
        if version >= 4 {
            let keys: Vec<&str> = reply.coordinators.iter().map(|c| c.key.as_str()).collect();
            assert_eq!(keys, ["g", "h"]);
            assert!(
                reply
                    .coordinators
                    .iter()
                    .all(|c| c.node_id == ME.0 && c.error_code == 0)
            );
        } else {
            assert_eq!((reply.error_code, reply.node_id.0), (0, ME.0));
            assert_eq!(reply.host.as_str(), "host-1");
        }
    }
    let shares = FindCoordinatorRequest::default()
        .with_key(word("s"))
        .with_key_type(2);
    assert_ne!(stage.ask(&shares, 3).await.error_code, 0);
}

#[tokio::test]
async fn an_unknown_member_is_told_so_in_every_version_of_offset_fetch_and_heartbeat() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::Heartbeat) {
        let beat = HeartbeatRequest::default()
            .with_group_id(group("nobody"))
            .with_generation_id(4)
            .with_member_id(word("m"));
        assert_ne!(stage.ask(&beat, version).await.error_code, 0);
    }
    for version in versions(ApiKey::OffsetFetch).filter(|version| *version < 8) {
        let asked = OffsetFetchRequestTopic::default()
            .with_name(TopicName(word("a")))
            .with_partition_indexes(vec![0, 1]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group(""))
            .with_topics(Some(vec![asked]));
        let reply = stage.ask(&request, version).await;
        let rows: usize = reply
            .topics
            .iter()
            .map(|topic| topic.partitions.len())
            .sum();
        let whole = reply.error_code;
        assert!(whole != 0 || rows == 2, "version {version}: {reply:?}");
    }
}

#[tokio::test]
async fn a_member_of_the_newer_protocol_joins_is_described_and_leaves_in_every_version() {
    let stage = Stage::up().await;
    joined(&stage, "warm-up", 0).await;
    for version in versions(ApiKey::ConsumerGroupHeartbeat) {
        let id = format!("newer-{version}");
        let named = if version == 0 { "" } else { "mine" };
        let join = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group(&id))
            .with_member_id(word(named))
            .with_rebalance_timeout_ms(1000)
            .with_subscribed_topic_names(Some(vec![TopicName(word("a"))]))
            .with_topic_partitions(Some(Vec::new()));
        let joined = stage.ask(&join, version).await;
        assert_eq!((joined.error_code, joined.member_epoch), (0, 1));
        assert_eq!(joined.heartbeat_interval_ms, 5_000);
        let member = joined.member_id.expect("an id");
        assert!(version == 0 || member.as_str() == "mine");

        let version = version.min(*versions(ApiKey::ConsumerGroupDescribe).end());
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![
            group(&id),
            group("no"),
            group("warm-up"),
        ]);
        let described = stage.ask(&request, version).await;
        let seen = &described.groups[0];
        assert_eq!(seen.authorized_operations, i32::MIN);
        let asked = request.clone().with_include_authorized_operations(true);
        let allowed = stage.ask(&asked, version).await;
        assert_eq!(allowed.groups[0].authorized_operations, 3400);
        assert_eq!(allowed.groups[1].authorized_operations, i32::MIN);
        assert_eq!(seen.group_state.as_str(), "Stable");
        assert_eq!(seen.assignor_name.as_str(), "uniform");
        assert_eq!((seen.group_epoch, seen.assignment_epoch), (1, 1));
        assert_eq!(seen.members[0].member_id, member);
        assert_eq!(seen.members[0].client_id.as_str(), "leasehold");
        assert_eq!(seen.members[0].subscribed_topic_regex, Some(word("")));
        for other in &described.groups[1..] {
            assert_eq!(other.error_code, ErrorCode::GroupIdNotFound.code());
            assert!(other.error_message.is_some());
        }
        // The older API does not know such groups.
        let request = DescribeGroupsRequest::default().with_groups(vec![group(&id)]);
        let older = stage.ask(&request, 6).await;
        assert_eq!(
            older.groups[0].error_code,
            ErrorCode::GroupIdNotFound.code()
        );

        let leave = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group(&id))
            .with_member_id(member)
            .with_member_epoch(-1)
            .with_rebalance_timeout_ms(-1);
        let left = stage.ask(&leave, version).await;
        assert_eq!((left.error_code, left.member_epoch), (0, -1));
    }
    let request = ListGroupsRequest::default().with_types_filter(vec![word("Consumer")]);
    let listed = stage.ask(&request, 5).await;
    assert_eq!(listed.groups.len(), 2);
    let gone = OffsetDeleteRequest::default().with_group_id(group("no"));
    let refused = stage.ask(&gone, 0).await;
    assert_eq!(refused.error_code, ErrorCode::GroupIdNotFound.code());
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![group("warm-up"), group("no")])
        .with_include_authorized_operations(true);
    let described = stage.ask(&request, 6).await;
    let operations = described.groups.iter().map(|g| g.authorized_operations);
    assert!(operations.eq([3400, i32::MIN]));
}

#[tokio::test]
async fn no_offset_is_deleted_for_what_does_not_exist_and_that_is_told() {
    let stage = Stage::up().await;
    stage.add_topic("real", &[Some(ME)]);
    joined(&stage, "warm-up", 0).await;
    let join = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group("mine"))
        .with_member_id(word("me"))
        .with_rebalance_timeout_ms(1000)
        .with_subscribed_topic_names(Some(vec![TopicName(word("a"))]))
        .with_topic_partitions(Some(Vec::new()));
    assert_eq!(stage.ask(&join, 1).await.error_code, 0);
    let topic = |name: &str, partitions: &[i32]| {
        let one =
            |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(word(name)))
            .with_partitions(partitions.iter().map(one).collect())
    };
    let request = OffsetDeleteRequest::default()
        .with_group_id(group("mine"))
        .with_topics(vec![topic("real", &[7, 0]), topic("gone", &[0])]);
    let reply = stage.ask(&request, 0).await;
    assert_eq!(reply.error_code, 0);
    let rows = reply.topics.iter().flat_map(|topic| &topic.partitions);
    let rows: Vec<_> = rows.map(|p| (p.partition_index, p.error_code)).collect();
    assert_eq!(rows, [(0, 0), (7, 3), (0, 3)]);
}
