//! ListGroups: the groups that this broker coordinates.

use super::call::Call;
use super::context::Shared;
use super::convert::{group_id, text};
use crate::group::types::ListRequest;
use leasehold_wire::kafka::messages::list_groups_response::ListedGroup;
use leasehold_wire::kafka::messages::{ListGroupsRequest, ListGroupsResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let strings =
        |words: &[leasehold_wire::StrBytes]| words.iter().map(|w| w.to_string()).collect();
    let listed = shared
        .groups
        .list(ListRequest {
            states: strings(&request.states_filter),
            types: strings(&request.types_filter),
        })
        .await;
    let rows = listed.groups.into_iter().map(|group| {
        let mut row = ListedGroup::default()
            .with_group_id(group_id(&group.group_id))
            .with_protocol_type(text(group.protocol_type));
        if call.version >= 4 {
            row.group_state = text(group.state);
        }
        if call.version >= 5 {
            row.group_type = text(group.group_type);
        }
        row
    });
    ListGroupsResponse::default()
        .with_error_code(listed.error.code())
        .with_groups(rows.collect())
}
