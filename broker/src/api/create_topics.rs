//! CreateTopics, by way of the controller.
//!
//! The topic's id is drawn here, so that asking the controller again is harmless. The reply waits
//! until this broker's own image shows the topic.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::{message_of, over_quota, refused};
use super::describe_configs::created_configs;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, CreatedTopic, NewTopic, Outcome};
use leasehold_types::{BrokerId, TopicId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::create_topics_request::CreatableTopic;
use leasehold_wire::kafka::messages::create_topics_response::CreatableTopicResult;
use leasehold_wire::kafka::messages::{CreateTopicsRequest, CreateTopicsResponse};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Kafka's log of metadata, which nobody may create as a topic; there is none here.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| topic.name.as_str()));
    let wanted: Vec<&CreatableTopic> = request
        .topics
        .iter()
        .filter(|topic| !repeated.contains(topic.name.as_str()))
        .filter(|topic| topic.name.as_str() != METADATA_TOPIC)
        .collect();
    // Each topic that the quota lets through, as Kafka does.
    const STRICT: i16 = 6;
    let (wanted, held): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|topic| {
        let partitions = partitions(&shared, topic);
        call.throttle.may_mutate(partitions, call.version >= STRICT)
    });
    let mut outcomes = create(&shared, &wanted, &request).await;
    outcomes.extend(
        held.iter()
            .map(|topic| (topic.name.to_string(), Err(over_quota()))),
    );

    let mut reply = CreateTopicsResponse::default();
    let mut answered = HashSet::new();
    for topic in &request.topics {
        if !answered.insert(topic.name.as_str()) {
            continue;
        }
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        let result = match outcomes.get(topic.name.as_str()) {
            Some(Ok(created)) => success(&shared, call.version, result, topic, created),
            Some(Err(outcome)) => failure(result, outcome),
            None if topic.name.as_str() == METADATA_TOPIC => failure(
                result,
                &refused(
                    ErrorCode::TopicAuthorizationFailed,
                    "this name is kept for the cluster's metadata",
                ),
            ),
            None => failure(
                result,
                &refused(
                    ErrorCode::InvalidRequest,
                    "the request names this topic more than once",
                ),
            ),
        };
        reply.topics.push(result);
    }
    reply
}

/// How many partitions `topic` would have.
fn partitions(shared: &Shared, topic: &CreatableTopic) -> usize {
    match (topic.assignments.len(), topic.num_partitions) {
        (0, asked @ 1..) => asked as usize,
        (0, _) => shared.config.num_partitions.max(1) as usize,
        (assigned, _) => assigned,
    }
}

async fn create(
    shared: &Shared,
    wanted: &[&CreatableTopic],
    request: &CreateTopicsRequest,
) -> HashMap<String, Result<CreatedTopic, Outcome>> {
    if wanted.is_empty() {
        return HashMap::new();
    }
    let asked = AdminRequest::CreateTopics {
        topics: wanted.iter().map(|topic| new_topic(topic)).collect(),
        validate_only: request.validate_only,
    };
    let outcomes: HashMap<_, _> = match shared.admin(asked, request.timeout_ms).await {
        Ok(AdminResponse::CreateTopics(created)) => created
            .into_iter()
            .map(|created| {
                let name = created.name.clone();
                let outcome = created.outcome.clone();
                (
                    name,
                    if outcome.is_ok() {
                        Ok(created)
                    } else {
                        Err(outcome)
                    },
                )
            })
            .collect(),
        failed => {
            let outcome = failed.err().unwrap_or_else(mismatch);
            wanted
                .iter()
                .map(|topic| (topic.name.to_string(), Err(outcome.clone())))
                .collect()
        }
    };
    if !request.validate_only {
        let ids: Vec<TopicId> = outcomes
            .values()
            .flatten()
            .map(|created| created.id)
            .collect();
        shared
            .image_shows(READ_YOUR_WRITES, |image| {
                ids.iter().all(|id| image.topic(id).is_some())
            })
            .await;
    }
    outcomes
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        id: TopicId::random(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|a| {
                (
                    a.partition_index,
                    a.broker_ids.iter().map(|id| BrokerId(id.0)).collect(),
                )
            })
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|c| {
                (
                    c.name.to_string(),
                    c.value.as_ref().map(ToString::to_string),
                )
            })
            .collect(),
    }
}

/// The names that come more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

fn success(
    shared: &Shared,
    version: i16,
    result: CreatableTopicResult,
    topic: &CreatableTopic,
    created: &CreatedTopic,
) -> CreatableTopicResult {
    let result = result.with_topic_id(created.id.0);
    if version < 5 {
        return result;
    }
    result
        .with_num_partitions(created.partitions)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(created_configs(&shared.image(), &topic.configs)))
}

fn failure(result: CreatableTopicResult, outcome: &Outcome) -> CreatableTopicResult {
    result
        .with_error_code(outcome.code)
        .with_error_message(message_of(outcome))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}
