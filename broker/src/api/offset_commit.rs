//! OffsetCommit: how far a group has read.

use super::call::Call;
use super::context::Shared;
use super::convert::topic_name;
use crate::group::types::{CommitPartition, CommitRequest, CommitTopic};
use leasehold_wire::kafka::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use leasehold_wire::kafka::messages::{OffsetCommitRequest, OffsetCommitResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| CommitTopic {
        name: topic.name.to_string(),
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| CommitPartition {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition
                    .committed_metadata
                    .map(|metadata| metadata.to_string()),
            })
            .collect(),
    });
    let committed = shared
        .groups
        .commit(CommitRequest {
            api_version: call.version,
            group_id: request.group_id.to_string(),
            generation: request.generation_id_or_member_epoch,
            member_id: request.member_id.to_string(),
            instance_id: request.group_instance_id.map(|id| id.to_string()),
            retention_ms: match call.version {
                2..=4 => request.retention_time_ms,
                _ => -1,
            },
            topics: topics.collect(),
        })
        .await;
    let rows = committed.topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition, error)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(rows.collect())
}
