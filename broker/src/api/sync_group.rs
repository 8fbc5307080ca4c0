//! SyncGroup: answered when the leader's assignment is stored.

use super::call::Call;
use super::context::Shared;
use super::convert::opt_text;
use crate::group::types::SyncRequest;
use bytes::Bytes;
use leasehold_wire::kafka::messages::{SyncGroupRequest, SyncGroupResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let synced = shared
        .groups
        .sync(SyncRequest {
            api_version: call.version,
            group_id: request.group_id.to_string(),
            generation: request.generation_id,
            member_id: request.member_id.to_string(),
            instance_id: request.group_instance_id.map(|id| id.to_string()),
            protocol_type: request.protocol_type.map(|kind| kind.to_string()),
            protocol_name: request.protocol_name.map(|name| name.to_string()),
            assignments: request
                .assignments
                .into_iter()
                .map(|assigned| {
                    // A copy: it outlives the frame that it came in.
                    let assignment = Bytes::copy_from_slice(&assigned.assignment);
                    (assigned.member_id.to_string(), assignment)
                })
                .collect(),
        })
        .await;
    let mut reply = SyncGroupResponse::default()
        .with_error_code(synced.error.code())
        .with_assignment(synced.assignment);
    if call.version >= 5 {
        reply.protocol_type = opt_text(synced.protocol_type);
        reply.protocol_name = opt_text(synced.protocol_name);
    }
    reply
}
