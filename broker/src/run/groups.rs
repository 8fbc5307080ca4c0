//! What the groups coordinated here have committed, for `/groups`.

use crate::group::GroupCoordinator;
use crate::group::types::{FetchRequest, ListRequest};
use leasehold_wire::ErrorCode;
use serde_json::{Value, json};

/// Every group whose coordinator this broker is, with its committed offsets; what could not be listed because
/// its log is still being read is named by `incomplete`.
pub(super) async fn report(coordinator: &GroupCoordinator) -> Value {
    let listed = coordinator.list(ListRequest::default()).await;
    let mut groups = Vec::with_capacity(listed.groups.len());
    for group in listed.groups {
        let request = FetchRequest {
            group_id: group.group_id.clone(),
            member_epoch: -1,
            ..FetchRequest::default()
        };
        let fetched = coordinator.fetch(request).await;
        // Gone, or another broker's since it was listed.
        if fetched.error != ErrorCode::None {
            continue;
        }
        let mut offsets: Vec<(String, i32, i64)> = Vec::new();
        for (topic, partitions) in fetched.topics {
            offsets.extend(
                partitions
                    .iter()
                    .map(|p| (topic.clone(), p.partition, p.offset)),
            );
        }
        offsets.sort();
        let offset = |(topic, partition, committed): &(String, i32, i64)| json!({"topic": topic, "partition": partition, "committed": committed});
        groups.push(json!({
            "group": group.group_id, "state": group.state, "type": group.group_type,
            "offsets": offsets.iter().map(offset).collect::<Vec<_>>(),
        }));
    }
    let incomplete = (listed.error != ErrorCode::None).then(|| format!("{:?}", listed.error));
    json!({"groups": groups, "incomplete": incomplete})
}
