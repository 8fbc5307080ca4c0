//! ConsumerGroupHeartbeat (KIP-848): joining, staying in and leaving a group of the newer protocol.

use super::call::Call;
use super::context::Shared;
use super::convert::{opt_text, owned_text};
use crate::group::store::consumer::Partitions;
use crate::group::types::ConsumerHeartbeatRequest as Heartbeat;
use leasehold_types::TopicId;
use leasehold_wire::kafka::messages::consumer_group_heartbeat_response::{
    Assignment, TopicPartitions,
};
use leasehold_wire::kafka::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let found = shared.groups.consumer_heartbeat(ask(&call, request)).await;
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(found.error.code())
        .with_error_message(opt_text(found.error_message))
        .with_member_id(opt_text(found.member_id))
        .with_member_epoch(found.member_epoch)
        .with_heartbeat_interval_ms(found.heartbeat_interval_ms)
        .with_assignment(found.assignment.map(assignment))
}

fn ask(call: &Call, request: ConsumerGroupHeartbeatRequest) -> Heartbeat {
    let names = request.subscribed_topic_names;
    let owned = request.topic_partitions.map(|topics| {
        let mut owned = Partitions::new();
        for topic in topics {
            let partitions = owned.entry(TopicId(topic.topic_id)).or_default();
            partitions.extend(topic.partitions);
        }
        owned
    });
    Heartbeat {
        api_version: call.version,
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance_id: owned_text(&request.instance_id),
        rack_id: owned_text(&request.rack_id),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        regex: owned_text(&request.subscribed_topic_regex),
        assignor: owned_text(&request.server_assignor),
        owned,
        client_id: owned_text(&call.client_id).unwrap_or_default(),
        client_host: format!("/{}", call.connection.peer.ip()),
    }
}

fn assignment(partitions: Partitions) -> Assignment {
    let topics = partitions.into_iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic.0)
            .with_partitions(partitions.into_iter().collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
