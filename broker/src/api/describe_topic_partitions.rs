//! DescribeTopicPartitions: topics in the order of their names, page by page.

use super::call::Call;
use super::context::Shared;
use super::convert::{ALL_ON_TOPIC, NOT_ASKED, no_node, node, nodes, topic_name};
use super::metadata::is_legal_name;
use super::seen::Seen;
use leasehold_metadata::{Partition, Topic};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::describe_topic_partitions_request::Cursor as RequestCursor;
use leasehold_wire::kafka::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use leasehold_wire::kafka::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use std::collections::BTreeSet;

/// Kafka's `max.request.partition.size.limit`.
const MOST_PARTITIONS: usize = 2_000;

pub(super) fn answer(
    shared: &Shared,
    call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    describe(call.sees(&shared.image()), &request)
}

fn describe(
    image: Seen<'_>,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let all = request.topics.is_empty();
    let names: BTreeSet<&str> = if all {
        image.names.keys().map(String::as_str).collect()
    } else {
        request
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .collect()
    };
    let senseless = |cursor: &RequestCursor| {
        cursor.partition_index < 0 || !(all || names.contains(cursor.topic_name.as_str()))
    };
    if request.cursor.as_ref().is_some_and(senseless) {
        // As in Kafka: told for each topic that is named.
        let refused = request.topics.iter().map(|topic| {
            unknown(&topic.name)
                .with_error_code(ErrorCode::InvalidRequest.code())
                .with_topic_authorized_operations(NOT_ASKED)
        });
        return DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
    }
    let (first, mut from) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(1);
    let mut left = limit.clamp(1, MOST_PARTITIONS);
    let mut reply = DescribeTopicPartitionsResponse::default();
    for name in names.range(first..) {
        // The cursor's partition counts in the cursor's topic only.
        let start = if *name == first {
            std::mem::take(&mut from)
        } else {
            0
        };
        let Some(topic) = image.topic_by_name(name) else {
            reply.topics.push(unknown(name));
            continue;
        };
        if left == 0 {
            reply.next_cursor = Some(cursor(name, start));
            break;
        }
        let shown: Vec<_> = (0..)
            .zip(&topic.partitions)
            .skip(usize::try_from(start).unwrap_or(usize::MAX))
            .take(left)
            .map(|(index, partition)| describe_partition(image, index, partition))
            .collect();
        left -= shown.len();
        let next = start.saturating_add(shown.len() as i32);
        reply
            .topics
            .push(describe_topic(topic).with_partitions(shown));
        if (next as usize) < topic.partitions.len() {
            reply.next_cursor = Some(cursor(name, next));
            break;
        }
    }
    reply
}

fn cursor(name: &str, partition: i32) -> Cursor {
    Cursor::default()
        .with_topic_name(topic_name(name))
        .with_partition_index(partition)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = if is_legal_name(name) {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_topic_authorized_operations(ALL_ON_TOPIC)
}

fn describe_topic(topic: &Topic) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.internal)
        .with_topic_authorized_operations(ALL_ON_TOPIC)
}

fn describe_partition(
    seen: Seen<'_>,
    index: i32,
    p: &Partition,
) -> DescribeTopicPartitionsResponsePartition {
    let leader = seen.leader(p, true);
    let error = leader.err().unwrap_or(ErrorCode::None);
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(error.code())
        .with_partition_index(index)
        .with_leader_id(leader.map_or_else(|_| no_node(), node))
        .with_leader_epoch(p.leader_epoch.0)
        .with_replica_nodes(nodes(&p.replicas))
        .with_isr_nodes(nodes(&p.isr))
        .with_eligible_leader_replicas(Some(nodes(&p.elr)))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(seen.offline(p))
}
