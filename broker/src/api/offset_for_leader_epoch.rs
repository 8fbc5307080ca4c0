//! OffsetForLeaderEpoch: where an epoch ended, so that a client can tell whether its records were
//! cut off.

use super::call::Call;
use super::context::Shared;
use super::convert::exact_epoch;
use leasehold_types::LeaderEpoch;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use leasehold_wire::kafka::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = shared.image();
    let mut reply = OffsetForLeaderEpochResponse::default();
    for topic in &request.topics {
        let known = image.topic_by_name(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let known = known.filter(|topic| topic.partition(asked.partition).is_some());
            let found = match known {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(topic) => shared
                    .replicas
                    .offset_for_leader_epoch(
                        (topic.id, asked.partition),
                        exact_epoch(asked.current_leader_epoch),
                        LeaderEpoch(asked.leader_epoch),
                    )
                    .await
                    .map_err(|refused| refused.error),
            };
            let partition = EpochEndOffset::default().with_partition(asked.partition);
            partitions.push(match found {
                Err(error) => partition.with_error_code(error.code()),
                Ok((epoch, end)) => partition.with_leader_epoch(epoch.0).with_end_offset(end.0),
            });
        }
        reply.topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions),
        );
    }
    reply
}
