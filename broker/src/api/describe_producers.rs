//! DescribeProducers: who has written to a partition, and whose transaction is open there (KIP-664).

use super::call::Call;
use super::context::Shared;
use super::convert::opt_text;
use super::metadata::is_legal_name;
use leasehold_log::ProducerState;
use leasehold_metadata::Image;
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::describe_producers_response::{
    PartitionResponse, ProducerState as WireProducer, TopicResponse,
};
use leasehold_wire::kafka::messages::{DescribeProducersRequest, DescribeProducersResponse};
use std::collections::HashSet;
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _call: Call,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = shared.image();
    let mut seen = HashSet::new();
    let mut reply = DescribeProducersResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let found = match find(&image, &topic.name, index) {
                // A repeated partition would multiply the work.
                Ok(id) if !seen.insert((id, index)) => Err(ErrorCode::InvalidRequest),
                Ok(id) => shared
                    .replicas
                    .producers((id, index))
                    .await
                    .map_err(|refused| refused.error),
                Err(error) => Err(error),
            };
            partitions.push(partition(index, found));
        }
        reply.topics.push(
            TopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    reply
}

fn find(image: &Image, name: &str, index: i32) -> Result<TopicId, ErrorCode> {
    if !is_legal_name(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let topic = image.topic_by_name(name);
    topic
        .filter(|topic| topic.partition(index).is_some())
        .map(|topic| topic.id)
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn partition(index: i32, found: Result<Vec<ProducerState>, ErrorCode>) -> PartitionResponse {
    let reply = PartitionResponse::default().with_partition_index(index);
    match found {
        Ok(producers) => reply.with_active_producers(producers.into_iter().map(wire).collect()),
        Err(error) => reply
            .with_error_code(error.code())
            .with_error_message(opt_text(Some(error.to_string()))),
    }
}

fn wire(producer: ProducerState) -> WireProducer {
    WireProducer::default()
        .with_producer_id(producer.producer_id.0.into())
        .with_producer_epoch(producer.producer_epoch.into())
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.open_since.map_or(-1, |offset| offset.0))
}
