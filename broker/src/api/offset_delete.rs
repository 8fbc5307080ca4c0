//! OffsetDelete: what a group committed for topics that it consumes no more.

use super::call::Call;
use super::context::Shared;
use super::convert::topic_name;
use crate::group::types::DeleteOffsetsRequest;
use leasehold_wire::kafka::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use leasehold_wire::kafka::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| p.partition_index);
        (topic.name.to_string(), partitions.collect())
    });
    let asked = DeleteOffsetsRequest {
        group_id: request.group_id.to_string(),
        topics: topics.collect(),
    };
    let reply = OffsetDeleteResponse::default();
    let deleted = match shared.groups.delete_offsets(asked).await {
        Ok(deleted) => deleted,
        Err(error) => return reply.with_error_code(error.code()),
    };
    let rows = deleted.topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition, error)| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(error.code())
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(partitions.collect())
    });
    reply.with_topics(rows.collect())
}
