//! EndTxn: commits or aborts a transaction. Answered once that is stored; the markers follow. From version 5 on the
//! producer goes on in the next epoch, or under the next id, which the answer tells (KIP-890).

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
use super::producer_ids::Fresh;
use crate::txn::types::EndRequest;
use leasehold_wire::kafka::messages::{EndTxnRequest, EndTxnResponse};
use std::sync::Arc;

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

/// The first version whose clients go on in the next epoch.
const BUMPS: i16 = 5;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let bump = call.version >= BUMPS;
    let request = EndRequest {
        transactional_id: request.transactional_id.to_string(),
        producer: producer(request.producer_id, request.producer_epoch),
        commit: request.committed,
        bump,
    };
    let ids = Fresh(&shared);
    let ended = shared.transactions.coordinator.end(request, &ids).await;
    let reply = EndTxnResponse::default();
    match ended {
        Ok(next) if bump => reply
            .with_producer_id(next.id.0.into())
            .with_producer_epoch(next.epoch),
        Ok(_) => reply,
        Err(error) => reply.with_error_code(fenced_since(KNOWS_FENCED, call.version, error)),
    }
}
