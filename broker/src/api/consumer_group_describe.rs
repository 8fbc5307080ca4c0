//! ConsumerGroupDescribe (KIP-848): groups of the newer protocol, member by member.

use super::call::Call;
use super::context::Shared;
use super::convert::{ALL_ON_GROUP, group_id, operations, opt_text, text, topic_name};
use crate::group::types::{ConsumerDescribedGroup, ConsumerDescribedMember, DescribedPartitions};
use leasehold_wire::kafka::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use leasehold_wire::kafka::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let ids = request.group_ids.iter().map(|id| id.to_string()).collect();
    let described = shared.groups.consumer_describe(ids).await;
    let asked = request.include_authorized_operations;
    let rows = described
        .into_iter()
        .map(|group| row(call.version, group, asked));
    ConsumerGroupDescribeResponse::default().with_groups(rows.collect())
}

fn row(version: i16, group: ConsumerDescribedGroup, operations_too: bool) -> DescribedGroup {
    let members = group.members.into_iter();
    DescribedGroup::default()
        .with_error_code(group.error.code())
        .with_error_message(opt_text(group.error_message))
        .with_group_id(group_id(&group.group_id))
        .with_group_state(text(group.state))
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.assignment_epoch)
        .with_assignor_name(text(group.assignor))
        .with_members(members.map(|found| member(version, found)).collect())
        .with_authorized_operations(operations(
            operations_too && group.error.is_ok(),
            ALL_ON_GROUP,
        ))
}

fn member(version: i16, found: ConsumerDescribedMember) -> Member {
    let row = Member::default()
        .with_member_id(text(found.member_id))
        .with_instance_id(opt_text(found.instance_id))
        .with_rack_id(opt_text(found.rack_id))
        .with_member_epoch(found.epoch)
        .with_client_id(text(found.client_id))
        .with_client_host(text(found.client_host))
        .with_subscribed_topic_names(found.topics.iter().map(|t| topic_name(t)).collect())
        // As in Kafka, empty where there is none.
        .with_subscribed_topic_regex(Some(text(found.regex.unwrap_or_default())))
        .with_assignment(assignment(found.assignment))
        .with_target_assignment(assignment(found.target));
    match version {
        1.. => row.with_member_type(found.member_type),
        _ => row,
    }
}

fn assignment(topics: Vec<DescribedPartitions>) -> Assignment {
    let rows = topics.into_iter().map(|topic| {
        TopicPartitions::default()
            .with_topic_id(topic.topic_id.0)
            .with_topic_name(topic_name(&topic.topic))
            .with_partitions(topic.partitions)
    });
    Assignment::default().with_topic_partitions(rows.collect())
}
