//! InitProducerId: an id for an idempotent producer, or the next epoch of a transactional one.
//!
//! As in Kafka, a producer without a transactional id gets a new id each time, whatever id and epoch
//! it shows: a new id begins at epoch 0, which is all that a bump is for.

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
use super::producer_ids::Fresh;
use crate::coordinator::write::Producer;
use crate::txn::FreshProducerIds;
use crate::txn::types::InitRequest;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use std::sync::Arc;

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 4;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let mut reply = InitProducerIdResponse::default();
    reply.producer_id = ProducerId(-1);
    reply.producer_epoch = -1;
    match init(&shared, request).await {
        Ok(producer) => {
            reply.producer_id = ProducerId(producer.id.0);
            reply.producer_epoch = producer.epoch;
        }
        Err(error) => reply.error_code = fenced_since(KNOWS_FENCED, call.version, error),
    }
    reply
}

async fn init(shared: &Shared, request: InitProducerIdRequest) -> Result<Producer, ErrorCode> {
    // Before version 3 both are -1.
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Err(ErrorCode::InvalidRequest),
        (_, epoch) => Some(producer(request.producer_id, epoch)),
    };
    let ids = Fresh(shared);
    let Some(transactional_id) = request.transactional_id else {
        let id = ids.next().await?;
        return Ok(Producer { id, epoch: 0 });
    };
    let request = InitRequest {
        transactional_id: transactional_id.to_string(),
        timeout_ms: request.transaction_timeout_ms,
        expected,
    };
    shared.transactions.coordinator.init(request, &ids).await
}
