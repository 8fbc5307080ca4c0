//! Heartbeat of a group member.

use super::call::Call;
use super::context::Shared;
use crate::group::types::HeartbeatRequest as Heartbeat;
use leasehold_wire::kafka::messages::{HeartbeatRequest, HeartbeatResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let error = shared
        .groups
        .heartbeat(Heartbeat {
            group_id: request.group_id.to_string(),
            generation: request.generation_id,
            member_id: request.member_id.to_string(),
            instance_id: request.group_instance_id.map(|id| id.to_string()),
        })
        .await;
    HeartbeatResponse::default().with_error_code(error.code())
}
