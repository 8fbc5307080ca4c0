//! OffsetFetch: from where a group goes on.
//!
//! Traps: one group up to version 7, several from 8 on (only the `groups` array then); version 1 has
//! no error of its own, so it stands at every partition asked.

use super::call::Call;
use super::context::Shared;
use super::convert::{group_id, owned_text, text, topic_name};
use crate::group::types::{FetchRequest, FetchResponse};
use futures::future::join_all;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use leasehold_wire::kafka::messages::{OffsetFetchRequest, OffsetFetchResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let mut reply = OffsetFetchResponse::default();
    if call.version >= 8 {
        let asked = request.groups.iter().map(|group| FetchRequest {
            group_id: group.group_id.to_string(),
            topics: group.topics.as_ref().map(|topics| {
                let asked = topics
                    .iter()
                    .map(|t| (t.name.to_string(), t.partition_indexes.clone()));
                asked.collect()
            }),
            require_stable: request.require_stable,
            member_id: owned_text(&group.member_id),
            member_epoch: group.member_epoch,
        });
        let found = join_all(asked.map(|asked| shared.groups.fetch(asked))).await;
        reply.groups = found.into_iter().map(group_row).collect();
        return reply;
    }
    let topics: Option<Vec<(String, Vec<i32>)>> = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|t| (t.name.to_string(), t.partition_indexes))
            .collect()
    });
    let asked = FetchRequest {
        group_id: request.group_id.to_string(),
        topics: topics.clone(),
        require_stable: request.require_stable,
        member_id: None,
        member_epoch: -1,
    };
    let found = shared.groups.fetch(asked).await;
    if call.version >= 2 {
        reply.error_code = found.error.code();
    } else if !found.error.is_ok() {
        reply.topics = topics
            .into_iter()
            .flatten()
            .map(|t| failed_row(t, found.error))
            .collect();
        return reply;
    }
    reply.topics = found
        .topics
        .into_iter()
        .map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|found| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(found.partition)
                    .with_committed_offset(found.offset)
                    .with_committed_leader_epoch(found.leader_epoch)
                    .with_metadata(Some(text(found.metadata)))
                    .with_error_code(found.error.code())
            });
            OffsetFetchResponseTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions.collect())
        })
        .collect();
    reply
}

fn failed_row((name, indexes): (String, Vec<i32>), error: ErrorCode) -> OffsetFetchResponseTopic {
    let partitions = indexes.into_iter().map(|index| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_metadata(Some(text("")))
            .with_error_code(error.code())
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic_name(&name))
        .with_partitions(partitions.collect())
}

fn group_row(found: FetchResponse) -> OffsetFetchResponseGroup {
    let topics = found.topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|found| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(found.partition)
                .with_committed_offset(found.offset)
                .with_committed_leader_epoch(found.leader_epoch)
                .with_metadata(Some(text(found.metadata)))
                .with_error_code(found.error.code())
        });
        OffsetFetchResponseTopics::default()
            .with_name(topic_name(&name))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(group_id(&found.group_id))
        .with_topics(topics.collect())
        .with_error_code(found.error.code())
}
