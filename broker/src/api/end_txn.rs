//! EndTxn: commits or aborts a transaction. Answered once that is stored; the markers follow.

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
use crate::txn::types::EndRequest;
use leasehold_wire::kafka::messages::{EndTxnRequest, EndTxnResponse};
use std::sync::Arc;

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let ended = shared.transactions.coordinator.end(EndRequest {
        transactional_id: request.transactional_id.to_string(),
        producer: producer(request.producer_id, request.producer_epoch),
        commit: request.committed,
    });
    let code = fenced_since(KNOWS_FENCED, call.version, ended.await);
    EndTxnResponse::default().with_error_code(code)
}
