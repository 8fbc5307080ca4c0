//! ListOffsets: where a partition begins, ends, or stood at a time.

use super::call::Call;
use super::context::Shared;
use super::convert::exact_epoch;
use leasehold_metadata::Image;
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::list_offsets_request::ListOffsetsPartition;
use leasehold_wire::kafka::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use leasehold_wire::kafka::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::HashSet;
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let image = shared.image();
    let read_committed = request.isolation_level == 1;
    let mut seen = HashSet::new();
    let mut reply = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let repeated = !seen.insert((topic.name.as_str(), asked.partition_index));
            let found = match check(&image, call.version, &topic.name, asked, repeated) {
                Err(error) => Err(error),
                Ok(id) => shared
                    .replicas
                    .list_offsets(
                        (id, asked.partition_index),
                        exact_epoch(asked.current_leader_epoch),
                        asked.timestamp,
                        read_committed,
                    )
                    .await
                    .map_err(|refused| refused.error),
            };
            let mut partition =
                ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            match found {
                Err(error) => partition.error_code = error.code(),
                Ok(found) => {
                    partition.timestamp = found.timestamp;
                    partition.offset = found.offset.0;
                    if call.version >= 4 {
                        partition.leader_epoch = found.leader_epoch.map_or(-1, |epoch| epoch.0);
                    }
                }
            }
            partitions.push(partition);
        }
        reply.topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions),
        );
    }
    reply
}

fn check(
    image: &Image,
    version: i16,
    name: &str,
    asked: &ListOffsetsPartition,
    repeated: bool,
) -> Result<TopicId, ErrorCode> {
    if repeated {
        return Err(ErrorCode::InvalidRequest);
    }
    // The special times came one by one.
    if !matches!(
        (asked.timestamp, version),
        (-2.., _) | (-3, 7..) | (-4, 8..) | (-5, 9..)
    ) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let topic = image
        .topic_by_name(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic
        .partition(asked.partition_index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(topic.id)
}
