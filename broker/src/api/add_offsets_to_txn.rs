//! AddOffsetsToTxn: a producer is about to commit a group's offsets within its transaction. The partition
//! of the offsets topic that the group belongs to becomes part of it, like any other.

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
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
    let error = match shared.groups.partition_for(&request.group_id) {
        // The group's coordinator was not even looked for yet; the client does so and comes again.
        None => ErrorCode::CoordinatorNotAvailable,
        Some(partition) => {
            let offsets = (OFFSETS_TOPIC.to_owned(), BTreeSet::from([partition]));
            let added = shared.transactions.coordinator.add(AddRequest {
                transactional_id: request.transactional_id.to_string(),
                producer: producer(request.producer_id, request.producer_epoch),
                partitions: Partitions::from([offsets]),
            });
            added.await
        }
    };
    AddOffsetsToTxnResponse::default().with_error_code(fenced_since(
        KNOWS_FENCED,
        call.version,
        error,
    ))
}
