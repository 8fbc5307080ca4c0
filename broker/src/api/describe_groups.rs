//! DescribeGroups: state and members.

use super::call::Call;
use super::context::Shared;
use super::convert::{ALL_ON_GROUP, group_id, operations, opt_text, text};
use crate::group::types::DescribedGroup as Described;
use leasehold_wire::kafka::messages::describe_groups_response::{
    DescribedGroup, DescribedGroupMember,
};
use leasehold_wire::kafka::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let ids = request.groups.iter().map(|id| id.to_string()).collect();
    let described = shared.groups.describe(call.version, ids).await;
    let asked = request.include_authorized_operations;
    let rows = described
        .into_iter()
        .map(|group| row(call.version, group, asked));
    DescribeGroupsResponse::default().with_groups(rows.collect())
}

fn row(version: i16, group: Described, operations_too: bool) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| {
        let mut row = DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        if version >= 4 {
            row.group_instance_id = opt_text(member.instance_id);
        }
        row
    });
    let mut row = DescribedGroup::default()
        .with_error_code(group.error.code())
        .with_group_id(group_id(&group.group_id))
        .with_group_state(text(group.state))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol_data))
        .with_members(members.collect())
        .with_authorized_operations(operations(
            operations_too && group.error.is_ok(),
            ALL_ON_GROUP,
        ));
    if version >= 6 {
        row.error_message = opt_text(group.error_message);
    }
    row
}
