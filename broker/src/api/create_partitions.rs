//! CreatePartitions, by way of the controller.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::{message_of, over_quota, topic_name};
use leasehold_metadata::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, MorePartitions};
use leasehold_types::BrokerId;
use leasehold_wire::kafka::messages::create_partitions_request::CreatePartitionsTopic;
use leasehold_wire::kafka::messages::create_partitions_response::CreatePartitionsTopicResult;
use leasehold_wire::kafka::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    mut request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    const STRICT: i16 = 3;
    let image = shared.image();
    let mut held = Vec::new();
    request.topics.retain(|topic| {
        let present = image
            .topic_by_name(&topic.name)
            .map_or(0, |t| t.partitions.len());
        let more = usize::try_from(topic.count)
            .unwrap_or(0)
            .saturating_sub(present);
        let may = call.throttle.may_mutate(more, call.version >= STRICT);
        if !may {
            held.push(topic.name.to_string());
        }
        may
    });
    let wish = AdminRequest::CreatePartitions {
        topics: request.topics.iter().map(more).collect(),
        validate_only: request.validate_only,
    };
    let mut outcomes = match shared.admin(wish, request.timeout_ms).await {
        Ok(AdminResponse::CreatePartitions(outcomes)) => outcomes,
        failed => {
            let outcome = failed.err().unwrap_or_else(mismatch);
            request
                .topics
                .iter()
                .map(|t| (t.name.to_string(), outcome.clone()))
                .collect()
        }
    };
    if !request.validate_only {
        let accepted = |name: &str| outcomes.iter().any(|(n, o)| n == name && o.is_ok());
        let wanted: Vec<(String, i32)> = request
            .topics
            .iter()
            .filter(|topic| accepted(&topic.name))
            .map(|topic| (topic.name.to_string(), topic.count))
            .collect();
        let shown = |image: &Image| {
            wanted.iter().all(|(name, count)| {
                image
                    .topic_by_name(name)
                    .is_none_or(|t| t.partition(count.saturating_sub(1)).is_some())
            })
        };
        shared.image_shows(READ_YOUR_WRITES, shown).await;
    }
    outcomes.extend(held.into_iter().map(|name| (name, over_quota())));
    let mut reply = CreatePartitionsResponse::default();
    reply.results = outcomes
        .iter()
        .map(|(name, outcome)| {
            CreatePartitionsTopicResult::default()
                .with_name(topic_name(name))
                .with_error_code(outcome.code)
                .with_error_message(message_of(outcome))
        })
        .collect();
    reply
}

fn more(topic: &CreatePartitionsTopic) -> MorePartitions {
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|assignments| {
            assignments
                .iter()
                .map(|a| a.broker_ids.iter().map(|id| BrokerId(id.0)).collect())
                .collect()
        }),
    }
}
