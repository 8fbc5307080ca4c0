//! JoinGroup: answered when the group's rebalance is complete.

use super::call::Call;
use super::context::Shared;
use super::convert::{opt_text, text};
use crate::group::types::{JoinRequest, Protocol};
use bytes::Bytes;
use leasehold_wire::kafka::messages::join_group_response::JoinGroupResponseMember;
use leasehold_wire::kafka::messages::{JoinGroupRequest, JoinGroupResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let version = call.version;
    let joined = shared.groups.join(ask(&call, request)).await;
    let mut reply = JoinGroupResponse::default()
        .with_error_code(joined.error.code())
        .with_generation_id(joined.generation)
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member_id));
    reply.protocol_name = match joined.protocol_name {
        // Not nullable before version 7.
        None if version < 7 => Some(text("")),
        name => opt_text(name),
    };
    if version >= 7 {
        reply.protocol_type = opt_text(joined.protocol_type);
    }
    if version >= 9 {
        reply.skip_assignment = joined.skip_assignment;
    }
    reply.members = joined
        .members
        .into_iter()
        .map(|member| {
            let row = JoinGroupResponseMember::default()
                .with_member_id(text(member.member_id))
                .with_metadata(member.metadata);
            match version {
                5.. => row.with_group_instance_id(opt_text(member.instance_id)),
                _ => row,
            }
        })
        .collect();
    reply
}

fn ask(call: &Call, request: JoinGroupRequest) -> JoinRequest {
    JoinRequest {
        api_version: call.version,
        group_id: request.group_id.to_string(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: match call.version {
            0 => -1,
            _ => request.rebalance_timeout_ms,
        },
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| Protocol {
                name: protocol.name.to_string(),
                // A copy: it is kept as long as the member, and must not keep the whole frame with it.
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        reason: request.reason.map(|reason| reason.to_string()),
        client_id: call
            .client_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        client_host: format!("/{}", call.connection.peer.ip()),
    }
}
