//! DeleteRecords: raises where partitions begin, on their leader.

use super::call::Call;
use super::context::Shared;
use crate::replica::PartitionKey;
use leasehold_metadata::Image;
use leasehold_types::Offset;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use leasehold_wire::kafka::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let image = shared.image();
    let asked = || {
        request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |p| (&topic.name, p)))
    };
    let judged: Vec<_> = asked()
        .map(|(topic, partition)| check(&image, topic, partition.partition_index))
        .collect();
    let wanted = asked()
        .zip(&judged)
        .filter_map(|((_, asked), key)| Some((key.ok()?, Offset(asked.offset))));
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let done = shared.replicas.delete_records(wanted.collect(), timeout);
    let mut done = done.await.into_iter();

    let mut judged = judged.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            // As many were judged as were asked for, and as many deleted as were judged well.
            let result = match judged.next().unwrap_or(Err(ErrorCode::UnknownServerError)) {
                Ok(_) => done.next().map(|done| (done.error, done.low_watermark.0)),
                Err(error) => Some((error, -1)),
            };
            let (error, low_watermark) = result.unwrap_or((ErrorCode::UnknownServerError, -1));
            DeleteRecordsPartitionResult::default()
                .with_partition_index(asked.partition_index)
                .with_low_watermark(low_watermark)
                .with_error_code(error.code())
        });
        DeleteRecordsTopicResult::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn check(image: &Image, name: &str, index: i32) -> Result<PartitionKey, ErrorCode> {
    let topic = image
        .topic_by_name(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.internal {
        // What its coordinator keeps there is not for clients to delete.
        return Err(ErrorCode::InvalidTopicException);
    }
    topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((topic.id, index))
}
