//! DeleteTopics, by name or (from version 6) by id, by way of the controller.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::{message_of, over_quota, refused, topic_name, wire_topic_id};
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, DeletedTopic, Outcome, TopicRef};
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::delete_topics_request::DeleteTopicState;
use leasehold_wire::kafka::messages::delete_topics_response::DeletableTopicResult;
use leasehold_wire::kafka::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    const STRICT: i16 = 5;
    if let Some(outcome) = unclear(call.version, &request) {
        return refused_whole(&request, &outcome);
    }
    let before = shared.image();
    let (asked, held): (Vec<_>, Vec<_>) =
        asked(call.version, &request)
            .into_iter()
            .partition(|topic| {
                let known = match topic {
                    TopicRef::Name(name) => before.topic_by_name(name),
                    TopicRef::Id(id) => before.topic(id),
                };
                known.is_none_or(|topic| {
                    let partitions = topic.partitions.len();
                    call.throttle.may_mutate(partitions, call.version >= STRICT)
                })
            });
    let wish = AdminRequest::DeleteTopics {
        topics: asked.clone(),
    };
    let mut results = match shared.admin(wish, request.timeout_ms).await {
        Ok(AdminResponse::DeleteTopics(results)) => results,
        failed => {
            let outcome = failed.err().unwrap_or_else(mismatch);
            asked.iter().map(|topic| failure(topic, &outcome)).collect()
        }
    };
    let gone: Vec<TopicId> = results
        .iter()
        .filter(|result| result.outcome.is_ok())
        .filter_map(|result| {
            let by_name = || before.names.get(result.name.as_deref()?).copied();
            result.id.or_else(by_name)
        })
        .collect();
    shared
        .image_shows(READ_YOUR_WRITES, |image| {
            gone.iter().all(|id| image.topic(id).is_none())
        })
        .await;
    results.extend(held.iter().map(|topic| failure(topic, &over_quota())));
    let mut reply = DeleteTopicsResponse::default();
    reply.responses = results
        .iter()
        .map(|result| row(call.version, result))
        .collect();
    reply
}

/// As in Kafka, one topic that is named by both or by neither is the end of the whole request.
fn unclear(version: i16, request: &DeleteTopicsRequest) -> Option<Outcome> {
    let by_both_or_neither =
        |topic: &DeleteTopicState| topic.name.is_some() == wire_topic_id(topic.topic_id).is_some();
    (version >= 6 && request.topics.iter().any(by_both_or_neither)).then(|| {
        let why = "a topic to delete is named by its name or by its id, and not by both";
        refused(ErrorCode::InvalidRequest, why)
    })
}

fn refused_whole(request: &DeleteTopicsRequest, outcome: &Outcome) -> DeleteTopicsResponse {
    let row = |topic: &DeleteTopicState| {
        DeletableTopicResult::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_error_code(outcome.code)
            .with_error_message(message_of(outcome))
    };
    DeleteTopicsResponse::default().with_responses(request.topics.iter().map(row).collect())
}

fn asked(version: i16, request: &DeleteTopicsRequest) -> Vec<TopicRef> {
    if version < 6 {
        return request
            .topic_names
            .iter()
            .map(|name| TopicRef::Name(name.to_string()))
            .collect();
    }
    request
        .topics
        .iter()
        .map(|topic| match (&topic.name, wire_topic_id(topic.topic_id)) {
            (Some(name), None) => TopicRef::Name(name.to_string()),
            (_, id) => TopicRef::Id(id.unwrap_or_default()),
        })
        .collect()
}

fn failure(topic: &TopicRef, outcome: &Outcome) -> DeletedTopic {
    let (name, id) = match topic {
        TopicRef::Name(name) => (Some(name.clone()), None),
        TopicRef::Id(id) => (None, Some(*id)),
    };
    DeletedTopic {
        name,
        id,
        outcome: outcome.clone(),
    }
}

fn row(version: i16, result: &DeletedTopic) -> DeletableTopicResult {
    let name = match &result.name {
        // Not nullable before version 6.
        None if version < 6 => Some(topic_name("")),
        name => name.as_deref().map(topic_name),
    };
    let mut row = DeletableTopicResult::default()
        .with_name(name)
        .with_error_code(result.outcome.code);
    if version >= 6 {
        row.topic_id = result.id.unwrap_or_default().0;
    }
    if version >= 5 {
        row.error_message = message_of(&result.outcome);
    }
    row
}
