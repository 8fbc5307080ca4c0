//! OffsetDelete: what a group committed for topics that it consumes no more.

use super::call::Call;
use super::context::Shared;
use super::convert::topic_name;
use crate::group::types::DeleteOffsetsRequest;
use leasehold_wire::ErrorCode;
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
    let image = shared.image();
    let (mut topics, mut unknown) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let found = image.topic_by_name(&topic.name);
        let asked = topic.partitions.iter().map(|p| p.partition_index);
        let (known, gone): (Vec<i32>, Vec<i32>) =
            asked.partition(|index| found.is_some_and(|t| t.partition(*index).is_some()));
        topics.push((topic.name.to_string(), known));
        unknown.push(gone);
    }
    let asked = DeleteOffsetsRequest {
        group_id: request.group_id.to_string(),
        topics,
    };
    let reply = OffsetDeleteResponse::default();
    let deleted = match shared.groups.delete_offsets(asked).await {
        Ok(deleted) => deleted,
        Err(error) => return reply.with_error_code(error.code()),
    };
    let topics = deleted.topics.into_iter().zip(unknown);
    let rows = topics.map(|((name, partitions), unknown)| {
        // As in Kafka: nothing is deleted for what does not exist, and that is told.
        let unknown = unknown
            .into_iter()
            .map(|partition| (partition, ErrorCode::UnknownTopicOrPartition));
        let partitions = partitions
            .into_iter()
            .chain(unknown)
            .map(|(partition, error)| {
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
