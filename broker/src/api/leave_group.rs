//! LeaveGroup: one member up to version 2, several from 3 on.

use super::call::Call;
use super::context::Shared;
use super::convert::{opt_text, text};
use crate::group::types::{LeaveRequest, LeavingMember};
use leasehold_wire::kafka::messages::leave_group_response::MemberResponse;
use leasehold_wire::kafka::messages::{LeaveGroupRequest, LeaveGroupResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let members = if call.version <= 2 {
        vec![LeavingMember {
            member_id: request.member_id.to_string(),
            instance_id: None,
            reason: None,
        }]
    } else {
        let members = request.members.into_iter().map(|member| LeavingMember {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.map(|id| id.to_string()),
            reason: member.reason.map(|reason| reason.to_string()),
        });
        members.collect()
    };
    let group_id = request.group_id.to_string();
    let left = shared
        .groups
        .leave(LeaveRequest { group_id, members })
        .await;
    let mut reply = LeaveGroupResponse::default();
    if call.version <= 2 {
        reply.error_code = left.single_error().code();
        return reply;
    }
    reply.error_code = left.error.code();
    reply.members = left
        .members
        .into_iter()
        .map(|member| {
            MemberResponse::default()
                .with_member_id(text(member.member_id))
                .with_group_instance_id(opt_text(member.instance_id))
                .with_error_code(member.error.code())
        })
        .collect();
    reply
}
