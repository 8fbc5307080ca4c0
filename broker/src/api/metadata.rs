//! Metadata: brokers, topics, who leads what; and topics that come into being by being asked for.
//!
//! Traps: version 0 asks for all topics with an empty list, later ones with null (an empty list then
//! means none). Topic ids come with version 10, may be asked by from 12. Version 13 has an error of
//! its own for the whole reply.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared};
use super::convert::{
    ALL_ON_CLUSTER, ALL_ON_TOPIC, NOT_ASKED, no_node, node, nodes, operations, opt_text, text,
    topic_name, wire_topic_id,
};
use super::leaders;
use super::seen::Seen;
use crate::server::{Refusal, Reply};
use bytes::Bytes;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, NewTopic};
use leasehold_metadata::{Image, Partition, Topic};
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use leasehold_wire::kafka::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use leasehold_wire::kafka::messages::{BrokerId, MetadataRequest, MetadataResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a client that asked for a new topic waits before it is told to ask again.
const CREATE_PATIENCE_MS: i32 = 2_000;

/// From this version on clients know that a leader may not listen where they come in.
const KNOWS_LISTENERS: i16 = 6;

/// From this version on topics may be asked for by their ids.
const ASKED_BY_ID: i16 = 12;

/// How many topics one request may bring into being by asking.
const MOST_NEW: usize = 100;

/// What became of the topics that were to be created by asking.
type Created = BTreeMap<String, ErrorCode>;

pub(super) fn serve(shared: &Arc<Shared>, call: Call, body: Bytes) -> Result<Reply, Refusal> {
    let request: MetadataRequest = call.decode(body)?;
    let missing = wanted_new(
        &shared.image(),
        shared.config.auto_create_topics_enable,
        &request,
    );
    let leaders = leaders::named(shared, &shared.image(), call.version, &request);
    if missing.is_empty() && leaders.is_empty() {
        let reply = describe(shared, &call, &request, &Created::new());
        return Ok(Reply::Ready(call.encode::<MetadataRequest>(&reply)?));
    }
    let shared = shared.clone();
    Ok(Reply::Exclusive(Box::pin(async move {
        leaders::settle(&shared, &leaders).await;
        let created = if missing.is_empty() {
            Created::new()
        } else {
            create(&shared, missing).await
        };
        let reply = describe(&shared, &call, &request, &created);
        call.encode::<MetadataRequest>(&reply).map(Some)
    })))
}

/// The topics that the request creates by asking for them.
fn wanted_new(image: &Image, enabled: bool, request: &MetadataRequest) -> BTreeSet<String> {
    if !enabled || !request.allow_auto_topic_creation {
        return BTreeSet::new();
    }
    let asked = request.topics.iter().flatten();
    asked
        .filter(|topic| topic.topic_id.is_nil())
        .filter_map(|topic| topic.name.as_ref())
        .filter(|name| image.topic_by_name(name).is_none() && is_legal_name(name))
        // Kafka's own topics are made by whoever needs them, with what they need.
        .filter(|name| !name.starts_with("__"))
        .map(|name| name.to_string())
        // The others are unknown for now; a client that means them asks again.
        .take(MOST_NEW)
        .collect()
}

async fn create(shared: &Shared, missing: BTreeSet<String>) -> Created {
    let topics = missing.iter().map(NewTopic::with_defaults).collect();
    let request = AdminRequest::CreateTopics {
        topics,
        validate_only: false,
    };
    let mut created = Created::new();
    match shared.admin(request, CREATE_PATIENCE_MS).await {
        Ok(AdminResponse::CreateTopics(results)) => {
            for result in results {
                let error = match ErrorCode::from_code(result.outcome.code) {
                    // Someone else was quicker.
                    ErrorCode::None | ErrorCode::TopicAlreadyExists => ErrorCode::None,
                    // Too few brokers now may be enough in a moment, and clients give up on this one.
                    ErrorCode::InvalidReplicationFactor => ErrorCode::LeaderNotAvailable,
                    error => error,
                };
                if !error.is_ok() {
                    let why = result.outcome.message.unwrap_or_default();
                    tracing::debug!(topic = result.name, %error, why, "a topic asked for was not created");
                }
                created.insert(result.name, error);
            }
        }
        // Clients ask again on this one, and only the metadata of this topic waits.
        _ => created.extend(
            missing
                .into_iter()
                .map(|name| (name, ErrorCode::LeaderNotAvailable)),
        ),
    }
    let made = |image: &Image| {
        created
            .iter()
            .filter(|(_, error)| error.is_ok())
            .all(|(name, _)| {
                let topic = image.topic_by_name(name);
                topic.is_some_and(|topic| topic.partitions.iter().all(|p| p.leader.is_some()))
            })
    };
    shared
        .image_shows(READ_YOUR_WRITES.min(Duration::from_secs(2)), made)
        .await;
    created
}

fn describe(
    shared: &Shared,
    call: &Call,
    request: &MetadataRequest,
    created: &Created,
) -> MetadataResponse {
    let (image, version) = (&*shared.image(), call.version);
    if version < ASKED_BY_ID && request.topics.iter().flatten().any(has_no_name) {
        return refused_whole(image, version, request);
    }
    let seen = call.sees(image);
    let mut reply = MetadataResponse::default();
    reply.brokers = shared
        .departed
        .named(image)
        .into_iter()
        .filter_map(|broker| {
            let (host, port) = seen.address(broker)?;
            Some(
                MetadataResponseBroker::default()
                    .with_node_id(node(broker.id))
                    .with_host(host)
                    .with_port(port)
                    .with_rack(opt_text(broker.rack.as_deref())),
            )
        })
        .collect();
    reply.cluster_id = Some(text(&image.cluster_id.0));
    reply.controller_id = controller_id(seen);
    reply.topics = if asks_for_all(version, request) {
        all_topics(seen, version)
    } else {
        let asked = request.topics.iter().flatten();
        asked
            .map(|topic| describe_asked(seen, version, topic, created))
            .collect()
    };
    reply.cluster_authorized_operations = operations(
        request.include_cluster_authorized_operations,
        ALL_ON_CLUSTER,
    );
    let there = reply
        .topics
        .iter_mut()
        .filter(|topic| topic.error_code == 0);
    for topic in there {
        topic.topic_authorized_operations =
            operations(request.include_topic_authorized_operations, ALL_ON_TOPIC);
    }
    reply
}

/// Whether only a later version can ask for this topic.
fn has_no_name(topic: &MetadataRequestTopic) -> bool {
    !topic.topic_id.is_nil() || topic.name.is_none()
}

/// As in Kafka, where one such topic spoils the request: nothing about the brokers either.
fn refused_whole(image: &Image, version: i16, request: &MetadataRequest) -> MetadataResponse {
    let asked = request.topics.iter().flatten();
    MetadataResponse::default()
        .with_cluster_id(Some(text(&image.cluster_id.0)))
        .with_controller_id(no_node())
        .with_topics(
            asked
                .map(|topic| failed(topic, version, ErrorCode::InvalidRequest))
                .collect(),
        )
}

/// Whether every topic is asked for: null, in version 0 an empty list.
pub(super) fn asks_for_all(version: i16, request: &MetadataRequest) -> bool {
    match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    }
}

/// The broker that clients send controller requests to. Any would do: they all pass them on.
pub(super) fn controller_id(image: Seen<'_>) -> BrokerId {
    let claimed = image.claims.back().map(|claim| claim.broker);
    claimed
        .filter(|broker| image.is_live(*broker) && image.has(*broker))
        .or_else(|| {
            image
                .brokers
                .values()
                .find(|broker| !broker.fenced && image.has(broker.id))
                .map(|broker| broker.id)
        })
        .map_or_else(no_node, node)
}

fn all_topics(image: Seen<'_>, version: i16) -> Vec<MetadataResponseTopic> {
    image
        .names
        .values()
        .filter_map(|id| image.topic(id))
        .map(|t| describe_topic(image, version, t))
        .collect()
}

fn describe_asked(
    image: Seen<'_>,
    version: i16,
    asked: &MetadataRequestTopic,
    created: &Created,
) -> MetadataResponseTopic {
    let by_id = wire_topic_id(asked.topic_id);
    match (by_id, &asked.name) {
        (Some(id), _) => match image.topic(&id) {
            Some(topic) => describe_topic(image, version, topic),
            // As in Kafka: it was the id that was asked for, and that has no name.
            None => failed(asked, version, ErrorCode::UnknownTopicId).with_name(None),
        },
        (None, None) => failed(asked, version, ErrorCode::UnknownTopicId),
        (None, Some(name)) => match image.topic_by_name(name) {
            Some(topic) => describe_topic(image, version, topic),
            None if !is_legal_name(name) => {
                failed(asked, version, ErrorCode::InvalidTopicException)
            }
            None => {
                let error = match created.get(name.as_str()) {
                    // Created, but the news has not reached this broker: ask again.
                    Some(ErrorCode::None) => ErrorCode::LeaderNotAvailable,
                    Some(error) => *error,
                    None => ErrorCode::UnknownTopicOrPartition,
                };
                failed(asked, version, error)
            }
        },
    }
}

fn failed(asked: &MetadataRequestTopic, version: i16, error: ErrorCode) -> MetadataResponseTopic {
    let name = match &asked.name {
        None if version < ASKED_BY_ID => Some(topic_name("")),
        name => name.clone(),
    };
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_id(asked.topic_id)
        .with_topic_authorized_operations(NOT_ASKED)
}

fn describe_topic(image: Seen<'_>, version: i16, topic: &Topic) -> MetadataResponseTopic {
    let TopicId(id) = topic.id;
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(id)
        .with_is_internal(topic.internal)
        .with_partitions(
            (0..)
                .zip(&topic.partitions)
                .map(|(i, p)| describe_partition(image, version, i, p))
                .collect(),
        )
        .with_topic_authorized_operations(NOT_ASKED)
}

fn describe_partition(
    seen: Seen<'_>,
    version: i16,
    index: i32,
    p: &Partition,
) -> MetadataResponsePartition {
    let leader = seen.leader(p, version >= KNOWS_LISTENERS);
    let error = leader.err().unwrap_or(ErrorCode::None);
    MetadataResponsePartition::default()
        .with_error_code(error.code())
        .with_partition_index(index)
        .with_leader_id(leader.map_or_else(|_| no_node(), node))
        .with_leader_epoch(p.leader_epoch.0)
        .with_replica_nodes(nodes(&p.replicas))
        .with_isr_nodes(nodes(&p.isr))
        .with_offline_replicas(seen.offline(p))
}

/// Kafka's rule: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
pub(super) fn is_legal_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(legal)
}
