//! ElectLeaders, by way of the controller.

use super::call::Call;
use super::context::{Shared, mismatch};
use super::convert::{message_of, refused, topic_name};
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, ElectionKind};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::elect_leaders_response::{
    PartitionResult, ReplicaElectionResult,
};
use leasehold_wire::kafka::messages::{ElectLeadersRequest, ElectLeadersResponse};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut reply = ElectLeadersResponse::default();
    let kind = match request.election_type {
        0 => Ok(ElectionKind::Preferred),
        1 => Ok(ElectionKind::Unclean),
        other => Err(refused(
            ErrorCode::InvalidRequest,
            format!("there is no election of type {other}"),
        )),
    };
    let asked: Option<Vec<(String, i32)>> = request.topic_partitions.as_ref().map(|topics| {
        let pairs = topics.iter().flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|partition| (topic.topic.to_string(), *partition))
        });
        pairs.collect()
    });
    let elected = match kind {
        Ok(kind) => {
            let partitions = asked.clone();
            let wish = AdminRequest::ElectLeaders { kind, partitions };
            shared.admin(wish, request.timeout_ms).await
        }
        // As in Kafka, which does not get to look.
        Err(_) if asked.as_ref().is_some_and(Vec::is_empty) => {
            Ok(AdminResponse::ElectLeaders(Vec::new()))
        }
        Err(outcome) => Err(outcome),
    };
    let everywhere = asked.is_none() && elected.is_ok();
    let results = match elected {
        Ok(AdminResponse::ElectLeaders(results)) => results,
        failed => {
            let outcome = failed.err().unwrap_or_else(mismatch);
            // Version 0 has no error for the whole reply, so it stands at every partition asked.
            if call.version >= 1 {
                reply.error_code = outcome.code;
            }
            let asked = asked.unwrap_or_default().into_iter();
            asked
                .map(|(topic, partition)| (topic, partition, outcome.clone()))
                .collect()
        }
    };
    let mut topics = BTreeMap::<String, Vec<PartitionResult>>::new();
    if everywhere {
        // As in Kafka: who asks for all is told of all topics, and of the partitions where something was to be done.
        let image = shared.image();
        topics.extend(
            image
                .names
                .keys()
                .map(|name| (name.to_string(), Vec::new())),
        );
    }
    for (topic, partition, outcome) in results {
        let result = PartitionResult::default()
            .with_partition_id(partition)
            .with_error_code(outcome.code)
            .with_error_message(message_of(&outcome));
        topics.entry(topic).or_default().push(result);
    }
    reply.replica_election_results = topics
        .into_iter()
        .map(|(topic, results)| {
            ReplicaElectionResult::default()
                .with_topic(topic_name(&topic))
                .with_partition_result(results)
        })
        .collect();
    reply
}
