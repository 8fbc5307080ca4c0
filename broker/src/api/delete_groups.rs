//! DeleteGroups: empty groups with their offsets.

use super::call::Call;
use super::context::Shared;
use super::convert::group_id;
use leasehold_wire::kafka::messages::delete_groups_response::DeletableGroupResult;
use leasehold_wire::kafka::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let ids = request
        .groups_names
        .iter()
        .map(|id| id.to_string())
        .collect();
    let rows = shared
        .groups
        .delete(ids)
        .await
        .into_iter()
        .map(|(id, error)| {
            DeletableGroupResult::default()
                .with_group_id(group_id(&id))
                .with_error_code(error.code())
        });
    DeleteGroupsResponse::default().with_results(rows.collect())
}
