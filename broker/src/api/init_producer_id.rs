//! InitProducerId: an id for an idempotent producer.
//!
//! As in Kafka, a producer without a transactional id gets a new id each time, whatever id and epoch
//! it shows: a new id begins at epoch 0, which is all that a bump is for.

use super::call::Call;
use super::context::Shared;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let mut reply = InitProducerIdResponse::default();
    reply.producer_id = ProducerId(-1);
    reply.producer_epoch = -1;
    if request.transactional_id.is_some() {
        // There is no transaction coordinator; said so in the one way that no client retries.
        reply.error_code = ErrorCode::UnsupportedVersion.code();
        return reply;
    }
    let controller = &*shared.controller;
    match shared
        .producer_ids
        .next(controller, shared.broker, shared.incarnation)
        .await
    {
        Ok(id) => {
            reply.producer_id = ProducerId(id.0);
            reply.producer_epoch = 0;
        }
        Err(error) => reply.error_code = error.code(),
    }
    reply
}
