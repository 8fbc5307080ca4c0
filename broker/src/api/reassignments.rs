//! AlterPartitionReassignments and ListPartitionReassignments: moving replicas, and what moves now.

use super::call::Call;
use super::context::{Shared, mismatch};
use super::convert::{message_of, nodes, topic_name};
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Outcome, Reassignment};
use leasehold_metadata::{Image, Topic};
use leasehold_types::BrokerId;
use leasehold_wire::kafka::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use leasehold_wire::kafka::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use leasehold_wire::kafka::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn list(
    shared: &Shared,
    _: &Call,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = shared.image();
    let mut reply = ListPartitionReassignmentsResponse::default();
    reply.topics = match &request.topics {
        None => image
            .topics
            .values()
            .filter_map(|topic| ongoing(topic, |_| true))
            .collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| {
                let topic = image.topic_by_name(&asked.name)?;
                ongoing(topic, |index| asked.partition_indexes.contains(&index))
            })
            .collect(),
    };
    reply
}

/// What moves of a topic, if anything does.
fn ongoing(topic: &Topic, asked: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<_> = (0..)
        .zip(&topic.partitions)
        .filter(|(index, partition)| partition.is_reassigning() && asked(*index))
        .map(|(index, partition)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(index)
                .with_replicas(nodes(&partition.replicas))
                .with_adding_replicas(nodes(&partition.adding))
                .with_removing_replicas(nodes(&partition.removing))
        })
        .collect();
    (!partitions.is_empty()).then(|| {
        OngoingTopicReassignment::default()
            .with_name(topic_name(&topic.name))
            .with_partitions(partitions)
    })
}

pub(super) async fn alter(
    shared: Arc<Shared>,
    call: Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let allow = call.version == 0 || request.allow_replication_factor_change;
    let items = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Reassignment {
                topic: topic.name.to_string(),
                partition: partition.partition_index,
                replicas: partition
                    .replicas
                    .as_ref()
                    .map(|replicas| replicas.iter().map(|id| BrokerId(id.0)).collect()),
            })
        })
        .collect();
    let asked = AdminRequest::AlterReassignments {
        items,
        allow_replication_factor_change: allow,
    };
    let mut reply = AlterPartitionReassignmentsResponse::default();
    if call.version >= 1 {
        reply.allow_replication_factor_change = request.allow_replication_factor_change;
    }
    let outcomes: HashMap<(String, i32), Outcome> =
        match shared.admin(asked, request.timeout_ms).await {
            Ok(AdminResponse::AlterReassignments(outcomes)) => outcomes
                .into_iter()
                .map(|(topic, index, outcome)| ((topic, index), outcome))
                .collect(),
            failed => {
                let outcome = failed.err().unwrap_or_else(mismatch);
                reply.error_code = outcome.code;
                reply.error_message = message_of(&outcome);
                return reply;
            }
        };
    shared
        .image_shows(super::context::READ_YOUR_WRITES, |image| {
            shows(image, &request, &outcomes)
        })
        .await;
    reply.responses = request
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let key = (topic.name.to_string(), partition.partition_index);
                let outcome = outcomes.get(&key).cloned().unwrap_or_else(mismatch);
                ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(outcome.code)
                    .with_error_message(message_of(&outcome))
            });
            ReassignableTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        })
        .collect();
    reply
}

/// Whether the image has every target that was accepted. What is already finished counts too; a
/// cancellation is shown by nothing moving any more.
fn shows(
    image: &Image,
    request: &AlterPartitionReassignmentsRequest,
    outcomes: &HashMap<(String, i32), Outcome>,
) -> bool {
    request.topics.iter().all(|topic| {
        topic.partitions.iter().all(|asked| {
            let key = (topic.name.to_string(), asked.partition_index);
            if !outcomes.get(&key).is_some_and(Outcome::is_ok) {
                return true;
            }
            let partition = image
                .topic_by_name(&topic.name)
                .and_then(|t| t.partition(asked.partition_index));
            match (partition, &asked.replicas) {
                (None, _) => true,
                (Some(partition), None) => !partition.is_reassigning(),
                (Some(partition), Some(target)) => target
                    .iter()
                    .all(|id| partition.replicas.contains(&BrokerId(id.0))),
            }
        })
    })
}
