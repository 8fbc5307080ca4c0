//! AddOffsetsToTxn: a producer is about to commit a group's offsets within its transaction. The partition
//! of the offsets topic that the group belongs to becomes part of it, like any other.

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
use crate::coordinator::write::Producer;
use crate::group::GroupCoordinator;
use crate::txn::TxnCoordinator;
use crate::txn::types::{AddRequest, Partitions};
use leasehold_metadata::controller::OFFSETS_TOPIC;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let producer = producer(request.producer_id, request.producer_epoch);
    let id = request.transactional_id.as_str();
    let coordinators = (&shared.groups, &*shared.transactions.coordinator);
    let error = add(coordinators, (id, producer), &request.group_id).await;
    AddOffsetsToTxnResponse::default().with_error_code(fenced_since(
        KNOWS_FENCED,
        call.version,
        error,
    ))
}

/// The partition of `group` becomes part of the transaction. The first who asks for a group may be one who has no consumer in
/// it: then the topic is made, as it is for whoever looks for the group's coordinator.
pub async fn add(
    (groups, transactions): (&Arc<GroupCoordinator>, &TxnCoordinator),
    (transactional_id, producer): (&str, Producer),
    group: &str,
) -> ErrorCode {
    let mut partition = groups.partition_for(group);
    if partition.is_none() {
        let found = groups.find_coordinator(0, group).await;
        partition = groups.partition_for(group);
        tracing::debug!(group, error = ?found.error, "looked for the coordinator of a group in a transaction");
    }
    let Some(partition) = partition else {
        return ErrorCode::CoordinatorNotAvailable;
    };
    let offsets = (OFFSETS_TOPIC.to_owned(), BTreeSet::from([partition]));
    let request = AddRequest {
        transactional_id: transactional_id.to_owned(),
        producer,
        partitions: Partitions::from([offsets]),
    };
    transactions.add(request).await
}
